//! Chromium without a window, driven through `WebDriver` (W3C Recommendation of 2018) by chromedriver.
//!
//! It runs in a PID namespace of its own, so that none of its many processes outlives the guard, with an empty profile.

use std::{fmt, io::Read as _, net::Ipv4Addr};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{OrFail as _, owned, process::Process, socket, topology::Host, wait};

/// Port of chromedriver, of which a host has one.
const PORT: u16 = 9515;

/// A browser with one window.
pub struct Browser {
    host: Host,
    session: String,
    _process: Process,
    _profile: TempDir,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Browser {
    /// Starts a browser on `host`.
    #[track_caller]
    pub fn start(host: &Host) -> Self {
        let profile = owned::directory();
        let mut command = host.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "chromedriver"]);
        command.arg(format!("--port={PORT}")).env("HOME", profile.path());
        let process = Process::spawn("chromedriver", &mut command).or_fail("unshare (util-linux), chromedriver");
        wait::until("chromedriver listens", || socket::is_listening(host, PORT).then_some(()));
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let options = json!({ "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } });
        let started = call(host, "POST", "/session", &json!({ "capabilities": { "alwaysMatch": options } }));
        let session = started["sessionId"].as_str().or_fail("a session").to_owned();
        Self { host: host.clone(), session, _process: process, _profile: profile }
    }

    /// Opens a page.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.ask("url", &json!({ "url": url }));
    }

    /// What the body of a function in JavaScript returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.ask("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same, once it is neither `null` nor `false`.
    #[track_caller]
    pub fn wait_for(&self, what: &str, script: &str) -> Value {
        wait::until(what, || Some(self.run(script)).filter(|value| !matches!(value, Value::Null | Value::Bool(false))))
    }

    /// Shows pages at this width in CSS pixels as a phone does, in a light or dark scheme.
    #[track_caller]
    pub fn become_phone(&self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// What the browser has said of the page so far: errors of scripts, and what a policy kept from being loaded.
    #[track_caller]
    pub fn errors(&self) -> Vec<String> {
        let log = self.ask("se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().or_fail("a log").iter().filter(|entry| entry["level"] == "SEVERE");
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.ask("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    #[track_caller]
    fn ask(&self, what: &str, parameters: &Value) -> Value {
        call(&self.host, "POST", &format!("/session/{}/{what}", self.session), parameters)
    }
}

/// The value that chromedriver answers with.
#[track_caller]
fn call(host: &Host, method: &str, path: &str, parameters: &Value) -> Value {
    let stream = socket::dial(host, (Ipv4Addr::LOCALHOST, PORT));
    let body = parameters.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket::send(&stream, format!("{head}{body}").as_bytes());
    let mut length = 0;
    loop {
        let line = socket::read_line(&stream).or_fail("an answer of chromedriver");
        match line.trim_end().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().or_fail("a length"),
            None if line.trim_end().is_empty() => break,
            Some(_) | None => {}
        }
    }
    let mut answer = Vec::new();
    (&stream).take(length).read_to_end(&mut answer).or_fail("the answer of chromedriver");
    let answer: Value = serde_json::from_slice(&answer).or_fail("JSON of chromedriver");
    let value = answer["value"].clone();
    assert!(value["error"].is_null(), "{path} {parameters}: {} ({})", value["message"], value["error"]);
    value
}
