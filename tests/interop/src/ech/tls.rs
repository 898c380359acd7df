//! TLS over TCP: servers by BoringSSL; clients by BoringSSL and rustls.

use std::{
    fmt::Display,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use boring::ssl::{
    AlpnError, HandshakeError, NameType, SslAcceptor, SslConnector, SslContextBuilder, SslFiletype, SslMethod,
    SslOptions, SslRef, SslVersion, select_next_proto,
};
use rpxy_l4_tests::{
    OrFail as _,
    peers::{programs::Certificate, server::Server},
    socket,
    topology::Host,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::{EchConfig, EchGreaseConfig, EchMode, EchStatus},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, EchConfigListBytes, ServerName, pem::PemObject as _},
};

use super::keys::Keys;

/// A server's answer to everybody, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Tag of the server.
    pub tag: String,
    /// The server name that it saw.
    pub server_name: String,
    /// The application protocol that it chose; empty for none.
    pub alpn: String,
    /// True when the client says that its Encrypted Client Hello was accepted.
    pub accepted: bool,
}

impl Answer {
    /// From `tag`, with ECH accepted.
    pub fn private(tag: &str, server_name: &str) -> Self {
        Self { tag: tag.to_owned(), server_name: server_name.to_owned(), alpn: String::new(), accepted: true }
    }

    /// From `tag`, without ECH.
    pub fn plain(tag: &str, server_name: &str) -> Self {
        Self { accepted: false, ..Self::private(tag, server_name) }
    }

    /// With this protocol chosen.
    #[must_use]
    pub fn over(self, alpn: &str) -> Self {
        Self { alpn: alpn.to_owned(), ..self }
    }

    pub(crate) fn line(tag: &str, server_name: &str, alpn: &str) -> String {
        format!("{tag}|{server_name}|{alpn}\n")
    }

    pub(crate) fn parse(line: &str, accepted: bool) -> Self {
        let mut parts = line.trim_end().split('|').map(str::to_owned);
        let mut next = || parts.next().or_fail(format_args!("an answer: {line:?}"));
        Self { tag: next(), server_name: next(), alpn: next(), accepted }
    }
}

/// A handshake that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Message of the client's library.
    pub error: String,
    /// The configurations that the server handed out for another try; only with a rejection that it has authenticated.
    pub retry_configs: Option<Vec<u8>>,
}

impl Refused {
    fn new(error: impl Display) -> Self {
        Self { error: error.to_string(), retry_configs: None }
    }
}

/// Deviations from an ordinary server.
#[derive(Debug, Default, Clone, Copy)]
pub struct Serve<'k> {
    /// Keys whose configurations are handed out after a rejection.
    pub retry: Option<&'k Keys>,
    /// Groups for the key exchange, as BoringSSL names them; clients that send no share for them get a HelloRetryRequest.
    pub groups: Option<&'static str>,
    /// Takes early data of resumed sessions.
    pub early_data: bool,
}

/// A group that no client here sends a key share for.
pub const RETRY_GROUP: &str = "P-384";

/// A server that tells who it is after the handshake, and closes.
#[track_caller]
pub fn server(
    host: &Host,
    address: impl Into<SocketAddr>,
    tag: &str,
    certificate: &Certificate,
    serve: Serve<'_>,
) -> Server {
    let acceptor = acceptor(certificate, serve).or_fail("TLS server");
    let tag = tag.to_owned();
    Server::start(host, address, move |stream, _| {
        let Ok(mut tls) = acceptor.accept(stream) else { return };
        let ssl = tls.ssl();
        let server_name = ssl.servername(NameType::HOST_NAME).unwrap_or_default();
        let alpn = String::from_utf8_lossy(ssl.selected_alpn_protocol().unwrap_or_default()).into_owned();
        let line = Answer::line(&tag, server_name, &alpn);
        if tls.write_all(line.as_bytes()).is_ok() {
            // Wait for the client's end, so that it has read everything.
            let _ended = tls.shutdown();
            let _read = io::copy(&mut tls, &mut io::sink());
        }
    })
}

fn acceptor(certificate: &Certificate, serve: Serve<'_>) -> anyhow::Result<SslAcceptor> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    builder.set_certificate_chain_file(certificate.file())?;
    builder.set_private_key_file(certificate.key(), SslFiletype::PEM)?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    builder.clear_options(SslOptions::NO_TLSV1_3);
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
    });
    if let Some(groups) = serve.groups {
        builder.set_curves_list(groups)?;
    }
    if serve.early_data {
        take_early_data(&mut builder);
    }
    if let Some(keys) = serve.retry {
        builder.set_ech_keys(&keys.boring()?)?;
    }
    Ok(builder.build())
}

/// The crate has no call for it.
#[expect(unsafe_code, reason = "a function of BoringSSL without a safe one around it")]
fn take_early_data(builder: &mut SslContextBuilder) {
    // SAFETY: a context that lives, and that nobody else has yet.
    unsafe { boring_sys::SSL_CTX_set_early_data_enabled(builder.as_ptr(), 1) }
}

/// A client's offer.
#[derive(Debug, Clone)]
pub enum Offer {
    /// No Encrypted Client Hello.
    Nothing,
    /// Something that looks like it (RFC 9849 section 6.2).
    Grease,
    /// A hello encrypted for this `ECHConfigList`.
    Encrypted(Vec<u8>),
}

/// Connects from `host` and reads the answer, with BoringSSL.
pub fn boring(
    host: &Host,
    to: SocketAddr,
    certificate: &Certificate,
    name: &str,
    alpns: &[&str],
    offer: &Offer,
) -> Result<Answer, Refused> {
    boring_over(socket::dial(host, to), certificate, name, alpns, offer)
}

/// As [`boring`], over a stream of the caller's.
pub fn boring_over<S: Read + Write>(
    stream: S,
    certificate: &Certificate,
    name: &str,
    alpns: &[&str],
    offer: &Offer,
) -> Result<Answer, Refused> {
    let mut builder = SslConnector::builder(SslMethod::tls()).map_err(Refused::new)?;
    builder.set_ca_file(certificate.file()).map_err(Refused::new)?;
    if !alpns.is_empty() {
        let wire: Vec<u8> = alpns.iter().flat_map(|alpn| [&[alpn.len() as u8], alpn.as_bytes()].concat()).collect();
        builder.set_alpn_protos(&wire).map_err(Refused::new)?;
    }
    let mut config = builder.build().configure().map_err(Refused::new)?;
    match offer {
        Offer::Nothing => {}
        Offer::Grease => config.set_enable_ech_grease(true),
        Offer::Encrypted(list) => config.set_ech_config_list(list).map_err(Refused::new)?,
    }
    let retry = |ssl: &SslRef| ssl.get_ech_retry_configs().map(<[u8]>::to_vec);
    match config.connect(name, stream) {
        Ok(tls) => {
            let accepted = tls.ssl().ech_accepted();
            Ok(Answer::parse(&first_line(tls)?, accepted))
        }
        Err(HandshakeError::Failure(failed) | HandshakeError::WouldBlock(failed)) => {
            Err(Refused { error: failed.error().to_string(), retry_configs: retry(failed.ssl()) })
        }
        Err(HandshakeError::SetupFailure(error)) => Err(Refused::new(error)),
    }
}

/// Connects from `host` and reads the answer, with rustls.
pub fn rustls(
    host: &Host,
    to: SocketAddr,
    certificate: &Certificate,
    name: &str,
    alpns: &[&str],
    offer: &Offer,
) -> Result<Answer, Refused> {
    Rustls::new(certificate, alpns, offer)?.ask(host, to, name).map(|(answer, _)| answer)
}

/// A client by rustls that resumes its sessions, with early data where the server allows it.
#[derive(Debug)]
pub struct Rustls(Arc<ClientConfig>);

impl Rustls {
    /// One that trusts `certificate` and has no session yet.
    pub fn new(certificate: &Certificate, alpns: &[&str], offer: &Offer) -> Result<Self, Refused> {
        let mut roots = RootCertStore::empty();
        let file = CertificateDer::from_pem_file(certificate.file()).or_fail("certificate");
        roots.add(file).or_fail("a trusted certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let suites = aws_lc_rs::hpke::ALL_SUPPORTED_SUITES;
        let builder = match offer {
            Offer::Nothing => builder.with_safe_default_protocol_versions(),
            Offer::Grease => {
                let suite = suites[0];
                let (public_key, _) = suite.generate_key_pair().map_err(Refused::new)?;
                builder.with_ech(EchMode::Grease(EchGreaseConfig::new(suite, public_key)))
            }
            Offer::Encrypted(list) => {
                let list = EchConfigListBytes::from(list.as_slice());
                builder.with_ech(EchMode::Enable(EchConfig::new(list, suites).map_err(Refused::new)?))
            }
        };
        let mut config = builder.map_err(Refused::new)?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        config.enable_early_data = true;
        Ok(Self(Arc::new(config)))
    }

    /// Connects from `host` and reads the answer; then what became of early data.
    pub fn ask(&self, host: &Host, to: SocketAddr, name: &str) -> Result<(Answer, EarlyData), Refused> {
        let server_name = ServerName::try_from(name.to_owned()).or_fail("server name");
        let mut connection = ClientConnection::new(Arc::clone(&self.0), server_name).map_err(Refused::new)?;
        let sent = match connection.early_data() {
            Some(mut early) => early.write(b"early").map_err(Refused::new)? > 0,
            None => false,
        };
        let mut tls = StreamOwned::new(connection, socket::dial(host, to));
        let line = first_line(&mut tls)?;
        let accepted = tls.conn.ech_status() == EchStatus::Accepted;
        let early = match (sent, tls.conn.is_early_data_accepted()) {
            (false, _) => EarlyData::NotSent,
            (true, false) => EarlyData::Rejected,
            (true, true) => EarlyData::Accepted,
        };
        Ok((Answer::parse(&line, accepted), early))
    }
}

/// Fate of early data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyData {
    /// There was no session to send it in.
    NotSent,
    /// The server did not take it.
    Rejected,
    /// The server took it.
    Accepted,
}

fn first_line(stream: impl Read) -> Result<String, Refused> {
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line) {
        Ok(0) => Err(Refused::new("closed")),
        Ok(_) => Ok(line),
        Err(error) => Err(Refused::new(error)),
    }
}

/// A stream that sends a few bytes at a time: every write becomes segments of its own.
#[derive(Debug)]
pub struct Dribble {
    stream: TcpStream,
    size: usize,
}

impl Dribble {
    /// Segments of `size` bytes at most.
    pub fn new(stream: TcpStream, size: usize) -> Self {
        stream.set_nodelay(true).or_fail("TCP_NODELAY");
        Self { stream, size }
    }
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&bytes[..bytes.len().min(self.size)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
