//! The keyed-hash scheme, and the public-key scheme of the same shape: one compiled row with its keys.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use http::HeaderName;
use subtle::ConstantTimeEq;

use super::candidate::{self, BUFFER_BYTES, Found, Location};
use super::json::Paths;
use super::template::{self, Context, Part};
use super::time::{self, Window};
use super::trace::{Trace, count, show};
use super::{Refusal, Request, check};
use crate::provider::scheme::{Algorithm, Encoding, Hmac, SignatureFrom, TimeFrom};
use crate::{Invalid, Secret, Timestamp};

/// How many numbered signature headers are looked at (`X-DocuSign-Signature-1` and so on).
const MAX_NUMBERED: usize = candidate::MAX_COMPARISONS;

/// A compiled keyed-hash scheme.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub algorithm: Algorithm,
    pub location: Location,
    pub message: Vec<Part>,
    pub encoding: Encoding,
    pub time: Option<(Clock, Window)>,
    paths: Paths,
}

/// What a signature is checked with.
pub(super) enum Key {
    Mac(Box<hmac::Key>),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// Where the signed time is.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    Header(HeaderName),
    Pair,
    Json(usize),
}

/// A row's text that does not compile, with the part it is in.
pub(super) type Refused = (&'static str, Invalid);

impl Check {
    /// Compiles one scheme.
    pub fn compile(row: &Hmac<'_>) -> Result<Self, Refused> {
        let mut paths = Paths::default();
        let message = template::parse(row.message, &mut paths).map_err(|invalid| ("signed_content", invalid))?;
        let location = location(row, &mut paths)?;
        let time = match row.time {
            None => None,
            Some(time) => {
                let clock = match time.from {
                    TimeFrom::Header(name) => {
                        Clock::Header(template::header_name(name).map_err(|invalid| ("timestamp_header", invalid))?)
                    }
                    TimeFrom::Pair(_) => Clock::Pair,
                    TimeFrom::Json(path) => {
                        let path = template::json_path(path).map_err(|invalid| ("timestamp_path", invalid))?;
                        Clock::Json(paths.add(path))
                    }
                };
                Some((clock, Window { unit: time.unit, past_seconds: time.past, future_seconds: time.future }))
            }
        };
        Ok(Self { algorithm: row.algorithm, location, message, encoding: row.encoding, time, paths })
    }

    /// The key of one secret's bytes.
    pub fn key(&self, bytes: &Secret) -> Key {
        let algorithm = match self.algorithm {
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
            Algorithm::Ed25519 => return Key::Public(UnparsedPublicKey::new(&ED25519, bytes.expose().to_vec())),
            Algorithm::EcdsaP256 => {
                return Key::Public(UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes.expose().to_vec()));
            }
        };
        Key::Mac(Box::new(hmac::Key::new(algorithm, bytes.expose())))
    }

    /// Every header that this scheme reads.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        let time = match &self.time {
            Some((Clock::Header(name), _)) => Some(name),
            _ => None,
        };
        let signed = self.message.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name),
            _ => None,
        });
        self.location.headers().iter().chain(time).chain(signed)
    }

    /// Whether the public URL is part of what is signed.
    pub fn signs_url(&self) -> bool {
        self.message.contains(&Part::Url)
    }

    /// Checks a request; on success, the position of the key that matched.
    pub fn run<T: Trace>(
        &self,
        keys: &[Key],
        request: &Request<'_>,
        url: &str,
        now: Timestamp,
        trace: &mut T,
    ) -> Result<usize, Refusal> {
        let (matched, sent) = self.authenticate(keys, request, url, trace)?;
        if let (Some(at), Some((_, window))) = (sent, &self.time) {
            within(window, at, now, trace)?;
        }
        Ok(matched)
    }

    /// Everything but whether the signed time is near: the position of the key that matched, and that time.
    pub fn authenticate<T: Trace>(
        &self,
        keys: &[Key],
        request: &Request<'_>,
        url: &str,
        trace: &mut T,
    ) -> Result<(usize, Option<Timestamp>), Refusal> {
        let values = self.paths.read(request.body);
        let found = self.signatures(request, &values, trace)?;
        // A time inside the body means nothing before the body is proved.
        let inside = matches!(self.time, Some((Clock::Json(_), _)));
        let before = if inside { None } else { self.time_sent(request, &found, &values, trace)? };
        let context = Context { timestamp: before.map_or(b"".as_slice(), |(text, _)| text), url, values: &values };
        let matched = self.compare(keys, request, &context, &found, trace)?;
        let sent = if inside { self.time_sent(request, &found, &values, trace)? } else { before };
        Ok((matched, sent.map(|(_, at)| at)))
    }

    fn signatures<'r, T: Trace>(
        &self,
        request: &Request<'r>,
        values: &'r [Option<String>],
        trace: &mut T,
    ) -> Result<Found<'r>, Refusal> {
        let found = self.location.find(request.headers, values);
        match &found {
            Ok(found) => trace.passed(check::SIGNATURE_HEADER, || {
                let mut text = format!("{} found in {}", count(found.seen, "signature"), self.location);
                if found.seen > candidate::MAX_COMPARISONS {
                    text.push_str("; only the first ones are looked at");
                }
                text
            }),
            Err(refusal) => trace.failed(refusal.check(), || match refusal.check() {
                check::SIGNATURE_HEADER => format!("there is no signature in {}", self.location),
                check::SIGNATURE_HEADER_TWICE => format!("{} stands in the request more than once", self.location),
                check::TIMESTAMP_FORMAT => format!("{} holds two times", self.location),
                _ => format!("{} does not have the expected form", self.location),
            }),
        }
        found
    }

    /// The time as sent and as understood.
    fn time_sent<'r, T: Trace>(
        &self,
        request: &Request<'r>,
        found: &Found<'r>,
        values: &'r [Option<String>],
        trace: &mut T,
    ) -> Result<Option<(&'r [u8], Timestamp)>, Refusal> {
        let Some((clock, window)) = &self.time else { return Ok(None) };
        let text = match clock {
            Clock::Header(name) => super::single(request.headers, name),
            Clock::Pair => found.time,
            Clock::Json(slot) => values[*slot].as_deref().map(str::as_bytes),
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            trace.failed(check::TIMESTAMP_MISSING, || match clock {
                Clock::Header(name) => format!("there is no header {name} (or it stands there twice)"),
                Clock::Pair => format!("{} holds no time", self.location),
                Clock::Json(_) => "the body holds no time where it should".to_owned(),
            });
            return Err(Refusal::SignatureMissing { check: check::TIMESTAMP_MISSING });
        };
        match time::read(window.unit, text) {
            Some(at) => {
                trace.passed(check::TIMESTAMP_FORMAT, || format!("signed time {} is {at}", show(text)));
                Ok(Some((text, at)))
            }
            None => {
                trace.failed(check::TIMESTAMP_FORMAT, || format!("{} is not a time in {}", show(text), window.unit));
                Err(Refusal::SignatureInvalid { check: check::TIMESTAMP_FORMAT })
            }
        }
    }

    fn compare<T: Trace>(
        &self,
        keys: &[Key],
        request: &Request<'_>,
        context: &Context<'_>,
        found: &Found<'_>,
        trace: &mut T,
    ) -> Result<usize, Refusal> {
        let mut buffers = [[0; BUFFER_BYTES]; candidate::MAX_COMPARISONS];
        let mut lengths = [0; candidate::MAX_COMPARISONS];
        let expected = self.algorithm.signature_bytes();
        let candidates = found.signatures(keys.len());
        let mut readable = 0;
        for text in candidates {
            // Those that can not be read are left out, so that a good one beside them still counts.
            if let Some(bytes) = candidate::decode(self.encoding, text, expected.clone(), &mut buffers[readable]) {
                lengths[readable] = bytes.len();
                readable += 1;
            }
        }
        if readable == 0 {
            trace.failed(check::SIGNATURE_FORMAT, || {
                let (length, encoding) = (expected.end(), self.encoding);
                format!("no signature is {length} bytes in {encoding}, as this scheme writes it")
            });
            return Err(Refusal::SignatureInvalid { check: check::SIGNATURE_FORMAT });
        }
        for (index, key) in keys.iter().enumerate() {
            let mut signatures = buffers.iter().zip(lengths).take(readable).map(|(buffer, length)| &buffer[..length]);
            let Some(matched) = self.matches(key, request, context, &mut signatures) else {
                trace.failed(check::SIGNED_PART, || {
                    "a header or value that was signed is missing or doubled".to_owned()
                });
                return Err(Refusal::SignatureMissing { check: check::SIGNED_PART });
            };
            if matched {
                trace.passed(check::SIGNATURE, || format!("matches with secret {} of {}", index + 1, keys.len()));
                return Ok(index);
            }
        }
        trace.failed(check::SIGNATURE, || {
            format!("{} compared with {}: none matches", count(readable, "signature"), count(keys.len(), "secret"))
        });
        Err(Refusal::SignatureInvalid { check: check::SIGNATURE })
    }

    /// Whether any of the signatures is one of this key; `None` if a signed header or value is not there.
    fn matches<'s>(
        &self,
        key: &Key,
        request: &Request<'_>,
        context: &Context<'_>,
        signatures: &mut impl Iterator<Item = &'s [u8]>,
    ) -> Option<bool> {
        Some(match key {
            Key::Mac(key) => {
                let tag = self.tag(key, request, context)?;
                signatures.any(|signature| tag.as_ref().ct_eq(signature).into())
            }
            Key::Public(key) => {
                let message = self.message(request, context)?;
                signatures.any(|signature| key.verify(&message, signature).is_ok())
            }
        })
    }

    /// What is signed, in one piece; `None` if a signed header or value is not there.
    pub fn message(&self, request: &Request<'_>, context: &Context<'_>) -> Option<Vec<u8>> {
        let mut message = Vec::with_capacity(request.body.len() + 128);
        for part in &self.message {
            message.extend_from_slice(&part.bytes(request, context)?);
        }
        Some(message)
    }

    /// The keyed hash over the request's message; `None` if a signed header or value is not there.
    pub fn tag(&self, key: &hmac::Key, request: &Request<'_>, context: &Context<'_>) -> Option<hmac::Tag> {
        let mut hash = hmac::Context::with_key(key);
        for part in &self.message {
            hash.update(&part.bytes(request, context)?);
        }
        Some(hash.sign())
    }

    /// The same scheme with another hash and another spelling of signatures.
    pub fn with(&self, algorithm: Algorithm, encoding: Encoding) -> Self {
        Self { algorithm, encoding, ..self.clone() }
    }

    /// The values that this scheme reads from a JSON body.
    pub fn values(&self, body: &[u8]) -> Vec<Option<String>> {
        self.paths.read(body)
    }
}

/// Holds a signed time to a window.
pub(super) fn within<T: Trace>(window: &Window, at: Timestamp, now: Timestamp, trace: &mut T) -> Result<(), Refusal> {
    let Some(over) = window.outside_by(at, now) else {
        trace.passed(check::TIMESTAMP_TOLERANCE, || {
            let away = (now.as_millis() - at.as_millis()) / 1000;
            format!("{} s {}", away.abs(), if away < 0 { "ahead of our clock" } else { "old" })
        });
        return Ok(());
    };
    trace.failed(check::TIMESTAMP_TOLERANCE, || {
        let (side, limit) = if over < 0 { ("old", window.past_seconds) } else { ("ahead", window.future_seconds) };
        let away = (now.as_millis() - at.as_millis()).abs() / 1000;
        format!("{away} s {side}, at most {} s are allowed", limit.unwrap_or_default())
    });
    Err(Refusal::TimestampOutOfTolerance { check: check::TIMESTAMP_TOLERANCE })
}

fn location(row: &Hmac<'_>, paths: &mut Paths) -> Result<Location, Refused> {
    let name = |text: &str| template::header_name(text).map_err(|invalid| ("signature_header", invalid));
    Ok(match row.signature {
        SignatureFrom::Plain { header, prefix } => Location::Plain { header: name(header)?, prefix: prefix.to_owned() },
        SignatureFrom::Pairs { header, separator, label, trim } => {
            let time_label = match row.time.map(|time| time.from) {
                Some(TimeFrom::Pair(label)) => Some(label.to_owned()),
                _ => None,
            };
            Location::Pairs { header: name(header)?, separator, label: label.to_owned(), time_label, trim }
        }
        SignatureFrom::List { header, separator, label } => {
            Location::List { header: name(header)?, separator, label: label.to_owned() }
        }
        SignatureFrom::Numbered { first } => {
            let base = first.trim_end_matches('1');
            let headers = (1..=MAX_NUMBERED).map(|number| name(&format!("{base}{number}")));
            Location::Numbered { headers: headers.collect::<Result<_, _>>()? }
        }
        SignatureFrom::Json { path } => {
            let path = template::json_path(path).map_err(|invalid| ("signature_path", invalid))?;
            Location::Json { slot: paths.add(path) }
        }
    })
}

impl Algorithm {
    /// How many bytes a signature has.
    pub(super) fn signature_bytes(self) -> RangeInclusive<usize> {
        match self {
            Self::Sha1 => 20..=20,
            Self::Sha256 => 32..=32,
            Self::Sha512 | Self::Ed25519 => 64..=64,
            // Two numbers of up to 33 bytes, each with its type and length, in a sequence.
            Self::EcdsaP256 => 8..=72,
        }
    }
}
