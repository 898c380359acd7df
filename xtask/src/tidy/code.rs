//! Tells Rust code from what only looks like it: comments, strings and characters.
//!
//! A scanner, not a parser: it knows just enough of the lexical grammar (Rust reference, chapters on comments and
//! tokens) to find where these end. On code that does not compile it may be wrong, but it always ends.

/// `source` with the inside of comments and of string and character literals replaced by blanks. Lines stay where they
/// are.
pub(super) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while let Some(rest) = bytes.get(code.len()..).filter(|rest| !rest.is_empty()) {
        match length_of_other(rest, code.last().copied()) {
            0 => code.extend(rest.first()),
            length => code.extend(rest.iter().take(length).map(|&byte| if byte == b'\n' { b'\n' } else { b' ' })),
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// The length of the comment or literal that starts here; 0 when this is code.
fn length_of_other(rest: &[u8], before: Option<u8>) -> usize {
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', ..] => character(rest),
        // The `r` of `br` and `cr` follows a letter, that of an identifier that ends in `r` has no quote behind it.
        [b'r', b'"' | b'#', ..]
            if !before.is_some_and(|byte| byte.is_ascii_alphanumeric() && !b"bc".contains(&byte)) =>
        {
            raw_string(rest)
        }
        _ => 0,
    }
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = rest.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A quote starts a literal when it holds an escape or exactly one character, otherwise a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => quoted(rest, b'\''),
        Some(&first) => {
            let length = match first {
                0x00..=0x7f => 1,
                0x80..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xff => 4,
            };
            if rest.get(1 + length) == Some(&b'\'') { length + 2 } else { 0 }
        }
        None => 0,
    }
}

/// 0 for a raw identifier such as `r#type`.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|&&byte| byte == b'#').count();
    let body = hashes + 2;
    if rest.get(hashes + 1) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let tail = rest.get(body..).unwrap_or_default();
    tail.windows(end.len()).position(|window| window == end).map_or(rest.len(), |at| body + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let rows = [
            ("code", "let a = b / c;", "let a = b / c;"),
            ("line comment", "a // x\nb", "a     \nb"),
            ("block comment", "a /* x */ b", "a         b"),
            ("nested comment", "/* /* */ x */b", "             b"),
            ("comment over lines", "/* x\n x */b", "    \n     b"),
            ("string", r#"f("x", a)"#, "f(   , a)"),
            ("escaped quote", r#"f("\"x", a)"#, "f(     , a)"),
            ("escaped backslash", r#"f("\\", a)"#, "f(    , a)"),
            ("comment in a string", r#""//" a"#, "     a"),
            ("string in a comment", "// \"\na", "    \na"),
            ("raw string", r##"r"\" a"##, "     a"),
            ("raw string with hashes", "r#\"x\"y\"# a", "         a"),
            ("raw byte string", r##"br"\" a"##, "b     a"),
            ("raw identifier", "r#type a", "r#type a"),
            ("name that ends in r", "for x", "for x"),
            ("character", "'x' a", "    a"),
            ("quote as character", r"'\'' a", "     a"),
            ("double quote as character", "'\"' a", "    a"),
            ("character of three bytes", "'\u{20ac}' a", "      a"),
            ("lifetime", "&'a str, 'b'", "&'a str,    "),
            ("static lifetime", "&'static str", "&'static str"),
            ("unclosed string", "\"x", "  "),
            ("unclosed comment", "/* x", "    "),
        ];
        for (name, source, expected) in rows {
            assert_eq!(code_only(source), expected, "{name}");
        }
    }
}
