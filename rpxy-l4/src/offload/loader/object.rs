//! The embedded eBPF object.

/// Returns the object that `cargo xtask build-ebpf` built before the daemon was compiled; `None` if it was not run.
pub(crate) fn object() -> Option<&'static [u8]> {
    #[cfg(ebpf_object)]
    return Some(&EMBEDDED.0);
    #[cfg(not(ebpf_object))]
    return None;
}

/// Aligns the object to 8 bytes: its headers and instructions are read in place.
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
