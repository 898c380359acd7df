//! Wrong checksums on the wires, as the receiving kernels count them.
//!
//! A kernel verifies what arrives unless its sender shares its memory and has left the sum to the device
//! (CHECKSUM_PARTIAL), as over a veth pair. So where sums matter the gateway's devices are told to leave nothing
//! ([`prepare`]): then every frame that it sends, or a program in its place, is verified by who receives it, without a
//! loss and without a capture. A frame that no socket takes and no stack answers is not verified.

use std::fs;

use anyhow::{Result, bail};

use crate::{host::Host, offload_mode::OffloadMode};

/// Prepares the devices of a gateway, and those of its neighbours that lead to it, for `mode`.
///
/// # Errors
///
/// When `ethtool` fails.
pub fn prepare(
    (client, clients): (&Host, &str),
    gateway: &Host,
    (backend, backends): (&Host, &str),
    mode: OffloadMode,
) -> Result<()> {
    gateway.ethtool("eth0", "tx off")?;
    gateway.ethtool("eth1", "tx off")?;
    match mode {
        OffloadMode::Off | OffloadMode::Spliced => Ok(()),
        // Complete sums from the client. Those of the backend are left to the device, and so is the cutting of large
        // buffers into datagrams: TC has to deal with either.
        OffloadMode::Tc => client.ethtool(clients, "tx off"),
        // XDP cannot finish a sum. And a veth takes frames that were redirected to it only with a poll loop, which GRO
        // brings along.
        OffloadMode::Xdp => {
            client.ethtool(clients, "tx off gro on")?;
            backend.ethtool(backends, "tx off gro on")
        }
    }
}

/// Counters of wrong checksums on `host` that are not zero, by name.
pub fn errors(host: &Host) -> Vec<(String, u64)> {
    let mut counters = counters(host);
    counters.retain(|(name, count)| name.ends_with("CsumErrors") && *count != 0);
    counters
}

/// All counters of the network stack of `host`, as `nstat` names them.
pub fn counters(host: &Host) -> Vec<(String, u64)> {
    host.run(|| {
        // The tables show the namespace of the thread that reads them.
        let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        let mut counters = paired(&read("snmp"));
        counters.extend(paired(&read("netstat")));
        counters.extend(single(&read("snmp6")));
        counters
    })
}

/// Fails when a kernel of these hosts has met a wrong checksum.
///
/// # Errors
///
/// Names host and counter.
pub fn verify(hosts: &[&Host]) -> Result<()> {
    for host in hosts {
        let errors = errors(host);
        if !errors.is_empty() {
            bail!("wrong checksums arrived at {}: {errors:?}", host.name());
        }
    }
    Ok(())
}

/// Counters in two lines, of names and of values, that begin with the same word.
fn paired(text: &str) -> Vec<(String, u64)> {
    let mut counters = Vec::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let protocol = names.split_once(':').map_or("", |(protocol, _)| protocol);
        let pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace()).skip(1);
        counters.extend(pairs.filter_map(|(name, value)| Some((format!("{protocol}{name}"), value.parse().ok()?))));
    }
    counters
}

/// Counters in lines of a name and a value.
fn single(text: &str) -> Vec<(String, u64)> {
    let pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let counter = |name: &str, count| (name.to_owned(), count);
        let text = "Udp: InDatagrams InCsumErrors\nUdp: 12 3\nTcp: MaxConn InCsumErrors\nTcp: -1 4\n";
        assert_eq!(
            paired(text),
            [counter("UdpInDatagrams", 12), counter("UdpInCsumErrors", 3), counter("TcpInCsumErrors", 4)]
        );
        let text = "Udp6InCsumErrors                \t5\nUdp6InDatagrams\t6\n";
        assert_eq!(single(text), [counter("Udp6InCsumErrors", 5), counter("Udp6InDatagrams", 6)]);
    }
}
