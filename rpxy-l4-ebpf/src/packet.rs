//! Access to packets, and the helpers that send them on: the only place that looks behind packet pointers and into
//! socket buffers.
#![expect(unsafe_code, reason = "packet pointers and helpers of the kernel")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "offsets within packets, numbers of interfaces and actions have 32 bits in the kernel"
)]

use core::arch::asm;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_load_bytes,
    bpf_skb_store_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use rpxy_l4_common::bytes::Bytes;
use rpxy_l4_ebpf::write;

/// The mark of a copy on its way out; the packet itself keeps the one that it has.
const COPY: u32 = 0x7270_7879;

/// Farther than any header. The verifier wants to see that an offset is small before it is added to a packet pointer.
const FARTHEST: usize = 0x7fff;

/// A packet as the driver has it, in one piece.
pub(crate) struct Frame(pub(crate) XdpContext);

impl Frame {
    /// Returns the `N` bytes at an offset, if they are within the packet.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        if offset > FARTHEST {
            return None;
        }
        let start = self.0.data() + offset;
        (start + N <= self.0.data_end()).then_some(start as *mut [u8; N])
    }

    /// Returns the interface that the packet arrived by.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    /// Sends the packet out of an interface when the program ends. Returns the action.
    #[inline(always)]
    pub(crate) fn redirect(&self, interface: u32) -> u32 {
        // SAFETY: a helper that takes numbers only.
        unsafe { bpf_redirect(interface, 0) as u32 }
    }
}

/// Bytes that may be moved by words.
#[repr(align(8))]
struct Words<const N: usize>([u8; N]);

/// Reads four bytes in one load, which Rust does not have for any alignment, but the kernel has.
///
/// # Safety
///
/// The bytes are within the packet.
#[inline(always)]
unsafe fn load_4(from: *const u8) -> [u8; 4] {
    let word: u32;
    // SAFETY: one load, of which the verifier makes sure as well.
    unsafe {
        asm!("{word} = *(u32 *)({from} + 0)", word = out(reg) word, from = in(reg) from, options(pure, readonly));
    };
    word.to_ne_bytes()
}

/// Reads two bytes in one load.
///
/// # Safety
///
/// The bytes are within the packet.
#[inline(always)]
unsafe fn load_2(from: *const u8) -> [u8; 2] {
    let word: u32;
    // SAFETY: as above.
    unsafe {
        asm!("{word} = *(u16 *)({from} + 0)", word = out(reg) word, from = in(reg) from, options(pure, readonly));
    };
    (word as u16).to_ne_bytes()
}

#[inline(always)]
fn put<const N: usize, const M: usize>(bytes: &mut [u8; N], at: usize, value: [u8; M]) {
    if let Some(part) = bytes.get_mut(at..at + M) {
        part.copy_from_slice(&value);
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.at::<N>(offset)?.cast::<u8>();
        let mut words = Words([0; N]);
        let mut done = 0;
        while done + 4 <= N {
            // SAFETY: the bytes are within the packet, which no one else uses now.
            put(&mut words.0, done, unsafe { load_4(start.add(done)) });
            done += 4;
        }
        if done + 2 <= N {
            // SAFETY: likewise.
            put(&mut words.0, done, unsafe { load_2(start.add(done)) });
            done += 2;
        }
        if done < N {
            // SAFETY: likewise.
            put(&mut words.0, done, [unsafe { start.add(done).read() }]);
        }
        Some(words.0)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn reaches(&self, len: usize) -> bool {
        // No frame is longer. Older verifiers, that of Linux 6.1 among them, do not know how large a length field can
        // be.
        if len > FARTHEST {
            return false;
        }
        let mut end = self.0.data_end();
        // SAFETY: no instruction. The compiler may not know what is compared here: it would take out the checks of
        // reads that are within `len`, which the verifier wants to see, since it cannot follow `len`.
        unsafe { asm!("/* {end} */", end = inout(reg) end, options(pure, nomem, nostack)) };
        self.0.data() + len <= end
    }
}

impl write::Frame for Frame {
    #[inline(always)]
    fn write<const N: usize>(&self, offset: usize, value: [u8; N]) -> Option<()> {
        // SAFETY: as in `read`.
        self.at(offset).map(|bytes| unsafe { *bytes = value })
    }
}

/// A packet as the network stack has it. Helpers read and write it, since parts may lie elsewhere.
pub(crate) struct Skb {
    pub(crate) context: TcContext,
    /// Several datagrams in one buffer are looked at.
    pub(crate) looks_at_many: bool,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn pointer(&self) -> *mut __sk_buff {
        self.context.as_ptr().cast()
    }

    /// Returns the payload bytes of one datagram if the buffer holds several, otherwise 0.
    #[inline(always)]
    pub(crate) fn segment(&self) -> usize {
        // SAFETY: the kernel's own pointer to the context.
        unsafe { (*self.pointer()).gso_size as usize }
    }

    /// Returns the interface at which the packet is: the one that the program is attached to.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: the kernel's own pointer to the context.
        unsafe { (*self.pointer()).ifindex }
    }

    /// Returns true if a VLAN tag is kept beside the packet.
    #[inline(always)]
    pub(crate) fn has_vlan_aside(&self) -> bool {
        // SAFETY: the kernel's own pointer to the context.
        unsafe { (*self.pointer()).vlan_present != 0 }
    }

    /// Returns true if the packet came by an interface: this machine forwards it.
    #[inline(always)]
    pub(crate) fn is_forwarded(&self) -> bool {
        // SAFETY: the kernel's own pointer to the context.
        unsafe { (*self.pointer()).ingress_ifindex != 0 }
    }

    /// Returns true if the packet is one that [`Skb::send_copy`] has sent.
    #[inline(always)]
    pub(crate) fn is_copy(&self) -> bool {
        // SAFETY: the kernel's own pointer to the context.
        unsafe { (*self.pointer()).mark == COPY }
    }

    /// Sends a copy of the packet out of its interface at once. It passes the program again, which knows it by its mark.
    #[inline(always)]
    pub(crate) fn send_copy(&self) {
        // SAFETY: the kernel's own pointer to the context, and a helper that copies the packet.
        unsafe {
            let mark = (*self.pointer()).mark;
            (*self.pointer()).mark = COPY;
            let _sent: i64 = bpf_clone_redirect(self.pointer(), self.interface(), 0);
            (*self.pointer()).mark = mark;
        }
    }

    /// Sends the packet out of an interface when the program ends, to the neighbour in the routing table. Returns the
    /// action.
    #[inline(always)]
    pub(crate) fn redirect(&self, interface: u32) -> i32 {
        // SAFETY: a helper; without parameters it takes the destination from the packet.
        unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) as i32 }
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = Words([0; N]);
        // SAFETY: the helper writes `N` bytes, or fails.
        let result =
            unsafe { bpf_skb_load_bytes(self.pointer().cast(), offset as u32, bytes.0.as_mut_ptr().cast(), N as u32) };
        (result == 0).then_some(bytes.0)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.context.len() as usize
    }

    #[inline(always)]
    fn opaque(&self, number: usize) -> usize {
        // SAFETY: the first of the words that the kernel leaves to programs; what it reads from there is anything.
        unsafe {
            let word = &raw mut (*self.pointer()).cb[0];
            word.write_volatile(number as u32);
            word.read_volatile() as usize
        }
    }
}

impl write::Skb for Skb {
    #[inline(always)]
    fn store<const N: usize>(&self, offset: usize, value: [u8; N], summed: bool) -> Option<()> {
        let flags = if summed { u64::from(BPF_F_RECOMPUTE_CSUM) } else { 0 };
        // SAFETY: the helper reads `N` bytes, and fails when they are not within the packet.
        let result =
            unsafe { bpf_skb_store_bytes(self.pointer(), offset as u32, value.as_ptr().cast(), N as u32, flags) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn change_checksum(&self, offset: usize, change: u32, addresses: bool) -> Option<()> {
        // The size in the low bits is 0: `change` is a difference.
        let flags = u64::from(if addresses { BPF_F_MARK_MANGLED_0 | BPF_F_PSEUDO_HDR } else { BPF_F_MARK_MANGLED_0 });
        // SAFETY: the helper fails when the checksum is not within the packet.
        let result = unsafe { bpf_l4_csum_replace(self.pointer(), offset as u32, 0, change.into(), flags) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn add_to_sum(&self, change: u32) {
        // SAFETY: a helper that changes a number in the buffer's description; it fails where there is none.
        let _: i64 = unsafe { bpf_csum_update(self.pointer(), change) };
    }
}
