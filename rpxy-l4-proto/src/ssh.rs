//! Tells SSH by the identification string (RFC 4253 section 4.2). Lines before it are for servers only, so a client's
//! stream starts with it.

use crate::Probe;

const IDENTIFICATION: &[u8] = b"SSH-";

/// Looks at `stream`, everything received since its start, for the first four bytes of the identification string.
pub fn probe(stream: &[u8]) -> Probe<()> {
    if stream.starts_with(IDENTIFICATION) {
        Probe::Match(())
    } else if IDENTIFICATION.starts_with(stream) {
        Probe::NeedMore
    } else {
        Probe::NotThis
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Probe::{Match, NeedMore, NotThis};

    #[test]
    fn the_identification_string_decides() {
        let rows: [(&[u8], Probe<()>); 11] = [
            (b"", NeedMore),
            (b"S", NeedMore),
            (b"SSH", NeedMore),
            (b"SSH-", Match(())),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", Match(())),
            (b"SSH-1.99-x\n", Match(())),
            (b"s", NotThis),
            (b"SSL", NotThis),
            (b"SSH2", NotThis),
            (b" SSH-2.0", NotThis),
            (b"\r\nSSH-2.0", NotThis),
        ];
        for (stream, answer) in rows {
            assert_eq!(probe(stream), answer, "{}", stream.escape_ascii());
        }
    }
}
