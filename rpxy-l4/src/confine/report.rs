//! What is told of confinement: by `doctor` about the machine, at the start about files that the user cannot reach.

use std::{fs, io, io::Write, os::unix::fs::MetadataExt as _, path::Path};

use rustix::{
    fs::{Access, AtFlags, CWD, Gid, Uid, access, chownat},
    io::Errno,
    thread::CapabilitySet,
};

use super::{
    Places, calls,
    files::{self, Applied},
    rights,
};
use crate::{
    config::{
        model::{Config, Confine, User},
        watch::Seen,
    },
    log::FILES,
};

/// Writes what the machine offers, and what `config` takes of it.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn doctor(out: &mut dyn Write, config: Option<&Config>) -> io::Result<()> {
    let Confine { user, capabilities, landlock, seccomp, memory } =
        config.map_or_else(Confine::default, |config| config.confine.clone());
    let on = |on: bool| if on { "" } else { ", switched off" };
    match user {
        Some(user) => writeln!(out, "user: {} ({}), group {}", user.name, user.id, user.group)?,
        None if rights::is_root() => writeln!(out, "user: root, if it is started by root; the key user names another")?,
        None => writeln!(out, "user: whoever starts it")?,
    }
    if !capabilities {
        writeln!(out, "workers without capabilities: switched off")?;
    }
    let version = match files::version() {
        Applied::Version(version) => format!("version {version}"),
        Applied::Not(why) => format!("not possible, {why}"),
    };
    writeln!(out, "Landlock: {version}{}", on(landlock))?;
    let filters = if calls::is_supported() { "possible" } else { "not possible, this kernel has no seccomp filters" };
    writeln!(out, "filters of system calls: {filters}{}", on(seccomp))?;
    let secrets = config.is_some_and(Config::has_secrets);
    writeln!(
        out,
        "hidden memory: {}{}",
        if secrets { "yes, there are secrets" } else { "no, there are no secrets" },
        on(memory)
    )
}

/// Gives log files that root has just made to `user`, if nobody else could have put something else in their place.
pub(super) fn give_logs(directory: &Path, user: &User) {
    let only_roots = |of: &fs::Metadata| of.uid() == 0 && of.mode() & 0o022 == 0;
    if !fs::metadata(directory).is_ok_and(|of| only_roots(&of)) {
        return;
    }
    for name in FILES {
        let path = directory.join(name);
        let owner = (Some(Uid::from_raw(user.id)), Some(Gid::from_raw(user.group)));
        if let Err(error) = chownat(CWD, &path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
            tracing::debug!("cannot give {} to {}: {error}", path.display(), user.name);
        }
    }
}

/// What the user that the process has become will miss, each with a remedy: a thread with the rights `left` tries.
pub(super) fn out_of_reach(user: &User, left: CapabilitySet, places: &Places<'_>) -> Vec<String> {
    let look = || {
        rights::reduce(left).ok()?;
        let is_denied = |path: &Path, how| access(path, how) == Err(Errno::ACCESS);
        let files = std::iter::once(places.config).chain(places.files.iter().map(Seen::path));
        let unreadable: Vec<&Path> = files.filter(|path| is_denied(path, Access::READ_OK)).collect();
        Some((unreadable, places.logs.filter(|logs| is_denied(logs, Access::WRITE_OK))))
    };
    let looked = std::thread::scope(|scope| scope.spawn(look).join().ok().flatten());
    let Some((unreadable, logs)) = looked else { return Vec::new() };
    let User { name, group, .. } = user;
    let unreadable = unreadable.into_iter().map(|path| {
        format!(
            "user {name} cannot read {0}, so reloads will be refused (chgrp {group} {0}; chmod g+r {0}; the same for its \
             directory, with g+rx)",
            path.display()
        )
    });
    let unwritable = logs.map(|directory| {
        format!(
            "user {name} cannot make files in {0}, so logs are not opened anew once they are rotated (chown {name} {0})",
            directory.display()
        )
    });
    unreadable.chain(unwritable).collect()
}
