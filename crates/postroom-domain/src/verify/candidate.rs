//! Finds the signatures (and a time beside them) in a signature header. Parsers over bytes that anybody can send:
//! bounded, no panic, no allocation.

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderName};

use super::{Refusal, check};
use crate::provider::scheme::Encoding;

/// The most comparisons of a signature with a key for one request.
pub(super) const MAX_COMPARISONS: usize = 16;

/// Room for the longest signature (72 bytes of ECDSA in DER) as the base64 decoder estimates it.
pub(super) const BUFFER_BYTES: usize = 72;

/// Where the signatures stand; the compiled form of [`crate::provider::scheme::SignatureFrom`].
#[derive(Debug, Clone)]
pub(super) enum Location {
    Plain { header: HeaderName, prefix: String },
    Pairs { header: HeaderName, separator: u8, label: String, time_label: Option<String>, trim: bool },
    List { header: HeaderName, separator: u8, label: String },
    Numbered { headers: Vec<HeaderName> },
    Json { slot: usize },
}

/// The signatures of one request, as text, and the time that stood among them.
#[derive(Debug, Default)]
pub(super) struct Found<'r> {
    signatures: [&'r [u8]; MAX_COMPARISONS],
    count: usize,
    /// How many there were, if more than are looked at.
    pub seen: usize,
    pub time: Option<&'r [u8]>,
}

impl<'r> Found<'r> {
    fn push(&mut self, signature: &'r [u8]) {
        self.seen += 1;
        if self.count < MAX_COMPARISONS {
            self.signatures[self.count] = signature;
            self.count += 1;
        }
    }

    /// The signatures, in order, at most as many as can be compared with this many keys.
    pub fn signatures(&self, keys: usize) -> &[&'r [u8]] {
        &self.signatures[..self.count.min(MAX_COMPARISONS / keys.max(1))]
    }
}

impl Location {
    /// Whether the header (any of them) is in the request.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        self.headers().iter().any(|name| headers.contains_key(name))
    }

    /// The headers that signatures can stand in.
    pub fn headers(&self) -> &[HeaderName] {
        match self {
            Self::Plain { header, .. } | Self::Pairs { header, .. } | Self::List { header, .. } => {
                std::slice::from_ref(header)
            }
            Self::Numbered { headers } => headers,
            Self::Json { .. } => &[],
        }
    }

    /// The signatures of a request; at least one.
    pub fn find<'r>(&self, headers: &'r HeaderMap, values: &'r [Option<String>]) -> Result<Found<'r>, Refusal> {
        let mut found = Found::default();
        match self {
            Self::Plain { header, prefix } => {
                let value = required(headers, header)?;
                if let Some(signature) = value.strip_prefix(prefix.as_bytes()) {
                    found.push(signature);
                }
            }
            Self::Pairs { header, separator, label, time_label, trim } => {
                let value = required(headers, header)?;
                for item in value.split(|b| b == separator) {
                    let item = if *trim { trimmed(item) } else { item };
                    let Some(at) = memchr::memchr(b'=', item) else { continue };
                    let (name, value) = (&item[..at], &item[at + 1..]);
                    if name == label.as_bytes() {
                        found.push(value);
                    } else if time_label.as_ref().is_some_and(|label| name == label.as_bytes())
                        && found.time.replace(value).is_some()
                    {
                        return Err(Refusal::SignatureInvalid { check: check::TIMESTAMP_FORMAT });
                    }
                }
            }
            Self::List { header, separator, label } => {
                let value = required(headers, header)?;
                for item in value.split(|b| b == separator) {
                    if let Some(signature) = trimmed(item).strip_prefix(label.as_bytes()) {
                        found.push(signature);
                    }
                }
            }
            Self::Numbered { headers: names } => {
                for name in names.iter().filter(|name| headers.contains_key(*name)) {
                    found.push(required(headers, name)?);
                }
            }
            Self::Json { slot } => {
                if let Some(signature) = values.get(*slot).and_then(Option::as_ref) {
                    found.push(signature.as_bytes());
                }
            }
        }
        let missing = match self {
            Self::Numbered { .. } | Self::Json { .. } => Refusal::SignatureMissing { check: check::SIGNATURE_HEADER },
            _ => Refusal::SignatureInvalid { check: check::SIGNATURE_FORMAT },
        };
        if found.count == 0 { Err(missing) } else { Ok(found) }
    }
}

/// The value of the signature header. Empty counts as missing; two of them are refused, because the sender's proxy
/// and ours could disagree which one counts.
fn required<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<&'r [u8], Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map_or(b"".as_slice(), http::HeaderValue::as_bytes);
    if values.next().is_some() {
        return Err(Refusal::SignatureInvalid { check: check::SIGNATURE_HEADER_TWICE });
    }
    if first.is_empty() { Err(Refusal::SignatureMissing { check: check::SIGNATURE_HEADER }) } else { Ok(first) }
}

fn trimmed(mut item: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = item {
        item = rest;
    }
    item
}

/// The bytes of a signature that must be as long as `lengths` says; none if it is written in any other way than the
/// one allowed.
pub(super) fn decode<'b>(
    encoding: Encoding,
    text: &[u8],
    lengths: RangeInclusive<usize>,
    buffer: &'b mut [u8; BUFFER_BYTES],
) -> Option<&'b [u8]> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let written = match encoding {
        Encoding::Hex | Encoding::HexUpper => {
            // The decoder takes both cases, and nothing that is no digit.
            let other_case = if matches!(encoding, Encoding::HexUpper) { b'a'..=b'f' } else { b'A'..=b'F' };
            let length = text.len() / 2;
            let fits = text.len().is_multiple_of(2) && !text.iter().any(|b| other_case.contains(b));
            (fits && hex::decode_to_slice(text, buffer.get_mut(..length)?).is_ok()).then_some(length)?
        }
        Encoding::Base64 => STANDARD.decode_slice(text, buffer).ok()?,
        Encoding::Base64Url => URL_SAFE_NO_PAD.decode_slice(text, buffer).ok()?,
    };
    lengths.contains(&written).then(|| &buffer[..written])
}

/// Writes the bytes of a signature.
pub(super) fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    match encoding {
        Encoding::Hex => hex::encode(bytes),
        Encoding::HexUpper => hex::encode_upper(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
        Encoding::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_has_one_spelling() {
        let bytes: Vec<u8> = (0..32).map(|n| n * 7 + 3).collect();
        for encoding in [Encoding::Hex, Encoding::HexUpper, Encoding::Base64, Encoding::Base64Url] {
            let text = encode(encoding, &bytes);
            let mut buffer = [0; BUFFER_BYTES];
            assert_eq!(decode(encoding, text.as_bytes(), 32..=32, &mut buffer), Some(bytes.as_slice()));
            for other in [&text[1..], &format!("{text}A"), &format!("{text}="), &format!(" {text}"), ""] {
                assert_eq!(decode(encoding, other.as_bytes(), 32..=32, &mut buffer), None, "{encoding:?} {other}");
            }
        }
        let mut buffer = [0; BUFFER_BYTES];
        assert_eq!(decode(Encoding::Hex, b"AB", 1..=1, &mut buffer), None);
        assert_eq!(decode(Encoding::HexUpper, b"ab", 1..=1, &mut buffer), None);
        // The last digit of 32 bytes in base64 carries two bits that must be zero.
        let text = encode(Encoding::Base64, &bytes);
        let sloppy = format!("{}{}=", &text[..42], char::from(text.as_bytes()[42] + 1));
        assert_eq!(decode(Encoding::Base64, sloppy.as_bytes(), 32..=32, &mut buffer), None);
    }
}
