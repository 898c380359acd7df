//! Global UDP settings.

use super::{duration, targets, tcp::max_connections};
use crate::config::{file::Table, model::Udp, report::Report};

const MAX_CONNECTIONS: u32 = 2048;

pub(super) fn udp(report: &mut Report<'_>, root: &Table<'_>) -> Udp {
    Udp {
        max_connections: max_connections(report, root, "udp_max_connections", MAX_CONNECTIONS),
        default: targets::default(report, root, "udp_target", "udp_load_balance"),
        idle_lifetime: duration::limit(report, root, "udp_idle_lifetime", Some(duration::UDP_IDLE)),
    }
}
