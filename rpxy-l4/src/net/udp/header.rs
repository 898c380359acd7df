//! `struct msghdr`, whose numbers have other types in musl than in glibc.
#![expect(unsafe_code, reason = "a header with padding, which glibc does not have, cannot be written as a literal")]

use std::mem::MaybeUninit;

/// A header that says nothing.
pub(super) fn empty() -> libc::mmsghdr {
    // SAFETY: null pointers, numbers of 0 and padding of 0 are a valid header, and the one that both C libraries want.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// A number in the type that the C library has for it; 0 if it is too large, which is refused where it matters.
pub(super) fn fit<T: Default + TryFrom<U>, U>(number: U) -> T {
    T::try_from(number).unwrap_or_default()
}
