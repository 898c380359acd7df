//! Serves the admin socket on the control runtime. Bounded in requests, time and connections: a client that is stuck
//! must not keep others out.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{Answer, Command, Refusal, Request, Successor};
use crate::{
    escape,
    net::unix::{Peer, PrivateListener},
};

/// Connections at once; further ones are told so.
const MAX_AT_ONCE: usize = 16;
/// Connections at once of those who may only read, so that they keep nobody else out.
const MAX_READERS: usize = 8;
/// Longest request in bytes, its line feed included: first bytes in base64 take the most.
const MAX_REQUEST: usize = 128 << 10;
/// Limit on each of: receiving a request, answering it, and sending the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reason for which a connection ends early.
enum End {
    /// The peer is gone, or has said nothing more for too long.
    Gone,
    /// It is told why.
    Refused(Refusal),
    /// From here on it is spoken to in another protocol, of this version.
    Succeeds(u32),
}

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// Everything.
    All,
    /// What changes nothing.
    Read,
}

/// Answers clients until dropped.
pub(crate) async fn serve(
    listener: PrivateListener,
    requests: mpsc::Sender<Request>,
    successors: mpsc::Sender<Successor>,
) {
    let slots = Arc::new(Semaphore::new(MAX_AT_ONCE));
    let readers = Arc::new(Semaphore::new(MAX_READERS));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Descriptors ran out; connections that are relayed matter more.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let slot = || Arc::clone(&slots).try_acquire_owned().ok();
        let welcome = match peer {
            Peer::Stranger => Err(refusal(
                "permission denied",
                "run this as root, as the user of the daemon or as one of admin_group",
            )),
            Peer::Owner => slot().map(|slot| (Rights::All, [Some(slot), None])).ok_or_else(crowded),
            Peer::Member => Arc::clone(&readers)
                .try_acquire_owned()
                .ok()
                .and_then(|reader| Some((Rights::Read, [Some(slot()?), Some(reader)])))
                .ok_or_else(crowded),
        };
        match welcome {
            Ok((rights, slots)) => {
                let to = (requests.clone(), successors.clone());
                tokio::spawn(converse(stream, rights, to, slots));
            }
            // Room for a line is there in a new socket.
            Err(refusal) => drop(stream.try_write(&line(&refusal))),
        }
    }
}

/// Request after request until the client has no more.
async fn converse(
    mut stream: UnixStream,
    rights: Rights,
    (requests, successors): (mpsc::Sender<Request>, mpsc::Sender<Successor>),
    _slots: [Option<OwnedSemaphorePermit>; 2],
) {
    let mut received = Vec::new();
    loop {
        let end = match timeout(TIMEOUT, request(&mut stream, &mut received)).await {
            Ok(Ok(text)) => exchange(&mut stream, rights, &text, &requests).await,
            Ok(Err(end)) => Err(end),
            Err(_elapsed) => Err(End::Gone),
        };
        match end {
            Ok(()) => {}
            Err(End::Gone) => return,
            Err(End::Succeeds(version)) => {
                drop(successors.send(Successor { stream, version }).await);
                return;
            }
            Err(End::Refused(refusal)) => {
                drop(timeout(TIMEOUT, stream.write_all(&line(&refusal))).await);
                return;
            }
        }
    }
}

/// One request and its answer. A request that cannot be understood does not end the connection.
async fn exchange(
    stream: &mut UnixStream,
    rights: Rights,
    text: &[u8],
    requests: &mpsc::Sender<Request>,
) -> Result<(), End> {
    let answer = match serde_json::from_slice::<Command>(text) {
        Ok(command) if command.changes() && rights == Rights::Read => Answer::refused(
            "permission denied: members of admin_group may only read",
            "run this as root, or as the user of the daemon",
        ),
        Ok(Command::HandOver { version }) => return Err(End::Succeeds(version)),
        // Nobody but this module knows.
        Ok(Command::Rights {}) => Answer::one(&serde_json::json!({ "change": rights == Rights::All })),
        Ok(command) => {
            let (answer, answered) = oneshot::channel();
            let asked = async {
                requests.send(Request { command, answer }).await.ok()?;
                answered.await.ok()
            };
            match timeout(TIMEOUT, asked).await {
                Ok(Some(answer)) => answer,
                Ok(None) => Answer::refused("the daemon is stopping", "retry when it has been restarted"),
                Err(_elapsed) => Answer::refused("the daemon is busy", "try again"),
            }
        }
        Err(error) => Answer::refused(format!("not a request: {error}"), "docs/admin.md lists the commands"),
    };
    let mut text = Vec::new();
    match answer {
        Answer::Done { lines, more } => {
            for line in lines {
                text.extend_from_slice(line.as_bytes());
                text.push(b'\n');
            }
            let end: &[u8] = if more { b"{\"end\":true,\"more\":true}\n" } else { b"{\"end\":true}\n" };
            text.extend_from_slice(end);
        }
        Answer::Refused(refusal) => text = line(&refusal),
    }
    let written = timeout(TIMEOUT, stream.write_all(&text)).await;
    written.ok().and_then(Result::ok).ok_or(End::Gone)
}

/// The next line without its end. What comes behind it stays in `received`.
async fn request(stream: &mut UnixStream, received: &mut Vec<u8>) -> Result<Vec<u8>, End> {
    loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let rest = received.split_off(end + 1);
            let mut line = std::mem::replace(received, rest);
            line.pop();
            return Ok(line);
        }
        let free = MAX_REQUEST - received.len().min(MAX_REQUEST);
        if free == 0 {
            let error = format!("a request is limited to {MAX_REQUEST} bytes");
            return Err(End::Refused(refusal(&error, "end each request with a line feed")));
        }
        match stream.take(free as u64).read_buf(received).await {
            Ok(0) | Err(_) => return Err(End::Gone),
            Ok(_) => {}
        }
    }
}

fn crowded() -> Refusal {
    refusal("too many connections", "close some of those that are open")
}

fn refusal(error: &str, remedy: &str) -> Refusal {
    Refusal { error: error.to_owned(), remedy: remedy.to_owned() }
}

fn line(refusal: &Refusal) -> Vec<u8> {
    let mut text = serde_json::to_string(refusal).map(escape::json).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;
    use crate::admin::{requests, successors};

    struct Served {
        directory: tempfile::TempDir,
        task: tokio::task::JoinHandle<()>,
    }

    /// A server whose commands are answered with their own names, but `bans`, which never is.
    fn served() -> Served {
        let directory = tempfile::tempdir().unwrap();
        let listener = PrivateListener::bind(&directory.path().join("socket"), None).unwrap();
        let (sender, mut receiver) = requests();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(Request { command, answer }) = receiver.recv().await {
                if command == (Command::Bans {}) {
                    unanswered.push(answer);
                } else {
                    answer.send(Answer::one(&command)).unwrap();
                }
            }
        });
        Served { directory, task: tokio::spawn(serve(listener, sender, successors().0)) }
    }

    impl Served {
        fn path(&self) -> PathBuf {
            self.directory.path().join("socket")
        }
    }

    async fn connect(path: &Path) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(path).await.unwrap())
    }

    async fn send(stream: &mut BufReader<UnixStream>, text: &[u8]) {
        stream.get_mut().write_all(text).await.unwrap();
    }

    async fn next_line(stream: &mut BufReader<UnixStream>) -> Option<String> {
        let mut line = String::new();
        let count = stream.read_line(&mut line).await.unwrap_or(0);
        (count > 0).then_some(line)
    }

    #[tokio::test]
    async fn requests_of_one_connection_are_answered_in_order_however_they_are_cut() {
        let served = served();
        let mut stream = connect(&served.path()).await;
        send(&mut stream, b"{\"command\":\"status\"}\nnonsense\n{\"command\":\"flo").await;
        assert_eq!(next_line(&mut stream).await.as_deref(), Some("{\"command\":\"status\"}\n"));
        assert_eq!(next_line(&mut stream).await.as_deref(), Some("{\"end\":true}\n"));
        let refused = next_line(&mut stream).await.unwrap();
        assert!(refused.starts_with("{\"error\":\"not a request: ") && refused.contains("\"remedy\":"), "{refused}");
        send(&mut stream, b"ws\",\"limit\":2}\n").await;
        assert_eq!(next_line(&mut stream).await.as_deref(), Some("{\"command\":\"flows\",\"limit\":2}\n"));
        assert_eq!(next_line(&mut stream).await.as_deref(), Some("{\"end\":true}\n"));
    }

    #[tokio::test]
    async fn a_request_may_be_as_long_as_allowed_and_no_longer() {
        let served = served();
        let padded = |len: usize| {
            let mut text = b"{\"command\":\"status\"}".to_vec();
            text.resize(len - 1, b' ');
            text.push(b'\n');
            text
        };
        for (len, fits) in [(MAX_REQUEST - 1, true), (MAX_REQUEST, true), (MAX_REQUEST + 1, false)] {
            let mut stream = connect(&served.path()).await;
            send(&mut stream, &padded(len)).await;
            let first = next_line(&mut stream).await.unwrap();
            assert_eq!(first.contains("\"error\""), !fits, "{len}: {first}");
            if !fits {
                assert_eq!(next_line(&mut stream).await, None, "closed");
            }
        }
    }

    #[tokio::test]
    async fn connections_are_bounded_and_room_comes_back() {
        let served = served();
        let mut open = Vec::new();
        for _ in 0..MAX_AT_ONCE {
            let mut stream = connect(&served.path()).await;
            send(&mut stream, b"{\"command\":\"status\"}\n").await;
            next_line(&mut stream).await.unwrap();
            open.push(stream);
        }
        let mut refused = connect(&served.path()).await;
        assert!(next_line(&mut refused).await.unwrap().contains("too many connections"));
        assert_eq!(next_line(&mut refused).await, None);
        open.pop();
        loop {
            let mut stream = connect(&served.path()).await;
            // The server may already have said no and closed.
            drop(stream.get_mut().write_all(b"{\"command\":\"status\"}\n").await);
            if next_line(&mut stream).await.is_some_and(|line| line.contains("status")) {
                break;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_let_go_and_who_waits_is_told() {
        let served = served();
        let mut silent = connect(&served.path()).await;
        send(&mut silent, b"{\"command\":").await;
        assert_eq!(next_line(&mut silent).await, None);
        let mut waiting = connect(&served.path()).await;
        send(&mut waiting, b"{\"command\":\"bans\"}\n").await;
        assert!(next_line(&mut waiting).await.unwrap().contains("the daemon is busy"));
        served.task.abort();
        assert!(served.task.await.unwrap_err().is_cancelled());
        assert!(!served.directory.path().join("socket").exists());
    }
}
