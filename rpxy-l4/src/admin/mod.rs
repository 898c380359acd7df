//! The admin socket: commands of an operator on the same machine, one JSON object a line in, JSON lines out.
//!
//! This module has the protocol ([`Command`], [`Answer`]) and its server; the client is `commands::client`. The
//! supervisor takes the [`Request`]s and carries them out. docs/admin.md is the contract.

mod server;

use std::os::unix::fs::MetadataExt as _;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::sync::{mpsc, oneshot};

pub(crate) use server::serve;

use crate::{config::model::Transport, escape, explain::Question, id::Id, route::Selection};

/// Lines of a list unless the command says how many.
pub(crate) const LISTED: usize = 1000;
/// Lines of a list at most: a worker that makes one does nothing else meanwhile.
pub(crate) const MOST_LISTED: usize = 10_000;
/// Requests on their way to the supervisor; further ones wait.
const QUEUE: usize = 16;

/// A request of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Command {
    /// The state and load of the daemon.
    Status {},
    /// All that an overview tells.
    Overview {},
    /// What this client may ask for.
    Rights {},
    /// The UDP sessions.
    Flows(List),
    /// The TCP connections.
    Connections(List),
    /// End a connection or session.
    Close {
        /// As the lists name it.
        id: Id,
    },
    /// The targets of all rules.
    Targets {},
    /// What would become of a connection or datagram.
    Explain(Question),
    /// Let nothing new go to a target.
    Drain(TargetArgs),
    /// Let a target have new connections and sessions again.
    Up(TargetArgs),
    /// Let nothing new in.
    #[serde(rename = "drain_listeners")]
    DrainListeners(ListenerArgs),
    /// Let new connections and sessions in again.
    #[serde(rename = "up_listeners")]
    UpListeners(ListenerArgs),
    /// Hand over to a successor, from the answer on in its own protocol.
    #[serde(rename = "hand_over")]
    HandOver {
        /// Version of that.
        version: u32,
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

/// The connections or sessions to be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// So many at most.
    #[serde(default = "default_limit")]
    pub limit: usize,
    /// Only those of clients in this network.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_optional_network",
        deserialize_with = "read_optional_network"
    )]
    pub client: Option<IpNet>,
    /// Only those of this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Only those of this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A target of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetArgs {
    /// As `targets` writes it.
    pub target: String,
    /// Of one transport only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
}

/// One listener, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerArgs {
    /// Name of the listener; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
}

impl Command {
    /// Returns whether it changes something; other commands only read.
    #[must_use]
    pub(crate) fn changes(&self) -> bool {
        match self {
            Self::Status {}
            | Self::Overview {}
            | Self::Rights {}
            | Self::Flows(_)
            | Self::Connections(_)
            | Self::Targets {}
            | Self::Explain(_)
            | Self::Bans {} => false,
            Self::Close { .. }
            | Self::Drain(_)
            | Self::Up(_)
            | Self::DrainListeners(_)
            | Self::UpListeners(_)
            | Self::HandOver { .. }
            | Self::Ban { .. }
            | Self::Unban { .. } => true,
        }
    }
}

impl List {
    /// The conditions.
    #[must_use]
    pub(crate) fn selection(&self) -> Selection {
        Selection { client: self.client, rule: self.rule.clone(), target: self.target.clone() }
    }
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

/// Device and inode of the program that this process runs, by which `status` tells it from another one at its path.
#[must_use]
pub(crate) fn own_binary() -> Option<String> {
    let program = std::fs::metadata("/proc/self/exe").ok()?;
    Some(format!("{}:{}", program.dev(), program.ino()))
}

/// A process that wants to succeed this one, and waits for the answer.
#[derive(Debug)]
pub(crate) struct Successor {
    /// Its connection.
    pub stream: tokio::net::UnixStream,
    /// Version of the protocol that it speaks.
    pub version: u32,
}

/// Creates the queue of successors, of which there is one at a time.
#[must_use]
pub(crate) fn successors() -> (mpsc::Sender<Successor>, mpsc::Receiver<Successor>) {
    mpsc::channel(1)
}

/// Creates the queue between the server and the supervisor.
#[must_use]
pub(crate) fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}

fn default_limit() -> usize {
    LISTED
}

#[expect(clippy::ref_option, reason = "the form that serde asks for")]
fn write_optional_network<S: Serializer>(network: &Option<IpNet>, serializer: S) -> Result<S::Ok, S::Error> {
    match network {
        Some(network) => write_network(network, serializer),
        None => serializer.serialize_none(),
    }
}

fn read_optional_network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpNet>, D::Error> {
    read_network(deserializer).map(Some)
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

    fn list(limit: usize) -> List {
        List { limit, client: None, rule: None, target: None }
    }

    fn target(transport: Option<Transport>) -> TargetArgs {
        TargetArgs { target: "b:1".to_owned(), transport }
    }

    fn listener(name: &str) -> ListenerArgs {
        ListenerArgs { listener: Some(name.to_owned()) }
    }

    #[test]
    fn commands_are_read_as_documented() {
        let network = |text: &str| crate::limit::network(text).unwrap();
        for (text, expected) in [
            (r#"{"command":"status"}"#, Some(Command::Status {})),
            (r#" { "command" : "bans" } "#, Some(Command::Bans {})),
            (r#"{"command":"overview"}"#, Some(Command::Overview {})),
            (r#"{"command":"rights"}"#, Some(Command::Rights {})),
            (r#"{"command":"flows"}"#, Some(Command::Flows(list(LISTED)))),
            (r#"{"limit":7,"command":"flows"}"#, Some(Command::Flows(list(7)))),
            (r#"{"command":"connections"}"#, Some(Command::Connections(list(LISTED)))),
            (
                r#"{"command":"connections","client":"192.0.2.0/24","rule":"a","target":"b:1","limit":2}"#,
                Some(Command::Connections(List {
                    client: Some(network("192.0.2.0/24")),
                    rule: Some("a".to_owned()),
                    target: Some("b:1".to_owned()),
                    ..list(2)
                })),
            ),
            (r#"{"command":"connections","client":"everybody"}"#, None),
            (r#"{"command":"connections","clients":"192.0.2.0/24"}"#, None),
            (r#"{"command":"close","id":"t0-1-2"}"#, Some(Command::Close { id: "t0-1-2".parse().unwrap() })),
            (r#"{"command":"close","id":"1"}"#, None),
            (r#"{"command":"targets"}"#, Some(Command::Targets {})),
            (r#"{"command":"drain","target":"b:1"}"#, Some(Command::Drain(target(None)))),
            (r#"{"command":"up","target":"b:1","transport":"udp"}"#, Some(Command::Up(target(Some(Transport::Udp))))),
            (r#"{"command":"drain"}"#, None),
            (r#"{"command":"up","target":"b:1","transport":"sctp"}"#, None),
            (r#"{"command":"drain_listeners"}"#, Some(Command::DrainListeners(ListenerArgs::default()))),
            (r#"{"command":"drain_listeners","listener":"wg"}"#, Some(Command::DrainListeners(listener("wg")))),
            (r#"{"command":"up_listeners"}"#, Some(Command::UpListeners(ListenerArgs::default()))),
            (r#"{"command":"up_listeners","listener":1}"#, None),
            (r#"{"command":"up_listeners","listeners":"wg"}"#, None),
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
            Command::Overview {},
            Command::Rights {},
            Command::Flows(list(3)),
            Command::Connections(List { client: Some(network), rule: Some("a".to_owned()), ..list(3) }),
            Command::Close { id: "u1-2-3".parse().unwrap() },
            Command::Targets {},
            Command::Drain(target(None)),
            Command::Up(target(Some(Transport::Tcp))),
            Command::DrainListeners(listener("wg")),
            Command::UpListeners(ListenerArgs::default()),
            Command::HandOver { version: 1 },
            Command::Ban { network },
            Command::Unban { network },
            Command::Bans {},
        ] {
            let text = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command, "{text}");
        }
    }
}
