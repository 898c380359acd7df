//! Capabilities of each kind of thread, and the change of user. Both belong to a thread, and new threads inherit them.

use std::io;

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitiesSecureBits as Bits, CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_keep_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::config::model::{Config, EbpfMode, Transport, User};

/// Capabilities that are left to threads. Where the process was started with less, they have less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    /// Of `main` until the daemon is ready.
    pub(super) start: CapabilitySet,
    /// Of `main` from then on.
    pub(super) control: CapabilitySet,
    /// Of `network`.
    pub(super) network: CapabilitySet,
    /// Of threads that read the configuration and write logs.
    pub(super) files: CapabilitySet,
    /// Of `udp-N`.
    pub(super) udp: CapabilitySet,
    /// Of `worker-N`.
    pub(super) tcp: CapabilitySet,
    /// Of `splicer`.
    pub(super) splicer: CapabilitySet,
}

/// What the rights depend on besides the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// The process was started as root.
    pub(super) root: bool,
    /// It stays root.
    pub(super) stays_root: bool,
    /// Linux before 5.19, where bpf(2) asks for CAP_BPF also to change a map.
    pub(super) old_bpf: bool,
    /// Largest receive buffer of a socket without CAP_NET_ADMIN, in bytes (`net.core.rmem_max`).
    pub(super) receive_buffer: u32,
}

impl Rights {
    /// The rights that `config` needs.
    pub(super) fn new(config: &Config, machine: Machine) -> Self {
        let when = |needed: bool, set: CapabilitySet| if needed { set } else { CapabilitySet::empty() };
        let kernel = config.ebpf.mode != EbpfMode::Off;
        let splices = kernel && config.ebpf.tcp;
        // Sockets that a reload opens get the buffers that the first ones got.
        let buffers = config.listeners().any(|listener| {
            let wanted = listener.udp.receive_buffer.map_or(crate::net::udp::LISTENER_BUFFER, Into::into);
            listener.serves(Transport::Udp) && wanted > machine.receive_buffer
        });
        let plane = CapabilitySet::NET_ADMIN | CapabilitySet::BPF;
        // Files and directories of others are in the way of root without these.
        let others_files = CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN;
        let control = CapabilitySet::NET_BIND_SERVICE
            | when(kernel, plane)
            | when(buffers, CapabilitySet::NET_ADMIN)
            | when(machine.stays_root, others_files);
        Self {
            start: control | when(kernel, CapabilitySet::PERFMON) | when(machine.root, others_files),
            control,
            // The resets that it sends to clients come from ports of listeners.
            network: when(kernel, plane) | when(splices, CapabilitySet::NET_BIND_SERVICE),
            files: when(machine.stays_root, CapabilitySet::DAC_OVERRIDE),
            udp: when(kernel && machine.old_bpf, CapabilitySet::BPF),
            tcp: when(splices && machine.old_bpf, CapabilitySet::BPF),
            // TCP_REPAIR.
            splicer: when(splices, CapabilitySet::NET_ADMIN) | when(splices && machine.old_bpf, CapabilitySet::BPF),
        }
    }
}

/// Leaves the calling thread no capabilities but `kept`, as far as it has them, and lets it get none back.
pub(super) fn reduce(kept: CapabilitySet) -> io::Result<()> {
    let kept = capabilities(None)?.permitted & kept;
    // What is not inheritable is not ambient either (capset(2)).
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Has nothing that the calling thread might execute gain rights: no new privileges, no capability in the bounding set, none for
/// being root. The latter two need CAP_SETPCAP, without which the first has to do.
pub(super) fn seal() -> io::Result<()> {
    set_no_new_privs(true)?;
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // There are no more.
            Err(_invalid) => break,
        }
    }
    let locked = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Ok(set_capabilities_secure_bits(locked)?)
}

/// Makes the calling thread one of `user`'s, which keeps its capabilities.
///
/// # Errors
///
/// CAP_SETUID or CAP_SETGID is missing.
pub(super) fn become_user(user: &User) -> io::Result<()> {
    set_keep_capabilities(true)?;
    let (id, group) = (Uid::from_raw(user.id), Gid::from_raw(user.group));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(id, id, id)?;
    set_keep_capabilities(false)?;
    // They are no longer effective when the last user number is no longer 0 (capabilities(7)).
    let held = capabilities(None)?.permitted;
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() },
    )?)
}

/// Returns whether the calling thread is root's.
pub(super) fn is_root() -> bool {
    geteuid().is_root()
}

/// The names of capabilities, as capabilities(7) has them; `none` where there are none.
pub(super) fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
