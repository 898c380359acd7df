//! Bytes that an answer has to hold.

use super::Judgement;

/// Passes once `expect` is anywhere in what has `arrived`.
pub(super) fn judge(arrived: &[u8], expect: &[u8]) -> Judgement {
    // An empty one would be in any answer; windows of nothing are not allowed.
    let found = expect.is_empty() || arrived.windows(expect.len()).any(|window| window == expect);
    if found { Judgement::Passed } else { Judgement::NeedMore }
}
