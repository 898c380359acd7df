//! Bytes in the file: text stands for its UTF-8 form, `{ hex = ".." }` for any.

use std::sync::Arc;

use crate::config::{file::Field, keys::Scope, report::Report};

/// The longest, in bytes.
const LONGEST: usize = 1024;

/// One byte or more.
pub(super) fn bytes(report: &mut Report<'_>, field: &Field<'_>) -> Option<Arc<[u8]>> {
    let bytes = if field.is_table() {
        let table = field.table(report, Scope::Bytes)?;
        let digits = table.required(report, "hex")?;
        let bytes = hexadecimal(digits.string(report)?);
        if bytes.is_none() {
            report.error(&digits.position, "expected two hexadecimal digits for each byte");
        }
        bytes?
    } else if let Some(text) = field.as_string() {
        text.as_bytes().to_vec()
    } else {
        field.wrong_type(report, "a string or { hex = \"..\" }");
        return None;
    };
    if bytes.is_empty() {
        report.error_with(&field.position, "must not be empty", "leave it out");
        return None;
    }
    if bytes.len() > LONGEST {
        report.error(&field.position, format!("has {} bytes; {LONGEST} are the most", bytes.len()));
        return None;
    }
    Some(bytes.into())
}

/// The bytes of two hexadecimal digits each.
pub(super) fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect()
}
