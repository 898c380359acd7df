//! What a target leads to: the addresses of a name with the target's port, or those of a service with their own.

use std::{net::SocketAddr, sync::Arc};

use super::{Name, Service};

/// Why nothing of a service can be reached that is known to have no place.
pub(crate) const NOT_OFFERED: &str = "its name server says that the service is not offered";

/// A target that is looked up. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// A name, and the port.
    Name(Arc<Name>, u16),
    /// The SRV records of a name.
    Service(Arc<Service>),
}

/// One backend address of such a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub address: SocketAddr,
    /// The record that led there; `None` for the address of a name.
    pub record: Option<Weighted>,
}

/// What an SRV record says besides its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weighted {
    pub priority: u16,
    pub weight: u16,
    /// Without a dot at the end.
    pub host: Arc<str>,
}

impl Lookup {
    /// The latest backend addresses, at once; `None` when there never were any. A service's come record by record, those of
    /// the smallest priority first.
    #[must_use]
    pub(crate) fn known(&self) -> Option<Vec<Place>> {
        match self {
            Self::Name(name, port) => {
                let place = |address: &_| Place { address: SocketAddr::new(*address, *port), record: None };
                Some(name.known()?.iter().map(place).collect())
            }
            Self::Service(service) => {
                let records = service.known()?;
                let mut places = Vec::with_capacity(records.len());
                // Of hosts that have no address yet nothing is known; of a service that is not offered, all is.
                let mut any = records.is_empty();
                for record in records.iter() {
                    let Some(addresses) = record.name.known() else { continue };
                    any = true;
                    let weighted =
                        Weighted { priority: record.priority, weight: record.weight, host: Arc::clone(&record.host) };
                    places.extend(addresses.iter().map(|address| Place {
                        address: SocketAddr::new(*address, record.port),
                        record: Some(weighted.clone()),
                    }));
                }
                any.then_some(places)
            }
        }
    }

    /// Returns whether it leads to `address`, as far as is known; `None` when nothing is.
    #[must_use]
    pub(crate) fn leads_to(&self, address: SocketAddr) -> Option<bool> {
        match self {
            Self::Name(name, port) => Some(*port == address.port() && name.known()?.contains(&address.ip())),
            Self::Service(service) => {
                let records = service.known()?;
                let at_port = |record: &&super::service::Record| record.port == address.port();
                let mut there = records.iter().filter(at_port).filter_map(|record| record.name.known());
                Some(there.any(|addresses| addresses.contains(&address.ip())))
            }
        }
    }

    /// The same as [`Lookup::known`], but waits while the very first look-ups run.
    pub(crate) async fn first(&self) -> Option<Vec<Place>> {
        match self {
            Self::Name(name, _) => drop(name.first().await),
            Self::Service(service) => {
                for record in service.first().await?.iter() {
                    drop(record.name.first().await);
                }
            }
        }
        self.known()
    }

    /// Has it looked up again soon.
    pub(crate) fn ask_again(&self) {
        match self {
            Self::Name(name, _) => name.ask_again(),
            Self::Service(service) => {
                service.ask_again();
                for record in service.known().iter().flat_map(|records| records.iter()) {
                    record.name.ask_again();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Handle;

    use super::*;
    use crate::{
        config::model::Dns,
        metrics::Metrics,
        resolve::{Record, Resolver},
    };

    #[tokio::test]
    async fn a_service_leads_to_the_addresses_of_its_hosts_with_their_own_ports() {
        let hour = Duration::from_secs(3600);
        let resolver = Resolver::new(Handle::current(), Dns { min_ttl: hour, max_ttl: hour }, Metrics::new());
        let service = resolver.service(&"_a._tcp.invalid".into());
        let name = |host: &str| resolver.name(&format!("{host}.invalid.").into());
        let record =
            |priority, port, host: &str| Record { priority, weight: 5, port, host: host.into(), name: name(host) };
        let lookup = Lookup::Service(Arc::clone(&service));
        let at = |last: u8, port| SocketAddr::from(([192, 0, 2, last], port));
        assert_eq!((lookup.known(), lookup.leads_to(at(1, 1))), (None, None), "not known yet");
        let records = vec![record(10, 1, "a"), record(10, 2, "a"), record(20, 3, "b"), record(30, 4, "c")];
        let [a, b] = [Arc::clone(&records[0].name), Arc::clone(&records[2].name)];
        service.set(records);
        assert_eq!(lookup.known(), None, "no host has an address yet");
        a.set(vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()]);
        b.set(vec![[192, 0, 2, 3].into()]);
        let known: Vec<_> = lookup.known().unwrap().into_iter().map(|place| place.address).collect();
        assert_eq!(known, [at(1, 1), at(2, 1), at(1, 2), at(2, 2), at(3, 3)]);
        for (address, expected) in [(at(2, 2), true), (at(3, 3), true), (at(3, 1), false), (at(1, 3), false)] {
            assert_eq!(lookup.leads_to(address), Some(expected), "{address}");
        }
        service.set(Vec::new());
        assert_eq!(lookup.known(), Some(Vec::new()), "it is not offered");
        assert_eq!(lookup.leads_to(at(1, 1)), Some(false));
    }
}
