//! The limit of handshakes for each source network.

use rpxy_l4_common::bucket::{Charge, charge};
use rpxy_l4_common::map::Socket;

use crate::clock;
use crate::maps::{Bucket, source_limit};

/// Charges handshakes to the network of their sender; false when it has none left. No lock: where two processors begin
/// a bucket at once, one of them is forgotten, and so are buckets that had to make room.
#[inline(always)]
pub(crate) fn admits(source: &Socket, handshakes: u32) -> bool {
    let Some(limit) = source_limit().filter(|limit| limit.interval > 0) else { return true };
    let network = limit.network(source);
    let now = clock::precise();
    let bucket = Bucket::of(&network);
    let due = bucket.map_or(0, Bucket::due);
    match (charge(due, now, limit.interval, limit.window, limit.charged(handshakes)), bucket) {
        (Charge::Refused, _) => return false,
        (Charge::Begin(due) | Charge::Add(due), None) => {
            // Without memory for it there is no limit.
            if Bucket::insert(&network, due).is_err() {
                return true;
            }
        }
        (Charge::Begin(due), Some(bucket)) => bucket.set_due(due),
        (Charge::Add(more), Some(bucket)) => bucket.add(more),
    }
    true
}
