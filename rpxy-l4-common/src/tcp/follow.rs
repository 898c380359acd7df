//! What a segment of a spliced connection means for its entry: whether it is a sign of life, and whether it ends it.
//!
//! No one but the two ends ends a connection. What an outsider can forge without knowing numbers changes nothing (RFC
//! 5961), and every segment is forwarded whatever is found here: the ends know better.

use super::flow::{Side, TcpFlow, seen};
use super::segment::{Segment, flag};
use super::sequence::{is_after, is_within, later};

/// What a segment means for the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A sign of life: idle limits begin again.
    Alive,
    /// It can be from before, forged, or a challenge: nothing changes.
    Nothing,
    /// Both directions have ended, by FINs that were acknowledged or an RST that must be accepted.
    Ended,
}

/// Follows a segment, and notes what it says in `sender`, which like `peer` is in the numbers of its own side; `flow` has the
/// differences of this direction. Without a sign of life nothing is noted.
#[inline(always)]
#[must_use]
pub fn follow(segment: &Segment<'_>, flow: &TcpFlow, sender: &mut Side, peer: &Side) -> Meaning {
    if segment.has(flag::SYN) {
        return Meaning::Nothing;
    }
    // What the peer has acknowledged, in the sender's numbers: the acknowledgement that it sees.
    let expected = peer.acknowledged.wrapping_sub(flow.sequence);
    if segment.has(flag::RST) {
        // RFC 5961 section 3.2: any other number in the window is challenged. What the peer expects is what it has acknowledged,
        // or what was sent last, where it has that and has not said so yet; it says nothing more once it is reset.
        if segment.sequence != expected && segment.sequence != sender.next {
            return Meaning::Nothing;
        }
        sender.seen |= seen::RST;
        return Meaning::Ended;
    }
    let acknowledged = segment.acknowledgement.wrapping_add(flow.acknowledgement);
    if !segment.has(flag::ACK) || !is_acceptable(acknowledged, sender, peer, flow) {
        return Meaning::Nothing;
    }
    // In the peer's window, which may have begun one largest window ago (RFC 9293 section 3.10.7.4); empty probes stand
    // just before it.
    let start = expected.wrapping_sub(peer.largest_window).wrapping_sub(1);
    let len = peer.largest_window.saturating_mul(2).saturating_add(2);
    if !is_within(segment.sequence, start, len) {
        return Meaning::Nothing;
    }
    let end = segment.sequence.wrapping_add(segment.sequence_len());
    sender.next = later(end, sender.next);
    sender.acknowledged = later(segment.acknowledgement, sender.acknowledged);
    let offered = u32::from(segment.window) << (sender.scale & 15);
    if offered > sender.largest_window {
        sender.largest_window = offered;
    }
    if segment.has(flag::FIN) {
        sender.seen |= seen::FIN;
        sender.end = end;
    }
    // Each direction notes what its sender says and nothing else, so that two processors lose no FIN of each other.
    if is_finished(sender, peer, flow) { Meaning::Ended } else { Meaning::Alive }
}

/// Returns true if both sides have sent a FIN, and acknowledged that of the other one; `flow` is of the direction of `sender`.
#[inline(always)]
#[must_use]
pub fn is_finished(sender: &Side, peer: &Side, flow: &TcpFlow) -> bool {
    let heard = sender.acknowledged.wrapping_add(flow.acknowledgement);
    let expected = peer.acknowledged.wrapping_sub(flow.sequence);
    sender.seen & peer.seen & seen::FIN != 0 && !is_after(peer.end, heard) && !is_after(sender.end, expected)
}

/// Returns true for an acknowledgement, in the peer's numbers, of something that the peer has sent, and that is no older
/// than one window (RFC 5961 section 5.2).
#[inline(always)]
fn is_acceptable(acknowledged: u32, sender: &Side, peer: &Side, flow: &TcpFlow) -> bool {
    let oldest = sender.acknowledged.wrapping_add(flow.acknowledgement).wrapping_sub(sender.largest_window);
    !is_after(acknowledged, peer.next) && !is_after(oldest, acknowledged)
}
