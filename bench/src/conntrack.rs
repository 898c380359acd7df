//! Kernel NAT on the gateway, and the connection tracking behind it.
//!
//! Errs towards leaving nothing behind: rules and tracked flows go with the guard, because both would slow down or
//! confuse what is measured next.

use std::fs;

use anyhow::{Context as _, bail, ensure};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{NETFILTER, SocketAddrNetlink},
    recv, sendto, socket_with,
};

use super::setup::Setup;
use rpxy_l4_tests::topology::Host;

/// Lifetime of a tracked flow without datagrams, in seconds: longer than any measurement.
const UDP_TIMEOUT: &str = "600";

/// The most connections tracked on this machine, all namespaces together.
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Rules in the gateway's kernel.
#[derive(Debug)]
pub(super) struct Nat<'rig>(&'rig Host);

impl<'rig> Nat<'rig> {
    pub(super) fn new(gateway: &'rig Host, rules: &str, setup: Setup) -> anyhow::Result<Self> {
        nft(gateway, rules)?;
        let nat = Self(gateway);
        // Entries of closed connections would fill the table within a few runs.
        for state in ["time_wait", "fin_wait", "last_ack", "close", "close_wait"] {
            gateway.sysctl(&format!("netfilter/nf_conntrack_tcp_timeout_{state}"), "1")?;
        }
        for state in ["timeout", "timeout_stream"] {
            gateway.sysctl(&format!("netfilter/nf_conntrack_udp_{state}"), UDP_TIMEOUT)?;
        }
        // Namespaces other than the first may only read it.
        let limit: usize = gateway.run(|| fs::read_to_string(LIMIT)).context(LIMIT)?.trim().parse().context(LIMIT)?;
        let wanted = 2 * setup.room;
        ensure!(limit >= wanted, "too few tracked connections: run `sysctl net.netfilter.nf_conntrack_max={wanted}`");
        Ok(nat)
    }
}

/// A rule in the client's kernel that lets nothing out.
#[derive(Debug)]
pub(super) struct Nowhere<'rig>(&'rig Host);

impl<'rig> Nowhere<'rig> {
    pub(super) fn new(client: &'rig Host, rules: &str) -> anyhow::Result<Self> {
        nft(client, rules)?;
        Ok(Self(client))
    }
}

impl Drop for Nowhere<'_> {
    fn drop(&mut self) {
        // Best effort, as below.
        let _gone = nft(self.0, "delete table netdev bench");
    }
}

impl Drop for Nat<'_> {
    fn drop(&mut self) {
        // Best effort: the namespace that holds the rules goes away too.
        let _gone = nft(self.0, "delete table ip bench");
        let _flushed = self.0.run(flush);
    }
}

fn nft(host: &Host, rules: &str) -> anyhow::Result<()> {
    let output = host.command("nft").arg(rules.trim_end()).output().context("nft")?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Forgets everything that is tracked in the namespace of the calling thread, as `conntrack -F` does.
fn flush() -> anyhow::Result<()> {
    // linux/netlink.h and linux/netfilter/nfnetlink.h: the subsystem is the upper half of the type.
    const NFNL_SUBSYS_CTNETLINK: u16 = 1;
    const IPCTNL_MSG_CT_DELETE: u16 = 2;
    const NLM_F_REQUEST: u16 = 1;
    const NLM_F_ACK: u16 = 4;
    const NLMSG_ERROR: u16 = 2;
    const HEADER: usize = 16;

    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    // A struct nlmsghdr (length, type, flags, sequence, port) and a struct nfgenmsg of any family.
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend((NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE).to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    request.extend([0; 12]);
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;

    // The answer is a struct nlmsghdr of type NLMSG_ERROR and an error number, 0 for done.
    let mut answer = [0; 256];
    let (_, length) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let done =
        length >= HEADER + 4 && answer[4..6] == NLMSG_ERROR.to_ne_bytes() && answer[HEADER..HEADER + 4] == [0; 4];
    ensure!(done, "conntrack does not forget: {:?}", &answer[..length]);
    Ok(())
}
