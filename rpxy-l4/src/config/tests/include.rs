//! Files that a configuration includes.

use std::{fs, path::Path};

use crate::config::{LoadError, Loaded, load};

/// A directory with `config.toml` and other files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn loaded(directory: &Path) -> Result<Loaded, LoadError> {
    load(&directory.join("config.toml"))
}

/// The error of a configuration, without the name of its directory.
fn error(files: &[(&str, &str)]) -> String {
    let directory = directory(files);
    let error = loaded(directory.path()).expect_err(&format!("{files:?}")).to_string();
    error.replace(&format!("{}/", directory.path().display()), "")
}

const MAIN: &str = "include = ['conf.d/*.toml']\nlisten_port = 1\n";
const RULE: &str = "protocol = 'ssh'\ntarget = 'a:1'\n";

#[test]
fn included_files_add_keys_rules_and_listeners_in_order() {
    let directory = directory(&[
        ("config.toml", &format!("{MAIN}[protocols.main]\n{RULE}")),
        ("conf.d/20.toml", &format!("[protocols.later]\n{RULE}listeners = 'wg'\n")),
        ("conf.d/10.toml", &format!("tcp_idle_timeout = '7s'\n[protocols.z]\n{RULE}[protocols.a]\n{RULE}")),
        ("conf.d/30.toml", "[listeners.wg]\nlisten_port = 2\n"),
        ("conf.d/.hidden.toml", "nonsense"),
        ("conf.d/40.toml.bak", "nonsense"),
        ("conf.d/50.toml/not-a-file", ""),
    ]);
    let Loaded { config, warnings, files } = loaded(directory.path()).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = config.top.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["main", "z", "a"]);
    assert_eq!((&*config.named[0].name, config.named[0].rules.len(), config.rules), ("wg", 1, 4));
    assert_eq!(config.named[0].tcp.idle_timeout, Some(std::time::Duration::from_secs(7)), "inherited over files");
    assert_eq!(files.len(), 4, "three files and their directory");
    let lines: Vec<String> = warnings
        .iter()
        .map(|warning| warning.in_file(&directory.path().join("config.toml")).to_string())
        .map(|line| line.replace(&format!("{}/", directory.path().display()), ""))
        .collect();
    let never = "matches the same and comes first in the file";
    assert_eq!(
        lines,
        [
            format!("conf.d/10.toml:2: protocols.\"z\": never used: protocols.\"main\" {never}"),
            format!("conf.d/10.toml:5: protocols.\"a\": never used: protocols.\"main\" {never}"),
        ]
    );
}

#[test]
fn a_link_that_leads_nowhere_is_a_mistake_though_a_wildcard_finds_it() {
    for (row, leads_to) in [("nowhere", "/nonexistent/tenant.toml"), ("to itself", "tenant.toml")] {
        let directory = directory(&[("config.toml", MAIN), ("conf.d/a.toml", "")]);
        std::os::unix::fs::symlink(leads_to, directory.path().join("conf.d/tenant.toml")).unwrap();
        let error = loaded(directory.path()).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("tenant.toml"), "{row}: {error}");
    }
}

#[test]
fn nothing_to_include_is_no_mistake_but_a_missing_file_is() {
    let main = |include: &str| format!("include = {include}\nlisten_port = 1\ntcp_target = 'a:1'\n");
    for include in ["[]", "'conf.d/*.toml'", "'conf.d/none-*.toml'", "['config.toml.d/?', 'x*']"] {
        let directory = directory(&[("config.toml", &main(include)), ("conf.d/a.conf", "")]);
        assert!(loaded(directory.path()).is_ok(), "{include}");
    }
    let directory = directory(&[("config.toml", &main("'more.toml'")), ("more.toml", "udp_target = 'a:1'")]);
    assert!(loaded(directory.path()).unwrap().config.top.udp.default.is_some());
    fs::remove_file(directory.path().join("more.toml")).unwrap();
    let missing = loaded(directory.path()).unwrap_err();
    assert!(missing.to_string().contains("config.toml:1: include: cannot read"), "{missing}");
    assert_eq!(missing.files().len(), 1, "it may come");
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    for (row, files, expected) in [
        (
            "a wrong value",
            &[
                ("conf.d/a.toml", "\ntcp_idle_timeout = 'x'\n"),
                ("conf.d/b.toml", "[protocols.r]\nprotocol = 'ftp'\ntarget = 'a:1'"),
            ] as &[(&str, &str)],
            &["conf.d/a.toml:2: tcp_idle_timeout: ", "conf.d/b.toml:2: protocols.\"r\".protocol: "] as &[&str],
        ),
        ("no TOML", &[("conf.d/a.toml", "a = 1\nb =")], &["conf.d/a.toml:2: not TOML"]),
        (
            "an unknown key",
            &[("conf.d/a.toml", "\n\nlisten_prot = 1\ntcp_target = 1")],
            &["conf.d/a.toml:3: listen_prot: unknown key ignored (", "conf.d/a.toml:4: tcp_target"],
        ),
        (
            "a key twice",
            &[("conf.d/a.toml", "# x\nlisten_port = 2")],
            &["conf.d/a.toml:2: listen_port: is in another file, too"],
        ),
        (
            "a rule twice",
            &[("conf.d/a.toml", "[protocols.x]"), ("conf.d/b.toml", "[protocols.x]")],
            &[
                "conf.d/a.toml:1: protocols.\"x\".protocol",
                "conf.d/a.toml:1: protocols.\"x\".target",
                "conf.d/b.toml:1: protocols.\"x\": is in another file, too",
            ],
        ),
        (
            "more to include",
            &[("conf.d/a.toml", "tcp_target = 'a:1'\ninclude = 'b'")],
            &[
                "conf.d/a.toml:2: include: is in another file, too",
                "conf.d/a.toml:2: include: an included file cannot include more",
            ],
        ),
    ] {
        let main = [("config.toml", MAIN)];
        let error = error(&[&main, files].concat());
        for line in expected {
            assert!(error.lines().any(|said| said.starts_with(line)), "{row}: {line} is missing in\n{error}");
        }
    }
    let wildcard = error(&[("config.toml", "include = ['*/a.toml']\nlisten_port = 1\ntcp_target = 'a:1'")]);
    assert!(wildcard.starts_with("config.toml:1: include[0]: has a wildcard in a directory"), "{wildcard}");
}

#[test]
fn the_number_of_files_is_bounded() {
    let write = |count: usize| {
        let directory = directory(&[("config.toml", &format!("{MAIN}tcp_target = 'a:1'\n")), ("conf.d/x.conf", "")]);
        for number in 0..count {
            fs::write(directory.path().join(format!("conf.d/{number}.toml")), "").unwrap();
        }
        loaded(directory.path()).map(drop)
    };
    assert!(write(1024).is_ok());
    assert!(write(1025).unwrap_err().to_string().contains("config.toml:1: include: 1025 files are more than the 1024"));
}

#[test]
fn what_has_no_end_is_no_file_to_include() {
    let directory = directory(&[]);
    let pipe = directory.path().join("pipe.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for (row, path, reason) in [
        ("a pipe that nobody writes to", "pipe.toml", "not a file"),
        ("a device", "/dev/zero", "not a file"),
        ("a directory", ".", "Is a directory"),
    ] {
        let main = format!("include = '{path}'\nlisten_port = 1\ntcp_target = 'a:1'\n");
        fs::write(directory.path().join("config.toml"), main).unwrap();
        let error = loaded(directory.path()).expect_err(row).to_string();
        assert!(error.contains(reason), "{row}: {error}");
    }
}

#[test]
fn a_configuration_that_does_not_end_is_refused() {
    let error = load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(error.contains("/dev/zero") && error.contains("64 MiB"), "{error}");
}
