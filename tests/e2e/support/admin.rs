//! A daemon's admin socket, and the program's own commands to it.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use rpxy_l4_tests::{admin::Admin, daemon, owned, topology::Topology, wait};
use serde_json::{Value, json};

use super::{PORT, at};

/// A path for a socket, in a directory of its own.
pub(crate) struct Scratch {
    pub(crate) directory: Arc<tempfile::TempDir>,
    socket: &'static str,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { directory: Arc::new(owned::directory()), socket: "admin.sock" }
    }

    /// Another path in the same directory.
    pub(crate) fn beside(scratch: &Self, socket: &'static str) -> Self {
        Self { directory: Arc::clone(&scratch.directory), socket }
    }

    pub(crate) fn named(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.named(self.socket)
    }

    /// The top of a configuration with this socket.
    pub(crate) fn top(&self, keys: &str) -> String {
        format!("listen_port = {PORT}\nadmin_socket = \"{}\"\n{keys}\n", self.socket().display())
    }

    /// A configuration for TCP and UDP with this socket.
    pub(crate) fn config(&self, keys: &str) -> String {
        format!("{}tcp_target = [\"{}\"]\nudp_target = [\"{}\"]\n", self.top(keys), at(7000), at(7000))
    }

    /// The lines about a `list`, as many as are `wanted`, once there are.
    #[track_caller]
    pub(crate) fn wait_for(&self, list: &Value, wanted: usize) -> Vec<Value> {
        wait::until(&format!("{list} has {wanted} lines"), || {
            Some(Admin::connect(&self.socket()).ask(list)).filter(|lines| lines.len() == wanted)
        })
    }

    /// The only TCP connection from the port of `client`, once there is one.
    #[track_caller]
    pub(crate) fn connection_of(&self, client: std::net::SocketAddr) -> Value {
        let client = client.to_string();
        wait::until(&format!("{client} is listed"), || {
            let lines = Admin::connect(&self.socket()).ask(&json!({ "command": "connections" }));
            lines.into_iter().find(|line| line["client"] == client.as_str())
        })
    }

    /// The only TCP connection of `rule`, from anywhere at `client`, once it is `ready`.
    #[track_caller]
    pub(crate) fn connection_by(&self, rule: &str, client: IpAddr, ready: impl Fn(&Value) -> bool) -> Value {
        let list = json!({ "command": "connections", "rule": rule, "client": client.to_string() });
        wait::until(&format!("a connection of {rule}"), || {
            let [line] = Admin::connect(&self.socket()).ask(&list).try_into().ok()?;
            Some(line).filter(&ready)
        })
    }
}

/// Runs the daemon's program with these arguments and `--socket`, and returns its exit code and output.
pub(crate) fn say(net: &Topology, scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let socket = scratch.socket().display().to_string();
    let (status, lines) = daemon::run_to_end(&net.gateway, &[arguments, &["--socket", &socket]].concat());
    (status.code(), lines)
}
