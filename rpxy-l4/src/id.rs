//! The names of connections and sessions: `t0-17-5`, for an operator to copy from a list.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::config::model::Transport;

/// A connection (`t`) or session (`u`) of the daemon: its worker, its slot there, and what tells it from earlier ones in
/// that slot. Never reused while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    /// What it is one of.
    pub transport: Transport,
    /// Number of the worker.
    pub worker: u32,
    /// Slot in the worker's table.
    pub slot: u32,
    /// Number in that table.
    pub serial: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, worker, slot, serial } = self;
        let letter = match transport {
            Transport::Tcp => 't',
            Transport::Udp => 'u',
        };
        write!(f, "{letter}{worker}-{slot}-{serial}")
    }
}

/// The text names no connection or session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an ID as `connections` and `flows` list them, such as t0-17-5")]
pub(crate) struct NotAnId;

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (transport, rest) = match text.split_at_checked(1) {
            Some(("t", rest)) => (Transport::Tcp, rest),
            Some(("u", rest)) => (Transport::Udp, rest),
            _ => return Err(NotAnId),
        };
        // Exactly as it is written, so that one thing has one name.
        let number = |text: &str| text.parse().ok().filter(|number: &u32| number.to_string() == text).ok_or(NotAnId);
        let mut numbers = rest.splitn(3, '-').map(number);
        let mut next = || numbers.next().unwrap_or(Err(NotAnId));
        Ok(Self { transport, worker: next()?, slot: next()?, serial: next()? })
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_not_otherwise() {
        let id = |transport, worker, slot, serial| Ok(Id { transport, worker, slot, serial });
        for (text, expected) in [
            ("t0-17-5", id(Transport::Tcp, 0, 17, 5)),
            ("u3-0-4294967295", id(Transport::Udp, 3, 0, u32::MAX)),
            ("t0-17-4294967296", Err(NotAnId)),
            ("t0-17", Err(NotAnId)),
            ("t0-17-5-1", Err(NotAnId)),
            ("t0-017-5", Err(NotAnId)),
            ("t0-+17-5", Err(NotAnId)),
            ("x0-17-5", Err(NotAnId)),
            ("0-17-5", Err(NotAnId)),
            ("é0-17-5", Err(NotAnId)),
            ("t", Err(NotAnId)),
            ("", Err(NotAnId)),
        ] {
            let read: Result<Id, NotAnId> = text.parse();
            assert_eq!(read, expected, "{text:?}");
            if let Ok(id) = read {
                assert_eq!(id.to_string(), text);
            }
        }
    }
}
