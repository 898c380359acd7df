//! `rpxy-l4 healthcheck`: tells by its exit status whether a daemon answers and listens, for containers and scripts.
//!
//! Errs towards healthy: whoever asks may restart the daemon, which ends its connections. Targets that are down, a refused
//! reload and listeners drained by command are no reason for that.

use std::{
    io::{Read as _, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::client;
use crate::{
    admin,
    cli::{HealthcheckArgs, Url},
    config, escape,
};

/// Longest wait for each step of an exchange over HTTP. The daemon gives an exchange as long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most of an answer over HTTP that is read, in bytes.
const LONGEST: u64 = 4096;

/// What `arguments` name to be asked.
#[derive(Debug)]
enum Asked {
    Socket(PathBuf),
    Http(Url),
}

/// Asks, and writes a line to `out` if the daemon is healthy.
pub(super) fn run(arguments: &HealthcheckArgs, out: &mut dyn Write) -> Result<()> {
    let said = match asked(arguments)? {
        Asked::Socket(path) => {
            let client::Answer { lines, .. } = client::ask(&path, &admin::Command::Status {})?;
            let (_, status) = lines.first().context("the daemon told nothing about itself")?;
            judge(status, arguments.ready)?.to_owned()
        }
        Asked::Http(url) => fetch(&url).with_context(|| format!("http://{}{}", url.authority, url.path))?,
    };
    Ok(writeln!(out, "healthy: {said}")?)
}

fn asked(arguments: &HealthcheckArgs) -> Result<Asked> {
    if let Some(url) = &arguments.url {
        return Ok(Asked::Http(url.clone()));
    }
    if let Some(file) = &arguments.config
        && let Some(address) = endpoint(file)?
    {
        let path = if arguments.ready { "/readyz" } else { "/healthz" };
        return Ok(Asked::Http(Url { authority: address.to_string(), path: path.to_owned() }));
    }
    client::socket(arguments.socket.as_deref(), arguments.config.as_deref()).map(Asked::Socket)
}

/// The address of the metrics endpoint, if the configuration in `file` has that and no admin socket.
fn endpoint(file: &Path) -> Result<Option<SocketAddr>> {
    let config = config::load(file)?.config;
    Ok(config.metrics_listen.filter(|_| config.admin_socket.is_none()))
}

/// A word about a daemon with this `status`; an error if it does not serve or, with `ready`, is drained.
fn judge(status: &Value, ready: bool) -> Result<&'static str> {
    let listens = |transport: &str| status[transport]["listen"].as_array().is_some_and(|all| !all.is_empty());
    let is_drained = !status["drained"]["listeners_s"].is_null();
    match (is_drained, listens("tcp") || listens("udp")) {
        (true, _) if ready => bail!("not ready: the listeners are drained by command"),
        (true, _) => Ok("drained by command"),
        (false, false) => bail!("nothing is listened on: the configuration has no destination"),
        (false, true) => Ok("listening"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a command has nobody else to serve while it waits")]
fn addresses(url: &Url) -> Result<impl Iterator<Item = SocketAddr>> {
    url.authority.to_socket_addrs().context("cannot resolve the name")
}

/// The first line of the answer to GET; an error unless its status is 200.
fn fetch(url: &Url) -> Result<String> {
    let mut refused = None;
    let connected = addresses(url)?
        .find_map(|address| TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| refused = Some(error)).ok());
    let mut stream = match (connected, refused) {
        (Some(stream), _) => stream,
        (None, Some(error)) => return Err(error).context("cannot connect"),
        (None, None) => bail!("the name has no address"),
    };
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.authority)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).context("no answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("not an answer of HTTP")?;
    let first = body.lines().next().unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => Ok(first.to_owned()),
        Some(status) => bail!("status {}: {}", escape::line(status), escape::line(first)),
        None => bail!("not an answer of HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead as _, io::BufReader, net::TcpListener, thread};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemon_that_listens_is_healthy_and_one_that_is_drained_is_not_ready() {
        let status = |tcp: &[&str], udp: &[&str], drained: Option<u64>| json!({ "tcp": { "listen": tcp }, "udp": { "listen": udp }, "drained": { "listeners_s": drained } });
        for (row, status, healthy, ready) in [
            ("TCP", status(&["0.0.0.0:443"], &[], None), true, true),
            ("UDP", status(&[], &["0.0.0.0:443"], None), true, true),
            ("nothing", status(&[], &[], None), false, false),
            ("drained", status(&["0.0.0.0:443"], &[], Some(3)), true, false),
            ("drained and closed", status(&[], &[], Some(0)), true, false),
            ("another version", json!({}), false, false),
        ] {
            assert_eq!(judge(&status, false).is_ok(), healthy, "{row}");
            assert_eq!(judge(&status, true).is_ok(), ready, "{row}");
        }
    }

    #[test]
    fn only_status_200_is_healthy() {
        for (row, answer, expected) in [
            ("ready", "HTTP/1.1 200 OK\r\nA: b\r\n\r\nready\nmore\n", Ok("ready")),
            (
                "not ready",
                "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: draining\n",
                Err("status 503: not ready: draining"),
            ),
            ("something else", "SSH-2.0-x\r\n", Err("not an answer of HTTP")),
            ("nothing", "", Err("not an answer of HTTP")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url: Url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
            let server = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                let request = request.collect::<Vec<_>>();
                stream.write_all(answer.as_bytes()).unwrap();
                request
            });
            let said = fetch(&url).map_err(|error| error.to_string());
            assert_eq!(said.as_deref().map_err(String::as_str), expected, "{row}");
            assert_eq!(server.join().unwrap()[0], "GET /readyz HTTP/1.1", "{row}");
        }
    }

    #[test]
    fn a_file_without_admin_socket_names_the_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        let base = "listen_port = 1\ntcp_target = [\"192.0.2.1:1\"]\n";
        let asks = |keys: &str, ready: bool| {
            std::fs::write(&file, format!("{keys}{base}")).unwrap();
            let arguments = HealthcheckArgs { socket: None, config: Some(file.clone()), url: None, ready };
            asked(&arguments).map(|asked| match asked {
                Asked::Socket(path) => path.display().to_string(),
                Asked::Http(url) => format!("{}{}", url.authority, url.path),
            })
        };
        let (metrics, socket) = ("metrics_listen = \"127.0.0.1:9901\"\n", "admin_socket = \"/run/a\"\n");
        assert_eq!(asks(metrics, false).unwrap(), "127.0.0.1:9901/healthz");
        assert_eq!(asks(metrics, true).unwrap(), "127.0.0.1:9901/readyz");
        assert_eq!(asks(&format!("{metrics}{socket}"), true).unwrap(), "/run/a");
        assert!(asks("", false).unwrap_err().to_string().contains("no admin_socket"));
    }
}
