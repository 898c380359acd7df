//! Opening of hellos that may bring Encrypted Client Hello (RFC 9849 section 7.1).

use std::fmt;

use super::{Alert, CipherSuite, EchKeys, hpke, hpke::Receiver, inner, outer::Outer};
use crate::tls::ClientHello;

/// The first hello of a connection, opened or not.
#[derive(Debug)]
pub enum FirstHello {
    /// It does not have the extension `encrypted_client_hello`.
    NotOffered,
    /// It goes on as it is, by its outer name; so does its second hello after a HelloRetryRequest.
    Rejected(Rejection),
    /// It was opened.
    Accepted {
        /// The hello that the backend gets in its place.
        inner: Box<ClientHello>,
        /// Opens the second hello, if the backend asks for one.
        context: Context,
    },
    /// No correct client sends this.
    Invalid(Alert),
}

/// Reason for which a hello was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// There is no key for its configuration: it was made for another, or is grease (RFC 9849 section 6.2).
    UnknownConfig,
    /// There is, but the configuration does not offer its cipher suite.
    UnknownSuite,
    /// The caller did not allow to try.
    Limited,
    /// It did not open with any of the keys of its configuration number.
    Undecryptable,
}

/// The HPKE context of an accepted hello, with what must not change in the second.
pub struct Context {
    receiver: Box<dyn Receiver>,
    suite: CipherSuite,
    config_id: u8,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("suite", &self.suite)
            .field("config_id", &self.config_id)
            .finish_non_exhaustive()
    }
}

/// Opens the first hello of a connection with one of `keys`.
///
/// Opening costs some 0.1 ms; `may_open` is asked before the first try, and not at all when there is nothing to try.
pub fn open_first(keys: &EchKeys, hello: &ClientHello, may_open: impl FnOnce() -> bool) -> FirstHello {
    let outer = match Outer::of(hello) {
        Ok(Some(outer)) => outer,
        Ok(None) => return FirstHello::NotOffered,
        Err(alert) => return FirstHello::Invalid(alert),
    };
    let mut candidates = keys.with_config_id(outer.config_id).peekable();
    if candidates.peek().is_none() {
        return FirstHello::Rejected(Rejection::UnknownConfig);
    }
    let offered = |key: &&super::EchKey| key.config().cipher_suites.contains(&outer.suite);
    let mut candidates = candidates.filter(offered).peekable();
    if candidates.peek().is_none() || !hpke::is_known(outer.suite) {
        return FirstHello::Rejected(Rejection::UnknownSuite);
    }
    if !may_open() {
        return FirstHello::Rejected(Rejection::Limited);
    }
    let aad = outer.aad();
    let opened = candidates.find_map(|key| {
        let mut receiver = key.secret().receiver(outer.suite, outer.enc, key.info())?;
        Some((receiver.open(&aad, outer.payload)?, receiver))
    });
    let Some((encoded, receiver)) = opened else { return FirstHello::Rejected(Rejection::Undecryptable) };
    match inner::decode(&encoded, hello) {
        Ok(inner) => {
            let context = Context { receiver, suite: outer.suite, config_id: outer.config_id };
            FirstHello::Accepted { inner: Box::new(inner), context }
        }
        Err(alert) => FirstHello::Invalid(alert),
    }
}

impl Context {
    /// Opens the hello that answers a HelloRetryRequest, in the context of the first (RFC 9849 section 7.1.1).
    ///
    /// The route stays that of the first hello, whatever name the second has.
    ///
    /// # Errors
    ///
    /// The alert to answer with.
    pub fn second(&mut self, hello: &ClientHello) -> Result<ClientHello, Alert> {
        let outer = Outer::of(hello)?.ok_or(Alert::MissingExtension)?;
        if outer.suite != self.suite || outer.config_id != self.config_id || !outer.enc.is_empty() {
            return Err(Alert::IllegalParameter);
        }
        let encoded = self.receiver.open(&outer.aad(), outer.payload).ok_or(Alert::DecryptError)?;
        inner::decode(&encoded, hello)
    }
}
