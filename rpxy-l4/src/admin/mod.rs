//! The admin socket: commands of an operator on the same machine, one JSON object a line in, JSON lines out.
//!
//! This module has the protocol ([`Command`], [`Answer`]) and its server; the client is `commands::client`. The
//! supervisor takes the [`Request`]s and carries them out. docs/admin.md is the contract.

mod server;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::sync::{mpsc, oneshot};

use crate::escape;

pub(crate) use server::serve;

/// Flows shown unless the command says how many.
pub(crate) const FLOWS: usize = 1000;
/// Flows shown at most: a worker that makes the list does nothing else meanwhile.
pub(crate) const MOST_FLOWS: usize = 10_000;
/// Requests on their way to the supervisor; further ones wait.
const QUEUE: usize = 16;

/// A request of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Command {
    /// The state and load of the daemon.
    Status {},
    /// The UDP sessions.
    Flows {
        /// So many at most.
        #[serde(default = "default_flows")]
        limit: usize,
    },
    /// Refuse a network.
    Ban {
        /// The network.
        #[serde(serialize_with = "write_network", deserialize_with = "read_network")]
        network: IpNet,
    },
    /// Let a network in again.
    Unban {
        /// The network.
        #[serde(serialize_with = "write_network", deserialize_with = "read_network")]
        network: IpNet,
    },
    /// The networks that are refused.
    Bans {},
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Done {
        /// JSON objects, one a line.
        lines: Vec<String>,
        /// There is more than was asked for.
        more: bool,
    },
    /// It was not.
    Refused(Refusal),
}

/// The error of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    /// The error, in one line.
    pub error: String,
    /// A way out.
    pub remedy: String,
}

impl Answer {
    /// A single line.
    #[must_use]
    pub(crate) fn one(value: &impl Serialize) -> Self {
        Self::lines([value])
    }

    /// A line for each value.
    #[must_use]
    pub(crate) fn lines<T: Serialize>(values: impl IntoIterator<Item = T>) -> Self {
        match values.into_iter().map(|value| serde_json::to_string(&value).map(escape::json)).collect() {
            Ok(lines) => Self::Done { lines, more: false },
            Err(error) => Self::refused(error.to_string(), "report it: this is a bug"),
        }
    }

    /// Not done.
    #[must_use]
    pub(crate) fn refused(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused(Refusal { error: error.into(), remedy: remedy.into() })
    }
}

/// A command that waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    /// The request.
    pub command: Command,
    /// The way back; the client may have left.
    pub answer: oneshot::Sender<Answer>,
}

/// Creates the queue between the server and the supervisor.
#[must_use]
pub(crate) fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}

fn default_flows() -> usize {
    FLOWS
}

fn write_network<S: Serializer>(network: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(network)
}

fn read_network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::limit::network(&text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is not a network")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_documented() {
        let network = |text: &str| crate::limit::network(text).unwrap();
        for (text, expected) in [
            (r#"{"command":"status"}"#, Some(Command::Status {})),
            (r#" { "command" : "bans" } "#, Some(Command::Bans {})),
            (r#"{"command":"flows"}"#, Some(Command::Flows { limit: FLOWS })),
            (r#"{"limit":7,"command":"flows"}"#, Some(Command::Flows { limit: 7 })),
            (r#"{"command":"ban","network":"192.0.2.7/24"}"#, Some(Command::Ban { network: network("192.0.2.0/24") })),
            (r#"{"command":"ban","network":"::1"}"#, Some(Command::Ban { network: network("::1/128") })),
            (r#"{"command":"unban","network":"::/0"}"#, Some(Command::Unban { network: network("::/0") })),
            (r#"{"command":"flows","limit":-1}"#, None),
            (r#"{"command":"flows","limits":1}"#, None),
            (r#"{"command":"status","limit":1}"#, None),
            (r#"{"command":"ban"}"#, None),
            (r#"{"command":"ban","network":"192.0.2.0/33"}"#, None),
            (r#"{"command":"Status"}"#, None),
            (r#"{"command":"stop"}"#, None),
            (r#""status""#, None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(serde_json::from_str(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn commands_come_back_as_they_were_written() {
        let network = "2001:db8::/32".parse().unwrap();
        for command in [
            Command::Status {},
            Command::Flows { limit: 3 },
            Command::Ban { network },
            Command::Unban { network },
            Command::Bans {},
        ] {
            let text = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command, "{text}");
        }
    }
}
