//! The connections of each worker, for an operator who lists and closes them.
//!
//! A connection never leaves its worker, so the registry is the thread's own: entering, noting and leaving take no lock.
//! A relay notes its bytes after a turn in which some moved. Nothing waits for an order to close: closing drops the
//! connection's task.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};
use slab::Slab;
use tokio::task::AbortHandle;

use crate::{
    config::model::Transport,
    id::Id,
    log::Access,
    net::Address,
    route::{Protocol, Selection},
};

thread_local! {
    static REGISTRY: RefCell<Registry> = const { RefCell::new(Registry { worker: 0, serial: 0, entries: Slab::new() }) };
}

#[derive(Debug)]
struct Registry {
    /// Number of the worker whose it is.
    worker: u32,
    /// Number of the connection that entered last.
    serial: u32,
    entries: Slab<Entry>,
}

/// A connection of one worker; never reused for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionKey {
    /// Its slot.
    pub slot: u32,
    /// Tells it from earlier ones in that slot.
    pub serial: u32,
}

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Entry {
    serial: u32,
    /// Its peer, or the client that an inbound PROXY header names.
    pub(super) client: Address,
    /// The address that is listened on.
    listener: Address,
    listener_name: Arc<str>,
    pub(super) since: Instant,
    /// When bytes moved last.
    seen: Instant,
    up: u64,
    down: u64,
    /// Where it goes, once that is decided.
    pub(super) route: Option<Routed>,
    /// Once there is a backend.
    pub(super) access: Option<Access>,
    task: Option<AbortHandle>,
    /// An operator has closed it.
    pub(super) closed: bool,
}

/// The decision about a connection.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) protocol: Protocol,
    /// `None` for the default targets.
    pub(super) rule: Option<Arc<str>>,
    /// The server name in the clear.
    pub(super) server_name: Option<Box<str>>,
    /// The server name in the decrypted hello.
    pub(super) inner_server_name: Option<Box<str>>,
}

/// Has the registry of this thread be that of the worker of this number.
pub(crate) fn enter_worker(number: u32) {
    REGISTRY.with_borrow_mut(|registry| registry.worker = number);
}

/// A connection's entry, removed when this is dropped. Belongs to the thread that made it.
#[derive(Debug, Default)]
pub(super) struct Entered {
    slot: Option<usize>,
}

impl Entered {
    /// Enters a connection from `client`, accepted at the address `listener` of the listener with this name.
    pub(super) fn new(client: Address, listener: Address, listener_name: Arc<str>) -> Self {
        let slot = REGISTRY.with_borrow_mut(|registry| {
            registry.serial = registry.serial.wrapping_add(1);
            let now = Instant::now();
            registry.entries.insert(Entry {
                serial: registry.serial,
                client,
                listener,
                listener_name,
                since: now,
                seen: now,
                up: 0,
                down: 0,
                route: None,
                access: None,
                task: None,
                closed: false,
            })
        });
        Self { slot: Some(slot) }
    }

    /// Where the entry is, for who starts the connection's task.
    pub(super) fn slot(&self) -> Option<usize> {
        self.slot
    }

    /// Bytes have moved: so many in all by now.
    pub(super) fn note(&self, up: u64, down: u64) {
        // Of all clocks, the one that costs no system call wherever the C library has a vDSO: this is done for every exchange.
        self.with(|entry| (entry.seen, entry.up, entry.down) = (Instant::now(), up, down));
    }

    /// Has `action` look at or change the entry; `None` if there is none.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.with_id(|_, entry| action(entry))
    }

    /// The same with the connection's name.
    pub(super) fn with_id<T>(&self, action: impl FnOnce(Id, &mut Entry) -> T) -> Option<T> {
        let slot = self.slot?;
        REGISTRY.with_borrow_mut(|registry| {
            let entry = registry.entries.get_mut(slot)?;
            Some(action(entry.id(registry.worker, slot), entry))
        })
    }

    /// Takes the entry out, with the connection's name.
    pub(super) fn leave(&mut self) -> Option<(Id, Entry)> {
        let slot = self.slot.take()?;
        let leave = |registry: &RefCell<Registry>| {
            let mut registry = registry.try_borrow_mut().ok()?;
            let entry = registry.entries.try_remove(slot)?;
            Some((entry.id(registry.worker, slot), entry))
        };
        // A thread that ends has no registry any more, and nobody who asks.
        REGISTRY.try_with(leave).ok().flatten()
    }
}

/// Sets the task that is dropped when an operator closes the connection in `slot`, which has just entered.
pub(super) fn run_by(slot: Option<usize>, task: AbortHandle) {
    let Some(slot) = slot else { return };
    REGISTRY.with_borrow_mut(|registry| {
        if let Some(entry) = registry.entries.get_mut(slot) {
            entry.task = Some(task);
        }
    });
}

/// Returns whether an operator has closed the connection in `slot`.
pub(super) fn is_closed(slot: Option<usize>) -> bool {
    let closed = |slot| REGISTRY.try_with(|registry| Some(registry.try_borrow().ok()?.entries.get(slot)?.closed)).ok();
    slot.and_then(closed).flatten().unwrap_or(false)
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

/// One connection as `rpxy-l4 connections` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ConnectionLine {
    /// The connection.
    #[serde(skip)]
    pub key: ConnectionKey,
    /// The client.
    pub client: Address,
    /// The address that is listened on.
    pub listener: Address,
    /// The listener's name.
    pub listener_name: Arc<str>,
    /// The stage: `undecided`, `opening` or `open`.
    pub stage: &'static str,
    /// The protocol, as in the access log.
    pub carries: &'static str,
    /// The rule; none for the default targets and while undecided.
    pub rule: Option<Arc<str>>,
    /// The server name that the client asks for in the clear.
    pub server_name: Option<Box<str>>,
    /// The server name in the decrypted hello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_server_name: Option<Box<str>>,
    /// The target; none while there is no backend.
    pub target: Option<Arc<str>>,
    /// The backend.
    pub backend: Option<Address>,
    /// Since it was accepted.
    #[serde(rename = "age_ms", serialize_with = "milliseconds")]
    pub age: Duration,
    /// Since a byte moved.
    #[serde(rename = "idle_ms", serialize_with = "milliseconds")]
    pub idle: Duration,
    /// Payload bytes from the client.
    pub bytes_up: u64,
    /// Payload bytes from the backend.
    pub bytes_down: u64,
}

/// Lines about `limit` connections of this worker at most, of those that are selected.
pub(crate) fn connections(limit: usize, selection: &Selection) -> Vec<ConnectionLine> {
    let now = Instant::now();
    REGISTRY.with_borrow(|registry| {
        let all = registry.entries.iter();
        let selected = all.filter(|(_, entry)| {
            let rule = entry.route.as_ref().and_then(|route| route.rule.as_deref());
            selection.includes(
                entry.client.ip().map(|client| client.ip()),
                rule,
                entry.target().map(|target| &**target),
            )
        });
        selected.take(limit).map(|(slot, entry)| entry.line(slot, now)).collect()
    })
}

/// Closes a connection of this worker: both its ends are reset. Returns whether there is such a connection.
pub(crate) fn close(key: ConnectionKey) -> bool {
    let task = REGISTRY.with_borrow_mut(|registry| {
        let entry = registry.entries.get_mut(usize::try_from(key.slot).ok()?)?;
        let task = if entry.serial == key.serial { entry.task.take()? } else { return None };
        entry.closed = true;
        Some(task)
    });
    task.inspect(AbortHandle::abort).is_some()
}

impl Entry {
    fn id(&self, worker: u32, slot: usize) -> Id {
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        Id { transport: Transport::Tcp, worker, slot, serial: self.serial }
    }

    /// The target that the backend is an address of, once there is one.
    fn target(&self) -> Option<&Arc<str>> {
        self.access.as_ref().map(|access| &access.target)
    }

    fn line(&self, slot: usize, now: Instant) -> ConnectionLine {
        let route = self.route.as_ref();
        let age = now.saturating_duration_since(self.since);
        ConnectionLine {
            key: ConnectionKey { slot: u32::try_from(slot).unwrap_or(u32::MAX), serial: self.serial },
            client: self.client.clone(),
            listener: self.listener.clone(),
            listener_name: Arc::clone(&self.listener_name),
            stage: match (route, &self.access) {
                (_, Some(_)) => "open",
                (Some(_), None) => "opening",
                (None, None) => "undecided",
            },
            carries: route.map_or(Protocol::Any, |route| route.protocol).name(),
            rule: route.and_then(|route| route.rule.clone()),
            server_name: route.and_then(|route| route.server_name.clone()),
            inner_server_name: route.and_then(|route| route.inner_server_name.clone()),
            target: self.target().cloned(),
            backend: self.access.as_ref().map(|access| access.destination.clone()),
            age,
            idle: now.saturating_duration_since(self.seen),
            bytes_up: self.up,
            bytes_down: self.down,
        }
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    fn enter(client: &str) -> Entered {
        Entered::new(address(client), address("0.0.0.0:443"), "default".into())
    }

    #[test]
    fn a_connection_is_listed_from_its_beginning_to_its_end() {
        let all = Selection::default();
        let entered = enter("192.0.2.1:5");
        let [line] = connections(9, &all).try_into().unwrap();
        assert_eq!((line.client, line.stage, line.carries), (address("192.0.2.1:5"), "undecided", "tcp"));
        entered.with(|entry| {
            entry.route = Some(Routed {
                protocol: Protocol::Tls,
                rule: Some("web".into()),
                server_name: Some("a.example".into()),
                inner_server_name: None,
            });
        });
        entered.note(7, 9);
        let [line] = connections(9, &all).try_into().unwrap();
        assert_eq!((line.stage, line.carries, line.rule.as_deref()), ("opening", "tcp:tls", Some("web")));
        assert_eq!((line.bytes_up, line.bytes_down, line.server_name.as_deref()), (7, 9, Some("a.example")));
        assert!(line.idle <= line.age, "{line:?}");
        drop(entered);
        assert_eq!(connections(9, &all), []);
    }

    #[test]
    fn lists_are_bounded_and_selected() {
        let entered = ["192.0.2.1:1", "192.0.2.2:1", "198.51.100.1:1"].map(enter);
        let select = |client: &str| Selection { client: crate::limit::network(client), ..Selection::default() };
        for (row, limit, selection, expected) in [
            ("all", 9, Selection::default(), 3),
            ("as many as there are", 3, Selection::default(), 3),
            ("fewer", 2, Selection::default(), 2),
            ("of a network", 9, select("192.0.2.0/24"), 2),
            ("of an address", 9, select("192.0.2.2"), 1),
            ("of nobody", 9, select("203.0.113.0/24"), 0),
            ("of a rule", 9, Selection { rule: Some("web".to_owned()), ..Selection::default() }, 0),
        ] {
            assert_eq!(connections(limit, &selection).len(), expected, "{row}");
        }
        drop(entered);
    }

    #[tokio::test]
    async fn closing_drops_the_task_of_that_connection_alone() {
        let run = |client| {
            let entered = enter(client);
            let slot = entered.slot();
            let (said, closed) = tokio::sync::oneshot::channel::<()>();
            let owned = (said, entered);
            let task = tokio::spawn(async move {
                let _owned = owned;
                std::future::pending::<()>().await;
            });
            run_by(slot, task.abort_handle());
            closed
        };
        let (first, mut second) = (run("192.0.2.1:1"), run("192.0.2.2:1"));
        let key = connections(1, &Selection::default())[0].key;
        for (row, wrong) in [
            ("an earlier one in its slot", ConnectionKey { serial: key.serial.wrapping_sub(1), ..key }),
            ("a slot that is free", ConnectionKey { slot: 99, ..key }),
        ] {
            assert!(!close(wrong), "{row}");
        }
        assert!(close(key));
        assert!(!close(key), "it is closed already");
        first.await.unwrap_err();
        assert!(second.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty));
        assert_eq!(connections(9, &Selection::default()).len(), 1);
    }
}
