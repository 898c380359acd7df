//! The `[ebpf]` table, and what rules say of it.

use std::{num::NonZeroU32, path::PathBuf};

use ipnet::IpNet;

/// Default directory of pinned programs and flows.
pub(crate) const PIN_PATH: &str = "/sys/fs/bpf/rpxy-l4";

/// The `[ebpf]` table: what the kernel does for established UDP sessions and with datagrams nobody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ebpf {
    /// The hook, or off. Read at start only.
    pub mode: EbpfMode,
    /// Names of the interfaces to attach to, without duplicates; empty means every interface that is up, has an address
    /// and is not a loopback. Read at start only.
    pub interfaces: Vec<String>,
    /// Sessions that the kernel steers at once; those beyond stay in the daemon. Read at start only.
    pub max_flows: NonZeroU32,
    /// TCP connections may be handed to the kernel. Read at start only.
    pub tcp: bool,
    /// TCP connections that the kernel forwards at once; those beyond stay relayed. Read at start only.
    pub max_spliced: NonZeroU32,
    /// Drop in the kernel what the configuration gives no destination. A reload applies to the next datagram.
    pub early_drop: bool,
    /// Source networks whose datagrams are dropped, without duplicates. A reload applies to the next datagram, and
    /// leaves steered sessions alone.
    pub ban: Vec<IpNet>,
    /// Programs and flows outlive the daemon, for the next one to inherit. Read at start only.
    pub pin: bool,
    /// Their directory: one of its own in a BPF file system. Read at start only.
    pub pin_path: PathBuf,
}

/// When TCP connections are handed to the kernel, where `ebpf.tcp` lets them be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum SplicePolicy {
    /// Where it is known not to be slower than relaying.
    #[default]
    Auto,
    /// Always, and as early as possible.
    First,
    /// Never.
    Off,
}

/// The hook of the kernel plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EbpfMode {
    /// Not at all: all datagrams pass through the daemon.
    #[default]
    Off,
    /// Native XDP where all interfaces are physical and their drivers take it, otherwise TC.
    Auto,
    /// Native XDP on every interface; TC where one refuses.
    Xdp,
    /// Generic XDP on every interface; TC where one refuses.
    XdpGeneric,
    /// TC.
    Tc,
}
