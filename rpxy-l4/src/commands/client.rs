//! The client of the admin socket.

use std::{
    io::{self, BufRead, BufReader, Read as _, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::sockopt::socket_peercred;
use serde_json::Value;

use super::show;
use crate::{
    admin::Command,
    config::{self, model::ADMIN_SOCKET},
    escape,
    net::unix,
    trust,
};

/// Longer than the daemon takes for an answer, which then says that it is busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest answer in bytes: more than that of any file that a daemon loads.
const LONGEST_ANSWER: u64 = 256 << 20;

/// The answer of a daemon.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its lines, as they came and as values.
    pub(super) lines: Vec<(String, Value)>,
    /// There would be more.
    pub(super) more: bool,
}

/// Sends `command` to the daemon that listens on `path` and writes its answer to `out`, as a table or, with `json`, as
/// the lines that came.
pub(super) fn run(path: &Path, command: &Command, json: bool, out: &mut dyn Write) -> Result<()> {
    let Answer { lines, more } = ask(path, command)?;
    let shown = if json {
        lines.iter().try_for_each(|(text, _)| writeln!(out, "{}", escape::json(text.clone())))
    } else {
        let values: Vec<Value> = lines.into_iter().map(|(_, value)| value).collect();
        show::show(command, &values, more, out)
    };
    match shown.and_then(|()| out.flush()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => Ok(shown?),
    }
}

/// The answer of the daemon that listens on `path` to `command`. A refusal is an error.
pub(super) fn ask(path: &Path, command: &Command) -> Result<Answer> {
    let stream = unix::connect(path, ANSWER_TIMEOUT).map_err(explain);
    let mut stream = stream.with_context(|| format!("cannot connect to the daemon at {}", path.display()))?;
    believe(path, &stream)?;
    let mut request = serde_json::to_vec(command)?;
    request.push(b'\n');
    // A daemon that turns somebody away says why and closes; its answer is there all the same.
    let asked = stream.write_all(&request);
    match answer(&mut BufReader::new(&stream)) {
        Ok(answer) => Ok(answer),
        Err(error) => {
            asked.context("cannot send the command")?;
            Err(error)
        }
    }
}

/// The path of the admin socket: `socket`, the `admin_socket` of the configuration in `file`, or where it usually is.
pub(super) fn socket(socket: Option<&Path>, file: Option<&Path>) -> Result<PathBuf> {
    match (socket, file) {
        (Some(socket), _) => Ok(socket.to_owned()),
        (None, Some(file)) => configured(file, None, "--socket"),
        (None, None) => Ok(ADMIN_SOCKET.into()),
    }
}

/// The `admin_socket` of the configuration in `file`, or else `otherwise`, which is what the option of this name says.
pub(super) fn configured(file: &Path, otherwise: Option<&Path>, option: &str) -> Result<PathBuf> {
    let socket = config::load(file)?.config.admin_socket;
    socket.or_else(|| otherwise.map(Path::to_owned)).with_context(|| {
        format!("{} has no admin_socket; add admin_socket = \"{ADMIN_SOCKET}\", or pass {option}", file.display())
    })
}

/// Makes sure that whoever answers at `path` may be the daemon.
pub(super) fn believe(path: &Path, stream: &UnixStream) -> Result<()> {
    let peer = socket_peercred(stream).context("cannot find out who answers")?.uid.as_raw();
    trust::may_answer(path, peer).with_context(|| {
        format!(
            "user {peer} answers at {}, who may not be the daemon (run this as that user, or move admin_socket to a directory \
             of root or of the daemon's user)",
            path.display()
        )
    })
}

fn explain(error: io::Error) -> anyhow::Error {
    let remedies = [
        (io::ErrorKind::NotFound, "no daemon runs with this admin_socket; --socket or --config name another one"),
        (io::ErrorKind::ConnectionRefused, "its daemon has died; start it again"),
        (io::ErrorKind::WouldBlock, "its queue is full; look at its log"),
        (io::ErrorKind::PermissionDenied, "run this as root, as the user of the daemon or as one of its admin_group"),
    ];
    let Some((_, remedy)) = remedies.into_iter().find(|(kind, _)| *kind == error.kind()) else { return error.into() };
    anyhow::Error::new(error).context(remedy)
}

/// The lines up to the end of an answer, as they came and as values, and whether there would be more.
fn answer(stream: &mut impl BufRead) -> Result<Answer> {
    let mut lines = Vec::new();
    for text in stream.take(LONGEST_ANSWER).lines() {
        let text = text.context("the daemon does not answer")?;
        let value: Value = serde_json::from_str(&text).context("not an answer of rpxy-l4")?;
        if let Some(error) = value.get("error").and_then(Value::as_str) {
            match value.get("remedy").and_then(Value::as_str) {
                Some(remedy) => bail!("{error} ({remedy})"),
                None => bail!("{error}"),
            }
        }
        if value.get("end").is_some() {
            let more = value.get("more").and_then(Value::as_bool).unwrap_or(false);
            return Ok(Answer { lines, more });
        }
        lines.push((text, value));
    }
    bail!("the daemon closed the connection before the end of its answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_end_or_an_error() {
        let read = |text: &str| {
            let answer = answer(&mut text.as_bytes());
            answer.map(|answer| (answer.lines.len(), answer.more)).map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("{\"end\":true}\n", Ok((0, false))),
            ("{\"a\":1}\n{\"b\":2}\n{\"end\":true}\n{\"c\":3}\n", Ok((2, false))),
            ("{\"a\":1}\n{\"end\":true,\"more\":true}\n", Ok((1, true))),
            ("{\"error\":\"no\",\"remedy\":\"yes\"}\n", Err("no (yes)")),
            ("{\"error\":\"no\"}\n", Err("no")),
            ("{\"a\":1}\n", Err("the daemon closed the connection before the end of its answer")),
            ("SSH-2.0\n", Err("not an answer of rpxy-l4")),
        ] {
            assert_eq!(read(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
