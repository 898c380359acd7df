//! Restrictions are put on a thread that ends, which then tries what must not work. What is not safe to try is asked of the
//! filter itself.

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    thread,
};

use rustix::{
    fs::{CWD, FileType, MemfdFlags, Mode, memfd_create, mknodat},
    process::{Uid, geteuid},
    thread::{CapabilitySet as Set, capabilities, capability_is_in_bounding_set, no_new_privs, set_thread_uid},
};
use seccompiler::BpfProgramRef;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    calls::Filters,
    files::{Applied, Reach, Rules},
    rights::{self, Machine, Rights},
    *,
};
use crate::config::{self, watch::Seen};

/// Runs `attempt` on a thread of its own.
fn on_a_thread<R: Send + 'static>(attempt: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(attempt).join().unwrap()
}

fn config(text: &str) -> Config {
    config::parse(&format!("listen_port = 443\n{text}")).unwrap().config
}

const TCP: &str = "tcp_target = ['192.0.2.1:1']";
const UDP: &str = "udp_target = ['192.0.2.1:1']";
const SPLICING: &str = "udp_target = ['192.0.2.1:1']\n[ebpf]\nmode = 'auto'\ntcp = 'auto'";
const KERNEL: &str = "udp_target = ['192.0.2.1:1']\n[ebpf]\nmode = 'auto'";

#[test]
fn threads_keep_what_the_configuration_needs() {
    let machine = |root, stays_root| Machine { root, stays_root, old_bpf: false, receive_buffer: 212_992 };
    let (user, root, changes) = (machine(false, false), machine(true, true), machine(true, false));
    let roomy = Machine { receive_buffer: 4 << 20, ..user };
    let old = Machine { old_bpf: true, ..user };
    let none = Set::empty();
    let (bind, admin, bpf, perfmon) = (Set::NET_BIND_SERVICE, Set::NET_ADMIN, Set::BPF, Set::PERFMON);
    let (files, over) = (Set::DAC_OVERRIDE | Set::CHOWN, Set::DAC_OVERRIDE);
    let plane = admin | bpf;
    let all =
        |start, control, network, files, udp| Rights { start, control, network, files, udp, tcp: none, splicer: none };
    for (row, text, machine, expected) in [
        ("TCP", TCP, user, all(bind, bind, none, none, none)),
        ("root", TCP, root, all(bind | files, bind | files, none, over, none)),
        ("root that becomes a user", TCP, changes, all(bind | files, bind, none, none, none)),
        ("UDP with larger buffers than anybody gets", UDP, user, all(bind | admin, bind | admin, none, none, none)),
        ("UDP", UDP, roomy, all(bind, bind, none, none, none)),
        ("kernel plane", KERNEL, roomy, all(bind | plane | perfmon, bind | plane, plane, none, none)),
        ("kernel plane before Linux 5.19", KERNEL, old, all(bind | plane | perfmon, bind | plane, plane, none, bpf)),
    ] {
        assert_eq!(Rights::new(&config(text), machine), expected, "{row}");
    }
    for (row, text, machine, tcp, splicer) in [
        ("spliced TCP", SPLICING, roomy, none, Set::NET_ADMIN),
        ("spliced TCP before Linux 5.19", SPLICING, old, bpf, Set::NET_ADMIN | bpf),
        ("no kernel plane to splice with", "udp_target = ['192.0.2.1:1']\n[ebpf]\ntcp = 'auto'", roomy, none, none),
    ] {
        let rights = Rights::new(&config(text), machine);
        assert_eq!((rights.tcp, rights.splicer), (tcp, splicer), "{row}");
        let network = if splicer == none { none } else { plane | bind };
        assert_eq!(rights.network, network, "{row}");
    }
}

#[test]
fn capabilities_that_are_given_up_do_not_come_back() {
    if !geteuid().is_root() {
        return;
    }
    on_a_thread(|| {
        rights::seal().unwrap();
        assert!(no_new_privs().unwrap());
        assert!(!capability_is_in_bounding_set(Set::CHOWN).unwrap());
        rights::reduce(Set::NET_BIND_SERVICE).unwrap();
        let held = capabilities(None).unwrap();
        assert_eq!((held.permitted, held.effective), (Set::NET_BIND_SERVICE, Set::NET_BIND_SERVICE));
        // More cannot be had than there is.
        rights::reduce(Set::NET_BIND_SERVICE | Set::SYS_ADMIN).unwrap();
        assert_eq!(capabilities(None).unwrap().permitted, Set::NET_BIND_SERVICE);
        rights::reduce(Set::empty()).unwrap();
        assert_eq!(capabilities(None).unwrap().permitted, Set::empty());
    });
    assert!(capabilities(None).unwrap().effective.contains(Set::SYS_ADMIN), "other threads keep theirs");
}

#[test]
fn a_thread_becomes_another_user_with_its_capabilities_and_stays_it() {
    if !geteuid().is_root() {
        return;
    }
    on_a_thread(|| {
        let user = User { name: "somebody".into(), id: 4242, group: 4343, groups: vec![4444] };
        rights::become_user(&user).unwrap();
        give_up(true, Set::NET_BIND_SERVICE).unwrap();
        assert_eq!((geteuid().as_raw(), rustix::process::getegid().as_raw()), (4242, 4343));
        assert_eq!(rustix::process::getgroups().unwrap(), [rustix::process::Gid::from_raw(4444)]);
        assert_eq!(capabilities(None).unwrap().effective, Set::NET_BIND_SERVICE);
        set_thread_uid(Uid::ROOT).unwrap_err();
        File::open("/etc/shadow").unwrap_err();
    });
    assert!(geteuid().is_root());
}

/// Something that a compromised thread would try.
type Attempt = (&'static str, fn() -> io::Result<()>);

const NO_THREAD_MAY: &[Attempt] = &[
    ("run a program", || Command::new("/bin/true").status().map(drop)),
    ("change the root", || std::os::unix::fs::chroot("/")),
    ("become another user", || Ok(set_thread_uid(geteuid())?)),
    ("make a device", || Ok(mknodat(CWD, "/tmp/rpxy-l4-no-device", FileType::CharacterDevice, Mode::RUSR, 0)?)),
    ("make a file without a name", || Ok(memfd_create("none", MemfdFlags::empty()).map(drop)?)),
    ("send packets of its own", || Socket::new(Domain::IPV4, Type::RAW, None).map(drop)),
    ("capture packets", || Socket::new(Domain::PACKET, Type::DGRAM, None).map(drop)),
    ("talk to the hypervisor", || Socket::new(Domain::VSOCK, Type::STREAM, None).map(drop)),
];

/// What all threads do.
const ANY_THREAD_MAY: &[Attempt] = &[
    ("read a file", || fs::read("/proc/self/status").map(drop)),
    ("start a thread", || thread::Builder::new().spawn(|| {}).map(|thread| thread.join().unwrap())),
    ("listen", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("follow the network", || netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).map(drop)),
];

const NO_WORKER_MAY: &[Attempt] = &[
    ("open a file", || File::open("/proc/self/status").map(drop)),
    ("make a file", || File::create("/tmp/rpxy-l4-no-file").map(drop)),
    ("list a directory", || fs::read_dir("/").map(drop)),
    ("remove a file", || fs::remove_file("/tmp/rpxy-l4-no-file")),
    ("start a thread", || thread::Builder::new().spawn(|| {}).map(drop)),
    ("change its limits", || Ok(setrlimit(Resource::Core, rustix::process::getrlimit(Resource::Core))?)),
    ("follow the network", || netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).map(drop)),
];

const WORKERS_MAY: &[Attempt] = &[
    ("accept and connect", || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = crate::net::tcp_connecting(listener.local_addr()?)?;
        SockRef::from(&client).set_tcp_nodelay(true)?;
        listener.accept().map(drop)
    }),
    ("send datagrams", || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", socket.local_addr()?)?;
        socket.recv(&mut [0; 1]).map(drop)
    }),
    ("run a runtime", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await });
        Ok(())
    }),
    ("take memory", || {
        std::hint::black_box(vec![1_u8; 64 << 20]);
        Ok(())
    }),
    ("read its limits", || {
        rustix::process::getrlimit(Resource::Nofile);
        Ok(())
    }),
    ("draw randomness", || {
        Ok(rustix::rand::getrandom(&mut [0_u8; 8], rustix::rand::GetRandomFlags::empty()).map(drop)?)
    }),
];

#[test]
fn threads_are_refused_what_none_of_them_needs() {
    on_a_thread(|| {
        let filters = Filters::new(true, false).unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        filters.apply().unwrap();
        for (what, attempt) in NO_THREAD_MAY {
            assert_eq!(attempt().unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{what}");
        }
        for (what, attempt) in ANY_THREAD_MAY.iter().chain(WORKERS_MAY) {
            attempt().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    });
}

#[test]
fn workers_can_do_what_they_do_and_nothing_with_files() {
    for of_udp in [false, true] {
        on_a_thread(move || {
            let filters = Filters::new(true, false).unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            filters.apply().unwrap();
            if of_udp { filters.apply_udp() } else { filters.apply_tcp() }.unwrap();
            for (what, attempt) in NO_THREAD_MAY.iter().chain(NO_WORKER_MAY) {
                assert!(attempt().is_err(), "{what}");
            }
            for (what, attempt) in WORKERS_MAY {
                attempt().unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        });
    }
}

/// What a filter returns for a call, by the rules of seccomp(2) for the instructions that these filters are made of.
fn answer(filter: BpfProgramRef<'_>, call: i64, arguments: &[u64]) -> u32 {
    let architecture = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    // `struct seccomp_data`.
    let mut data = vec![u32::try_from(call).unwrap(), architecture, 0, 0];
    for index in 0..6 {
        let argument = arguments.get(index).copied().unwrap_or_default();
        let halves = argument.to_le_bytes();
        data.extend(halves.chunks_exact(4).map(|half| u32::from_le_bytes(half.try_into().unwrap())));
    }
    let (mut at, mut word) = (0, 0_u32);
    loop {
        let step = filter.get(at).unwrap();
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        at += 1;
        match step.code {
            // BPF_LD | BPF_W | BPF_ABS
            0x20 => word = data[step.k as usize / 4],
            // BPF_ALU | BPF_AND | BPF_K
            0x54 => word &= step.k,
            // BPF_JMP | BPF_JA
            0x05 => at += step.k as usize,
            // BPF_JMP | BPF_JEQ, BPF_JGT and BPF_JGE | BPF_K
            0x15 => at += jump(word == step.k),
            0x25 => at += jump(word > step.k),
            0x35 => at += jump(word >= step.k),
            // BPF_RET | BPF_K
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[test]
fn filters_answer_calls_by_their_arguments() {
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    let filters = Filters::new(true, false).unwrap();
    let [refused, missing, tcp, udp] = filters.programs();
    let without_plane = Filters::new(false, false).unwrap();
    let execute = libc::PROT_EXEC as u64;
    let thread = libc::CLONE_THREAD as u64 | libc::CLONE_VM as u64;
    for (row, filter, call, arguments, expected) in [
        ("exec", refused, libc::SYS_execve, &[][..], EPERM),
        ("ptrace", refused, libc::SYS_ptrace, &[], EPERM),
        ("modules", refused, libc::SYS_finit_module, &[], EPERM),
        ("mount", refused, libc::SYS_mount, &[], EPERM),
        ("the new mount", refused, libc::SYS_fsmount, &[], EPERM),
        ("io_uring", refused, libc::SYS_io_uring_setup, &[], EPERM),
        ("a process", refused, libc::SYS_clone, &[libc::SIGCHLD as u64], EPERM),
        ("a thread", refused, libc::SYS_clone, &[thread], ALLOW),
        ("either, in memory", missing, libc::SYS_clone3, &[], ENOSYS),
        ("memory", refused, libc::SYS_mmap, &[0, 4096, 3], ALLOW),
        ("code", refused, libc::SYS_mmap, &[0, 4096, 1 | execute], EPERM),
        ("memory made code", refused, libc::SYS_mprotect, &[0, 4096, 1 | execute], EPERM),
        ("bpf(2)", refused, libc::SYS_bpf, &[5], ALLOW),
        ("bpf(2) without kernel plane", without_plane.programs()[0], libc::SYS_bpf, &[1], EPERM),
        ("TCP", refused, libc::SYS_socket, &[libc::AF_INET as u64, 0x80801], ALLOW),
        ("netlink", refused, libc::SYS_socket, &[libc::AF_NETLINK as u64, 0x80003], ALLOW),
        ("raw", refused, libc::SYS_socket, &[libc::AF_INET6 as u64, 0x80003], EPERM),
        ("cryptography of the kernel", refused, libc::SYS_socket, &[libc::AF_ALG as u64, 5], EPERM),
        ("worker: read", tcp, libc::SYS_read, &[], ALLOW),
        ("worker: open", tcp, libc::SYS_openat, &[], ENOSYS),
        ("worker: a call to come", tcp, 4000, &[], ENOSYS),
        ("worker: netlink", tcp, libc::SYS_socket, &[libc::AF_NETLINK as u64, 0x80003], ENOSYS),
        ("worker: code", tcp, libc::SYS_mmap, &[0, 4096, 1 | execute], ENOSYS),
        ("TCP worker: bpf(2)", tcp, libc::SYS_bpf, &[1], ENOSYS),
        ("UDP worker: change a map", udp, libc::SYS_bpf, &[2], ALLOW),
        ("UDP worker: load a program", udp, libc::SYS_bpf, &[5], ENOSYS),
        ("UDP worker: without kernel plane", without_plane.programs()[3], libc::SYS_bpf, &[2], ENOSYS),
        ("worker: another's limits", tcp, libc::SYS_prlimit64, &[1, 7], ENOSYS),
        ("worker: a new limit", tcp, libc::SYS_prlimit64, &[0, 7, 1 << 32], ENOSYS),
    ] {
        assert_eq!(answer(filter, call, arguments), expected, "{row}");
    }
    #[cfg(target_arch = "x86_64")]
    for (row, call) in [("x32: exec", 520), ("x32: mount", libc::SYS_mount)] {
        assert_eq!(answer(refused, 0x4000_0000 | call, &[]), EPERM, "{row}");
    }
}

/// The kernel does not run a filter for calls that it allows by their number alone: it goes through the filter without
/// knowing the arguments, and gives up at the first instruction that reads one (`seccomp_is_const_allow`, Linux 5.11).
fn is_allowed_by_number(filter: BpfProgramRef<'_>, call: i64) -> bool {
    let arguments = 4;
    let reads = |k: u32| k as usize / 4 >= arguments;
    let (mut at, mut word) = (0, 0_u32);
    let architecture = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    loop {
        let step = filter.get(at).unwrap();
        at += 1;
        match step.code {
            0x20 if reads(step.k) => return false,
            0x20 if step.k == 0 => word = u32::try_from(call).unwrap(),
            0x20 if step.k == 4 => word = architecture,
            0x05 => at += step.k as usize,
            0x15 => at += usize::from(if word == step.k { step.jt } else { step.jf }),
            0x25 => at += usize::from(if word > step.k { step.jt } else { step.jf }),
            0x35 => at += usize::from(if word >= step.k { step.jt } else { step.jf }),
            0x06 => return step.k == 0x7fff_0000,
            // The kernel follows nothing else but BPF_AND.
            _ => return false,
        }
    }
}

#[test]
fn what_is_called_for_each_packet_costs_no_filter() {
    let filters = Filters::new(true, false).unwrap();
    let hot = [
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
        libc::SYS_clock_gettime,
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_setsockopt,
        libc::SYS_shutdown,
        libc::SYS_close,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
    ];
    for filter in filters.programs() {
        for call in hot {
            assert!(is_allowed_by_number(filter, call), "{call}");
        }
    }
    let [refused, ..] = filters.programs();
    assert!(!is_allowed_by_number(refused, libc::SYS_socket), "its arguments matter");
    assert!(!is_allowed_by_number(refused, libc::SYS_execve));
}

fn landlock_version() -> Option<i32> {
    match files::version() {
        Applied::Version(version) => Some(version),
        Applied::Not(why) => {
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

#[test]
fn files_are_those_of_the_configuration() {
    if landlock_version().is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    for name in ["conf", "conf/parts", "keys", "logs", "run", "other"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("there"), "").unwrap();
    }
    // A volume of Kubernetes: what `data` leads to is replaced.
    fs::create_dir(root.join("conf/one")).unwrap();
    fs::write(root.join("conf/one/config.toml"), "").unwrap();
    std::os::unix::fs::symlink("one", root.join("conf/data")).unwrap();
    let socket = |name: &str| root.join("run").join(name);
    let config = config(&format!("{TCP}\nadmin_socket = '{}'", socket("admin").display()));
    let seen = [Seen::directory(&root.join("conf/parts")), Seen::now(&root.join("keys/ech.pem"))];
    let (path, logs) = (root.join("conf/data/config.toml"), root.join("logs"));
    let reach = Reach::new(&config, &Places { config: &path, files: &seen, logs: Some(&logs) }, true);

    let outside = Seen::now(&root.join("other/there"));
    assert_eq!(reach.unreadable(&seen), [""; 0].map(PathBuf::from));
    assert_eq!(reach.unreadable(std::slice::from_ref(&outside)), [root.join("other/there")]);
    assert_eq!(reach.without_socket(&config), [""; 0].map(Path::new));
    let elsewhere = self::config(&format!("{TCP}\nadmin_socket = '{}/other/admin'", root.display()));
    assert_eq!(reach.without_socket(&elsewhere), [root.join("other/admin")]);

    on_a_thread(move || {
        let at = |name: &str| root.join(name);
        assert!(matches!(Rules::new(&reach, false).unwrap().apply().unwrap(), Applied::Version(_)));
        for path in ["conf/there", "conf/parts/there", "keys/there", "conf/data/config.toml"] {
            fs::read(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for path in ["/proc/self/status", "/proc/sys/net/core/somaxconn", "/etc/hosts", "/etc/group"] {
            fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        fs::write(at("conf/new"), "").expect_err("configurations are not written");
        // As logrotate and the daemon take turns.
        let append = |path| File::options().create(true).append(true).open(path);
        append(at("logs/access.log")).unwrap();
        append(at("other/access.log")).expect_err("no log");
        fs::remove_file(at("logs/access.log")).expect_err("logs are not removed");
        drop(UnixListener::bind(at("run/admin")).unwrap());
        fs::remove_file(at("run/admin")).unwrap();
        UnixListener::bind(at("other/admin")).unwrap_err();
        for path in ["/etc/shadow", "/proc/1/environ", "/root"] {
            let refused = File::open(path).map(drop);
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{path}");
        }
        assert_eq!(Command::new("/bin/true").status().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::read(at("other/there")).unwrap_err();
    });
    // As an operator does, who may do what the daemon may not.
    assert!(outside.path().exists());
}
