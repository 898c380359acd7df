//! Seeds of the fuzz corpora: for each target, inputs that reach every answer of its property.
//!
//! One list for the test that finds them committed and for the example `write-stream-seeds` that writes them.

mod datagrams;
mod ech;
mod tls;

use std::net::SocketAddr;

use crate::{
    proxy_protocol::{self, Addresses},
    testing::{Hello, handshake, hex, protocol_names, record, records, server_name, vec16},
};

/// All seeds: the fuzz target, a file name that says what the input is, and the input.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let groups = [
        ("client_hello", client_hello_seeds()),
        ("http", http_seeds()),
        ("proxy_protocol", proxy_protocol_seeds()),
        ("socks5_ssh", socks5_ssh_seeds()),
        ("ech_config", ech_config_seeds()),
        ("ech_inner", ech::ech_inner_seeds()),
        ("ech_pem", ech::ech_pem_seeds()),
        ("second_hello", tls::second_hello_seeds()),
        ("quic_packet", datagrams::quic_packet_seeds()),
        ("quic_initial", datagrams::quic_initial_seeds()),
        ("initial_rewrite", datagrams::initial_rewrite_seeds()),
        ("wireguard", datagrams::wireguard_seeds()),
    ];
    groups
        .into_iter()
        .flat_map(|(target, seeds)| seeds.into_iter().map(move |(name, bytes)| (target, name, bytes)))
        .collect()
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn client_hello_seeds() -> Seeds {
    let named = Hello::for_name("a.example", &["h2", "http/1.1"]);
    let large = Hello::with(vec![
        (0x2a2a, vec![]),
        (43, hex("06 2a2a 0304 0303")),
        (51, vec16(&[hex("11ec"), vec16(&[0x42; 1216]), hex("001d"), vec16(&[0x17; 32])].concat())),
        (0xfe0d, [hex("00 0001 0001 41"), vec16(&[9; 32]), vec16(&[7; 144])].concat()),
        (0, server_name("public.example")),
        (16, protocol_names(&["h2"])),
        (41, vec![0; 40]),
    ]);
    let (start, rest) = (named.message()[..9].to_vec(), named.message()[9..].to_vec());
    vec![
        ("name_and_alpn", named.record()),
        ("one_byte_records", records(&named.message(), 1)),
        ("post_quantum", large.record()),
        ("post_quantum_in_records", records(&large.message(), 500)),
        ("no_extensions", Hello { extensions: None, session_id: vec![], ..Hello::default() }.record()),
        ("early_data_behind", [named.record(), record(20, &[1]), record(23, &[0; 20])].concat()),
        ("message_behind_in_record", record(22, &[named.message(), handshake(24, &[0])].concat())),
        ("bare_message", named.message()),
        ("cut", named.record()[..70].to_vec()),
        ("duplicate_extension", Hello::with(vec![(23, vec![]), (23, vec![])]).record()),
        ("control_in_name", Hello::for_name("a\tb", &[]).record()),
        ("alert_between", [record(22, &start), record(21, &[1, 0]), record(22, &rest)].concat()),
        ("server_hello", record(22, &handshake(2, &[3; 60]))),
        ("utf8_name", Hello::for_name("caf\u{e9}.example", &["h2"]).record()),
        (
            "two_names",
            Hello::with(vec![(0, hex("0008 00 0001 61 00 0001 62")), (16, protocol_names(&["h2"]))]).record(),
        ),
        ("empty_alpn", Hello::with(vec![(0, server_name("a.example")), (16, hex("0000"))]).record()),
        ("over_64_kib", record(22, &hex("01 010000 0401"))),
        ("empty_records", [record(22, &[]), record(22, &start), record(22, &[]), record(22, &rest)].concat()),
        ("warning_before", [record(21, &[1, 90]), named.record()].concat()),
        ("sslv2_compatible", hex("8034 01 0301 001b 0000 0010 010080 0700c0 030080")),
        ("sslv2_cut", hex("8034 01 0301 001b")),
    ]
}

fn http_seeds() -> Seeds {
    let frame = |typ: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), typ, flags, 0, 0, 0, stream], payload].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = frame(4, 0, 0, &hex("0003 00000064 0004 00a00000"));
    let block = hex("828684 41 8c f1e3c2e5f23a6ba0ab90f4ff");
    let table = hex("3fe101 8286 40 04 686f7374 09 612e6578616d706c65 be 84 be");
    vec![
        ("get", b"GET /x?y HTTP/1.1\r\nHost: A.example:80\r\nAccept: */*\r\n\r\n".to_vec()),
        ("absolute", b"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n".to_vec()),
        ("connect", b"CONNECT [::1]:443 HTTP/1.1\n\n".to_vec()),
        ("two_hosts", b"POST / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\nbody".to_vec()),
        ("folded", b"GET / HTTP/1.1\nHost:\n a\nX : y\n\n".to_vec()),
        ("cut", b"OPTIONS * HTTP/1.1\r\nHos".to_vec()),
        ("smtp", b"EHLO a.example\r\n".to_vec()),
        ("lenient", b"\r\n\r\nGET  /  HTTP/1.1 \r\nHost: a.example\r\n\r\n".to_vec()),
        ("white_space", b" GET\t/a b\x0bHTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()),
        ("http_0_9", b"GET /\r\n".to_vec()),
        ("long_line", [b"GET /".to_vec(), vec![b'x'; 66_000]].concat()),
        ("preface", preface.clone()),
        ("http2", [preface.clone(), settings.clone(), frame(1, 5, 1, &block)].concat()),
        (
            "http2_padded_continued",
            [
                preface.clone(),
                settings.clone(),
                frame(8, 0, 0, &hex("3fff0001")),
                frame(1, 0x28, 3, &[vec![1], hex("80000000 ff"), block[..4].to_vec(), vec![0]].concat()),
                frame(9, 4, 3, &block[4..]),
            ]
            .concat(),
        ),
        ("http2_dynamic_table", [preface.clone(), settings, frame(1, 4, 1, &table)].concat()),
        ("http2_without_settings", [preface, frame(1, 4, 1, &block)].concat()),
    ]
}

fn proxy_protocol_seeds() -> Seeds {
    let v4: (SocketAddr, SocketAddr) = ("192.0.2.1:56324".parse().unwrap(), "198.51.100.2:443".parse().unwrap());
    let v6: (SocketAddr, SocketAddr) = ("[2001:db8::1]:56324".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap());
    let v1 = |(source, destination): (SocketAddr, SocketAddr)| {
        let mut bytes = Vec::new();
        proxy_protocol::encode_v1(source, destination, &mut bytes);
        bytes
    };
    let mut fields = proxy_protocol::Tlvs::default();
    assert!(fields.push(1, b"h2") && fields.push(2, b"a.example") && fields.push(5, &[7; 16]));
    let plain = fields.clone();
    assert!(fields.add_checksum());
    let v2 = |addresses: Addresses, tlvs: &proxy_protocol::Tlvs| {
        let mut bytes = Vec::new();
        proxy_protocol::encode_v2(&addresses, tlvs, &mut bytes);
        bytes
    };
    let stream = v2(Addresses::Stream { source: v4.0, destination: v4.1 }, &fields);
    let mut wrong_checksum = stream.clone();
    *wrong_checksum.last_mut().unwrap() ^= 1;
    let unix = [hex("0d0a0d0a000d0a515549540a 21 31 00d8"), b"/run/a".to_vec(), vec![0; 210]].concat();
    vec![
        ("v1_tcp4", [v1(v4), b"payload".to_vec()].concat()),
        ("v1_tcp6", v1(v6)),
        ("v1_mixed", v1((v4.0, v6.1))),
        ("v1_unknown", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec()),
        ("v1_leading_zero", b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n".to_vec()),
        ("v1_cut", v1(v4)[..30].to_vec()),
        ("v2_stream_checksum", stream),
        ("v2_wrong_checksum", wrong_checksum),
        ("v2_datagram", v2(Addresses::Datagram { source: v6.0, destination: v6.1 }, &plain)),
        ("v2_unspecified", v2(Addresses::Unknown, &plain)),
        ("v2_local", v2(Addresses::Local, &plain)),
        ("v2_unix", unix),
        ("v2_noop", hex("0d0a0d0a000d0a515549540a 21 11 0012 c0000201 c6336402 dc04 01bb 04 0003 000000")),
        ("v2_tlv_cut", hex("0d0a0d0a000d0a515549540a 21 11 0010 c0000201 c6336402 dc04 01bb 01 0002 68")),
    ]
}

fn socks5_ssh_seeds() -> Seeds {
    vec![
        ("socks5", hex("05 02 00 02 05 01 00 01")),
        ("socks5_no_methods", hex("05 00")),
        ("socks5_cut", hex("05 03 00")),
        ("socks4", hex("04 01 0050 c0000201 00")),
        ("socks4_cut", hex("04 01 0050 c0000201 6d65")),
        ("socks4a", [hex("04 01 0050 00000001 00"), b"a.example\0".to_vec()].concat()),
        ("ssh", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec()),
        ("ssh_cut", b"SS".to_vec()),
        ("ssh_lower_case", b"ssh-2.0".to_vec()),
    ]
}

fn ech_config_seeds() -> Seeds {
    let contents = |extensions: &[u8]| {
        let fixed = hex("41 0020 0020 40df78025e9e6407aa990c3a1b662516985de9339f23fcf0d17a7ff760b6c45b
            0008 0001 0001 0001 0003 20 0e 7075626c69632e6578616d706c65");
        [hex("fe0d"), vec16(&[fixed, vec16(extensions)].concat())].concat()
    };
    let (plain, extended, unknown) = (contents(&[]), contents(&hex("abcd 0002 0102 8001 0000")), hex("fe0a 0002 0102"));
    vec![
        ("one", vec16(&plain)),
        ("two", vec16(&[plain.clone(), extended.clone()].concat())),
        ("skipped", vec16(&[unknown.clone(), extended, unknown.clone()].concat())),
        ("skipped_only", vec16(&unknown)),
        ("empty", vec16(&[])),
        ("cut", vec16(&plain)[..40].to_vec()),
        ("entry_cut", vec16(&plain[..40])),
        ("duplicate_extension", vec16(&contents(&hex("abcd 0000 abcd 0000")))),
    ]
}
