//! What can be changed, and the question that says so before it is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::view::Subject;
use crate::{
    admin::{self, Command, TargetArgs},
    config::model::Transport,
    escape,
    id::Id,
};

/// A question about a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    /// What it does, exactly.
    pub(super) text: String,
    pub(super) command: Command,
    /// What is said when it was done.
    pub(super) done: String,
}

/// The list of everything, as long as lists are.
pub(super) fn everything() -> admin::List {
    admin::List { limit: admin::LISTED, client: None, rule: None, target: None }
}

/// The question about what `key` does with `subject`: none where it does nothing.
///
/// # Errors
///
/// It does something, but not with this one.
pub(super) fn question(key: char, subject: &Subject) -> Result<Option<Question>, &'static str> {
    Ok(Some(match (key, subject) {
        ('b', Subject::Client(Some(address)) | Subject::Line { address: Some(address), .. }) => ban((*address).into()),
        ('B', Subject::Client(Some(address)) | Subject::Line { address: Some(address), .. }) => ban(around(*address)),
        ('b' | 'B', Subject::Client(None) | Subject::Line { address: None, .. }) => {
            return Err("a client without an address cannot be banned");
        }
        ('d', Subject::Target { drained: true, .. }) => return Err("it is drained already; `u` puts it back"),
        ('d', Subject::Target { transport, target, active, .. }) => drain(*transport, target, *active),
        ('u', Subject::Target { drained: false, .. }) => return Err("it is not drained"),
        ('u', Subject::Target { transport, target, .. }) => up(*transport, target),
        ('x', Subject::Line { transport, id, client, rule, .. }) => {
            return close(*transport, id, client, rule.as_deref()).map(Some);
        }
        ('b' | 'B' | 'x', Subject::Rule { .. } | Subject::Target { .. }) => {
            return Err("see its connections (Enter), and choose one of them");
        }
        ('d' | 'u', Subject::Rule { .. }) => return Err("targets are drained: see 3 Targets"),
        _ => return Ok(None),
    }))
}

/// A client's neighbours: who has one of these addresses often has all.
fn around(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |network| network.trunc())
}

fn ban(network: IpNet) -> Question {
    Question {
        text: format!(
            "Ban {network}? UDP sessions of its clients end now, their datagrams are dropped and their new TCP \
             connections closed. Established TCP connections go on. It lasts until `rpxy-l4 unban {network}`, or until \
             the daemon ends."
        ),
        command: Command::Ban { network },
        done: format!("{network} is banned"),
    }
}

fn drain(transport: Transport, target: &str, active: u32) -> Question {
    let (shown, what) = (escape::line(target), carried(transport));
    let left = match active {
        0 => "It has none now.".to_owned(),
        1 => "The one that it has goes on.".to_owned(),
        some => format!("The {some} that it has go on."),
    };
    Question {
        text: format!(
            "Drain {shown} ({})? In all rules that name it, it gets no new {what}, even if all others are down, until it \
             is put back. {left}",
            transport.name()
        ),
        command: Command::Drain(TargetArgs { target: target.to_owned(), transport: Some(transport) }),
        done: format!("{shown} ({}) is drained", transport.name()),
    }
}

fn up(transport: Transport, target: &str) -> Question {
    let (shown, what) = (escape::line(target), carried(transport));
    Question {
        text: format!(
            "Put {shown} ({}) back into service? It gets new {what} again in all rules that name it.",
            transport.name()
        ),
        command: Command::Up(TargetArgs { target: target.to_owned(), transport: Some(transport) }),
        done: format!("{shown} ({}) is in service", transport.name()),
    }
}

fn close(transport: Transport, id: &str, client: &str, rule: Option<&str>) -> Result<Question, &'static str> {
    let id: Id = id.parse().map_err(|_invalid| "the daemon names it in a way that this version does not know")?;
    let rule = rule.map_or_else(String::new, |rule| format!(", rule {}", escape::line(rule)));
    let client = escape::line(client);
    let text = match transport {
        Transport::Tcp => format!("Close the connection {id} of {client}{rule}? Both its ends are reset."),
        Transport::Udp => {
            format!(
                "End the session {id} of {client}{rule}? Its backend is not told, and its client may begin another one."
            )
        }
    };
    Ok(Question { text, command: Command::Close { id }, done: format!("{id} is closed") })
}

fn carried(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "connections",
        Transport::Udp => "sessions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(client: &str) -> Subject {
        let address = client.parse().ok().map(|client: std::net::SocketAddr| client.ip());
        let (id, client) = ("t0-1-2".to_owned(), client.to_owned());
        Subject::Line { transport: Transport::Tcp, id, client, rule: Some("w\u{1b}b".to_owned()), address }
    }

    fn target(drained: bool) -> Subject {
        Subject::Target { transport: Transport::Udp, target: "a:1".to_owned(), drained, active: 4 }
    }

    #[test]
    fn a_question_says_what_will_be_done_to_what() {
        let rule = Subject::Rule { transport: Transport::Tcp, name: None };
        let args = || TargetArgs { target: "a:1".to_owned(), transport: Some(Transport::Udp) };
        let network = |text| crate::limit::network(text).unwrap();
        for (row, key, subject, text, command) in [
            ("a client", 'b', line("192.0.2.7:5"), "Ban 192.0.2.7/32?", Command::Ban { network: network("192.0.2.7") }),
            (
                "its network",
                'B',
                line("192.0.2.7:5"),
                "192.0.2.0/24",
                Command::Ban { network: network("192.0.2.0/24") },
            ),
            (
                "who was refused",
                'B',
                Subject::Client("2001:db8::1".parse().ok()),
                "Ban 2001:db8::/64?",
                Command::Ban { network: network("2001:db8::/64") },
            ),
            ("a target", 'd', target(false), "Drain a:1 (udp)? In all rules", Command::Drain(args())),
            ("what it has", 'd', target(false), "The 4 that it has go on.", Command::Drain(args())),
            ("back", 'u', target(true), "Put a:1 (udp) back into service?", Command::Up(args())),
            (
                "one connection",
                'x',
                line("192.0.2.7:5"),
                "Close the connection t0-1-2 of 192.0.2.7:5, rule w\\u{1b}b?",
                Command::Close { id: "t0-1-2".parse().unwrap() },
            ),
        ] {
            let question = question(key, &subject).unwrap().unwrap();
            assert!(question.text.contains(text), "{row}: {}", question.text);
            assert_eq!(question.command, command, "{row}");
        }
        for (row, key, subject, fails) in [
            ("drained already", 'd', target(true), true),
            ("in service already", 'u', target(false), true),
            ("a rule", 'd', rule.clone(), true),
            ("no address", 'b', line("unix:/run/x.sock"), true),
            ("another key", 'z', rule, false),
        ] {
            let question = question(key, &subject);
            assert!(question.as_ref().map_or(fails, |question| !fails && question.is_none()), "{row}: {question:?}");
        }
    }
}
