//! What the admin socket lists, and what it closes: connections and sessions, asked of the workers.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{sync::oneshot, time::timeout};

use super::{daemon::Daemon, worker::ListenCommand};
use crate::{
    admin::{Answer, List, MOST_LISTED},
    config::model::Transport,
    id::Id,
    tcp::{ConnectionKey, ConnectionLine},
    udp::{Control, FlowLine, SessionId},
};

/// Limit on the answer of a worker.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

/// A line with the name of what it is about.
#[derive(Debug, Serialize)]
struct Named<T> {
    id: Id,
    #[serde(flatten)]
    line: T,
}

/// One line of `close`.
#[derive(Debug, Serialize)]
struct Closed {
    id: Id,
    closed: bool,
}

impl Daemon {
    /// Lists the UDP sessions that are asked about.
    pub(super) fn flows(&self, list: &List, answer: oneshot::Sender<Answer>) {
        let selection = Arc::new(list.selection());
        let limit = list.limit.min(MOST_LISTED);
        let ask = |reply| Control::Flows(reply, limit.saturating_add(1), Arc::clone(&selection));
        put_together(self.listeners.ask_udp(ask), limit, answer, |worker, line: FlowLine| {
            let SessionId { index, generation } = line.session;
            Named { id: Id { transport: Transport::Udp, worker, slot: index, serial: generation }, line }
        });
    }

    /// Lists the TCP connections that are asked about.
    pub(super) fn connections(&self, list: &List, answer: oneshot::Sender<Answer>) {
        let selection = Arc::new(list.selection());
        let limit = list.limit.min(MOST_LISTED);
        let ask = |reply| ListenCommand::Connections(reply, limit.saturating_add(1), Arc::clone(&selection));
        put_together(self.listeners.ask_tcp(ask), limit, answer, |worker, line: ConnectionLine| {
            let ConnectionKey { slot, serial } = line.key;
            Named { id: Id { transport: Transport::Tcp, worker, slot, serial }, line }
        });
    }

    /// Closes a connection or session.
    pub(super) fn close(&self, id: Id, answer: oneshot::Sender<Answer>) {
        let (reply, told) = oneshot::channel();
        self.listeners.close_one(id, reply);
        tokio::spawn(async move {
            let done = match timeout(WORKER_TIMEOUT, told).await {
                Ok(Ok(true)) => {
                    tracing::info!("closed by command: {id}");
                    Answer::one(&Closed { id, closed: true })
                }
                Ok(Ok(false) | Err(_)) => {
                    let list = if id.transport == Transport::Tcp { "connections" } else { "flows" };
                    Answer::refused(format!("there is no {id}"), format!("`rpxy-l4 {list}` lists what there is"))
                }
                Err(_elapsed) => stuck(),
            };
            drop(answer.send(done));
        });
    }
}

/// Puts together what the workers tell, each line with the number of its worker.
fn put_together<T, L>(
    told: Vec<oneshot::Receiver<Vec<T>>>,
    limit: usize,
    answer: oneshot::Sender<Answer>,
    name: impl Fn(u32, T) -> L + Send + 'static,
) where
    T: Send + 'static,
    L: Serialize + Send,
{
    tokio::spawn(async move {
        let mut lines = Vec::new();
        for (number, worker) in (0_u32..).zip(told) {
            match timeout(WORKER_TIMEOUT, worker).await {
                Ok(Ok(more)) => lines.extend(more.into_iter().map(|line| name(number, line))),
                // A worker that is stuck or gone.
                Ok(Err(_)) | Err(_) => {
                    drop(answer.send(stuck()));
                    return;
                }
            }
        }
        let left_out = lines.len() > limit;
        lines.truncate(limit);
        let mut done = Answer::lines(lines);
        if let Answer::Done { more, .. } = &mut done {
            *more = left_out;
        }
        drop(answer.send(done));
    });
}

fn stuck() -> Answer {
    Answer::refused("a worker does not answer", "look at the daemon's log")
}
