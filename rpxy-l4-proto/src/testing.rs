//! Inputs that tests of several parsers and seeds of fuzz targets share: bytes from text, length-prefixed vectors,
//! hellos and records; Initial packets in [`quic`]; a WireGuard initiation.

#[expect(clippy::indexing_slicing, reason = "made of constants: a test input that cannot be built must stop the test")]
pub(crate) mod ech;
#[expect(clippy::indexing_slicing, reason = "made of constants: a test input that cannot be built must stop the test")]
pub(crate) mod quic;

/// Bytes from hexadecimal digits; everything else in the text is a separator.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
}

/// A vector behind a one-byte length.
pub(crate) fn vec8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A vector behind a two-byte length.
pub(crate) fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A ClientHello with every field replaceable.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) version: [u8; 2],
    pub(crate) session_id: Vec<u8>,
    pub(crate) cipher_suites: Vec<u8>,
    pub(crate) compression_methods: Vec<u8>,
    /// Types and bodies; `None` leaves out the block, as old clients do.
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            version: [3, 3],
            session_id: vec![0xa5; 32],
            cipher_suites: hex("1301 1302 c02f"),
            compression_methods: vec![0],
            extensions: Some(Vec::new()),
        }
    }
}

impl Hello {
    /// With `server_name` and the protocols of `alpn`, if any.
    pub(crate) fn for_name(name: &str, alpn: &[&str]) -> Self {
        let mut extensions = vec![(0, server_name(name))];
        if !alpn.is_empty() {
            extensions.push((16, protocol_names(alpn)));
        }
        Self::with(extensions)
    }

    pub(crate) fn with(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        Self { extensions: Some(extensions), ..Self::default() }
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = [&self.version[..], &[0x5a; 32]].concat();
        body.extend(vec8(&self.session_id));
        body.extend(vec16(&self.cipher_suites));
        body.extend(vec8(&self.compression_methods));
        if let Some(extensions) = &self.extensions {
            let block = extensions.iter().map(|(typ, body)| [typ.to_be_bytes().to_vec(), vec16(body)].concat());
            body.extend(vec16(&block.collect::<Vec<_>>().concat()));
        }
        handshake(1, &body)
    }

    /// The message in one record.
    pub(crate) fn record(&self) -> Vec<u8> {
        record(22, &self.message())
    }
}

/// A handshake message of any type.
pub(crate) fn handshake(typ: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[typ][..], &length, body].concat()
}

/// A TLS record of any content type.
pub(crate) fn record(content_type: u8, fragment: &[u8]) -> Vec<u8> {
    [vec![content_type, 3, 1], vec16(fragment)].concat()
}

/// A message in handshake records of at most `size` bytes each.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|fragment| record(22, fragment)).collect()
}

/// The body of a `server_name` extension with one host name.
pub(crate) fn server_name(name: &str) -> Vec<u8> {
    vec16(&[vec![0], vec16(name.as_bytes())].concat())
}

/// The body of an ALPN extension.
pub(crate) fn protocol_names(names: &[&str]) -> Vec<u8> {
    vec16(&names.iter().flat_map(|name| vec8(name.as_bytes())).collect::<Vec<_>>())
}

/// An initiation of wireguard-go.
pub(crate) const INITIATION: &[u8; 148] = include_bytes!("wireguard/testdata/initiation.bin");
