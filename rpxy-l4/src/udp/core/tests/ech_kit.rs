//! Hellos of a client before and after a HelloRetryRequest, in whatever packets a test wants, and what backends make of
//! them.

use rpxy_l4_proto::{
    Probe,
    ech::{FirstHello, open_first},
    quic::{CryptoStream, Frame, InitialKeys, Version, frames, packets as parsed},
    tls::ClientHello,
};

use super::{
    packets::{Sender, id},
    *,
};

/// The hellos of one client of Go 1.27 before and after a HelloRetryRequest; inside for `private.example`.
pub(super) const OUTER: [&[u8]; 2] = [
    include_bytes!("../../../../../rpxy-l4-proto/src/ech/testdata/go_hello_first.bin"),
    include_bytes!("../../../../../rpxy-l4-proto/src/ech/testdata/go_hello_second.bin"),
];
pub(super) const LIST: &str =
    "AEH+DQA9QQAgACBA33gCXp5kB6qZDDobZiUWmF3pM58j/PDRen/3YLbEWwAEAAEAAQAOcHVibGljLmV4YW1wbGUAAA==";
pub(super) const KEY: &str = "iCqDaWFEAeGlFe0ajA6KD/5SKj9w7lT9bmx2tu1Od0c=";

pub(super) const CLIENT: &[u8] = b"client-a";
pub(super) const DCID: &[u8] = b"destin-a";
pub(super) const SERVER: &[u8] = b"\xfeerver-a";
pub(super) const PUBLIC: u16 = 1;
pub(super) const PRIVATE: u16 = 2;

/// The public name at 1, the private one at 2, and a.test, which has no keys, at 3.
pub(super) fn config() -> String {
    with("", "server_names = [\"private.example\"]\ntarget = [\"198.51.100.1:2\"]")
}

/// The same with more in the `ech` table, and another entry of private names.
pub(super) fn with(keys: &str, private: &str) -> String {
    format!(
        "{TOP}{}[protocols.\"public\".ech]\nech_config_list = \"{LIST}\"\nprivate_keys = [\"{KEY}\"]\n{keys}\n\
         [[protocols.\"public\".ech.private]]\n{private}\n{}",
        rule("public", "quic", PUBLIC, "server_names = [\"public.example\"]"),
        rule("plain", "quic", 3, "server_names = [\"a.test\"]"),
    )
}

/// The inner hellos, one behind the other.
pub(super) fn inner() -> [Vec<u8>; 2] {
    let keys = config::ech::from_base64(LIST, &[KEY]).unwrap();
    let outer = OUTER.map(|message| match ClientHello::parse(message.to_vec()) {
        Probe::Match(hello) => hello,
        other @ (Probe::Unreadable | Probe::NotThis | Probe::NeedMore) => panic!("{other:?}"),
    });
    let FirstHello::Accepted { inner, mut context } = open_first(&keys, &outer[0], || true) else {
        panic!("not accepted")
    };
    assert_eq!(inner.server_name(), Some("private.example"));
    [inner.message().to_vec(), context.second(&outer[1]).unwrap().message().to_vec()]
}

impl Bench {
    /// The CRYPTO stream that the backend at `port` puts together under the keys of `dcid`.
    pub(super) fn stream(&self, port: u16, dcid: &[u8]) -> Vec<u8> {
        let keys = InitialKeys::client(Version::V1, &id(dcid));
        let mut stream = CryptoStream::default();
        for (_, _, datagram) in self.sent.iter().filter(|(_, address, _)| address.port() == port) {
            for opened in parsed(datagram).filter_map(|packet| keys.open(&packet, None)) {
                for frame in frames(&opened.payload) {
                    if let Frame::Crypto { offset, data } = frame.unwrap() {
                        stream.insert(offset, data).expect("no two versions of a byte");
                    }
                }
            }
        }
        stream.prefix().to_vec()
    }

    pub(super) fn only_session(&self) -> SessionId {
        assert_eq!(self.sockets.len(), 1);
        *self.sockets.keys().next().unwrap()
    }
}

/// A decrypted connection whose hello has gone on in one datagram, and its client.
pub(super) fn begun() -> (Bench, Sender<'static>, SessionId) {
    let mut bench = Bench::new(&config());
    let mut client = Sender::new(CLIENT, DCID);
    bench.client(flow(1), &client.crypto(OUTER[0], &[(0, 445)]));
    assert_eq!(bench.last().map(|(_, port)| port), Some(PRIVATE));
    let session = bench.only_session();
    (bench, client, session)
}
