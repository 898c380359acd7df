//! Where hellos go that a rule decrypts.

use std::sync::Arc;

use rpxy_l4_proto::{ech::EchKeys, tls::ClientHello};

use super::{Conditions, NameTable};
use crate::config::model::{Ech, EchPolicy, Upstream};

/// The `ech` table of a rule, compiled: keys, and private names leading to a `T`.
#[derive(Debug)]
pub struct EchRoute<T> {
    /// What opens hellos.
    pub keys: EchKeys,
    /// What happens to which hellos.
    pub policy: EchPolicy,
    private: NameTable<T>,
}

impl<T> EchRoute<T> {
    /// Compiles `ech`; `to` makes what a group of private targets leads to.
    pub fn new(ech: &Ech, mut to: impl FnMut(&Upstream) -> Arc<T>) -> Self {
        let mut private = NameTable::default();
        for entry in &ech.private {
            private.add(Conditions { names: &entry.server_names, alpns: &entry.alpns }, &to(&entry.upstream));
        }
        Self { keys: ech.keys.clone(), policy: ech.policy, private }
    }

    /// Where a decrypted hello goes; `None` when no private name fits.
    #[must_use]
    pub fn find(&self, inner: &ClientHello) -> Option<&Arc<T>> {
        let alpns: Vec<&[u8]> = inner.alpn().collect();
        self.private.find(inner.server_name(), &alpns)
    }

    /// What the private names lead to.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.private.iter()
    }
}
