//! What the command line takes, and what it refuses.

use super::*;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["rpxy-l4"], arguments].concat())
}

#[test]
fn arguments_of_0_2_are_accepted() {
    for (case, arguments) in [
        ("long", &["--config", "c.toml", "--log-dir", "l"] as &[&str]),
        ("short", &["-c", "c.toml", "-l", "l"]),
        ("with equals", &["--config=c.toml", "--log-dir=l"]),
    ] {
        let cli = parse(arguments).unwrap();
        let run = cli.run.unwrap();
        assert_eq!((run.config, run.log_dir), ("c.toml".into(), Some("l".into())), "{case}");
        assert!(cli.command.is_none(), "{case}");
    }
}

#[test]
fn commands_are_told_from_the_arguments_of_the_daemon() {
    for arguments in [
        &["status", "--socket", "s"] as &[&str],
        &["status", "-c", "c.toml", "--json"],
        &["flows", "-s", "s", "--limit", "10000"],
        &["flows", "-s", "s", "--limit", "1"],
        &["status"],
        &["top"],
        &["top", "-s", "s", "--interval", "200ms"],
        &["top", "-c", "c.toml", "--once", "--json", "--interval", "60s"],
        &["connections", "--client", "192.0.2.0/24", "--rule", "web", "--target", "a.example:443"],
        &["close", "t0-1-2", "--socket", "s"],
        &["targets", "--json"],
        &["drain", "a.example:443"],
        &["drain", "--listeners", "-s", "s"],
        &["up", "a.example:443", "--transport", "udp"],
        &["up", "--listeners"],
        &["drain", "--listener", "wg", "-s", "s"],
        &["up", "--listener", "default"],
        &["ban", "192.0.2.0/24", "--socket", "s"],
        &["unban", "--socket", "s", "2001:db8::1"],
        &["bans", "--socket=s"],
        &["upgrade", "-c", "c.toml"],
        &["upgrade", "--config", "c.toml", "--log-dir", "l", "--json", "--if-changed"],
        &["unpin"],
        &["unpin", "--path", "/sys/fs/bpf/other"],
        &["unpin", "-c", "c.toml"],
        &["schema"],
        &["doctor"],
        &["doctor", "--config", "c.toml"],
        &["container"],
        &["healthcheck"],
        &["healthcheck", "--ready", "-s", "s"],
        &["healthcheck", "-c", "c.toml"],
        &["healthcheck", "--url", "http://[::1]:9901/readyz"],
        &["ech", "generate", "--public-name", "p.example"],
        &["ech", "generate", "--public-name", "p.example", "--kem", "p256", "--suites", "hkdf-sha512/aes-256-gcm"],
        &["ech", "show", "ech.pem"],
        &["ech", "rotate", "ech.pem"],
    ] {
        let cli = parse(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        assert!(cli.run.is_none() && cli.command.is_some(), "{arguments:?}: {cli:?}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for (case, arguments) in [
        ("no config", &[] as &[&str]),
        ("strict without a check", &["-c", "f", "--strict"]),
        ("unknown", &["-c", "f", "--nonsense"]),
        ("unknown command", &["stop"]),
        ("too often", &["top", "--interval", "199ms"]),
        ("too seldom", &["top", "--interval", "61s"]),
        ("not a time", &["top", "--interval", "1"]),
        ("no ID", &["close", "-s", "s"]),
        ("not an ID", &["close", "-s", "s", "17"]),
        ("no file", &["upgrade"]),
        ("take over and check", &["-c", "f", "--take-over", "--check"]),
        ("nothing to drain", &["drain"]),
        ("a target and all listeners", &["drain", "a.example:443", "--listeners"]),
        ("a target and a listener", &["up", "a.example:443", "--listener", "wg"]),
        ("one listener and all", &["up", "--listeners", "--listener", "wg"]),
        ("a listener of one transport", &["drain", "--listener", "wg", "--transport", "tcp"]),
        ("listeners of one transport", &["up", "--listeners", "--transport", "tcp"]),
        ("unknown transport", &["up", "a.example:443", "--transport", "sctp"]),
        ("not a client", &["connections", "--client", "everybody"]),
        ("socket and file", &["status", "--socket", "s", "--config", "f"]),
        ("arguments of both", &["-c", "f", "status", "--socket", "s"]),
        ("no network", &["ban", "--socket", "s"]),
        ("path and file", &["unpin", "--path", "/p", "--config", "f"]),
        ("not a network", &["ban", "--socket", "s", "everybody"]),
        ("no flows", &["flows", "--socket", "s", "--limit", "0"]),
        ("no public name", &["ech", "generate"]),
        ("unknown mechanism", &["ech", "generate", "--public-name", "p.example", "--kem", "x448"]),
        ("unknown suite", &["ech", "generate", "--public-name", "p.example", "--suites", "hkdf-sha256/des"]),
        ("number out of range", &["ech", "generate", "--public-name", "p.example", "--config-id", "256"]),
        ("relative socket", &["-c", "f", "--admin-socket", "s"]),
        ("socket and URL", &["healthcheck", "--socket", "s", "--url", "http://127.0.0.1:1/"]),
        ("not a URL", &["healthcheck", "--url", "https://127.0.0.1:1/"]),
        ("too many flows", &["flows", "--socket", "s", "--limit", "10001"]),
    ] {
        let error = parse(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{case}");
    }
}
