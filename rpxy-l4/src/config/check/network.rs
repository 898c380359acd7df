//! Networks in CIDR notation.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{
    model::canonical,
    report::{Position, Report, quote},
};

/// A network in its [`canonical`] form; a bare address is that host alone.
pub(super) fn network(report: &mut Report<'_>, position: &Position, text: &str) -> Option<IpNet> {
    let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(host).map(canonical);
    if network.is_none() {
        report.error(position, format!("{} is not a network such as \"10.0.0.0/8\"", quote(text)));
    }
    network
}
