//! A client of the daemon's admin socket that speaks the protocol itself, and may speak it badly.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::Value;

use crate::{OrFail as _, process::PATIENCE};

/// A connection to an admin socket.
#[derive(Debug)]
pub struct Admin {
    stream: BufReader<UnixStream>,
}

/// The lines before the end of an answer, and the end.
#[derive(Debug)]
pub struct Answer {
    /// Before the end.
    pub lines: Vec<Value>,
    /// `{"end":true}`, or the error.
    pub end: Value,
}

impl Admin {
    /// Connects.
    ///
    /// # Panics
    ///
    /// When nobody listens.
    #[track_caller]
    pub fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).or_fail("connect to the admin socket"))
    }

    /// Over a stream that is connected already.
    ///
    /// # Panics
    ///
    /// When it has no time limits, which it has.
    #[track_caller]
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).or_fail("time limit");
        stream.set_write_timeout(Some(PATIENCE)).or_fail("time limit");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are. A daemon that has closed is not a failure: what it said is read by [`Admin::answer`].
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.get_mut().write_all(bytes));
    }

    /// The next answer; `None` when the daemon has closed.
    ///
    /// # Panics
    ///
    /// When what comes is not an answer.
    #[track_caller]
    pub fn answer(&mut self) -> Option<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => Err(error).or_fail("answer"),
            }
            let value: Value = serde_json::from_str(&line).or_fail(&line);
            if value.get("end").is_some() || value.get("error").is_some() {
                return Some(Answer { lines, end: value });
            }
            lines.push(value);
        }
    }

    /// Asks for something that must be done.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Vec<Value> {
        self.send(format!("{request}\n").as_bytes());
        let answer = self.answer().or_fail("an answer");
        assert_eq!(answer.end["end"], true, "{request}: {}", answer.end);
        answer.lines
    }

    /// Asks for something that must not be done, and returns why not.
    ///
    /// # Panics
    ///
    /// When it is done.
    #[track_caller]
    pub fn refused(&mut self, request: &[u8]) -> Value {
        self.send(request);
        let answer = self.answer().or_fail("an answer");
        assert!(answer.end["error"].is_string() && answer.end["remedy"].is_string(), "{}", answer.end);
        assert!(answer.lines.is_empty(), "{:?}", answer.lines);
        answer.end
    }
}
