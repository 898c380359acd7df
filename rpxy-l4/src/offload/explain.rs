//! Errors of aya and of the kernel in words that an operator can act on.

use std::{error::Error, io};

use aya::programs::ProgramError;

use super::{Unavailable, machine::Machine};

/// Why the object could not be loaded.
pub(super) fn unavailable(what: &str, error: &(dyn Error + 'static), machine: &Machine) -> Unavailable {
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) => {
            let (why, remedy) = machine.why_refused();
            Unavailable { what: format!("{what}: {why}"), remedy }
        }
        Some(libc::ENOSYS) => Unavailable {
            what: format!("{what}: this kernel has no bpf(2)"),
            remedy: "use a kernel with CONFIG_BPF_SYSCALL".to_owned(),
        },
        Some(libc::ENOMEM | libc::E2BIG) => Unavailable {
            what: format!("{what}: out of memory for the maps"),
            remedy: "lower ebpf.max_flows, or give the process more memory".to_owned(),
        },
        _ => Unavailable { what: format!("{what}: {}", chain(error)), remedy: old_kernel(machine) },
    }
}

/// What to do about a refusal that has no better explanation.
pub(super) fn old_kernel(machine: &Machine) -> String {
    if machine.is_older_than((5, 15)) {
        format!("use Linux 5.15 or newer; this is {}", machine.release)
    } else {
        "see `rpxy-l4 doctor`".to_owned()
    }
}

/// An error of a program in one line.
pub(super) fn program(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        // The verifier says EACCES for what it would take from somebody with more capabilities, and its last line tells
        // of that one instruction only.
        let missing = Machine::read().missing();
        if !missing.is_empty() && matches!(io_error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
            return format!("the kernel refused the program: missing {}", missing.join(" and "));
        }
        let log = verifier_log.to_string();
        // The summary behind the reason counts instructions.
        let reason = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed "));
        return match reason {
            Some(reason) => format!("the kernel refused the program ({io_error}): {reason}"),
            None => format!("the kernel refused the program: {io_error}"),
        };
    }
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EBUSY | libc::EEXIST) => "there is another program, which is left alone".to_owned(),
        Some(libc::EOPNOTSUPP) => "the driver has no such hook".to_owned(),
        Some(libc::EPERM | libc::EACCES) => Machine::read().why_refused().0,
        Some(libc::EINVAL | libc::ERANGE) => {
            format!("{} (some drivers refuse large MTUs, or LRO, with XDP)", chain(error))
        }
        _ => chain(error),
    }
}

/// The error of the system behind `error`.
pub(super) fn os_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// An error and what caused it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// An error with its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for error in causes(error) {
        let part = error.to_string().replace('\n', " ");
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn system_errors_are_found_and_explained() {
        let of = |code| Outer(io::Error::from_raw_os_error(code));
        assert_eq!(os_error(&of(libc::EPERM)).unwrap().raw_os_error(), Some(libc::EPERM));
        let machine = Machine::read();
        for code in [libc::EPERM, libc::ENOSYS, libc::E2BIG, libc::EIO] {
            let line = unavailable("cannot load", &of(code), &machine).to_string();
            assert!(line.starts_with("cannot load: ") && !line.contains('\n'), "{line}");
        }
        assert_eq!(chain(&of(libc::EIO)), "outer: Input/output error (os error 5)");
    }
}
