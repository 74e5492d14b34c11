//! `application/x-www-form-urlencoded`, on bytes: a text that is not UTF-8 must reach the keyed hash unchanged.

use std::borrow::Cow;

/// A decoded name and its decoded value.
pub(super) type Pair<'b> = (Cow<'b, [u8]>, Cow<'b, [u8]>);

/// Names and values in the order of the body, decoded.
pub(super) fn pairs(body: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    body.split(|b| *b == b'&').filter(|part| !part.is_empty()).map(|part| {
        let at = memchr::memchr(b'=', part).unwrap_or(part.len());
        (decoded(&part[..at]), decoded(part.get(at + 1..).unwrap_or_default()))
    })
}

/// The value of the only field of this name; none if there are two.
pub(super) fn field<'b>(body: &'b [u8], name: &str) -> Option<Cow<'b, [u8]>> {
    let mut values = pairs(body).filter(|(have, _)| have.as_ref() == name.as_bytes()).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

/// Every name and value, ordered by name (equal names in the order of the body), with nothing between them.
pub(super) fn sorted(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = pairs(body).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all = Vec::with_capacity(body.len());
    for (name, value) in fields {
        all.extend_from_slice(&name);
        all.extend_from_slice(&value);
    }
    all
}

/// `+` is a blank and `%XX` a byte; a `%` with no two hexadecimal digits behind it is itself.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'+', b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'+', b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        let escaped = if rest[at] == b'%' { after.first_chunk().and_then(byte_of) } else { None };
        out.push(escaped.unwrap_or(if rest[at] == b'+' { b' ' } else { b'%' }));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

fn byte_of(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16).and_then(|number| u8::try_from(number).ok()));
    Some(high? << 4 | low?)
}

/// A body of one field, as the encoders of most languages write it.
pub(super) fn encode(name: &str, value: &[u8]) -> Vec<u8> {
    let mut body = format!("{name}=").into_bytes();
    body.extend(url::form_urlencoded::byte_serialize(value).flat_map(str::bytes));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_to_bytes_and_sorted_by_name() {
        assert_eq!(sorted(b"b=2&a=1+x&c"), b"a1 xb2c");
        assert_eq!(sorted(b"a=%ff%4&a=%C3%a9&&=v"), b"va\xff%4a\xc3\xa9".as_slice());
        assert_eq!(field(b"a=1&b=%5B%5D", "b").as_deref(), Some(b"[]".as_slice()));
        assert_eq!(field(b"a=1&a=2", "a"), None);
        assert_eq!(field(b"", "a"), None);
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        let value: Vec<u8> = (0..=255).collect();
        assert_eq!(field(&encode("x", &value), "x").as_deref(), Some(value.as_slice()));
    }
}
