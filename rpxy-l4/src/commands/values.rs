//! Values of a daemon's answer as text.

use serde_json::Value;

use super::units::{bytes, time};
use crate::escape;

/// A value on one line: names are the operator's, but must not move the cursor.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape::line(text).into_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A duration in milliseconds.
pub(super) fn millis(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |millis| time(millis / 1000))
}

/// A number of bytes.
pub(super) fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), bytes)
}
