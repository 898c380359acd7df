//! RFC 9849 section 7 line by line, where it concerns a client-facing server that decrypts and passes on.
//!
//! Not here, since others decide it: what is done with a rejected hello (C13, C22, C23, C24: `tcp`, `udp`), names resolved
//! ahead of time (C29), protection of the backend leg (C30: docs/ech.md), and what only the backend can do (C14, C21,
//! C25). Limits (C26) are `tls::MAX_HELLO` and the caller's `may_open`.
//!
//! C31 is not done: BoringSSL, as a server of the public name, refuses configurations that have an extension.

mod first;
mod generate;
mod inner;
mod pem;
mod second;
pub(crate) mod vectors;

use super::{EchKey, EchKeys, FirstHello, open_first};
use crate::{
    Probe,
    testing::{Hello, server_name},
    tls::ClientHello,
};

fn parsed(message: &[u8]) -> ClientHello {
    let Probe::Match(hello) = ClientHello::parse(message.to_vec()) else { panic!("not a hello") };
    hello
}

/// Opens a hello.
fn answer(keys: &EchKeys, message: &[u8]) -> FirstHello {
    open_first(keys, &parsed(message), || true)
}

/// The answer in a few words, for tables.
fn words(answer: &FirstHello) -> String {
    match answer {
        FirstHello::NotOffered => "not offered".to_owned(),
        FirstHello::Rejected(rejection) => format!("{rejection:?}"),
        FirstHello::Accepted { inner, .. } => inner.server_name().unwrap_or("no name").to_owned(),
        FirstHello::Invalid(alert) => alert.to_string(),
    }
}

fn keys(keys: impl IntoIterator<Item = EchKey>) -> EchKeys {
    keys.into_iter().collect()
}

/// The outer hello around the encrypted one.
fn outer() -> Hello {
    Hello::with(vec![(0, server_name("public.example")), (43, vec![4, 3, 4, 3, 3]), (51, vec![9; 38])])
}
