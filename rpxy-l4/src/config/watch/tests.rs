//! With a real file system. Positive cases wait on real events, with looks switched off; negative ones let the paused
//! clock run through many looks, which takes no time.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Longer than any test runs: only events count.
const NEVER: Duration = Duration::from_secs(86_400);

/// Bounds a test that hangs; passing tests never wait for it.
const GIVE_UP: Duration = Duration::from_secs(60);

struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        for directory in ["etc", "opt", "opt/1", "opt/2"] {
            fs::create_dir(files.path(directory)).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.path(name)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }
}

/// A way to put a file or its links in place before the watch starts, or to change them after.
type Action = fn(&Files);

#[tokio::test]
async fn changes_are_seen_by_their_events() {
    let rows: &[(&str, Action, Action)] = &[
        ("written in place", |files| files.write("etc/c.toml", "1"), |files| files.write("etc/c.toml", "22")),
        (
            "replaced by an editor",
            |files| files.write("etc/c.toml", "1"),
            |files| {
                files.write("etc/.c.toml.swp", "2");
                files.rename("etc/.c.toml.swp", "etc/c.toml");
            },
        ),
        (
            "removed and created again",
            |files| files.write("etc/c.toml", "1"),
            |files| {
                fs::remove_file(files.path("etc/c.toml")).unwrap();
                files.write("etc/c.toml", "1");
            },
        ),
        ("created for the first time", |_| {}, |files| files.write("etc/c.toml", "1")),
        (
            "written behind a link",
            |files| {
                files.write("opt/c.toml", "1");
                files.link("../opt/c.toml", "etc/c.toml");
            },
            |files| files.write("opt/c.toml", "22"),
        ),
        (
            "link pointed elsewhere",
            |files| {
                files.write("opt/1/c.toml", "1");
                files.write("opt/2/c.toml", "1");
                files.link("../opt/1/c.toml", "etc/c.toml");
            },
            |files| {
                files.link("../opt/2/c.toml", "etc/new");
                files.rename("etc/new", "etc/c.toml");
            },
        ),
        (
            "projected volume swapped, as Kubernetes does",
            |files| {
                for version in ["..1", "..2"] {
                    fs::create_dir(files.path(&format!("etc/{version}"))).unwrap();
                    files.write(&format!("etc/{version}/c.toml"), version);
                }
                files.link("..1", "etc/..data");
                files.link("..data/c.toml", "etc/c.toml");
            },
            |files| {
                files.link("..2", "etc/..data_tmp");
                files.rename("etc/..data_tmp", "etc/..data");
                fs::remove_dir_all(files.path("etc/..1")).unwrap();
            },
        ),
    ];
    for (name, prepare, change) in rows {
        let files = Files::new();
        prepare(&files);
        let mut watch = Watch::with_interval(&files.path("etc/c.toml"), NEVER).unwrap();
        assert_eq!(watch.degraded(), None, "{name}");
        change(&files);
        timeout(GIVE_UP, watch.changed()).await.expect(name);
    }
}

#[tokio::test]
async fn files_that_the_configuration_names_are_watched_as_well() {
    let rows: &[(&str, Action, Action)] = &[
        ("written in place", |files| files.write("opt/1/key.pem", "1"), |files| files.write("opt/1/key.pem", "22")),
        ("created", |_| {}, |files| files.write("opt/1/key.pem", "1")),
        (
            "removed",
            |files| files.write("opt/1/key.pem", "1"),
            |files| fs::remove_file(files.path("opt/1/key.pem")).unwrap(),
        ),
        ("the configuration itself", |_| {}, |files| files.write("etc/c.toml", "22")),
    ];
    for (name, prepare, change) in rows {
        // Whether it happens before the watch is told of the file, or after.
        for late in [false, true] {
            let files = Files::new();
            files.write("etc/c.toml", "1");
            prepare(&files);
            let mut watch = Watch::with_interval(&files.path("etc/c.toml"), NEVER).unwrap();
            let seen = Seen::now(&files.path("opt/1/key.pem"));
            if !late {
                change(&files);
            }
            watch.set_others(&[seen]);
            if late {
                change(&files);
            }
            timeout(GIVE_UP, watch.changed()).await.expect(name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_longer_named_is_no_longer_watched() {
    let files = Files::new();
    files.write("etc/c.toml", "1");
    files.write("opt/key.pem", "1");
    let mut watch = Watch::new(&files.path("etc/c.toml")).unwrap();
    watch.set_others(&[Seen::now(&files.path("opt/key.pem"))]);
    watch.set_others(&[]);
    files.write("opt/key.pem", "22");
    assert!(timeout(LOOK * 10, watch.changed()).await.is_err());
}

#[tokio::test]
async fn the_new_place_of_a_link_is_watched_in_turn() {
    let files = Files::new();
    files.write("opt/1/c.toml", "1");
    files.write("opt/2/c.toml", "2");
    files.link("../opt/1/c.toml", "etc/c.toml");
    let mut watch = Watch::with_interval(&files.path("etc/c.toml"), NEVER).unwrap();
    files.link("../opt/2/c.toml", "etc/new");
    files.rename("etc/new", "etc/c.toml");
    timeout(GIVE_UP, watch.changed()).await.expect("the link");
    files.write("opt/2/c.toml", "22");
    timeout(GIVE_UP, watch.changed()).await.expect("the file it now points to");
}

#[tokio::test(start_paused = true)]
async fn changes_are_seen_without_events() {
    let files = Files::new();
    files.write("etc/c.toml", "1");
    let mut watch = Watch::new(&files.path("etc/c.toml")).unwrap();
    watch.events.watcher = None;
    files.write("etc/c.toml", "22");
    timeout(2 * LOOK, watch.changed()).await.expect("a look finds it");
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_one_change() {
    let files = Files::new();
    files.write("etc/c.toml", "");
    let mut watch = Watch::new(&files.path("etc/c.toml")).unwrap();
    for length in 1..=5 {
        files.write("etc/c.toml", &"x".repeat(length));
    }
    timeout(GIVE_UP, watch.changed()).await.expect("the burst");
    timeout(GIVE_UP, watch.changed()).await.expect_err("reported twice");
}

#[tokio::test(start_paused = true)]
async fn what_leaves_the_file_alone_is_no_change() {
    let rows: &[(&str, Action)] = &[
        ("nothing", |_| {}),
        ("read", |files| {
            fs::read(files.path("etc/c.toml")).unwrap();
        }),
        ("another file in the directory", |files| files.write("etc/access.log", "line")),
        ("removed", |files| fs::remove_file(files.path("etc/c.toml")).unwrap()),
        ("replaced by a directory", |files| {
            fs::remove_file(files.path("etc/c.toml")).unwrap();
            fs::create_dir(files.path("etc/c.toml")).unwrap();
        }),
    ];
    for (name, action) in rows {
        let files = Files::new();
        files.write("etc/c.toml", "1");
        let mut watch = Watch::new(&files.path("etc/c.toml")).unwrap();
        action(&files);
        timeout(GIVE_UP, watch.changed()).await.expect_err(name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_loses_nothing() {
    let files = Files::new();
    files.write("etc/c.toml", "1");
    let mut watch = Watch::new(&files.path("etc/c.toml")).unwrap();
    files.write("etc/c.toml", "22");
    while watch.debounce.deadline().is_none() {
        timeout(Duration::from_millis(10), watch.changed()).await.expect_err("not quiet yet");
    }
    timeout(GIVE_UP, watch.changed()).await.expect("seen by the dropped call");
}

#[tokio::test(start_paused = true)]
async fn a_directory_made_anew_is_watched_again() {
    let files = Files::new();
    files.write("opt/1/c.toml", "1");
    let mut watch = Watch::new(&files.path("opt/1/c.toml")).unwrap();
    fs::remove_dir_all(files.path("opt/1")).unwrap();
    fs::create_dir(files.path("opt/1")).unwrap();
    files.write("opt/1/c.toml", "22");
    timeout(GIVE_UP, watch.changed()).await.expect("found by a look");
    assert_eq!(watch.events.watched, directories(&files.path("opt/1/c.toml")));
}

#[test]
fn running_out_of_watches_is_told_and_survived() {
    let files = Files::new();
    let mut events = Events::new();
    assert_eq!(events.degraded, None);
    events.watcher = None;
    events.degraded = Some("no more watches".into());
    events.follow(&files.path("etc/c.toml"), &[]);
    assert_eq!(events.degraded.as_deref(), Some("no more watches"), "still without");
    events.retry();
    events.follow(&files.path("etc/c.toml"), &[]);
    assert_eq!(events.degraded, None, "recovered");
    assert!(!events.watched.is_empty());
}

#[tokio::test]
async fn names_that_come_and_go_in_a_directory_are_seen_by_their_events() {
    let rows: &[(&str, Action, Action)] = &[
        ("added", |_| {}, |files| files.write("opt/1/a.toml", "1")),
        (
            "removed",
            |files| files.write("opt/1/a.toml", "1"),
            |files| fs::remove_file(files.path("opt/1/a.toml")).unwrap(),
        ),
        ("moved here", |files| files.write("opt/2/a.toml", "1"), |files| files.rename("opt/2/a.toml", "opt/1/a.toml")),
        ("the directory comes", |files| files.rename("opt/1", "etc/1"), |files| files.rename("etc/1", "opt/1")),
    ];
    for (name, before, change) in rows {
        let files = Files::new();
        files.write("etc/c.toml", "1");
        before(&files);
        let mut watch = Watch::with_interval(&files.path("etc/c.toml"), NEVER).unwrap();
        watch.set_others(&[Seen::directory(&files.path("opt/1"))]);
        change(&files);
        timeout(GIVE_UP, watch.changed()).await.expect(name);
    }
}
