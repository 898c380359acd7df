//! What the tests share: the names, the backends and the configuration.

use std::net::SocketAddr;

use rpxy_l4_interop::ech::keys::Keys;
use rpxy_l4_tests::topology::{BACKENDS_V4, GATEWAY_V4};

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

/// A port of the backends' host.
pub(crate) fn at(port: u16) -> SocketAddr {
    SocketAddr::from((BACKENDS_V4[0], port))
}

/// Where the servers are: of the public name, of the private ones.
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
