//! Explanations of errors of aya and of the kernel, for operators.

use std::{error::Error, io};

use aya::programs::ProgramError;

use super::machine::Machine;
use crate::offload::api::Unavailable;

/// Explains why `what` failed, with the remedy.
pub(super) fn unavailable(what: &str, error: &(dyn Error + 'static), machine: &Machine) -> Unavailable {
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) => {
            let refusal = machine.refusal();
            Unavailable { what: format!("{what}: {}", refusal.what), ..refusal }
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

/// Returns the remedy for an error without a better explanation.
pub(super) fn old_kernel(machine: &Machine) -> String {
    if machine.is_older_than((5, 15)) {
        format!("use Linux 5.15 or newer; this is {}", machine.release)
    } else {
        "see `rpxy-l4 doctor`".to_owned()
    }
}

/// Explains an error of a program in one line.
pub(super) fn program(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        // The verifier returns EACCES for what it would accept with more capabilities, and its last line names only the
        // instruction.
        let missing = Machine::read().missing();
        if !missing.is_empty() && matches!(io_error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
            return format!("the kernel refused the program: missing {}", missing.join(" and "));
        }
        let log = verifier_log.to_string();
        // The last line is a summary that counts instructions; the reason stands before it.
        let reason = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed "));
        return match reason {
            Some(reason) => format!("the kernel refused the program ({io_error}): {reason}"),
            None => format!("the kernel refused the program: {io_error}"),
        };
    }
    match os_error(error).and_then(io::Error::raw_os_error) {
        Some(libc::EBUSY | libc::EEXIST) => "it has another program, which is left alone".to_owned(),
        Some(libc::EOPNOTSUPP) => "the driver does not support this hook".to_owned(),
        Some(libc::EPERM | libc::EACCES) => Machine::read().refusal().what,
        Some(libc::EINVAL | libc::ERANGE) => {
            format!("{} (with XDP some drivers refuse large MTUs or LRO)", chain(error))
        }
        _ => chain(error),
    }
}

/// Returns the system error that caused `error`.
fn os_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Returns an error and its causes.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Joins an error and its causes in one line.
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
