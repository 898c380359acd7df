//! Version 1, to the letter.

use super::*;
use DecodeError::{Address, LineEnd, Port, Protocol};

#[test]
fn headers_of_every_form_are_read() {
    let longest =
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let all_ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let longest_unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    assert_eq!(longest_unknown.len(), MAX_V1);
    let rows = [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", stream("192.0.2.1:56324", "198.51.100.2:443")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", stream("255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", stream("[2001:db8::1]:1", "[::1]:2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2\r\n", stream("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2")),
        (longest, stream(all_ones, all_ones)),
        ("PROXY UNKNOWN\r\n", Addresses::Unknown),
        ("PROXY UNKNOWN \r\n", Addresses::Unknown),
        ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Addresses::Unknown),
        ("PROXY UNKNOWN \n\r x\r\n", Addresses::Unknown),
        (longest_unknown.as_str(), Addresses::Unknown),
    ];
    for (line, addresses) in rows {
        let expected = Header { version: Version::V1, addresses, tlvs: Tlvs::default() };
        assert_eq!(header(line.as_bytes()), expected, "{line:?}");
    }
}

#[test]
fn a_wrong_field_is_refused_at_the_byte_that_proves_it() {
    // Each row ends with the byte that decides.
    let rows = [
        ("PROXY t", Protocol),
        ("PROXY TCP5", Protocol),
        ("PROXY TCP4\t", Protocol),
        ("PROXY UD", Protocol),
        ("PROXY  ", Protocol),
        ("PROXY UNKNOWNx", Protocol),
        ("PROXY UNKNOWN\n", Protocol),
        ("PROXY UNKNOWN\rx", LineEnd),
        ("PROXY TCP4  ", Address),
        ("PROXY TCP4 a", Address),
        ("PROXY TCP4 1:", Address),
        ("PROXY TCP4 192.0.2 ", Address),
        ("PROXY TCP4 192.0.2.256 ", Address),
        ("PROXY TCP4 192.0.02.1 ", Address),
        ("PROXY TCP4 192.0.2.1\r", Address),
        ("PROXY TCP4 1921.0.2.1111111", Address),
        ("PROXY TCP6 192.0.2.1 ", Address),
        ("PROXY TCP6 ::1%", Address),
        ("PROXY TCP6 [", Address),
        ("PROXY TCP6 1:2:3:4:5:6:7 ", Address),
        ("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2550", Address),
        ("PROXY TCP4 192.0.2.1  ", Address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2  ", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 x", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 00", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 ", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 123456", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 ", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx", LineEnd),
    ];
    for (line, error) in rows {
        assert_eq!(checked(line.as_bytes()), Decoded::Invalid(error), "{line:?}");
        let before = &line.as_bytes()[..line.len() - 1];
        assert_eq!(checked(before), Decoded::NeedMore, "{line:?} without its last byte");
    }
}

#[test]
fn a_line_has_at_most_107_bytes() {
    let unknown = |len: usize| format!("PROXY UNKNOWN {}", "x".repeat(len - 14));
    // One byte below the limit, only CR can still become a header.
    assert_eq!(checked(unknown(MAX_V1 - 2).as_bytes()), Decoded::NeedMore);
    assert_eq!(checked((unknown(MAX_V1 - 2) + "\r").as_bytes()), Decoded::NeedMore);
    assert_eq!(checked(unknown(MAX_V1 - 1).as_bytes()), Decoded::Invalid(LineEnd));
    assert_eq!(checked((unknown(MAX_V1 - 1) + "\r\n").as_bytes()), Decoded::Invalid(LineEnd));
    let mapped = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    let tcp6 = format!("PROXY TCP6 {mapped} {mapped} 65535");
    assert_eq!(tcp6.len(), MAX_V1 + 1, "the longest spellings do not fit");
    assert_eq!(checked(tcp6.as_bytes()), Decoded::Invalid(LineEnd));
}
