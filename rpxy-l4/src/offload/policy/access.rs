//! Access lists of listeners, for the programs to enforce by one look-up of the longest prefix.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;
use rpxy_l4_common::map::access;

use crate::{
    config::model::{AccessLists, Config},
    limit::NetworkSet,
};

/// The access lists of all listeners that have some, each with its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Access {
    lists: Vec<(Arc<str>, AccessLists)>,
    first: u16,
}

impl Access {
    /// The lists of `config`, with numbers that `before` does not have: a list must not change while a listener uses it.
    pub(crate) fn new(config: &Config, before: &Self) -> Self {
        let has_lists = |lists: &AccessLists| lists.allow.is_some() || !lists.deny.is_empty();
        let lists: Vec<_> = config
            .listeners()
            .filter(|listener| has_lists(&listener.access))
            .map(|listener| (Arc::clone(&listener.name), listener.access.clone()))
            .collect();
        if lists == before.lists {
            return before.clone();
        }
        let after = usize::from(before.first) + before.lists.len();
        let most = usize::from(access::MOST);
        let first = if after + lists.len() > most { 1 } else { after.max(1) };
        Self { lists, first: u16::try_from(first).unwrap_or(1) }
    }

    /// Returns what the sockets of the listener called `name` need of `map::Listener::drop`.
    pub(crate) fn bits(&self, name: &str) -> u32 {
        let found = (u32::from(self.first)..).zip(&self.lists).find(|(_, (listener, _))| **listener == *name);
        let Some((number, (_, lists))) = found else { return 0 };
        let unlisted = if lists.allow.is_some() { access::UNLISTED } else { 0 };
        number << access::SHIFT | unlisted
    }

    /// The entries of the map: number of the list, network, value.
    pub(crate) fn entries(&self) -> HashMap<(u16, IpNet), u8> {
        let numbered = (self.first..).zip(&self.lists);
        numbered
            .flat_map(|(number, (_, lists))| entries(lists).map(move |(network, value)| ((number, network), value)))
            .collect()
    }
}

/// The networks of a list with what becomes of those for whom they are the smallest. What is allowed within what is denied
/// is left out, since deny wins.
fn entries(lists: &AccessLists) -> impl Iterator<Item = (IpNet, u8)> {
    let denied = NetworkSet::new(&lists.deny);
    let allowed = NetworkSet::new(lists.allow.as_deref().unwrap_or_default());
    let allowed: Vec<IpNet> = allowed.iter().filter(|network| !denied.contains_all_of(*network)).collect();
    let denied: Vec<IpNet> = denied.iter().collect();
    let deny = denied.into_iter().map(|network| (network, access::DENIED));
    allowed.into_iter().map(|network| (network, access::ALLOWED)).chain(deny)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::limit::AccessList;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_smallest_network_says_what_the_lists_say() {
        for (allow, deny) in [
            (None, &["10.0.0.0/8"] as &[&str]),
            (Some(&["10.0.0.0/8", "2001:db8::/32"] as &[&str]), &[]),
            (Some(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]), &["10.1.0.0/16", "2001:db8::1/128"]),
            (Some(&["10.1.2.3/32", "::/0"]), &["10.1.0.0/16", "2001:db8::/32"]),
            (Some(&["10.0.0.0/8"]), &["10.0.0.0/24"]),
            (Some(&["::ffff:10.0.0.0/104"]), &["0.0.0.0/0"]),
            (Some(&[]), &[]),
        ] {
            let lists = AccessLists { allow: allow.map(networks), deny: networks(deny) };
            let (entries, list) = (entries(&lists).collect::<Vec<_>>(), AccessList::new(&lists));
            for source in
                ["10.0.0.1", "10.1.0.1", "10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "fd00::1"]
            {
                let source: IpAddr = source.parse().unwrap();
                let around = entries.iter().filter(|(network, _)| network.contains(&source));
                let value = around.max_by_key(|(network, _)| network.prefix_len()).map(|(_, value)| *value);
                let refused = value.map_or(lists.allow.is_some(), |value| value == access::DENIED);
                assert_eq!(refused, list.refuses(source), "{source}: {lists:?}");
            }
        }
    }

    #[test]
    fn numbers_are_new_when_something_has_changed() {
        let config = |deny: &str| {
            let text = format!(
                "listen_port = 1\nudp_target = 'a:1'\n[listeners.a]\nlisten_port = 2\nudp_target = 'a:1'\ndeny = '{deny}'\n\
                 [listeners.b]\nlisten_port = 3\nudp_target = 'a:1'\nallow = '10.0.0.0/8'\n"
            );
            crate::config::parse(&text).unwrap().config
        };
        let first = Access::new(&config("10.0.0.1"), &Access::default());
        assert_eq!((first.bits("default"), first.bits("a")), (0, 1 << 16));
        assert_eq!(first.bits("b"), 2 << 16 | access::UNLISTED);
        assert_eq!(Access::new(&config("10.0.0.1"), &first), first);
        let second = Access::new(&config("10.0.0.2"), &first);
        assert_eq!((second.bits("a"), second.entries().len()), (3 << 16, 2));
        let last = Access { first: u16::MAX - 1, ..first };
        assert_eq!(Access::new(&config("10.0.0.2"), &last).bits("a"), 1 << 16, "from the beginning");
    }
}
