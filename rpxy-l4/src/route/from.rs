//! Where clients come from, as a condition of rules.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::limit::NetworkSet;

/// The networks of a rule's clients; none means any.
#[derive(Debug, Default)]
pub(crate) struct From(Option<NetworkSet>);

impl From {
    /// The condition as configured.
    #[must_use]
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self((!networks.is_empty()).then(|| NetworkSet::new(networks)))
    }

    /// Returns whether the condition holds for a client at `source`.
    #[must_use]
    pub(crate) fn holds(&self, source: IpAddr) -> bool {
        self.specificity(source).is_some()
    }

    /// How specific the condition is for a client at `source`; `None` if it does not hold.
    fn specificity(&self, source: IpAddr) -> Option<u16> {
        match &self.0 {
            None => Some(0),
            Some(networks) => networks.longest(source).map(|length| u16::from(length) + 1),
        }
    }
}

/// Of rules that are equal otherwise, the one with the smallest network that `source` is in; the first of several.
pub(super) fn most_specific<'r, T>(rules: impl Iterator<Item = (&'r From, &'r T)>, source: IpAddr) -> Option<&'r T> {
    let mut best: Option<(u16, &T)> = None;
    for (from, to) in rules {
        if let Some(specificity) = from.specificity(source)
            && best.is_none_or(|(most, _)| specificity > most)
        {
            best = Some((specificity, to));
        }
    }
    best.map(|(_, to)| to)
}
