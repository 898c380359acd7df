//! The version 1 header, one line of text (section 2.1), read to the letter: single spaces, no leading zeros, CR LF.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{Addresses, DecodeError, Header, MAX_V1, Stop, Tlvs, Version};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// The longest IPv4 address in text, in bytes.
const MAX_IPV4: usize = 15;
/// The longest IPv6 address in text, in bytes: the mapped form with a dotted quad.
const MAX_IPV6: usize = 45;
/// The longest port in text, in bytes.
const MAX_PORT: usize = 5;

pub(super) fn decode(stream: &[u8]) -> Result<(Header, usize), Stop> {
    Stop::unless_starts_with(stream, SIGNATURE, DecodeError::NoSignature)?;
    let mut line = Line { stream: stream.get(..MAX_V1).unwrap_or(stream), at: SIGNATURE.len() };
    let addresses = match line.protocol()? {
        Protocol::Unknown => {
            line.skip_to_end()?;
            Addresses::Unknown
        }
        Protocol::Tcp4 => line.addresses::<Ipv4Addr>(MAX_IPV4, |byte| matches!(byte, b'0'..=b'9' | b'.'))?,
        // The dot is for the mapped form, which inet_ntop writes with a dotted quad.
        Protocol::Tcp6 => {
            line.addresses::<Ipv6Addr>(MAX_IPV6, |byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':'))?
        }
    };
    Ok((Header { version: Version::V1, addresses, tlvs: Tlvs::default() }, line.at))
}

enum Protocol {
    Tcp4,
    Tcp6,
    Unknown,
}

/// At most the first [`MAX_V1`] bytes of the stream, and how far they are read.
struct Line<'a> {
    stream: &'a [u8],
    at: usize,
}

impl<'a> Line<'a> {
    /// The protocol; the cursor goes behind its space, and for `UNKNOWN` in front of what follows.
    fn protocol(&mut self) -> Result<Protocol, Stop> {
        let rest = self.rest();
        for (word, protocol) in
            [(&b"TCP4 "[..], Protocol::Tcp4), (b"TCP6 ", Protocol::Tcp6), (b"UNKNOWN", Protocol::Unknown)]
        {
            match Stop::unless_starts_with(rest, word, DecodeError::Protocol) {
                Ok(()) => {
                    self.at = self.at.saturating_add(word.len());
                    return Ok(protocol);
                }
                Err(Stop::Short) => return Err(Stop::Short),
                Err(Stop::Wrong(_)) => {}
            }
        }
        Err(Stop::Wrong(DecodeError::Protocol))
    }

    fn addresses<A: FromStr + Into<IpAddr>>(
        &mut self,
        max: usize,
        allowed: fn(&u8) -> bool,
    ) -> Result<Addresses, Stop> {
        let source: A = self.field(b' ', max, allowed, DecodeError::Address)?;
        let destination: A = self.field(b' ', max, allowed, DecodeError::Address)?;
        let source_port = self.port(b' ')?;
        let destination_port = self.port(b'\r')?;
        Stop::unless_starts_with(self.rest(), b"\n", DecodeError::LineEnd).map_err(|stop| self.at_limit(stop))?;
        self.at = self.at.saturating_add(1);
        Ok(Addresses::Stream {
            source: SocketAddr::new(source.into(), source_port),
            destination: SocketAddr::new(destination.into(), destination_port),
        })
    }

    fn port(&mut self, end: u8) -> Result<u16, Stop> {
        if let [b'0', next, ..] = self.rest()
            && *next != end
        {
            return Err(Stop::Wrong(DecodeError::Port));
        }
        self.field(end, MAX_PORT, u8::is_ascii_digit, DecodeError::Port)
    }

    /// Reads up to the byte `end`: at most `max` bytes, all of them `allowed`, that parse as `T`. The cursor goes
    /// behind `end`.
    fn field<T: FromStr>(
        &mut self,
        end: u8,
        max: usize,
        allowed: fn(&u8) -> bool,
        error: DecodeError,
    ) -> Result<T, Stop> {
        let rest = self.rest();
        let len = rest.iter().take(max.saturating_add(1)).take_while(|byte| allowed(byte)).count();
        match rest.get(len) {
            _ if len > max => Err(Stop::Wrong(error)),
            None => Err(self.at_limit(Stop::Short)),
            Some(&byte) if byte != end => Err(Stop::Wrong(error)),
            Some(_) => {
                self.at = self.at.saturating_add(len).saturating_add(1);
                let text = rest.get(..len).and_then(|field| std::str::from_utf8(field).ok());
                text.and_then(|text| text.parse().ok()).ok_or(Stop::Wrong(error))
            }
        }
    }

    /// Behind `UNKNOWN`: at once the line end, or a space and then anything (section 2.1).
    fn skip_to_end(&mut self) -> Result<(), Stop> {
        let rest = self.rest();
        match rest {
            [b'\r', other, ..] if *other != b'\n' => return Err(Stop::Wrong(DecodeError::LineEnd)),
            [] | [b' ' | b'\r', ..] => {}
            [_, ..] => return Err(Stop::Wrong(DecodeError::Protocol)),
        }
        let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or_else(|| self.at_limit(Stop::Short))?;
        self.at = self.at.saturating_add(end).saturating_add(2);
        Ok(())
    }

    /// `stop`, unless the line has used up its bytes: then no line end can come in time.
    fn at_limit(&self, stop: Stop) -> Stop {
        // One byte before the limit, the line end must have begun.
        let used_up = match self.stream.len().checked_sub(MAX_V1 - 1) {
            None => false,
            Some(0) => !self.stream.ends_with(b"\r"),
            Some(_) => true,
        };
        if used_up { Stop::Wrong(DecodeError::LineEnd) } else { stop }
    }

    fn rest(&self) -> &'a [u8] {
        self.stream.get(self.at..).unwrap_or_default()
    }
}
