//! Which connections and sessions an operator asks about.

use std::net::IpAddr;

use ipnet::IpNet;

/// Conditions, all of which have to hold; `None` is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The client is in this network.
    pub client: Option<IpNet>,
    /// It goes by this rule.
    pub rule: Option<String>,
    /// It goes to this target, as the file writes it.
    pub target: Option<String>,
}

impl Selection {
    /// Returns whether something of `client`, which has no address at a unix socket, is asked about, with its rule and target
    /// as far as they are known.
    #[must_use]
    pub(crate) fn includes(&self, client: Option<IpAddr>, rule: Option<&str>, target: Option<&str>) -> bool {
        self.client.is_none_or(|network| client.is_some_and(|client| network.contains(&client)))
            && (self.rule.is_none() || self.rule.as_deref() == rule)
            && (self.target.is_none() || self.target.as_deref() == target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_have_to_hold() {
        let selection = |client: Option<&str>, rule: Option<&str>, target: Option<&str>| Selection {
            client: client.map(|text| text.parse().unwrap()),
            rule: rule.map(str::to_owned),
            target: target.map(str::to_owned),
        };
        for (row, selection, expected) in [
            ("none", selection(None, None, None), true),
            ("all", selection(Some("192.0.2.0/24"), Some("web"), Some("a.example:1")), true),
            ("another network", selection(Some("198.51.100.0/24"), Some("web"), None), false),
            ("the other family", selection(Some("::/0"), None, None), false),
            ("another rule", selection(Some("192.0.2.0/24"), Some("ssh"), None), false),
            ("another target", selection(None, Some("web"), Some("a.example:2")), false),
        ] {
            let client = Some(IpAddr::from([192, 0, 2, 7]));
            assert_eq!(selection.includes(client, Some("web"), Some("a.example:1")), expected, "{row}");
        }
        let unnamed = |selection: Selection| selection.includes(None, Some("web"), None);
        assert!(unnamed(selection(None, Some("web"), None)) && !unnamed(selection(Some("0.0.0.0/0"), None, None)));
        let undecided = |selection: Selection| selection.includes(Some(IpAddr::from([192, 0, 2, 7])), None, None);
        assert!(undecided(selection(None, None, None)) && !undecided(selection(None, Some("web"), None)));
    }
}
