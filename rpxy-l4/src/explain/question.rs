//! The question: first bytes of a client at an address, to a listener.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::config::model::Transport;

/// Other rules that are told of unless the question says how many.
pub(crate) const LISTED: usize = 20;
/// First bytes at most: as many as are kept of a connection that is not decided yet.
pub(crate) const MOST_BYTES: usize = 80 << 10;
/// First datagrams at most.
pub(crate) const MOST_DATAGRAMS: usize = 64;

/// Where would this go?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// Over TCP or UDP.
    pub transport: Transport,
    /// Name of the listener; the only one, or `default`, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The client. Port 0 is any.
    pub from: SocketAddr,
    /// The first bytes: of TCP as they would arrive, of UDP each a datagram. In base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "write", deserialize_with = "read")]
    pub first: Vec<Vec<u8>>,
    /// Of the other rules, tell only of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Of the other rules, tell of so many.
    #[serde(default = "listed")]
    pub limit: usize,
}

fn listed() -> usize {
    LISTED
}

fn write<S: Serializer>(first: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(first.iter().map(|bytes| STANDARD.encode(bytes)))
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.len() > MOST_DATAGRAMS {
        return Err(D::Error::custom(format_args!("more than {MOST_DATAGRAMS} datagrams")));
    }
    let first: Result<Vec<Vec<u8>>, _> = texts.iter().map(|text| STANDARD.decode(text)).collect();
    let first = first.map_err(|error| D::Error::custom(format_args!("first: {error}")))?;
    if first.iter().map(Vec::len).sum::<usize>() > MOST_BYTES {
        return Err(D::Error::custom(format_args!("more than {MOST_BYTES} first bytes")));
    }
    Ok(first)
}
