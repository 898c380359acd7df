//! Caps on connections: of all listeners together, of a rule, of a target.

use std::num::NonZeroU32;

use crate::config::{file::Table, report::Report};

/// The cap at `key`; `None` where there is none.
pub(super) fn most(report: &mut Report<'_>, table: &Table<'_>, key: &'static str) -> Option<NonZeroU32> {
    table.field(key).and_then(|field| field.integer(report, 1..=u32::MAX)).and_then(NonZeroU32::new)
}
