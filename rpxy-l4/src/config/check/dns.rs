//! Bounds on the use of DNS answers.

use super::duration;
use crate::config::{file::Table, model::Dns, report::Report};

pub(super) fn dns(report: &mut Report<'_>, root: &Table<'_>) -> Dns {
    let min_ttl = duration::or_default(report, root, "dns_cache_min_ttl", duration::DNS_MIN_TTL);
    let max_ttl = duration::or_default(report, root, "dns_cache_max_ttl", duration::DNS_MAX_TTL);
    if min_ttl > max_ttl
        && let Some(field) = root.field("dns_cache_min_ttl").or_else(|| root.field("dns_cache_max_ttl"))
    {
        let (min, max) = (min_ttl.as_secs(), max_ttl.as_secs());
        report.error(&field.position, format!("dns_cache_min_ttl ({min}s) is longer than dns_cache_max_ttl ({max}s)"));
    }
    Dns { min_ttl, max_ttl }
}
