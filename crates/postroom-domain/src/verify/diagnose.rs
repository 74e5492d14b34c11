//! The likely cause of a refusal, found by trying what usually goes wrong: another reading of the secret, a body or
//! URL changed on the way, another provider's headers.
//!
//! Every trial is one more run of the same checks, a few dozen at most. A trial that verifies proves its cause; when
//! none does, what remains is said.

use aws_lc_rs::hmac::Key;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hmac::Check;
use super::{Refusal, Request, Scheme, Verifier, check};
use crate::provider;
use crate::provider::scheme::{Algorithm, Encoding};
use crate::{Secret, Timestamp};

/// What is most probably wrong with a refused request, the likeliest first.
pub(super) fn causes(verifier: &Verifier, request: &Request<'_>, now: Timestamp, refusal: Refusal) -> Vec<String> {
    let mut causes = match refusal.check() {
        check::SECRET => vec!["give the source its secret; until then it refuses everything".to_owned()],
        check::SIGNATURE_HEADER => missing(verifier, request),
        check::SIGNATURE_HEADER_TWICE => {
            vec!["a proxy between the provider and here doubled the header, or somebody is probing".to_owned()]
        }
        check::TIMESTAMP_MISSING | check::SIGNED_PART => {
            vec!["a proxy between the provider and here dropped or doubled a signed header".to_owned()]
        }
        check::TIMESTAMP_TOLERANCE => time(now),
        check::TOKEN => vec![token_cause(verifier, request)],
        _ => Vec::new(),
    };
    if matches!(refusal.check(), check::SIGNATURE | check::SIGNATURE_FORMAT | check::TIMESTAMP_FORMAT) {
        causes.extend(signature(verifier, request, refusal));
    }
    causes
}

fn time(now: Timestamp) -> Vec<String> {
    vec![
        "the signature is right, so the sender is: the request was held up on the way, or it is a repetition of an \
         old one"
            .to_owned(),
        format!("or a clock is off; here it is {now}"),
    ]
}

fn missing(verifier: &Verifier, request: &Request<'_>) -> Vec<String> {
    let mut causes: Vec<String> = provider::all()
        .iter()
        .filter(|other| other.name != verifier.provider.name)
        .filter(|other| {
            other
                .schemes()
                .iter()
                .filter_map(|scheme| scheme.signature.header())
                .any(|h| request.headers.contains_key(h))
        })
        .map(|other| {
            format!("the request carries the signature header of {}: is it sent to the wrong source?", other.title)
        })
        .take(3)
        .collect();
    causes.push("a proxy between the provider and here dropped the header".to_owned());
    causes.push("the webhook has no secret at the provider yet, or somebody else is calling".to_owned());
    causes
}

fn token_cause(verifier: &Verifier, request: &Request<'_>) -> String {
    let Scheme::Token { check, secrets } = &verifier.scheme else { return String::new() };
    let given = super::single(request.headers, &check.header).unwrap_or_default();
    if secrets.iter().any(|secret| secret.expose() == given.trim_ascii()) {
        return "the text is right but for blanks around it".to_owned();
    }
    "the secret configured here is not the one configured at the provider".to_owned()
}

fn signature(verifier: &Verifier, request: &Request<'_>, refusal: Refusal) -> Vec<String> {
    let Scheme::Hmac { checks, keys, secrets, bytes } = &verifier.scheme else { return Vec::new() };
    let form = checks.iter().position(|check| check.location.is_in(request.headers)).unwrap_or(0);
    let trial = Trial { check: &checks[form], keys: &keys[form], secrets, bytes, request, url: verifier.url(request) };
    let found =
        trial.by_secret(verifier).or_else(|| trial.by_body()).or_else(|| trial.by_url()).or_else(|| trial.by_scheme());
    if let Some(cause) = found {
        return vec![cause];
    }
    if refusal.check() != check::SIGNATURE {
        return vec![
            "this is not written as the provider writes it: a wrong provider is chosen, or a header was cut".to_owned(),
        ];
    }
    let mut causes = vec![format!(
        "the secret is another one: of another endpoint, of test mode instead of live, or from before a rotation. It \
         should be {}",
        verifier.provider.secret.hint
    )];
    causes.push("or the body was changed on the way: it must arrive byte for byte as it was sent".to_owned());
    if trial.check.signs_url() {
        causes.push(format!("or the provider knows another URL than {}; set public_url", trial.url));
    }
    causes
}

/// A way to make key bytes of a secret's text.
type Reading = fn(&str) -> Option<Vec<u8>>;

/// One refused request with what is needed to run its checks again.
struct Trial<'t> {
    check: &'t Check,
    keys: &'t [Key],
    /// The secrets as text, and as the bytes that their form makes of them.
    secrets: &'t [Secret],
    bytes: &'t [Secret],
    request: &'t Request<'t>,
    url: &'t str,
}

impl Trial<'_> {
    fn matches(&self, keys: &[Key], body: &[u8], url: &str) -> bool {
        self.check.authenticate(keys, &Request { body, ..*self.request }, url, &mut ()).is_ok()
    }

    /// Other ways to read the secrets.
    fn by_secret(&self, verifier: &Verifier) -> Option<String> {
        let readings: [(&str, Reading); 4] = [
            ("the secret's text as it is", |text| Some(text.as_bytes().to_vec())),
            ("the secret without whsec_", |text| text.strip_prefix("whsec_").map(|rest| rest.as_bytes().to_vec())),
            ("the secret decoded as base64", |text| STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()),
            ("the secret decoded as hexadecimal digits", |text| hex::decode(text).ok()),
        ];
        readings.into_iter().find_map(|(reading, decode)| {
            let bytes = self.secrets.iter().filter_map(|secret| decode(secret.expose_str()?));
            let keys: Vec<Key> = bytes.map(|bytes| self.check.key(&Secret::new(bytes))).collect();
            self.matches(&keys, self.request.body, self.url).then(|| {
                let title = verifier.provider.title;
                format!("the sender uses {reading} as key, which {title} does not: is this the right provider?")
            })
        })
    }

    /// Bodies that became this one on the way.
    fn by_body(&self) -> Option<String> {
        let body = self.request.body;
        let with = |end: &[u8]| [body, end].concat();
        let variants: [(&str, Vec<u8>); 6] = [
            ("white space was added", compacted(body)),
            ("a line end was added at its end", body.trim_ascii_end().to_vec()),
            ("the line end at its end was cut off", with(b"\n")),
            ("the line end at its end was cut off", with(b"\r\n")),
            ("its line ends were changed", crlf(body)),
            ("it was dropped", Vec::new()),
        ];
        variants.into_iter().find_map(|(what, variant)| {
            (variant != body && self.matches(self.keys, &variant, self.url))
                .then(|| format!("the body was changed on the way: {what}; pass on the raw bytes"))
        })
    }

    /// Spellings of the URL that may stand at the provider instead.
    fn by_url(&self) -> Option<String> {
        if !self.check.signs_url() {
            return None;
        }
        url_variants(self.url).into_iter().find_map(|url| {
            self.matches(self.keys, self.request.body, &url)
                .then(|| format!("the provider signs another spelling of the URL; set public_url to {url}"))
        })
    }

    /// The same message by another hash or in another encoding.
    fn by_scheme(&self) -> Option<String> {
        let algorithms = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512];
        let encodings = [Encoding::Hex, Encoding::HexUpper, Encoding::Base64, Encoding::Base64Url];
        for algorithm in algorithms {
            for encoding in encodings {
                let changed = self.check.with(algorithm, encoding);
                let keys: Vec<Key> = self.bytes.iter().map(|bytes| changed.key(bytes)).collect();
                if changed.authenticate(&keys, self.request, self.url, &mut ()).is_ok() {
                    return Some(format!(
                        "the sender signs with {algorithm:?} and writes {encoding}: is this the right provider?"
                    ));
                }
            }
        }
        None
    }
}

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

/// The text with `\r\n` for `\n`, or the other way round.
fn crlf(body: &[u8]) -> Vec<u8> {
    if body.windows(2).any(|pair| pair == b"\r\n") {
        return body.iter().copied().filter(|byte| *byte != b'\r').collect();
    }
    body.iter().flat_map(|byte| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] }).collect()
}

fn url_variants(url: &str) -> Vec<String> {
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
    variants.retain(|variant| variant != url);
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
    fn spellings_of_a_url_differ_in_scheme_slash_and_query() {
        let variants = url_variants("https://a.example/in?x=1");
        for expected in ["http://a.example/in?x=1", "https://a.example/in/?x=1", "https://a.example/in"] {
            assert!(variants.iter().any(|variant| variant == expected), "{expected}");
        }
        assert!(!variants.iter().any(|variant| variant == "https://a.example/in?x=1"));
    }
}
