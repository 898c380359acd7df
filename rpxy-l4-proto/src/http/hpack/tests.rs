//! The examples of RFC 7541 appendix C, the errors that RFC 7541 demands, and loona-hpack as a second opinion.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::testing::hex;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// All fields of a block, and the size of the dynamic table behind it; `None` if the block is wrong.
fn decode(block: &[u8]) -> Option<(Fields, usize)> {
    let mut decoder = Decoder::new(block);
    let mut fields = Vec::new();
    while !decoder.block.is_empty() {
        if let Some((name, value)) = decoder.next_field()? {
            assert_eq!((name.to_vec().len(), value.to_vec().len()), (name.len, value.len));
            assert!(name.is(&name.to_vec()));
            fields.push((name.to_vec(), value.to_vec()));
        }
    }
    Some((fields, decoder.size))
}

#[track_caller]
fn assert_decodes(block: &str, fields: &[(&str, &str)], size: usize) {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
    assert_eq!(decode(&hex(block)), Some((fields, size)));
}

#[test]
fn representations_of_appendix_c_2() {
    assert_decodes("400a 637573746f6d2d6b6579 0d 637573746f6d2d686561646572", &[("custom-key", "custom-header")], 55);
    assert_decodes("04 0c 2f73616d706c652f70617468", &[(":path", "/sample/path")], 0);
    assert_decodes("10 08 70617373776f7264 06 736563726574", &[("password", "secret")], 0);
    assert_decodes("82", &[(":method", "GET")], 0);
}

/// The three requests of appendix C.3 and C.4 in one block: the tables live on from one to the next.
const REQUESTS: [(&str, &str); 14] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

#[test]
fn requests_without_huffman_code_of_appendix_c_3() {
    let first = "828684 41 0f 7777772e6578616d706c652e636f6d";
    let second = "828684be 58 08 6e6f2d6361636865";
    let third = "828785bf 40 0a 637573746f6d2d6b6579 0c 637573746f6d2d76616c7565";
    assert_decodes(first, &REQUESTS[..4], 57);
    assert_decodes(&[first, second].concat(), &REQUESTS[..9], 110);
    assert_decodes(&[first, second, third].concat(), &REQUESTS, 164);
    assert_eq!(host(&hex(first)).as_deref(), Some("www.example.com"));
}

#[test]
fn requests_with_huffman_code_of_appendix_c_4() {
    let first = "828684 41 8c f1e3c2e5f23a6ba0ab90f4ff";
    let second = "828684be 58 86 a8eb10649cbf";
    let third = "828785bf 40 88 25a849e95ba97d7f 89 25a849e95bb8e8b4bf";
    assert_decodes(first, &REQUESTS[..4], 57);
    assert_decodes(&[first, second].concat(), &REQUESTS[..9], 110);
    assert_decodes(&[first, second, third].concat(), &REQUESTS, 164);
    assert_eq!(host(&hex(first)).as_deref(), Some("www.example.com"));
}

#[test]
fn evictions_of_appendix_c_5() {
    // 256 bytes of table, as the appendix assumes.
    let size = "3fe101";
    let first = "48 03 333032 58 07 70726976617465 61 1d 4d6f6e2c203231204f637420323031332032303a31333a323120474d54
        6e 17 68747470733a2f2f7777772e6578616d706c652e636f6d";
    let second = "48 03 333037 c1c0bf";
    let third = "88c1 61 1d 4d6f6e2c203231204f637420323031332032303a31333a323220474d54 c0 5a 04 677a6970 77 38
        666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31";
    let location = ("location", "https://www.example.com");
    let (date, later) = (("date", "Mon, 21 Oct 2013 20:13:21 GMT"), ("date", "Mon, 21 Oct 2013 20:13:22 GMT"));
    let private = ("cache-control", "private");
    let cookie = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    let mut fields = vec![(":status", "302"), private, date, location];
    assert_decodes(&[size, first].concat(), &fields, 222);
    fields.extend([(":status", "307"), private, date, location]);
    assert_decodes(&[size, first, second].concat(), &fields, 222);
    fields.extend([(":status", "200"), private, later, location, ("content-encoding", "gzip"), cookie]);
    assert_decodes(&[size, first, second, third].concat(), &fields, 215);
}

#[test]
fn integers_of_appendix_c_1() {
    let integer = |bytes: &[u8], bits| {
        let mut decoder = Decoder::new(&bytes[1..]);
        decoder.integer(bytes[0], bits).filter(|_| decoder.block.is_empty())
    };
    let rows: [(&str, &[u8], u32, Option<usize>); 8] = [
        ("10 in 5 bits", &[0b01010], 5, Some(10)),
        ("1337 in 5 bits", &[0b11111, 0b1001_1010, 0b1010], 5, Some(1337)),
        ("42 in 8 bits", &[42], 8, Some(42)),
        ("the prefix full, nothing more", &[0x7f, 0], 7, Some(127)),
        ("an octet missing", &[0x7f], 7, None),
        ("an octet announced and missing", &[0x7f, 0x80], 7, None),
        ("four octets", &[0x7f, 0xff, 0xff, 0xff, 0x7f], 7, Some(127 + (1 << 28) - 1)),
        ("five octets", &[0x7f, 0xff, 0xff, 0xff, 0xff, 0], 7, None),
    ];
    for (row, bytes, bits, expected) in rows {
        assert_eq!(integer(bytes, bits), expected, "{row}");
    }
}

#[test]
fn wrong_blocks_have_no_fields() {
    let rows = [
        ("index 0", "80"),
        ("index behind both tables", "be"),
        ("index of a name behind both tables", "7e 00"),
        ("size update behind a field", "82 20"),
        ("size update beyond the bound", "3fe21f"),
        ("name missing", "40"),
        ("name cut", "40 02 61"),
        ("value missing", "40 01 61"),
        ("value cut", "40 01 61 02 62"),
        ("Huffman padding of a whole byte", "04 82 f8ff"),
        ("Huffman padding of eleven bits", "04 82 1fff"),
        ("Huffman padding with a zero", "04 81 1e"),
        ("EOS in a Huffman string", "04 84 ffffffff"),
    ];
    for (row, block) in rows {
        assert_eq!(decode(&hex(block)), None, "{row}");
        assert_eq!(host(&[hex("41 01 61"), hex(block)].concat()), None, "{row}, behind an authority");
    }
    assert_decodes("04 81 1f", &[(":path", "a")], 0);
    assert_decodes("20 3fe11f 82", &[(":method", "GET")], 0);
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let before = [hex("41"), string(b"a", false)].concat();
    let entry = |len: usize| [hex("40"), string(b"n", false), string(&vec![b'v'; len], false)].concat();
    for (row, len, expected) in [("just fits", 4096 - 32 - 1, 4096), ("one byte more", 4096 - 32, 0)] {
        let (_, size) = decode(&[before.clone(), entry(len)].concat()).unwrap();
        assert_eq!(size, expected, "{row}");
    }
}

#[test]
fn the_authority_goes_before_the_host() {
    let literal =
        |name: &str, value: &str| [vec![0], string(name.as_bytes(), false), string(value.as_bytes(), true)].concat();
    let (authority, other) = (literal(":authority", "A.example:443"), literal(":authority", "b.example"));
    let (host_field, no_host) = (literal("host", "c.example"), literal("x-host", "d.example"));
    let rows = [
        ("authority", vec![&authority], Some("a.example")),
        ("host", vec![&no_host, &host_field], Some("c.example")),
        ("host, then authority", vec![&host_field, &authority], Some("a.example")),
        ("authority, then host", vec![&authority, &host_field], Some("a.example")),
        ("two authorities", vec![&authority, &other, &host_field], None),
        ("two hosts", vec![&host_field, &host_field], None),
        ("neither", vec![&no_host], None),
        ("nothing", vec![], None),
    ];
    for (row, fields, expected) in rows {
        let block: Vec<u8> = fields.into_iter().flatten().copied().collect();
        assert_eq!(host(&block).as_deref(), expected, "{row}");
    }
    assert_eq!(host(&literal(":authority", "not a host")), None);
}

fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let name = prop_oneof![
        proptest::sample::select(STATIC_TABLE.map(|(name, _)| name).to_vec()).prop_map(|name| name.as_bytes().to_vec()),
        "[a-z]{1,8}".prop_map(String::into_bytes),
    ];
    (name, vec(any::<u8>(), 0..40))
}

proptest! {
    #[test]
    fn fields_encoded_by_loona_come_back(fields in vec(field(), 0..200)) {
        let block = loona_hpack::Encoder::new().encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
        prop_assert_eq!(decode(&block).map(|(fields, _)| fields), Some(fields));
    }

    #[test]
    fn huffman_strings_decode_as_loona_decodes_them(value in vec(any::<u8>(), 0..60)) {
        let block = [vec![0], string(b"n", true), string(&value, true)].concat();
        let expected = Some(vec![(b"n".to_vec(), value)]);
        prop_assert_eq!(loona_hpack::Decoder::new().decode(&block).ok(), expected.clone());
        prop_assert_eq!(decode(&block).map(|(fields, _)| fields), expected);
    }

    #[test]
    fn no_block_makes_it_panic(block in vec(any::<u8>(), 0..300)) {
        let _host = host(&block);
        let _fields = decode(&block);
    }
}

/// A string literal (RFC 7541 section 5.2) of less than 16,511 bytes.
fn string(text: &[u8], huffman_coded: bool) -> Vec<u8> {
    let encoded = if huffman_coded { huffman::tests::encode(text) } else { text.to_vec() };
    let flag = if huffman_coded { 0x80 } else { 0 };
    let length = match encoded.len().checked_sub(127) {
        None => vec![flag | u8::try_from(encoded.len()).unwrap()],
        Some(rest) if rest < 128 => vec![flag | 127, u8::try_from(rest).unwrap()],
        Some(rest) => vec![flag | 127, u8::try_from(rest & 127).unwrap() | 128, u8::try_from(rest >> 7).unwrap()],
    };
    [length, encoded].concat()
}
