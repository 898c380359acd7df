//! Where lines end up: the standard output, or a file that may be rotated away. What cannot be written is lost, counted and
//! said once, until it can be again.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

/// Interval of checking whether a file was rotated away.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// Something that the operator has to know about an output.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// So many lines were lost, for whatever reason.
    Lost(u64),
    /// So many lines did not fit into the buffer.
    TooSlow(u64),
    /// Writing has begun to fail.
    Failed(&'a str, &'a io::Error),
    /// Writing works again; so many lines were lost meanwhile.
    Recovered(&'a str, u64),
}

/// An output for whole lines.
#[derive(Debug)]
pub(super) struct Output {
    /// As messages call it.
    name: String,
    target: Target,
    /// Lines lost since writing began to fail; `None` while it works.
    lost: Option<u64>,
    /// The last line that was written is not whole.
    torn: bool,
}

#[derive(Debug)]
enum Target {
    Stdout,
    File(LogFile),
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self { name: "the standard output".to_owned(), target: Target::Stdout, lost: None, torn: false }
    }

    /// Appends to the file at `path`, which is created when missing.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let target = Target::File(LogFile::open(path)?);
        Ok(Self { name: path.display().to_string(), target, lost: None, torn: false })
    }

    /// Writes lines, to a file that is opened anew when it was rotated away or `reopen` says so; `tell` hears what is lost.
    pub(super) fn write(&mut self, lines: &[u8], reopen: bool, tell: &dyn Fn(Event<'_>)) {
        if self.target.refresh(reopen) {
            self.torn = false;
        }
        if lines.is_empty() {
            return;
        }
        let (written, result) = self.write_all(lines);
        match (result, self.lost) {
            (Ok(()), None) => {}
            (Ok(()), Some(lost)) => {
                self.lost = None;
                tell(Event::Recovered(&self.name, lost));
            }
            (Err(error), before) => {
                let (written, unwritten) = lines.split_at_checked(written).unwrap_or((lines, &[]));
                self.torn |= written.last().is_some_and(|last| *last != b'\n');
                let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.lost = Some(before.unwrap_or(0) + lost);
                if before.is_none() {
                    tell(Event::Failed(&self.name, &error));
                }
                tell(Event::Lost(lost));
            }
        }
    }

    /// Returns how many bytes of `lines` were written.
    fn write_all(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            if let Err(error) = self.target.write(b"\n") {
                return (0, Err(error));
            }
            self.torn = false;
        }
        let mut written = 0;
        while let Some(rest @ [_, ..]) = lines.get(written..) {
            match self.target.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that somebody has made non-blocking: as stalled as any.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.target.wait(),
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Not through the buffer of the standard library, which would keep what could not be written.
            Self::Stdout => Ok(rustix::io::write(io::stdout(), bytes)?),
            Self::File(file) => io::Write::write(&mut file.file, bytes),
        }
    }

    /// Waits until there is room.
    fn wait(&self) {
        let stdout = io::stdout();
        let fd = match self {
            Self::Stdout => stdout.as_fd(),
            Self::File(file) => file.file.as_fd(),
        };
        // Should it fail, writing tells more.
        let _ready = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
    }

    /// Returns whether a file was opened anew.
    fn refresh(&mut self, reopen: bool) -> bool {
        match self {
            Self::Stdout => false,
            Self::File(file) => file.refresh(reopen),
        }
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    checked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file, checked: Instant::now() })
    }

    fn refresh(&mut self, reopen: bool) -> bool {
        if !reopen && self.checked.elapsed() < ROTATION_CHECK {
            return false;
        }
        self.checked = Instant::now();
        // Where the new file cannot be opened, the old one is better than nothing.
        if (reopen || self.rotated_away())
            && let Ok(fresh) = Self::open(&self.path)
        {
            *self = fresh;
            return true;
        }
        false
    }

    fn rotated_away(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) != (there.dev(), there.ino()),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn write(output: &mut Output, lines: &[u8], reopen: bool) -> Vec<String> {
        let told = RefCell::<Vec<String>>::default();
        output.write(lines, reopen, &|event| {
            told.borrow_mut().push(match event {
                Event::Lost(lines) => format!("lost {lines}"),
                Event::TooSlow(lines) => format!("too slow {lines}"),
                Event::Failed(_, error) => format!("failed {:?}", error.kind()),
                Event::Recovered(_, lines) => format!("recovered {lines}"),
            });
        });
        told.into_inner()
    }

    #[test]
    fn a_full_disk_is_told_once_and_so_is_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let full = || {
            drop(std::fs::remove_file(&path));
            // Every write to it fails as on a full disk (full(4)).
            std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        };
        full();
        let mut output = Output::file(&path).unwrap();
        for (lines, expected) in
            [(&b"1\n2\n"[..], &["failed StorageFull", "lost 2"] as &[&str]), (b"3\n", &["lost 1"]), (b"", &[])]
        {
            assert_eq!(write(&mut output, lines, false), expected);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(write(&mut output, b"4\n", true), ["recovered 3"]);
        assert_eq!(write(&mut output, b"5\n", false), Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n5\n");
        full();
        assert_eq!(write(&mut output, b"6\n", true), ["failed StorageFull", "lost 1"]);
    }

    #[test]
    fn a_line_that_fits_in_part_is_ended_before_the_next_unless_the_file_is_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        for (reopen, expected) in [(false, "half of a li\nwhole\n"), (true, "whole\n")] {
            std::fs::write(&path, "half of a li").unwrap();
            let mut output = Output { torn: true, ..Output::file(&path).unwrap() };
            if reopen {
                std::fs::remove_file(&path).unwrap();
            }
            write(&mut output, b"whole\n", reopen);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
    }
}
