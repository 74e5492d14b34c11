//! What a body or a URL may have been before something between the sender and here changed it.
//!
//! For the explainer alone: each variant is tried against the signature, and the one that matches proves what happened.
//! Variants are bounded: none is longer than a few times the body.

use http::header::HOST;
use http::{HeaderMap, HeaderName};

/// What was done to a body, and how it may have looked before.
type Change = (&'static str, fn(&[u8]) -> Vec<u8>);

const LAYOUT: &str = "its white space was taken out, as parsing and writing it again does";
const ESCAPES: &str = "its escapes (\\u00e9, \\/) were written in another way, as parsing and writing it again does";
const CUT: &str = "the line end at its end was cut off";

/// Everything that is tried, the likeliest first.
pub(super) const CHANGES: [Change; 13] = [
    ("white space was added", compacted),
    (LAYOUT, |body| laid_out(body, 2)),
    (LAYOUT, |body| laid_out(body, 4)),
    (LAYOUT, |body| laid_out(body, 0)),
    (ESCAPES, |body| escaped(body, true, false)),
    (ESCAPES, |body| escaped(body, false, true)),
    (ESCAPES, |body| escaped(body, true, true)),
    ("a line end was added at its end", |body| body.trim_ascii_end().to_vec()),
    (CUT, |body| [body, b"\n"].concat()),
    (CUT, |body| [body, b"\r\n"].concat()),
    ("its line ends were changed", crlf),
    ("a mark of its byte order was added", |body| body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).to_vec()),
    ("the sender signed an empty one", |_| Vec::new()),
];

/// The JSON text without white space between its parts.
pub(crate) fn compacted(body: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    body.iter()
        .copied()
        .filter(|byte| {
            let keep = in_string || !byte.is_ascii_whitespace();
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ => {}
            }
            keep
        })
        .collect()
}

/// The JSON text with `indent` blanks a level on lines of their own, or with 0 one blank behind each comma and colon.
fn laid_out(body: &[u8], indent: usize) -> Vec<u8> {
    let compact = compacted(body);
    let most = 8 * compact.len();
    let mut out = Vec::with_capacity(2 * compact.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0_usize);
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        if indent > 0 {
            out.push(b'\n');
            out.resize(out.len() + indent * depth, b' ');
        }
    };
    for (at, &byte) in compact.iter().enumerate() {
        // Brackets in brackets a million deep would need more room than there is.
        if out.len() > most {
            return compact;
        }
        let is_empty = |at: usize| matches!(compact.get(at..at + 2), Some(b"{}" | b"[]"));
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if !is_empty(at.saturating_sub(1)) {
                    break_line(&mut out, depth);
                }
            }
            _ => {}
        }
        out.push(byte);
        match byte {
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if !is_empty(at) {
                    break_line(&mut out, depth);
                }
            }
            b',' if indent > 0 => break_line(&mut out, depth),
            b',' | b':' => out.push(b' '),
            _ => {}
        }
    }
    out
}

/// The JSON text with `\u` and four digits for all that is not ASCII, and `\/` for a slash: as PHP writes it, and
/// Python the first.
fn escaped(body: &[u8], unicode: bool, slashes: bool) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(body) else { return body.to_vec() };
    let mut out = String::with_capacity(body.len());
    for letter in text.chars() {
        match letter {
            '/' if slashes && !out.ends_with('\\') => out.push_str("\\/"),
            _ if unicode && !letter.is_ascii() => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => out.push(letter),
        }
    }
    out.into_bytes()
}

/// The text with `\r\n` for `\n`, or the other way round.
fn crlf(body: &[u8]) -> Vec<u8> {
    if body.windows(2).any(|pair| pair == b"\r\n") {
        return body.iter().copied().filter(|byte| *byte != b'\r').collect();
    }
    body.iter().flat_map(|byte| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] }).collect()
}

/// Other addresses that may stand at the provider: another scheme, a slash, no query, or the host that the request
/// names, which a proxy may have taken the place of.
pub(super) fn urls(url: &str, headers: &HeaderMap) -> Vec<String> {
    let mut bases = vec![url.to_owned()];
    let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("/");
    for name in [HeaderName::from_static("x-forwarded-host"), HOST] {
        if let Some(host) = headers.get(name).and_then(|value| value.to_str().ok()) {
            bases.push(format!("https://{host}{path}"));
        }
    }
    let mut variants: Vec<String> = bases.iter().flat_map(|base| spellings(base)).collect();
    variants.retain(|variant| variant != url);
    variants
}

fn spellings(url: &str) -> Vec<String> {
    let schemes = match url.split_once("://") {
        Some(("http", rest)) => vec![url.to_owned(), format!("https://{rest}")],
        Some(("https", rest)) => vec![url.to_owned(), format!("http://{rest}")],
        _ => vec![url.to_owned()],
    };
    let mut variants = Vec::new();
    for url in schemes {
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (url.clone(), None),
        };
        let slash = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        for path in [path, slash] {
            if let Some(query) = &query {
                variants.push(format!("{path}?{query}"));
            }
            variants.push(path);
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_only_between_the_parts_of_json() {
        let pretty = b"{\n  \"a b\": [ 1, \"x \\\" y\" ]\n}\n";
        assert_eq!(compacted(pretty), b"{\"a b\":[1,\"x \\\" y\"]}");
    }

    #[test]
    fn json_is_laid_out_as_libraries_do() {
        let body = br#"{"a":[1,{}],"b,c":"x: \\\"[,","d":[]}"#;
        let value: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(laid_out(body, 2), serde_json::to_vec_pretty(&value).unwrap());
        assert_eq!(laid_out(br#"{"a":[1,2]}"#, 0), br#"{"a": [1, 2]}"#);
        assert_eq!(laid_out(br#"{"a":[1,2]}"#, 4), b"{\n    \"a\": [\n        1,\n        2\n    ]\n}");
        let deep = vec![b'['; 100_000];
        assert_eq!(laid_out(&deep, 4), deep);
    }

    #[test]
    fn json_is_escaped_as_php_and_python_do() {
        let body = "{\"a\":\"caf\u{e9} \u{1f600} x/y\"}".as_bytes();
        assert_eq!(escaped(body, true, true), br#"{"a":"caf\u00e9 \ud83d\ude00 x\/y"}"#);
        assert_eq!(escaped(br#""x\/y""#, false, true), br#""x\/y""#);
    }

    #[test]
    fn spellings_of_a_url_differ_in_scheme_slash_query_and_host() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, http::HeaderValue::from_static("b.example:8443"));
        let variants = urls("https://a.example/in?x=1", &headers);
        for expected in [
            "http://a.example/in?x=1",
            "https://a.example/in/?x=1",
            "https://a.example/in",
            "https://b.example:8443/in?x=1",
            "http://b.example:8443/in?x=1",
        ] {
            assert!(variants.iter().any(|variant| variant == expected), "{expected}");
        }
        assert!(!variants.iter().any(|variant| variant == "https://a.example/in?x=1"));
    }
}
