//! A set of networks that is asked often and changed now and then: a radix tree of nodes that a change copies only where
//! it shares them with another set.
//!
//! Asking costs as many steps as networks around an address branch off, and changing as many copies, both bounded by the
//! bits of an address and not by the number of networks.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// A set of networks, in which a network may contain others. A clone shares all nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Networks {
    v4: Tree,
    v6: Tree,
}

type Tree = Option<Arc<Node>>;

/// What the networks below have in common.
#[derive(Debug, Clone)]
struct Node {
    prefix: Prefix,
    /// True if the prefix itself is a network of the set; otherwise it is where two branch off.
    member: bool,
    /// By the bit behind the prefix.
    children: [Tree; 2],
}

/// The leading bits of an address, at the upper end of 128. The others are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    bits: u128,
    len: u8,
}

impl Networks {
    /// Returns whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Returns whether a network of the set contains `address`.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let (mut at, address) = match address {
            IpAddr::V4(_) => (&self.v4, Prefix::of_address(address)),
            IpAddr::V6(_) => (&self.v6, Prefix::of_address(address)),
        };
        while let Some(node) = at {
            if !node.prefix.contains(address) {
                return false;
            }
            if node.member {
                return true;
            }
            let Some(child) = node.children.get(address.bit(node.prefix.len)) else { return false };
            at = child;
        }
        false
    }

    /// Adds a network without bits beyond its prefix.
    pub(super) fn insert(&mut self, network: IpNet) {
        let prefix = Prefix::of_network(network);
        insert(self.tree(network), prefix);
    }

    /// Takes a network out. Those that it contains stay.
    pub(super) fn remove(&mut self, network: IpNet) {
        let prefix = Prefix::of_network(network);
        remove(self.tree(network), prefix);
    }

    fn tree(&mut self, network: IpNet) -> &mut Tree {
        match network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut set = Self::default();
        networks.into_iter().for_each(|network| set.insert(network));
        set
    }
}

fn insert(tree: &mut Tree, new: Prefix) {
    let Some(shared) = tree else {
        *tree = Some(Arc::new(Node::member(new)));
        return;
    };
    let common = shared.prefix.common(new);
    if common.len == shared.prefix.len {
        let node = Arc::make_mut(shared);
        match node.children.get_mut(new.bit(common.len)) {
            Some(child) if common.len < new.len => insert(child, new),
            Some(_) | None => node.member = true,
        }
        return;
    }
    // It branches off above the node, or contains it.
    let mut above = Node { prefix: common, member: common.len == new.len, children: [None, None] };
    let below = shared.prefix.bit(common.len);
    if !above.member
        && let Some(child) = above.children.get_mut(1 - below)
    {
        *child = Some(Arc::new(Node::member(new)));
    }
    if let Some(child) = above.children.get_mut(below) {
        *child = tree.take();
    }
    *tree = Some(Arc::new(above));
}

fn remove(tree: &mut Tree, gone: Prefix) {
    let Some(shared) = tree.as_mut().filter(|node| node.prefix.contains(gone)) else { return };
    let node = Arc::make_mut(shared);
    if node.prefix == gone {
        node.member = false;
    } else if let Some(child) = node.children.get_mut(gone.bit(node.prefix.len)) {
        remove(child, gone);
    }
    if !node.member {
        match &mut node.children {
            [None, None] => *tree = None,
            // Nothing branches off here any more.
            [only @ Some(_), None] | [None, only @ Some(_)] => *tree = only.take(),
            [Some(_), Some(_)] => {}
        }
    }
}

impl Node {
    fn member(prefix: Prefix) -> Self {
        Self { prefix, member: true, children: [None, None] }
    }
}

impl Prefix {
    const BITS: u8 = 128;

    fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { bits: u128::from(v4.to_bits()) << 96, len: 32 },
            IpAddr::V6(v6) => Self { bits: v6.to_bits(), len: Self::BITS },
        }
    }

    fn of_network(network: IpNet) -> Self {
        Self { len: network.prefix_len(), ..Self::of_address(network.network()) }
    }

    fn contains(self, other: Self) -> bool {
        self.len <= other.len && self.common(other).len == self.len
    }

    /// The leading bits that both have.
    fn common(self, other: Self) -> Self {
        let same = (self.bits ^ other.bits).leading_zeros();
        let len = u8::try_from(same).unwrap_or(Self::BITS).min(self.len).min(other.len);
        let mask = u128::MAX.checked_shl(u32::from(Self::BITS - len)).unwrap_or(0);
        Self { bits: self.bits & mask, len }
    }

    /// The bit behind so many; 0 where there is none.
    fn bit(self, position: u8) -> usize {
        let shift = u32::from(Self::BITS - 1).checked_sub(u32::from(position));
        usize::from(shift.is_some_and(|shift| self.bits >> shift & 1 == 1))
    }
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;

    use super::*;

    /// All networks within 0.0.0.0/29.
    fn all() -> Vec<IpNet> {
        (29..=32_u8)
            .flat_map(|len| (0..1_u32 << (len - 29)).map(move |n| (n << (32 - len), len)))
            .map(|(address, len)| IpNet::V4(Ipv4Net::new(address.into(), len).unwrap()))
            .collect()
    }

    /// Asserts that `set` contains what a plain search in `networks` finds.
    #[track_caller]
    fn assert_is(set: &Networks, networks: &[IpNet]) {
        for source in (0..9_u32).map(|address| IpAddr::V4(address.into())) {
            let expected = networks.iter().any(|network| network.contains(&source));
            assert_eq!(set.contains(source), expected, "{source} in {networks:?}");
        }
        assert_eq!(set.is_empty(), networks.is_empty(), "{networks:?}");
    }

    #[test]
    fn every_set_of_small_networks_is_what_a_plain_search_finds() {
        let all = all();
        assert_eq!(all.len(), 15);
        for set in 0..1_u32 << all.len() {
            let chosen: Vec<IpNet> = (0..).zip(&all).filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, n)| *n).collect();
            assert_is(&chosen.iter().copied().collect(), &chosen);
        }
    }

    #[test]
    fn every_network_can_be_taken_out_of_every_set_and_a_clone_stays_as_it_is() {
        let all = all();
        for set in 0..1_u32 << all.len() {
            // Every seventh set: the others are alike.
            if set % 7 != 0 {
                continue;
            }
            let chosen: Vec<IpNet> = (0..).zip(&all).filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, n)| *n).collect();
            let before: Networks = chosen.iter().copied().collect();
            for gone in &all {
                let mut after = before.clone();
                after.remove(*gone);
                let left: Vec<IpNet> = chosen.iter().filter(|network| *network != gone).copied().collect();
                assert_is(&after, &left);
            }
            assert_is(&before, &chosen);
        }
    }

    #[test]
    fn families_and_the_widest_networks_are_kept_apart() {
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut set: Networks = ["0.0.0.0/0", "2001:db8::1/128"].map(network).into_iter().collect();
        for (source, expected) in
            [("255.255.255.255", true), ("::", false), ("2001:db8::1", true), ("2001:db8::2", false)]
        {
            assert_eq!(set.contains(address(source)), expected, "{source}");
        }
        set.insert(network("::/0"));
        assert!(set.contains(address("2001:db8::2")));
        set.remove(network("::/0"));
        set.remove(network("0.0.0.0/0"));
        assert!(!set.contains(address("192.0.2.1")) && set.contains(address("2001:db8::1")));
    }
}
