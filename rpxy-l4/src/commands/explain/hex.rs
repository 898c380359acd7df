//! Bytes written in hex, as the usual tools print them: bare, with `0x`, separated by anything, or with offsets in front
//! and text behind (`xxd`, `hexdump -C`).

use anyhow::{Result, bail};

/// The bytes of `text`; an empty line, or one of a comment (`#`), begins another part.
pub(super) fn parse(text: &str) -> Result<Vec<Vec<u8>>> {
    let mut parts = vec![Vec::new()];
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            parts.push(Vec::new());
            continue;
        }
        let Some(part) = parts.last_mut() else { break };
        for word in without_frame(line).split(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | '-')) {
            let digits = word.strip_prefix("0x").or(word.strip_prefix("0X")).unwrap_or(word);
            if let Some(odd) = digits.chars().find(|digit| !digit.is_ascii_hexdigit()) {
                bail!("line {number}: {odd:?} is no hex digit; expected what xxd, `xxd -p` or `hexdump -C` prints");
            }
            if digits.len() % 2 != 0 {
                bail!("line {number}: {word:?} has half a byte; each byte takes two digits");
            }
            let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            part.extend(digits.as_bytes().chunks(2).filter_map(pair));
        }
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        bail!("there is no byte in it");
    }
    Ok(parts)
}

/// A line without the offset in front and the text behind.
fn without_frame(line: &str) -> &str {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let line = line.trim_end();
    // xxd: `00000000: 1603 0102  ....`, where two spaces end the bytes.
    if let Some((offset, rest)) = line.trim_start().split_once(": ")
        && offset.len() >= 4
        && is_hex(offset)
    {
        let rest = rest.trim_start();
        return rest.split_once("  ").map_or(rest, |(bytes, _text)| bytes);
    }
    // hexdump -C: `00000000  16 03 01 02  |....|`, and an offset alone at the end.
    if let Some((offset, rest)) = line.split_once("  ")
        && offset.len() >= 7
        && is_hex(offset)
        && let Some((bytes, _text)) = rest.split_once('|')
    {
        return bytes;
    }
    if line.len() == 8 && is_hex(line) && line.starts_with("0000") { "" } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_usual_tools_print_is_read() {
        let bytes: &[u8] = &[0x16, 0x03, 0x01, 0x7c, 0x41];
        for (case, text) in [
            ("xxd -p", "1603017c41\n"),
            ("spaces", "16 03 01 7c 41"),
            ("0x and commas", "0x16, 0x03, 0x01,\n0x7C, 0x41,"),
            ("colons, as openssl and wireshark have them", "16:03:01:7c:41"),
            ("xxd", "00000000: 1603 017c 41                             ...|A\n"),
            ("xxd in two lines", "00000000: 1603 01  ...\n00000003: 7c41  |A\n"),
            ("hexdump -C", "00000000  16 03 01 7c 41                                    |...|A|\n00000005\n"),
        ] {
            assert_eq!(parse(text).unwrap(), [bytes], "{case}");
        }
    }

    #[test]
    fn an_empty_line_begins_another_part() {
        assert_eq!(parse("01 02\n03\n\n\n04\n# later\n05\n").unwrap(), [vec![1, 2, 3], vec![4], vec![5]]);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (case, text, expected) in [
            (
                "no digit",
                "16 03\n0g",
                "line 2: 'g' is no hex digit; expected what xxd, `xxd -p` or `hexdump -C` prints",
            ),
            ("half a byte", "16 3", "line 1: \"3\" has half a byte; each byte takes two digits"),
            ("nothing", "\n \n", "there is no byte in it"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{case}");
        }
    }
}
