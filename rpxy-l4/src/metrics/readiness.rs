//! What `/readyz` answers: whether new traffic should come here.

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether the daemon takes new traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Readiness {
    /// The sockets are not open yet.
    Starting,
    /// There is no destination, so that nothing is listened on.
    Idle,
    /// It takes new traffic.
    Ready,
    /// It was told to stop, or to let nothing new in.
    Draining,
}

impl Readiness {
    const ALL: [Self; 4] = [Self::Starting, Self::Idle, Self::Ready, Self::Draining];

    /// Why it does not; `None` when it does.
    #[must_use]
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Starting => Some("starting"),
            Self::Idle => Some("nothing is listened on: the configuration has no destination"),
            Self::Ready => None,
            Self::Draining => Some("draining"),
        }
    }
}

/// The readiness of a daemon as others read it.
#[derive(Debug, Default)]
pub(super) struct Current(AtomicU8);

impl Current {
    pub(super) fn set(&self, readiness: Readiness) {
        self.0.store(readiness as u8, Ordering::Relaxed);
    }

    pub(super) fn load(&self) -> Readiness {
        let value = usize::from(self.0.load(Ordering::Relaxed));
        Readiness::ALL.get(value).copied().unwrap_or(Readiness::Starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_told() {
        let current = Current::default();
        assert_eq!(current.load(), Readiness::Starting);
        for readiness in Readiness::ALL {
            current.set(readiness);
            assert_eq!(current.load(), readiness);
        }
    }
}
