//! The likely cause of a refusal, found by trying what usually goes wrong: another reading of the secret, a body or
//! URL changed on the way, another provider's headers.
//!
//! Every trial is one more run of the same checks, a few dozen at most. A trial that verifies proves its cause; when
//! none does, what remains is said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::changed::{CHANGES, urls};
use super::hmac::{Check, Key};
use super::{Refusal, Request, Scheme, Verifier, check, token};
use crate::provider;
use crate::provider::scheme::{Algorithm, Encoding, Unit};
use crate::{Secret, Timestamp};

/// A time that is nearer than this when read in another unit was written in that unit.
const DAY_MILLIS: i64 = 24 * 3600 * 1000;

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
        check::TIMESTAMP_TOLERANCE => time(verifier, request, now),
        check::TOKEN => vec![token_cause(verifier, request)],
        check::KEY if matches!(&verifier.scheme, Scheme::Code { check, .. } if check.needs_secret()) => {
            vec![
                "PayPal does not take the question: client_id, secret, environment or webhook_id are not those of one \
                  app, or it did not send this"
                    .to_owned(),
            ]
        }
        other => fetched(other).map(str::to_owned).into_iter().collect(),
    };
    if matches!(refusal.check(), check::SIGNATURE | check::SIGNATURE_FORMAT | check::TIMESTAMP_FORMAT) {
        causes.extend(signature(verifier, request, refusal));
    }
    if causes.is_empty() {
        causes.push(another_secret(verifier));
    }
    causes
}

/// What is wrong where keys, certificates and claims are checked.
fn fetched(check: &str) -> Option<&'static str> {
    Some(match check {
        check::CERTIFICATE_URL => "somebody else is calling: the provider keeps its certificates on hosts of its own",
        check::CERTIFICATE => "the certificate is another one than the provider's, or trust_root_pem is not its root",
        check::KEY => "the key could not be had: give it with an option, cert_pem=@file or jwk=@file",
        check::BODY_DIGEST => "the body was changed on the way: it must arrive byte for byte as it was sent",
        check::CLAIMS => "the token is meant for another receiver, or an option names another audience or issuer",
        check::TOPIC => "topic_arn is not the topic that is subscribed to this source, or somebody else's topic is",
        check::HANDSHAKE_SECRET => {
            "a second webhook was made for this source: give each a source of its own, or remove the old secret first"
        }
        _ => return None,
    })
}

/// What can be said without trials.
fn unnamed(verifier: &Verifier) -> Vec<String> {
    let hint = verifier.provider.secret.hint;
    let mut causes = vec![format!("the secret, key or id configured here is another one; it should be {hint}")];
    if verifier.provider.signs_url() {
        causes.push("or the provider knows another URL than this server thinks it has; set public_url".to_owned());
    }
    causes.push("or the body was changed on the way: it must arrive byte for byte as it was sent".to_owned());
    causes
}

/// The signature is right and its time is not: how far off it is, and whether it is written in another unit.
fn time(verifier: &Verifier, request: &Request<'_>, now: Timestamp) -> Vec<String> {
    let clock = format!("here it is {now}");
    let Some(sent) = signed_time(verifier, request, None) else { return vec![format!("a clock is off; {clock}")] };
    let (sent, here) = (sent.as_millis(), now.as_millis());
    for (unit, word) in [(Unit::Milliseconds, "milliseconds"), (Unit::Seconds, "seconds")] {
        let other = signed_time(verifier, request, Some(unit)).map(|other| (other.as_millis() - here).abs());
        if other.is_some_and(|away| away < DAY_MILLIS && away < (sent - here).abs()) {
            return vec![format!(
                "the sender writes its time in {word}: set timestamp_unit, or is this the right provider?"
            )];
        }
    }
    let seconds = (here - sent).abs() / 1000;
    if sent > here {
        return vec![format!(
            "a clock is off by {seconds} s: the sender's is ahead, or the one here is behind; {clock}"
        )];
    }
    vec![
        format!(
            "the signature is right, so the sender is: the request was held up for {seconds} s on the way, or it is a \
             repetition of an old one"
        ),
        format!("or a clock is off by {seconds} s: the sender's is behind, or the one here is ahead; {clock}"),
    ]
}

/// The signed time, read as the scheme says or in another unit.
fn signed_time(verifier: &Verifier, request: &Request<'_>, unit: Option<Unit>) -> Option<Timestamp> {
    let Scheme::Hmac { checks, keys, .. } = &verifier.scheme else { return None };
    let form = form(checks, request);
    let mut check = checks[form].clone();
    if let (Some(unit), Some((_, window))) = (unit, &mut check.time) {
        window.unit = unit;
    }
    check.authenticate(&keys[form], request, verifier.url(request), &mut ()).ok()?.1
}

/// The form of the scheme that the request is judged by.
fn form(checks: &[Check], request: &Request<'_>) -> usize {
    checks.iter().position(|check| check.location.is_in(request.headers)).unwrap_or(0)
}

fn missing(verifier: &Verifier, request: &Request<'_>) -> Vec<String> {
    let title = verifier.provider.title;
    let own = |name: &&HeaderName| **name != CONTENT_TYPE && verifier.forwards_header(name.as_str());
    let mut causes = Vec::new();
    if let Some(own) = request.headers.keys().find(own) {
        causes.push(format!(
            "the header {own} says that it is of {title}, but it is not signed: the webhook has no secret there yet"
        ));
        causes.push("or a proxy between the provider and here dropped the header with the signature".to_owned());
        return causes;
    }
    causes.extend(others(verifier, request));
    causes.push("a proxy between the provider and here dropped the header".to_owned());
    causes.push("the webhook has no secret at the provider yet, or somebody else is calling".to_owned());
    causes
}

/// Other providers whose signature the request carries.
fn others(verifier: &Verifier, request: &Request<'_>) -> impl Iterator<Item = String> {
    let carried = |other: &&provider::Provider| {
        let mut headers = other.schemes().iter().filter_map(|scheme| scheme.signature.header());
        other.name != verifier.provider.name && headers.any(|header| request.headers.contains_key(header))
    };
    let tell = |other: &provider::Provider| {
        format!("the request carries the signature header of {}: is it sent to the wrong source?", other.title)
    };
    provider::all().iter().filter(carried).map(tell).take(3).collect::<Vec<_>>().into_iter()
}

fn token_cause(verifier: &Verifier, request: &Request<'_>) -> String {
    let Scheme::Token { check, secrets } = &verifier.scheme else { return another_secret(verifier) };
    if check.query.is_some() {
        return another_secret(verifier);
    }
    let given = super::single(request.headers, &check.header).unwrap_or_default();
    let is_one = |text: &[u8]| secrets.iter().any(|secret| secret.expose() == text);
    if check.basic {
        return basic_cause(given, secrets).unwrap_or_else(|| another_secret(verifier));
    }
    if is_one(given.trim_ascii()) {
        return "the text is right but for blanks around it".to_owned();
    }
    if let Some(rest) = [b"Bearer ".as_slice(), b"Basic "].iter().find_map(|scheme| given.strip_prefix(*scheme))
        && is_one(rest)
    {
        let scheme = String::from_utf8_lossy(&given[..given.len() - rest.len()]).into_owned();
        return format!("the text is right but for \"{scheme}\" in front of it: the secret is the whole header");
    }
    if is_one(unquoted(given)) {
        return "the text is right but for the quotation marks around it at the provider".to_owned();
    }
    another_secret(verifier)
}

/// Whether the user of a wrong `user:password` is right.
fn basic_cause(given: &[u8], secrets: &[Secret]) -> Option<String> {
    let decoded = Secret::new(token::basic(given)?);
    let user = |text: &Secret| text.expose().split(|byte| *byte == b':').next().map(<[u8]>::to_vec);
    let known = secrets.iter().any(|secret| user(secret) == user(&decoded));
    Some(if known {
        "the user name is right and the password another one than at the provider".to_owned()
    } else {
        // It is not shown: some senders put a key where the name belongs.
        "the user name is another one than here".to_owned()
    })
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => text,
    }
}

fn another_secret(verifier: &Verifier) -> String {
    format!(
        "the secret is another one: of another endpoint, of test mode instead of live, or from before a rotation. It \
         should be {}",
        verifier.provider.secret.hint
    )
}

fn signature(verifier: &Verifier, request: &Request<'_>, refusal: Refusal) -> Vec<String> {
    let Scheme::Hmac { checks, keys, secrets, bytes } = &verifier.scheme else { return unnamed(verifier) };
    let form = form(checks, request);
    let trial = Trial { check: &checks[form], keys: &keys[form], secrets, bytes, request, url: verifier.url(request) };
    let found = if trial.check.algorithm.is_public_key() {
        trial.by_body()
    } else {
        trial
            .by_secret(verifier)
            .or_else(|| trial.by_body())
            .or_else(|| trial.by_url())
            .or_else(|| trial.by_scheme(verifier.provider.general))
    };
    if let Some(cause) = found {
        return vec![cause];
    }
    if refusal.check() != check::SIGNATURE {
        return vec![
            "this is not written as the provider writes it: a wrong provider is chosen, or a header was cut".to_owned(),
        ];
    }
    let mut causes = vec![another_secret(verifier)];
    if request.body.is_empty() {
        causes.push("or something in front of this server read the body: it arrived empty".to_owned());
    } else if request.headers.contains_key(CONTENT_ENCODING) {
        causes
            .push("or the body was compressed on the way: it has a content-encoding; pass on what was sent".to_owned());
    } else {
        causes.push("or the body was changed on the way: it must arrive byte for byte as it was sent".to_owned());
    }
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
        let title = verifier.provider.title;
        let other = |reading: &str| {
            let advice = if verifier.provider.general {
                "set secret_encoding".to_owned()
            } else {
                format!("which {title} does not: is this the right provider?")
            };
            format!("the sender uses {reading} as key, {advice}")
        };
        let paste = |what: &str| format!("the secret is right but for {what}: paste it without");
        let readings: [(String, Reading); 6] = [
            (other("the secret's text as it is"), |text| Some(text.as_bytes().to_vec())),
            (other("the secret without whsec_"), |text| Some(text.strip_prefix("whsec_")?.as_bytes().to_vec())),
            (other("the secret decoded as base64"), |text| {
                STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()
            }),
            (other("the secret decoded as hexadecimal digits"), |text| hex::decode(text).ok()),
            (paste("the quotation marks around it"), |text| Some(unquoted(text.as_bytes()).to_vec())),
            ("the secret at the provider has a line end behind it: set it there again, without".to_owned(), |text| {
                Some([text.as_bytes(), b"\n"].concat())
            }),
        ];
        readings.into_iter().find_map(|(cause, decode)| {
            let bytes = self.secrets.iter().filter_map(|secret| decode(secret.expose_str()?));
            let keys: Vec<Key> = bytes.map(|bytes| self.check.key(&Secret::new(bytes))).collect();
            self.matches(&keys, self.request.body, self.url).then_some(cause)
        })
    }

    /// Bodies that became this one on the way.
    fn by_body(&self) -> Option<String> {
        let body = self.request.body;
        CHANGES.iter().find_map(|(what, before)| {
            let before = before(body);
            (before != body && self.matches(self.keys, &before, self.url))
                .then(|| format!("the body was changed on the way: {what}; pass on the raw bytes"))
        })
    }

    /// Spellings of the URL that may stand at the provider instead.
    fn by_url(&self) -> Option<String> {
        if !self.check.signs_url() {
            return None;
        }
        urls(self.url, self.request.headers).into_iter().find_map(|url| {
            self.matches(self.keys, self.request.body, &url)
                .then(|| format!("the provider signs another spelling of the URL; set public_url to {url}"))
        })
    }

    /// The same message by another hash or in another encoding.
    fn by_scheme(&self, general: bool) -> Option<String> {
        let algorithms = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512];
        let encodings = [Encoding::Hex, Encoding::HexUpper, Encoding::Base64, Encoding::Base64Url];
        for algorithm in algorithms {
            for encoding in encodings {
                let changed = self.check.with(algorithm, encoding);
                let keys: Vec<Key> = self.bytes.iter().map(|bytes| changed.key(bytes)).collect();
                if changed.authenticate(&keys, self.request, self.url, &mut ()).is_ok() {
                    let advice =
                        if general { "set algorithm and signature_encoding" } else { "is this the right provider?" };
                    return Some(format!("the sender signs with {algorithm:?} and writes {encoding}: {advice}"));
                }
            }
        }
        None
    }
}
