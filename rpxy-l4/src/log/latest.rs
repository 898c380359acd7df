//! The latest refusals, for whoever looks at the daemon: few of each kind, so that what strangers can forge hides nothing
//! else.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::refused::{Kind, LONGEST_NAME, Refused};
use crate::{escape, net::Address, overview};

/// Refusals kept of each kind.
const KEPT: usize = 20;

/// The latest refusals by kind. At the rate of [`Gate`](super::refused::Gate), nobody waits for the lock.
#[derive(Debug, Default)]
pub(super) struct Latest([Mutex<VecDeque<Kept>>; 3]);

#[derive(Debug)]
struct Kept {
    when: Instant,
    proto: &'static str,
    source: Address,
    listener: Address,
    reason: &'static str,
    server_name: Option<Arc<str>>,
}

impl Latest {
    /// Keeps one more; the oldest of its kind goes.
    pub(super) fn keep(&self, kind: Kind, refused: &Refused<'_>, when: Instant) {
        let Refused { proto, source, listener, reason, server_name } = refused;
        let (source, listener) = (source.clone(), listener.clone());
        let server_name = server_name.map(|name| escape::bounded(name, LONGEST_NAME).into());
        let Some(kept) = self.0.get(kind as usize) else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(Kept { when, proto, source, listener, reason, server_name });
    }

    /// All of them at `now`, the latest first.
    pub(super) fn list(&self, now: Instant) -> Vec<overview::Refused> {
        let told = |kept: &Kept| overview::Refused {
            age_ms: u64::try_from(now.saturating_duration_since(kept.when).as_millis()).unwrap_or(u64::MAX),
            proto: kept.proto.into(),
            source: kept.source.to_string(),
            listener: kept.listener.to_string(),
            reason: kept.reason.into(),
            server_name: kept.server_name.clone(),
        };
        let of = |kept: &Mutex<VecDeque<Kept>>| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).iter().map(told).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.0.iter().flat_map(of).collect();
        all.sort_by_key(|refused| refused.age_ms);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_keeps_its_latest() {
        let latest = Latest::default();
        let began = Instant::now();
        let keep = |kind, name: &str, ms| {
            let address = Address::from("192.0.2.1:1".parse::<std::net::SocketAddr>().unwrap());
            let server_name = Some(name);
            let refused =
                Refused { proto: "tcp", source: address.clone(), listener: address, reason: "banned", server_name };
            latest.keep(kind, &refused, began + Duration::from_millis(ms));
        };
        keep(Kind::Tcp, "first", 1);
        (0..100).for_each(|number| keep(Kind::Udp, &number.to_string(), 10 + number));
        keep(Kind::Tcp, &"x".repeat(300), 200);
        let list = latest.list(began + Duration::from_millis(201));
        let names: Vec<&str> = list.iter().map(|refused| refused.server_name.as_deref().unwrap()).collect();
        assert_eq!((names.len(), names[0].len()), (2 + KEPT, LONGEST_NAME));
        assert_eq!(
            (names[1], names[KEPT], names[KEPT + 1]),
            ("99", "80", "first"),
            "a flood hides nothing of another kind"
        );
        assert_eq!((list[0].age_ms, list[KEPT + 1].age_ms), (1, 200));
    }
}
