//! The eBPF programs that this daemon carries with it.

/// The object that `cargo xtask build-ebpf` had built before the daemon was compiled; `None` when it had not, and there
/// is nothing to load.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(ebpf_object)]
    return Some(&EMBEDDED.0);
    #[cfg(not(ebpf_object))]
    return None;
}

/// Headers and instructions of the object are read in place: they are aligned to 8 bytes within it.
#[cfg(ebpf_object)]
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

#[cfg(ebpf_object)]
static EMBEDDED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/rpxy-l4.o")));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_aligned_elf() {
        if let Some(object) = object() {
            assert!(object.starts_with(b"\x7fELF"));
            assert_eq!(object.as_ptr().addr() % 8, 0);
        }
    }
}
