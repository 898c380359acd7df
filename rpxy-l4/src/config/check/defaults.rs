//! Values of a listener that hold for its rules, unless they say otherwise.

use std::path::Path;

use super::health::{Checks, Health};
#[cfg(feature = "proxy-protocol")]
use crate::config::model::ProxyVersion;
use crate::config::model::SplicePolicy;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct RuleDefaults<'a> {
    /// Relative paths in the file start here.
    pub(super) directory: &'a Path,
    /// The port that ECH private names are dialled on unless they name one.
    pub(super) listen_port: u16,
    /// The checks that a rule can name.
    pub(super) checks: &'a Checks<'a>,
    /// The check of targets: that of the rule, for all parts of it.
    pub(super) health: Health,
    /// When connections of rules that do not say are handed to the kernel.
    pub(super) splice: SplicePolicy,
    /// The PROXY header sent to targets of rules that do not say.
    #[cfg(feature = "proxy-protocol")]
    pub(super) send_proxy: Option<ProxyVersion>,
}
