//! ClientHello messages as raw bytes (RFC 8446 section 4.1.2), for what no real client would send.

/// A ClientHello to be built.
#[derive(Debug, Clone, Default)]
pub struct Hello {
    server_name: Option<String>,
    alpns: Vec<String>,
    padding: usize,
}

impl Hello {
    /// Without server name and ALPN.
    pub fn new() -> Self {
        Self::default()
    }

    /// For `name`, written as given.
    pub fn to(name: &str) -> Self {
        Self { server_name: Some(name.to_owned()), ..Self::default() }
    }

    /// Offers these application protocols.
    #[must_use]
    pub fn alpns(mut self, alpns: &[&str]) -> Self {
        self.alpns = alpns.iter().map(|alpn| (*alpn).to_owned()).collect();
        self
    }

    /// Adds a padding extension (RFC 7685) of `count` bytes.
    #[must_use]
    pub fn padding(mut self, count: usize) -> Self {
        self.padding = count;
        self
    }

    /// The handshake message, without records around it.
    pub fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(name) = &self.server_name {
            // RFC 6066 section 3: a list of one name of type host_name.
            let entry = [vec![0], with_length::<2>(name.as_bytes())].concat();
            extensions.extend(extension(0, &with_length::<2>(&entry)));
        }
        if !self.alpns.is_empty() {
            // RFC 7301 section 3.1.
            let names: Vec<u8> = self.alpns.iter().flat_map(|alpn| with_length::<1>(alpn.as_bytes())).collect();
            extensions.extend(extension(16, &with_length::<2>(&names)));
        }
        // supported_versions: TLS 1.3 and 1.2.
        extensions.extend(extension(43, &[4, 0x03, 0x04, 0x03, 0x03]));
        if self.padding > 0 {
            extensions.extend(extension(21, &vec![0; self.padding]));
        }

        let mut body = vec![0x03, 0x03];
        body.extend([0x5a; 32]); // random
        body.extend(with_length::<1>(&[0xa5; 32])); // legacy session id
        body.extend(with_length::<2>(&[0x13, 0x01, 0x13, 0x02, 0x13, 0x03]));
        body.extend(with_length::<1>(&[0])); // compression: null
        body.extend(with_length::<2>(&extensions));
        [vec![1], with_length::<3>(&body)].concat()
    }

    /// The message in one handshake record, as clients send it.
    pub fn bytes(&self) -> Vec<u8> {
        self.records(1 << 14)
    }

    /// The message in handshake records of at most `size` bytes of content each.
    pub fn records(&self, size: usize) -> Vec<u8> {
        into_records(&self.message(), size)
    }
}

/// Puts a handshake message into records of at most `size` bytes of content each (RFC 8446 section 5.1).
pub fn into_records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [vec![22, 0x03, 0x01], with_length::<2>(part)].concat()).collect()
}

/// The handshake message inside the records `bytes`; the inverse of [`into_records`].
///
/// # Panics
///
/// When `bytes` is something else.
pub fn from_records(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 0x03, _, high, low, rest @ ..] = bytes {
        let (part, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend(part);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "not a handshake record: {bytes:02x?}");
    message
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), with_length::<2>(data)].concat()
}

/// `data` behind its length in `N` bytes.
fn with_length<const N: usize>(data: &[u8]) -> Vec<u8> {
    let length = data.len().to_be_bytes();
    let (excess, length) = length.split_at(length.len() - N);
    assert!(excess.iter().all(|byte| *byte == 0), "{} bytes do not fit a length of {N} bytes", data.len());
    [length, data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_size_hold_the_same_message() {
        let hello = Hello::to("example.com").alpns(&["h2"]).padding(20);
        for size in 1..=hello.message().len() {
            assert_eq!(from_records(&hello.records(size)), hello.message(), "records of {size}");
        }
    }
}
