//! What was signed, as a template: fixed text and `{placeholders}`.
//!
//! `{body}` the raw body, `{timestamp}` the time exactly as received, `{url}` the public URL, `{method}`,
//! `{header:Name}`, `{json:path.in.body}`, `{form_sorted}` (names and values of a form, sorted by name, with nothing
//! between). `{{` and `}}` are braces.

use std::borrow::Cow;

use http::HeaderName;

use super::json::Paths;
use crate::Invalid;

/// The longest template and the most pieces in one, for those that users write.
const MAX_BYTES: usize = 512;
const MAX_PARTS: usize = 16;

/// One piece of the signed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Body,
    Timestamp,
    Url,
    Method,
    Header(HeaderName),
    /// The number of the value in the scheme's [`Paths`].
    Json(usize),
    FormSorted,
}

/// Reads a template; JSON paths are added to `paths`.
pub(super) fn parse(template: &str, paths: &mut Paths) -> Result<Vec<Part>, Invalid> {
    if template.len() > MAX_BYTES {
        return Err(Invalid::new("too_long", format!("at most {MAX_BYTES} bytes")));
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut literal = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            literal.push_str(brace);
            rest = after;
            continue;
        }
        let (name, after) = match rest.split_once('}') {
            Some(split) if brace == "{" => split,
            _ => return Err(Invalid::new("invalid_template", "a single brace; write {{ or }} for a brace itself")),
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(placeholder(name, paths)?);
        rest = after;
        if parts.len() > MAX_PARTS {
            return Err(Invalid::new("too_long", format!("at most {MAX_PARTS} pieces")));
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn placeholder(name: &str, paths: &mut Paths) -> Result<Part, Invalid> {
    Ok(match name.split_once(':') {
        None if name == "body" => Part::Body,
        None if name == "timestamp" => Part::Timestamp,
        None if name == "url" => Part::Url,
        None if name == "method" => Part::Method,
        None if name == "form_sorted" => Part::FormSorted,
        Some(("header", header)) => Part::Header(header_name(header)?),
        Some(("json", path)) => Part::Json(paths.add(json_path(path)?)),
        _ => {
            let known = "{body} {timestamp} {url} {method} {header:Name} {json:path} {form_sorted}";
            return Err(Invalid::new("invalid_template", format!("unknown placeholder; there are {known}")));
        }
    })
}

/// Accepts a header's name.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Invalid> {
    if text.len() > 128 {
        return Err(Invalid::new("too_long", "at most 128 characters"));
    }
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Invalid::new("invalid_header_name", "the name of an HTTP header, such as X-Signature"))
}

/// Accepts a path into a JSON body.
pub(super) fn json_path(text: &str) -> Result<&str, Invalid> {
    if text.len() > 256 {
        return Err(Invalid::new("too_long", "at most 256 bytes"));
    }
    if text.split('.').any(str::is_empty) {
        return Err(Invalid::new("invalid_path", "names with single dots between, such as data.id"));
    }
    Ok(text)
}

impl Part {
    /// The bytes of this piece in a request; `None` if a header or value it needs is not there (or twice).
    pub fn bytes<'r>(&'r self, request: &super::Request<'r>, context: &'r Context<'r>) -> Option<Cow<'r, [u8]>> {
        Some(Cow::Borrowed(match self {
            Self::Literal(text) => text.as_bytes(),
            Self::Body => request.body,
            Self::Timestamp => context.timestamp,
            Self::Url => context.url.as_bytes(),
            Self::Method => request.method.as_bytes(),
            Self::Header(name) => super::single(request.headers, name)?,
            Self::Json(slot) => context.values.get(*slot)?.as_ref()?.as_bytes(),
            Self::FormSorted => return Some(Cow::Owned(super::form::sorted(request.body))),
        }))
    }
}

/// What the pieces are filled with besides the request itself.
#[derive(Debug, Default)]
pub(super) struct Context<'r> {
    pub timestamp: &'r [u8],
    pub url: &'r str,
    pub values: &'r [Option<String>],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_fixed_text_and_placeholders() {
        let mut paths = Paths::default();
        let parts = parse("v0:{timestamp}{header:X-Id}{json:a.b}{{{body}}}", &mut paths).unwrap();
        let header = Part::Header(HeaderName::from_static("x-id"));
        let text = |text: &str| Part::Literal(text.to_owned());
        assert_eq!(parts, [text("v0:"), Part::Timestamp, header, Part::Json(0), text("{"), Part::Body, text("}")]);
    }

    #[test]
    fn a_template_that_means_nothing_is_refused() {
        let many = "{body}".repeat(17);
        for bad in ["{", "}", "{body", "{nope}", "{header:}", "{header:a b}", "{json:a..b}", "{ts:1}", &many] {
            assert!(parse(bad, &mut Paths::default()).is_err(), "{bad}");
        }
        assert_eq!(parse(&"x".repeat(513), &mut Paths::default()).unwrap_err().code, "too_long");
    }
}
