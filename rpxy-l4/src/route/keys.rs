//! Rules for WireGuard by the public key of their server.
//!
//! Precedence: a rule whose key fits before one without a key; then the smallest network that the client is in; and then
//! the order of the file. All conditions of a rule must hold.

use std::{net::IpAddr, sync::Arc};

use rpxy_l4_common::mac1::Mac1Key;
use rpxy_l4_proto::wireguard::{self, Message, Reserved};

use super::{
    from::{From, most_specific},
    mac1::Initiation,
};

/// Rules for WireGuard, each leading to a `T`.
#[derive(Debug)]
pub(crate) struct KeyTable<T>(Vec<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    key: Option<Mac1Key>,
    reserved: Reserved,
    from: Arc<From>,
    to: Arc<T>,
}

impl<T> Default for KeyTable<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> KeyTable<T> {
    /// Adds a rule behind those added before.
    pub(super) fn add(&mut self, key: Option<&[u8; 32]>, reserved: Reserved, from: &Arc<From>, to: &Arc<T>) {
        let (key, from, to) = (key.map(Mac1Key::new), Arc::clone(from), Arc::clone(to));
        self.0.push(Entry { key, reserved, from, to });
    }

    /// Returns whether there is no rule at all.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A message that some rule may be about.
    #[must_use]
    pub(super) fn message(&self, datagram: &[u8]) -> Option<Message> {
        let reserved = self.0.iter().any(|rule| rule.reserved == Reserved::Any);
        let reserved = if reserved { Reserved::Any } else { Reserved::Zero };
        if self.is_empty() { None } else { wireguard::parse(datagram, reserved) }
    }

    /// The rule for a handshake initiation of a client at `source`; `None` when none fits.
    #[must_use]
    pub(super) fn find(&self, initiation: &[u8], source: IpAddr) -> Option<&Arc<T>> {
        let accepts =
            |rule: &&Entry<T>| rule.from.holds(source) && wireguard::parse(initiation, rule.reserved).is_some();
        let mut read = Initiation::read(initiation);
        let mut fits = |key: &Mac1Key| read.as_mut().is_some_and(|read| read.is_for(key));
        let key = self.0.iter().filter(accepts).filter_map(|rule| rule.key.as_ref()).find(|key| fits(key));
        let best = |key: Option<&Mac1Key>| {
            let with_key = self.0.iter().filter(|rule| rule.key.as_ref() == key).filter(accepts);
            most_specific(with_key.map(|rule| (&*rule.from, &rule.to)), source)
        };
        key.and_then(|key| best(Some(key))).or_else(|| best(None))
    }
}
