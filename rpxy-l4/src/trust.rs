//! Who could have put what is at a path: a directory of pins, or a socket, that another user has prepared is not used.
//!
//! Errs towards refusing: a group that may write is a group of strangers.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::process::geteuid;
use thiserror::Error;

/// The reason why something at a path is not to be used.
#[derive(Debug, Error)]
pub(crate) enum Untrusted {
    /// It is another user's.
    #[error("{} belongs to user {owner}", path.display())]
    Owner {
        /// It, or a directory or link on the way.
        path: PathBuf,
        /// Number of the user.
        owner: u32,
    },
    /// Others can put something in its place.
    #[error("others than its owner may write to {} (mode {mode:04o})", path.display())]
    Writable {
        /// It, or a directory on the way.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It cannot be looked at.
    #[error("{}: {error}", path.display())]
    Io {
        /// What cannot be looked at.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

/// One name on the way to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    path: PathBuf,
    owner: u32,
    mode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

impl Step {
    fn at(path: &Path) -> Result<Self, Untrusted> {
        let found = fs::symlink_metadata(path).map_err(|error| Untrusted::Io { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), owner: found.uid(), mode: found.mode() })
    }

    fn kind(&self) -> u32 {
        self.mode & 0o170_000
    }

    fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

/// Makes sure that nobody but root and this process's user has put what is at `path` there, and that nobody else can write to
/// it.
///
/// # Errors
///
/// Somebody could have, or it cannot be looked at.
pub(crate) fn only_ours(path: &Path) -> Result<(), Untrusted> {
    let steps = steps(path)?;
    check(&steps, geteuid().as_raw(), None)?;
    let writable = |last: &&Step| last.kind() != LINK && last.mode & OTHERS_WRITE != 0;
    match steps.last().filter(writable) {
        Some(last) => Err(Untrusted::Writable { path: last.path.clone(), mode: last.permissions() }),
        None => Ok(()),
    }
}

/// Makes sure that user `peer`, who answers at the socket at `path`, was put there by root or this process's user, or is one of
/// them: the socket is in a directory where no third one could have made it, or in one that was given to `peer`.
///
/// # Errors
///
/// The socket may be anybody's, or its directories cannot be looked at.
pub(crate) fn may_answer(path: &Path, peer: u32) -> Result<(), Untrusted> {
    let own = geteuid().as_raw();
    if peer == 0 || peer == own {
        return Ok(());
    }
    check(&steps(path)?, own, Some(peer))
}

/// What is on the way to `path`, itself last: first as it is written, then without links.
fn steps(path: &Path) -> Result<Vec<Step>, Untrusted> {
    let failed = |error| Untrusted::Io { path: path.to_owned(), error };
    let written = std::path::absolute(path).map_err(failed)?;
    let real = path.canonicalize().map_err(failed)?;
    let mut steps = Vec::new();
    for path in [written, real] {
        let mut here = PathBuf::new();
        for component in path.components().filter(|component| *component != Component::CurDir) {
            here.push(component);
            steps.push(Step::at(&here)?);
        }
    }
    Ok(steps)
}

fn check(steps: &[Step], own: u32, peer: Option<u32>) -> Result<(), Untrusted> {
    // The directory before is one in which everybody can make files, and nobody can remove those of others.
    let mut shared = false;
    // The directory before is the peer's, who got it from us.
    let mut given = false;
    for step in steps {
        if step.path == Path::new("/") {
            (shared, given) = (false, false);
        }
        let ours = step.owner == 0 || step.owner == own;
        let theirs = peer == Some(step.owner);
        if given {
            continue;
        }
        if !ours && (shared || !theirs) {
            return Err(Untrusted::Owner { path: step.path.clone(), owner: step.owner });
        }
        if step.kind() != DIRECTORY {
            continue;
        }
        let writable = step.mode & OTHERS_WRITE != 0;
        given = !ours;
        shared = writable && step.mode & STICKY != 0;
        if writable && !shared && !given {
            return Err(Untrusted::Writable { path: step.path.clone(), mode: step.permissions() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 1000;
    const DAEMON: u32 = 990;
    const OTHER: u32 = 666;
    const SOCKET: u32 = 0o140_000;

    fn chain(steps: &[(u32, u32)]) -> Vec<Step> {
        let mut path = PathBuf::from("/");
        let step = |(owner, mode): &(u32, u32)| {
            let step = Step { path: path.clone(), owner: *owner, mode: *mode };
            path.push("x");
            step
        };
        steps.iter().map(step).collect()
    }

    const ROOT: (u32, u32) = (0, DIRECTORY | 0o755);
    const TMP: (u32, u32) = (0, DIRECTORY | 0o1777);

    #[test]
    fn a_directory_is_ours_if_nobody_else_could_have_made_it() {
        let (mine, roots) = ((OWN, DIRECTORY | 0o700), (0, DIRECTORY | 0o700));
        for (row, steps, expected) in [
            ("of root", vec![ROOT, roots], true),
            ("of this user, in a shared directory", vec![ROOT, TMP, mine], true),
            ("of another user, in a shared directory", vec![ROOT, TMP, (OTHER, DIRECTORY | 0o700)], false),
            ("in a directory of another user", vec![ROOT, (OTHER, DIRECTORY | 0o755), mine], false),
            ("in a directory that others may rename it in", vec![ROOT, (0, DIRECTORY | 0o777), mine], false),
            ("in a directory of a group", vec![ROOT, (0, DIRECTORY | 0o775), mine], false),
            ("by a link of another user", vec![ROOT, TMP, (OTHER, LINK | 0o777)], false),
            ("by a link of root", vec![ROOT, (0, LINK | 0o777)], true),
        ] {
            assert_eq!(check(&chain(&steps), OWN, None).is_ok(), expected, "{row}");
        }
    }

    #[test]
    fn a_peer_answers_for_us_where_we_have_put_it() {
        let (socket, run) = ((DAEMON, SOCKET | 0o660), (DAEMON, DIRECTORY | 0o755));
        for (row, steps, expected) in [
            ("in the directory that it was given", vec![ROOT, ROOT, run, socket], true),
            ("in a directory of root", vec![ROOT, ROOT, socket], true),
            ("in a shared directory", vec![ROOT, TMP, socket], false),
            ("in a directory that it made in a shared one", vec![ROOT, TMP, run, socket], false),
            ("in a directory of ours in a shared one", vec![ROOT, TMP, (OWN, DIRECTORY | 0o755), socket], true),
            ("in a directory of a third user", vec![ROOT, (OTHER, DIRECTORY | 0o755), socket], false),
        ] {
            assert_eq!(check(&chain(&steps), OWN, Some(DAEMON)).is_ok(), expected, "{row}");
        }
    }

    #[test]
    fn what_others_may_write_to_is_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        only_ours(directory.path()).unwrap();
        let mode =
            |mode| fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o1777);
        let error = only_ours(directory.path()).unwrap_err();
        assert!(matches!(error, Untrusted::Writable { mode: 0o1777, .. }), "{error}");
        mode(0o700);
        only_ours(&directory.path().join("missing")).unwrap_err();
        may_answer(directory.path(), 0).unwrap();
    }
}
