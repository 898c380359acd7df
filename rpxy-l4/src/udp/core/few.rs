//! A list of the latest few values, small enough for every session to have one.

/// IDs of either kind that are remembered for a session: Retry, handshake and later ones of the server; the last that
/// the client went on to use.
const MOST: usize = 4;

/// The latest few values, the latest last.
#[derive(Debug, Clone)]
pub(super) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Few<T> {
    pub(super) fn contains(&self, value: T) -> bool {
        self.0.contains(&value)
    }

    /// Adds `value` and returns the one that had to go.
    pub(super) fn add(&mut self, value: T) -> Option<T> {
        let displaced = if self.0.len() < MOST { None } else { Some(self.0.remove(0)) };
        if self.0.capacity() == self.0.len() {
            // Most sessions stay with one or two.
            self.0.reserve_exact(1);
        }
        self.0.push(value);
        displaced
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().copied()
    }
}
