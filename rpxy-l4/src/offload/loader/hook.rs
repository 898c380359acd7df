//! The hooks that programs attach to, and the choice among them.
//!
//! All interfaces use one hook: XDP can redirect a packet only to an interface that takes raw frames. Those under native
//! XDP do; others may drop them unseen. The kernel never chooses the mode of XDP.

use crate::{config::model::EbpfMode, offload::routes::Link};

/// A hook, and for XDP its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HookMode {
    Tc,
    Xdp,
    XdpGeneric,
}

impl HookMode {
    /// Returns the name in logs, in `status` and in the names of pins.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
        }
    }
}

/// Returns the hooks to try for `mode` on `links`, best first. TC is always the last.
pub(crate) fn candidates(mode: EbpfMode, links: &[Link]) -> &'static [HookMode] {
    match mode {
        EbpfMode::Off => &[],
        EbpfMode::Tc => &[HookMode::Tc],
        EbpfMode::Xdp => &[HookMode::Xdp, HookMode::Tc],
        EbpfMode::XdpGeneric => &[HookMode::XdpGeneric, HookMode::Tc],
        EbpfMode::Auto if !links.is_empty() && links.iter().all(prefers_native_xdp) => &[HookMode::Xdp, HookMode::Tc],
        EbpfMode::Auto => &[HookMode::Tc],
    }
}

/// Returns true where native XDP is the better choice: on network cards, where it runs before the kernel allocates an
/// skb. Virtual devices allocate one anyway.
pub(crate) fn prefers_native_xdp(link: &Link) -> bool {
    link.physical && link.kind.is_none() && link.ethernet && !link.has_xdp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_choice() {
        let card = Link { physical: true, ethernet: true, ..Link::default() };
        let veth = Link { kind: Some("veth".to_owned()), ethernet: true, ..Link::default() };
        let taken = Link { has_xdp: true, ..card.clone() };
        let vlan = Link { kind: Some("vlan".to_owned()), ..card.clone() };
        let rows: &[(&str, EbpfMode, &[Link], HookMode)] = &[
            ("cards", EbpfMode::Auto, &[card.clone(), card.clone()], HookMode::Xdp),
            ("a card and a veth", EbpfMode::Auto, &[card.clone(), veth.clone()], HookMode::Tc),
            ("a card with another program", EbpfMode::Auto, &[taken], HookMode::Tc),
            ("a VLAN", EbpfMode::Auto, &[vlan], HookMode::Tc),
            ("no interface yet", EbpfMode::Auto, &[], HookMode::Tc),
            ("XDP asked for", EbpfMode::Xdp, std::slice::from_ref(&veth), HookMode::Xdp),
            ("generic XDP asked for", EbpfMode::XdpGeneric, std::slice::from_ref(&veth), HookMode::XdpGeneric),
            ("TC asked for", EbpfMode::Tc, &[card], HookMode::Tc),
        ];
        for (name, mode, links, first) in rows {
            let candidates = candidates(*mode, links);
            assert_eq!(candidates.first(), Some(first), "{name}");
            assert_eq!(candidates.last(), Some(&HookMode::Tc), "{name}");
        }
        assert!(candidates(EbpfMode::Off, &[]).is_empty());
    }
}
