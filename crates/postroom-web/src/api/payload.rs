//! How bytes of unknown kind are shown inside JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

/// How bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Encoding {
    /// They are one JSON document and shown as it.
    Json,
    /// They are UTF-8 and shown as text.
    Text,
    /// They are neither: base64.
    Base64,
}

/// Shows bytes as JSON if they are an ordinary document, as text if they are UTF-8, else as base64.
///
/// A document that many readers choke on (nested more than 128 deep, numbers beyond a double, lone surrogates) is shown
/// as text, which every reader takes.
pub(super) fn show(bytes: &Bytes) -> (Encoding, Box<RawValue>) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let ordinary = serde_json::from_str::<serde_json::Value>(text).is_ok();
        match RawValue::from_string(text.trim_ascii().to_owned()) {
            Ok(json) if ordinary => return (Encoding::Json, json),
            _ => return (Encoding::Text, quoted(text)),
        }
    }
    show_as_base64(bytes)
}

/// Shows bytes as base64, whatever they are.
pub(super) fn show_as_base64(bytes: &Bytes) -> (Encoding, Box<RawValue>) {
    (Encoding::Base64, quoted(&BASE64.encode(bytes)))
}

/// The same without JSON: for answers of endpoints, which are what they are.
pub(super) fn show_as_text(bytes: &Bytes) -> (Encoding, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Encoding::Text, text.to_owned()),
        Err(_) => (Encoding::Base64, BASE64.encode(bytes)),
    }
}

fn quoted(text: &str) -> Box<RawValue> {
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_so_that_every_reader_of_json_takes_them() {
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        let deep_shown = format!("\"{deep}\"");
        for (bytes, encoding, shown) in [
            (&b" {\"a\": 1.50} \n"[..], Encoding::Json, "{\"a\": 1.50}"),
            (b"", Encoding::Text, "\"\""),
            (b"a=1&b=2", Encoding::Text, "\"a=1&b=2\""),
            (b"\xff\x00", Encoding::Base64, "\"/wA=\""),
            (b"\"\\ud800\"", Encoding::Text, "\"\\\"\\\\ud800\\\"\""),
            (b"1e999", Encoding::Text, "\"1e999\""),
            (b"{}{}", Encoding::Text, "\"{}{}\""),
            (deep.as_bytes(), Encoding::Text, deep_shown.as_str()),
        ] {
            let (how, text) = show(&Bytes::copy_from_slice(bytes));
            assert_eq!((how, text.get()), (encoding, shown));
        }
    }
}
