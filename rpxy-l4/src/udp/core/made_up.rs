//! Snapshots whose listening sockets are made up, for tests and properties of the core.

use std::{net::SocketAddr, sync::Arc};

use super::Sessions;
use crate::{
    config::model::Config,
    limit::{ByListener, ConnLimit},
    resolve::Resolver,
    route::Targets,
    udp::{Listener, Snapshot},
};

/// Listening sockets, by number. The first ones are of the listeners in file order, all others of the first.
const SOCKETS: u16 = 8;

fn address(number: u16) -> SocketAddr {
    ([0, 0, 0, 0], number + 1).into()
}

/// The snapshot of `config`.
pub(super) fn snapshot(
    config: &Config,
    active: &ByListener<ConnLimit>,
    targets: &Targets,
    resolver: &Resolver,
) -> Arc<Snapshot> {
    let name = |number: u16| {
        let listener = config.listeners().nth(number.into()).unwrap_or(&config.top);
        (address(number), &*listener.name)
    };
    Arc::new(Snapshot::new(config, &(0..SOCKETS).map(name).collect::<Vec<_>>(), active, targets, resolver))
}

/// The listeners of its sockets.
pub(super) fn listeners(snapshot: &Snapshot) -> Vec<Arc<Listener>> {
    (0..SOCKETS).map(|number| Arc::clone(snapshot.at(address(number)))).collect()
}

/// Has `sessions` receive from all of them.
pub(super) fn listen(sessions: &mut Sessions, snapshot: &Snapshot) {
    for (number, listener) in (0..).zip(listeners(snapshot)) {
        sessions.handle_listening(number, listener);
    }
}
