//! Names, backends and configuration of the tests.

use std::net::SocketAddr;

use rpxy_l4_interop::ech::{Answer, keys::Keys, tls::Offer};
use rpxy_l4_tests::topology::GATEWAY_V4;
pub(crate) use rpxy_l4_tests::topology::at;

pub(crate) const PUBLIC: &str = "public.example";
pub(crate) const PRIVATE: &str = "private.example";
pub(crate) const OTHER: &str = "other.example";
/// All names, for the one certificate of all servers.
pub(crate) const NAMES: [&str; 4] = [PUBLIC, PRIVATE, OTHER, "a.wild.example"];

pub(crate) const PORT: u16 = 443;

/// The daemon as the client sees it.
pub(crate) fn front() -> SocketAddr {
    SocketAddr::from((GATEWAY_V4, PORT))
}

/// Port of the server of the public name. Those of the private names follow.
pub(crate) const PUBLIC_PORT: u16 = 7000;
pub(crate) const PRIVATE_PORT: u16 = 7001;
pub(crate) const OTHER_PORT: u16 = 7002;

/// A configuration whose `protocol` rule decrypts with the keys of `files`.
pub(crate) fn config(protocol: &str, files: &[&Keys], more: &str) -> String {
    let files: Vec<String> = files.iter().map(|keys| format!("{:?}", keys.file())).collect();
    format!(
        "listen_port = {PORT}\naccess_log_format = \"json\"\n\
         [protocols.\"public\"]\nprotocol = \"{protocol}\"\ntarget = [\"{}\"]\nserver_names = [\"{PUBLIC}\"]\n\
         [protocols.\"public\".ech]\nconfig_files = [{}]\n{more}\n\
         [[protocols.\"public\".ech.private]]\nserver_names = [\"{PRIVATE}\"]\ntarget = [\"{}\"]\n\
         [[protocols.\"public\".ech.private]]\nserver_names = [\"{OTHER}\", \"*.wild.example\"]\ntarget = [\"{}\"]\n",
        at(PUBLIC_PORT),
        files.join(", "),
        at(PRIVATE_PORT),
        at(OTHER_PORT),
    )
}

/// Hellos with the answers of the servers that they are for: case, server name, offer, answer without ALPN.
pub(crate) fn hellos(keys: &Keys) -> [(&'static str, &'static str, Offer, Answer); 5] {
    let encrypted = Offer::Encrypted(keys.list());
    [
        ("encrypted", PRIVATE, encrypted.clone(), Answer::private("private", PRIVATE)),
        ("another private name", OTHER, encrypted.clone(), Answer::private("other", OTHER)),
        ("wildcard", "a.wild.example", encrypted, Answer::private("other", "a.wild.example")),
        ("no ECH", PUBLIC, Offer::Nothing, Answer::plain("public", PUBLIC)),
        ("grease", PUBLIC, Offer::Grease, Answer::plain("public", PUBLIC)),
    ]
}
