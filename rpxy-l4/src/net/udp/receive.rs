//! recvmmsg(2): several buffers of datagrams in one system call.
#![expect(unsafe_code, reason = "recvmmsg(2) with ancillary data has no safe wrapper that reuses its buffers")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use super::{
    Local,
    address::Name,
    control::{Control, Told},
    header::{self, fit},
};

/// The largest buffer that the kernel hands over: a UDP payload, or as many datagrams as UDP_GRO puts together.
const BUFFER: usize = 1 << 16;
/// Between the starts of two buffers: with a distance of a power of two, all of them would compete for the same few
/// lines of the processor's caches.
const STRIDE: usize = BUFFER + 512;

/// One buffer with its datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// The peer; `None` on a connected socket.
    pub from: Option<SocketAddr>,
    /// The local address that it used; `None` where the socket is bound to just one.
    pub local: Option<Local>,
    /// Index of the interface that they arrived by; 0 where it is not told: on sockets towards IPv6 backends, and on those
    /// bound to just one address.
    pub ingress: u32,
    /// Type of service (traffic class in IPv6): DSCP and ECN.
    pub tos: u8,
    /// Datagrams that the socket has had no room for so far (a counter that wraps); `None` while that is none.
    pub lost: Option<u32>,
    /// One datagram after the other.
    pub bytes: &'a [u8],
    /// Length of each of them but the last, which may be shorter. At least 1.
    pub segment: usize,
}

/// Buffers that datagrams are received into.
pub(crate) struct Receiver {
    data: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// Their pointers are set for each call, and mean nothing in between.
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    connected: bool,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("buffers", &self.headers.len()).finish_non_exhaustive()
    }
}

impl Receiver {
    /// `buffers` buffers of 64 KiB each, whose memory is only taken when it is used. On `connected` sockets the peer is
    /// not asked for.
    #[must_use]
    pub(crate) fn new(buffers: usize, connected: bool) -> Self {
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            data: vec![0; STRIDE * buffers].into_boxed_slice(),
            names: vec![Name::EMPTY; buffers].into_boxed_slice(),
            controls: vec![Control::EMPTY; buffers].into_boxed_slice(),
            headers: vec![header::empty(); buffers].into_boxed_slice(),
            vectors: vec![vector; buffers].into_boxed_slice(),
            connected,
        }
    }

    /// Number of buffers.
    #[must_use]
    pub(crate) fn buffers(&self) -> usize {
        self.headers.len()
    }

    /// Receives what waits on `socket` into at most `most` buffers from number `first` on, and returns how many were
    /// filled. Fewer than could be mean that nothing more waits.
    pub(crate) fn receive(&mut self, socket: &impl AsFd, first: usize, most: usize) -> io::Result<usize> {
        let end = first.saturating_add(most).min(self.headers.len());
        let Some(headers) = self.headers.get_mut(first..end).filter(|headers| !headers.is_empty()) else {
            return Ok(0);
        };
        let data = self.data.get_mut(first.saturating_mul(STRIDE)..).unwrap_or_default();
        let vectors = self.vectors.get_mut(first..).unwrap_or_default();
        let names = self.names.get_mut(first..).unwrap_or_default();
        let controls = self.controls.get_mut(first..).unwrap_or_default();
        let buffers = data.chunks_exact_mut(STRIDE).zip(vectors);
        let around = names.iter_mut().zip(controls);
        for ((header, (buffer, vector)), (name, control)) in headers.iter_mut().zip(buffers).zip(around) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            if !self.connected {
                header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
                header.msg_hdr.msg_namelen = size_of_u32::<Name>();
            }
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = fit(Control::ROOM);
        }
        let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let flags = fit(libc::MSG_DONTWAIT);
        // SAFETY: the headers point to buffers of the stated lengths, which this value owns and nobody reads meanwhile
        // (`&mut self`); the kernel writes no more than that. A null timeout means none.
        let filled =
            unsafe { libc::recvmmsg(socket.as_fd().as_raw_fd(), headers.as_mut_ptr(), count, flags, ptr::null_mut()) };
        usize::try_from(filled).map_err(|_negative| io::Error::last_os_error())
    }

    /// The buffer at `index`, which the last call for it has filled.
    #[must_use]
    pub(crate) fn get(&self, index: usize) -> Option<Received<'_>> {
        let header = self.headers.get(index)?;
        let len = usize::try_from(header.msg_len).ok()?;
        let start = index.checked_mul(STRIDE)?;
        let bytes = self.data.get(start..)?.get(..len.min(BUFFER))?;
        let told = self.controls.get(index)?.read(fit(header.msg_hdr.msg_controllen));
        let from = if self.connected { None } else { self.names.get(index)?.address() };
        let segment = told.segment.map_or(bytes.len(), usize::from).max(1);
        let Told { local, ingress, tos, lost, .. } = told;
        Some(Received { from, local, ingress, tos, lost, bytes, segment })
    }
}

/// Sizes of the structures here are far below 2^32.
fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}
