//! The PROXY protocol, in and out.

use ipnet::IpNet;

/// Inbound TCP connections come from trusted peers alone, and start with a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveProxy {
    /// Peers that may connect at all by IP; not empty, unless only a unix socket is listened on.
    pub trusted: Vec<IpNet>,
    /// A connection may also start without one.
    pub optional: bool,
}

/// A PROXY protocol version to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProxyVersion {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}
