//! The interfaces that programs are attached to.

use crate::{
    config::model::Ebpf,
    offload::routes::{Event, Link, Table},
};

/// The interfaces that a configuration asks for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Those of `ebpf.interfaces`.
    Named(Vec<String>),
    /// All that lead to other machines: Ethernet, with an address that is not link-local.
    Found,
}

impl Wanted {
    pub(crate) fn new(config: &Ebpf) -> Self {
        if config.interfaces.is_empty() { Self::Found } else { Self::Named(config.interfaces.clone()) }
    }

    /// Returns the wanted links of `table` that are up.
    pub(crate) fn links(&self, table: &Table) -> Vec<Link> {
        table.links().filter(|link| self.includes(link, table)).cloned().collect()
    }

    fn includes(&self, link: &Link, table: &Table) -> bool {
        match self {
            Self::Named(names) => link.up && !link.loopback && names.contains(&link.name),
            Self::Found => link.up && !link.loopback && link.ethernet && table.has_address(link.index),
        }
    }
}

/// Returns the links that `config` asks for among those of `network`, by index.
pub(crate) fn wanted(config: &Ebpf, network: Vec<Event>) -> Vec<Link> {
    let mut table = Table::new(false, 0, 0);
    for event in network {
        table.learn(event);
    }
    let mut links = Wanted::new(config).links(&table);
    links.sort_unstable_by_key(|link| link.index);
    links
}

/// Returns the names in `ebpf.interfaces` that are not among `links`.
pub(crate) fn missing<'c>(config: &'c Ebpf, links: &[Link]) -> impl Iterator<Item = &'c str> {
    let is_missing = |name: &&String| !links.iter().any(|link| link.name == **name);
    config.interfaces.iter().filter(is_missing).map(String::as_str)
}
