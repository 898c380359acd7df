//! Filters of system calls (seccomp(2)).
//!
//! The one for all threads errs towards allowing: it refuses what no thread needs. The one for threads that read strangers'
//! bytes errs towards refusing: it allows what they call. What is called for each packet is allowed whatever its arguments
//! are, which the kernel knows without running the filter (Linux 5.11).

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// System calls with the conditions under which they are meant, of which one has to hold; always where there are none.
type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// The reason why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// It cannot be made for this processor.
    #[error("no filter can be made for this processor: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel does not take it: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// The filters of one process.
#[derive(Debug)]
pub(super) struct Filters {
    /// For all threads: what is refused, and what there is not.
    everyone: [BpfProgram; 2],
    tcp: BpfProgram,
    udp: BpfProgram,
}

impl Filters {
    /// Makes them; `kernel_plane` has threads use bpf(2), and with `splices` those of TCP as well.
    pub(super) fn new(kernel_plane: bool, splices: bool) -> Result<Self, FilterError> {
        let eperm = || SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let enosys = || SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
        let mut refused = refused()?;
        if !kernel_plane {
            refused.insert(libc::SYS_bpf, Vec::new());
        }
        // Its arguments are in memory, where a filter cannot look; libraries go on to clone(2).
        let missing = Calls::from([(libc::SYS_clone3, Vec::new())]);
        let refuse = |calls, action| compile(with_x32(calls), SeccompAction::Allow, action);
        let mut of_udp = for_strangers()?;
        if kernel_plane {
            of_udp.insert(libc::SYS_bpf, on_open_maps()?);
        }
        let mut of_tcp = for_strangers()?;
        if kernel_plane && splices {
            of_tcp.insert(libc::SYS_bpf, on_open_maps()?);
        }
        // A library that knows a newer call tries an older one where this kernel does not have it.
        let allow = |calls| compile(calls, enosys(), SeccompAction::Allow);
        Ok(Self {
            everyone: [refuse(refused, eperm())?, refuse(missing, enosys())?],
            tcp: allow(of_tcp)?,
            udp: allow(of_udp)?,
        })
    }

    /// Filters the calls of all threads that there are, and of those that they start. No new privileges come with it.
    pub(super) fn apply_to_all(&self) -> Result<(), FilterError> {
        Ok(self.everyone.iter().try_for_each(|filter| seccompiler::apply_filter_all_threads(filter))?)
    }

    /// Filters the calls of the calling thread like those of all.
    #[cfg(test)]
    pub(super) fn apply(&self) -> Result<(), FilterError> {
        Ok(self.everyone.iter().try_for_each(|filter| seccompiler::apply_filter(filter))?)
    }

    /// The filters: refusals, what there is not, those of workers.
    #[cfg(test)]
    pub(super) fn programs(&self) -> [seccompiler::BpfProgramRef<'_>; 4] {
        let [refused, missing] = &self.everyone;
        [refused, missing, &self.tcp, &self.udp]
    }

    /// Leaves the calling thread what a TCP worker needs.
    pub(super) fn apply_tcp(&self) -> Result<(), FilterError> {
        Ok(seccompiler::apply_filter(&self.tcp)?)
    }

    /// Leaves the calling thread what a UDP worker needs, or one that hands TCP connections over.
    pub(super) fn apply_udp(&self) -> Result<(), FilterError> {
        Ok(seccompiler::apply_filter(&self.udp)?)
    }
}

fn compile(calls: Calls, otherwise: SeccompAction, action: SeccompAction) -> Result<BpfProgram, FilterError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(calls, otherwise, action, arch)?.try_into()?)
}

/// The bit of calls with the x32 calling convention, which are calls of the same architecture.
#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;

/// The same calls with the x32 calling convention as well. Some have numbers of their own there.
#[cfg(target_arch = "x86_64")]
fn with_x32(mut calls: Calls) -> Calls {
    let own = [
        (libc::SYS_execve, 520),
        (libc::SYS_ptrace, 521),
        (libc::SYS_kexec_load, 528),
        (libc::SYS_move_pages, 533),
        (libc::SYS_process_vm_readv, 539),
        (libc::SYS_process_vm_writev, 540),
        (libc::SYS_execveat, 545),
    ];
    let number = |call: c_long| own.iter().find(|(known, _)| *known == call).map_or(call, |(_, number)| *number);
    let same: Calls = calls.iter().map(|(call, rules)| (X32 | number(*call), rules.clone())).collect();
    calls.extend(same);
    calls
}

#[cfg(not(target_arch = "x86_64"))]
fn with_x32(calls: Calls) -> Calls {
    calls
}

fn when(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, FilterError> {
    Ok(SeccompCondition::new(argument, Dword, op, value)?)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, FilterError> {
    Ok(SeccompRule::new(conditions)?)
}

fn number(constant: libc::c_int) -> u64 {
    u64::from(constant.cast_unsigned())
}

/// The family of a socket is the first argument of socket(2), its type the second.
fn family(op: SeccompCmpOp, family: libc::c_int) -> Result<SeccompCondition, FilterError> {
    when(0, op, number(family))
}

const PROT_EXEC: SeccompCmpOp = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
const THREAD: SeccompCmpOp = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64);
/// The bits of a socket's type without its flags (`SOCK_TYPE_MASK`).
const SOCKET_TYPE: SeccompCmpOp = SeccompCmpOp::MaskedEq(0xf);

/// What no thread needs.
fn refused() -> Result<Calls, FilterError> {
    use SeccompCmpOp::Ne;
    let mut calls: Calls = REFUSED.iter().chain(REFUSED_OF_ARCH).map(|call| (*call, Vec::new())).collect();
    // A new process, where a new thread is meant.
    calls.insert(libc::SYS_clone, vec![rule(vec![when(0, THREAD, 0)?])?]);
    // Code that was not there at the start.
    for (call, argument) in [(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2), (libc::SYS_pkey_mprotect, 2)] {
        calls.insert(call, vec![rule(vec![when(argument, PROT_EXEC, number(libc::PROT_EXEC))?])?]);
    }
    // Packets of other protocols, and kernel code behind families that have nothing to do with a proxy.
    let others = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let others = others.into_iter().map(|known| family(Ne, known)).collect::<Result<Vec<_>, _>>()?;
    let raw = vec![family(Ne, libc::AF_NETLINK)?, when(1, SOCKET_TYPE, number(libc::SOCK_RAW))?];
    calls.insert(libc::SYS_socket, vec![rule(others)?, rule(raw)?]);
    Ok(calls)
}

const REFUSED: &[c_long] = &[
    // Programs and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_personality,
    // The kernel and the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Another user.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    // Large parts of the kernel that a proxy has no use for.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_memfd_create,
    libc::SYS_vmsplice,
    libc::SYS_remap_file_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_OF_ARCH: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OF_ARCH: &[c_long] = &[];

/// What threads call that read strangers' bytes: nothing that opens a file or starts a thread.
fn for_strangers() -> Result<Calls, FilterError> {
    use SeccompCmpOp::Eq;
    let mut calls: Calls = ALLOWED.iter().chain(ALLOWED_OF_ARCH).map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        calls.insert(call, vec![rule(vec![when(2, PROT_EXEC, 0)?])?]);
    }
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];
    let families = families.into_iter().map(|known| rule(vec![family(Eq, known)?])).collect::<Result<_, _>>()?;
    calls.insert(libc::SYS_socket, families);
    // Reads a limit of its own.
    let asks = [SeccompCondition::new(0, Dword, Eq, 0)?, SeccompCondition::new(2, Qword, Eq, 0)?];
    calls.insert(libc::SYS_prlimit64, vec![rule(asks.to_vec())?]);
    Ok(calls)
}

/// Commands of bpf(2) about a map that is open (`enum bpf_cmd` in `linux/bpf.h`).
fn on_open_maps() -> Result<Vec<SeccompRule>, FilterError> {
    const LOOKUP: u64 = 1;
    const UPDATE: u64 = 2;
    const DELETE: u64 = 3;
    const NEXT_KEY: u64 = 4;
    [LOOKUP, UPDATE, DELETE, NEXT_KEY]
        .into_iter()
        .map(|command| rule(vec![when(0, SeccompCmpOp::Eq, command)?]))
        .collect()
}

const ALLOWED: &[c_long] = &[
    // For each packet or turn.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_splice,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    libc::SYS_futex,
    // For each connection or session.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_pipe2,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Memory, time, and what belongs to a thread.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ALLOWED_OF_ARCH: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OF_ARCH: &[c_long] = &[];

/// Returns whether this kernel has filters.
pub(super) fn is_supported() -> bool {
    std::fs::exists("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default()
}
