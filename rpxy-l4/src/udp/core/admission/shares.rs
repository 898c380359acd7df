//! All shares under one limit, with the largest of them at hand: however many rules there are, what needs a place looks at a
//! few of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::{SessionId, table::Table},
    share::Share,
};
use crate::route::{ShareOf, UdpRoute};

/// Shares looked at for the one with the most sessions that have proved nothing. More only choose better.
const LOOKS: usize = 4;

/// The shares that have sessions.
///
/// Invariant: each is once in `by_sessions` and once in `by_unproven`, with what it has now, and those with limits are in
/// `limited`.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: BTreeMap<ShareOf, Share>,
    by_sessions: BTreeSet<(usize, ShareOf)>,
    by_unproven: BTreeSet<(usize, ShareOf)>,
    /// The rules as of their latest sessions.
    limited: BTreeMap<ShareOf, Arc<UdpRoute>>,
    sessions: usize,
}

impl Shares {
    pub(super) fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Sessions in each share, on average.
    pub(super) fn equal_share(&self) -> usize {
        self.sessions / self.shares.len().max(1)
    }

    pub(super) fn get(&self, of: &ShareOf) -> Option<&Share> {
        self.shares.get(of)
    }

    /// The rules with limits of their own, or of their targets.
    pub(super) fn limited(&self) -> impl Iterator<Item = &Arc<UdpRoute>> {
        self.limited.values()
    }

    /// A session of `route` begins.
    pub(super) fn entered(&mut self, id: SessionId, route: &Arc<UdpRoute>, table: &Table) {
        if !self.shares.contains_key(&route.share) {
            self.shares.insert(route.share.clone(), Share::default());
            self.by_sessions.insert((0, route.share.clone()));
            self.by_unproven.insert((0, route.share.clone()));
        }
        self.change(&route.share, |share| share.entered(id, table));
        if route.is_limited() {
            self.limited.insert(route.share.clone(), Arc::clone(route));
        } else if !self.limited.is_empty() {
            self.limited.remove(&route.share);
        }
    }

    /// One of the sessions of `of` has ended.
    pub(super) fn left(&mut self, of: &ShareOf) {
        let left = self.change(of, |share| {
            share.sessions = share.sessions.saturating_sub(1);
            (share.sessions, share.most_unproven())
        });
        if let Some((0, unproven)) = left {
            self.shares.remove(of);
            self.by_sessions.remove(&(0, of.clone()));
            self.by_unproven.remove(&(unproven, of.clone()));
            self.limited.remove(of);
        }
    }

    /// Changes a share, whatever that does to its size.
    pub(super) fn change<T>(&mut self, of: &ShareOf, change: impl FnOnce(&mut Share) -> T) -> Option<T> {
        let share = self.shares.get_mut(of)?;
        let before = (share.sessions, share.most_unproven());
        let result = change(share);
        let after = (share.sessions, share.most_unproven());
        self.sessions = self.sessions - before.0 + after.0;
        move_to(&mut self.by_sessions, of, before.0, after.0);
        move_to(&mut self.by_unproven, of, before.1, after.1);
        Some(result)
    }

    /// The share with the most sessions that have proved nothing, and how many.
    pub(super) fn most_unproven(&mut self, table: &Table) -> Option<(ShareOf, usize)> {
        for _ in 0..LOOKS {
            let (said, of) = self.by_unproven.last()?.clone();
            let unproven = self.change(&of, |share| {
                share.sweep(table);
                share.most_unproven()
            })?;
            if unproven == said {
                break;
            }
        }
        self.by_unproven.last().map(|(unproven, of)| (of.clone(), *unproven))
    }

    /// The share with the most sessions, and how many.
    pub(super) fn largest(&self) -> Option<(ShareOf, usize)> {
        self.by_sessions.last().map(|(sessions, of)| (of.clone(), *sessions))
    }
}

fn move_to(order: &mut BTreeSet<(usize, ShareOf)>, of: &ShareOf, before: usize, after: usize) {
    if before != after
        && let Some((_, of)) = order.take(&(before, of.clone()))
    {
        order.insert((after, of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(number: usize) -> ShareOf {
        ShareOf::Rule(format!("rule {number}").into())
    }

    /// As [`Shares::entered`], without a session behind it.
    fn enter(shares: &mut Shares, of: &ShareOf) {
        if !shares.shares.contains_key(of) {
            shares.shares.insert(of.clone(), Share::default());
            shares.by_sessions.insert((0, of.clone()));
            shares.by_unproven.insert((0, of.clone()));
        }
        shares.change(of, |share| share.sessions += 1);
    }

    #[test]
    fn the_largest_share_is_known_whatever_comes_and_goes() {
        let mut shares = Shares::default();
        let mut counts: BTreeMap<ShareOf, usize> = BTreeMap::new();
        for step in 0..2000_usize {
            let of = rule(step * step % 7);
            if step % 5 < 3 {
                enter(&mut shares, &of);
                *counts.entry(of).or_default() += 1;
            } else if counts.contains_key(&of) {
                shares.left(&of);
                let left = counts.get_mut(&of).unwrap();
                *left -= 1;
                counts.retain(|_, count| *count > 0);
            }
            let largest = counts.iter().map(|(of, count)| (*count, of.clone())).max();
            assert_eq!(shares.largest().map(|(of, count)| (count, of)), largest, "{step}");
            assert_eq!(shares.sessions, counts.values().sum::<usize>(), "{step}");
            let ordered = [&shares.by_sessions, &shares.by_unproven].map(BTreeSet::len);
            assert_eq!(ordered, [counts.len(); 2], "{step}");
        }
    }
}
