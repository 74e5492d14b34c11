//! Requests by which a provider asks whether we are there. They are answered exactly as it wants, and never recorded.
//!
//! Values are given back only when short and printable, and never as HTML, so that this is no open echo.

use aws_lc_rs::hmac;
use http::HeaderName;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::hmac::Key;
use super::identity::{FieldIndex, Fields, Values};
use super::{Answer, Confirm, Request, fetch, form, hmac as scheme, template};
use crate::provider::scheme::{Field, Handshake, Reply};
use crate::{Invalid, Secret};

/// The longest value that is given back.
const MAX_ECHO_BYTES: usize = 512;

/// The shortest secret that a handshake may bring.
const MIN_LEARNED_BYTES: usize = 16;

/// A compiled handshake.
#[derive(Debug)]
pub(super) enum Rule {
    Probe { method: &'static str },
    Echo { method: &'static str, value: FieldIndex },
    HubChallenge { mode: FieldIndex, token: FieldIndex, challenge: FieldIndex, expected: Option<Secret> },
    PublicKey { key: Box<Key>, form: &'static str, equals: &'static str },
    Verified { when: FieldIndex, equals: Option<&'static str>, unless: Option<FieldIndex>, reply: CompiledReply },
    JsonEcho { member: &'static str, unless_header: HeaderName },
    CloudEvents,
    LearnSecret { header: HeaderName },
    VisitSns { when: FieldIndex, equals: &'static str, url: FieldIndex },
}

/// A compiled reply.
#[derive(Debug)]
pub(super) enum CompiledReply {
    Empty,
    NoContent,
    Fixed(&'static str),
    Text(FieldIndex),
    Json(&'static str, FieldIndex),
    PlainAndEncryptedToken(FieldIndex),
}

impl Rule {
    /// Compiles a row's handshake. `verify_token` is the source's option of that name, `check` its scheme if it is one
    /// of keyed hashes.
    pub fn compile(
        row: &Handshake,
        verify_token: Option<&str>,
        check: Option<&scheme::Check>,
        fields: &mut Fields,
    ) -> Result<Option<Self>, Invalid> {
        Ok(Some(match *row {
            Handshake::Probe { method } => Self::Probe { method },
            Handshake::Echo { method, query } => Self::Echo { method, value: fields.add(Field::Query(query))? },
            Handshake::HubChallenge => Self::HubChallenge {
                mode: fields.add(Field::Query("hub.mode"))?,
                token: fields.add(Field::Query("hub.verify_token"))?,
                challenge: fields.add(Field::Query("hub.challenge"))?,
                expected: verify_token.map(Secret::from),
            },
            Handshake::PublicKey { key, form, equals } => {
                let Some(check) = check else { return Ok(None) };
                Self::PublicKey { key: Box::new(check.key(&Secret::from(key))), form, equals }
            }
            Handshake::Verified { when, equals, reply } => Self::Verified {
                when: fields.add(when)?,
                equals: Some(equals),
                unless: None,
                reply: reply_of(reply, fields)?,
            },
            Handshake::VerifiedHas { has, reply } => {
                Self::Verified { when: fields.add(has)?, equals: None, unless: None, reply: reply_of(reply, fields)? }
            }
            Handshake::VerifiedUnless { when, equals, unless, reply } => Self::Verified {
                when: fields.add(when)?,
                equals: Some(equals),
                unless: Some(fields.add(unless)?),
                reply: reply_of(reply, fields)?,
            },
            Handshake::JsonEcho { member, unless_header } => {
                Self::JsonEcho { member, unless_header: template::header_name(unless_header)? }
            }
            Handshake::CloudEvents => Self::CloudEvents,
            Handshake::LearnSecret { header } => Self::LearnSecret { header: template::header_name(header)? },
            Handshake::VisitSns { when, equals, url } => {
                Self::VisitSns { when: fields.add(when)?, equals, url: fields.add(url)? }
            }
        }))
    }

    /// The answer to an unsigned request, if it is this handshake.
    pub fn before_verification(&self, values: &Values<'_>, request: &Request<'_>) -> Option<Answer> {
        match self {
            Self::Probe { method } if request.method == *method => Some(Answer::empty()),
            Self::Echo { method, value } if request.method == *method => Some(Answer::text(short(values, *value)?)),
            Self::HubChallenge { mode, token, challenge, expected: Some(expected) } if request.method == "GET" => {
                let right: bool = values.get(*token)?.as_bytes().ct_eq(expected.expose()).into();
                let subscribes = values.get(*mode)? == "subscribe";
                if right && subscribes { Some(Answer::text(short(values, *challenge)?)) } else { None }
            }
            Self::JsonEcho { unless_header, .. } if !request.headers.contains_key(unless_header) => self.echo(request),
            Self::CloudEvents if request.method == "OPTIONS" => cloud_events(request),
            _ => None,
        }
    }

    /// The one member of a JSON object that is given back.
    pub fn echo(&self, request: &Request<'_>) -> Option<Answer> {
        let Self::JsonEcho { member, .. } = self else { return None };
        let object: Map<String, Value> = serde_json::from_slice(request.body).ok()?;
        let text = object.get(*member)?.as_str()?;
        let is_asked = request.method == "POST" && object.len() == 1 && is_short(text);
        is_asked.then(|| Answer::json(&json!({ *member: text })))
    }

    /// The publicly known key, if the request has the one content that may be signed with it.
    pub fn public_key(&self, request: &Request<'_>) -> Option<&Key> {
        match self {
            Self::PublicKey { key, form, equals } => {
                (form::field(request.body, form)?.as_ref() == equals.as_bytes()).then_some(key)
            }
            _ => None,
        }
    }

    /// The secret that an unsigned request brings, and the answer that says it is kept.
    pub fn learn(&self, request: &Request<'_>) -> Option<(Secret, Answer)> {
        let Self::LearnSecret { header } = self else { return None };
        let text = std::str::from_utf8(super::single(request.headers, header)?).ok()?;
        let fits = request.method == "POST" && (MIN_LEARNED_BYTES..=MAX_ECHO_BYTES).contains(&text.len());
        let text = Some(text).filter(|text| fits && text.bytes().all(|byte| byte.is_ascii_graphic()))?;
        let mut answer = Answer::empty();
        answer.headers.push(("x-hook-secret", text.to_owned()));
        Some((Secret::from(text), answer))
    }

    /// The visit that a verified request asks for: `Some(None)` if it asks for one that is not allowed.
    pub fn visit(&self, values: &Values<'_>) -> Option<Option<Confirm>> {
        let Self::VisitSns { when, equals, url } = self else { return None };
        (values.get(*when)? == *equals).then(|| values.get(*url).and_then(|url| fetch::visit(&url)))
    }

    /// The answer to a verified request, if it is this handshake. `key` is the one that matched.
    pub fn after_verification(&self, values: &Values<'_>, key: Option<&Key>) -> Option<Answer> {
        let Self::Verified { when, equals, unless, reply } = self else { return None };
        let value = values.get(*when)?;
        let other = unless.is_some_and(|field| values.get(field).is_some());
        if other || equals.is_some_and(|expected| value != expected) {
            return None;
        }
        match reply {
            CompiledReply::Empty => Some(Answer::empty()),
            CompiledReply::NoContent => Some(Answer::no_content()),
            CompiledReply::Fixed(json) => Some(Answer::with("application/json", json.as_bytes().to_vec())),
            CompiledReply::Text(field) => Some(Answer::text(short(values, *field)?)),
            CompiledReply::Json(name, field) => {
                Some(Answer::json(&serde_json::json!({ *name: short(values, *field)? })))
            }
            CompiledReply::PlainAndEncryptedToken(field) => {
                let plain = short(values, *field)?;
                let Key::Mac(key) = key? else { return None };
                let hash = hmac::sign(key, plain.as_bytes());
                let hash = hex::encode(hash.as_ref());
                Some(Answer::json(&serde_json::json!({ "plainToken": plain, "encryptedToken": hash })))
            }
        }
    }
}

fn reply_of(reply: Reply, fields: &mut Fields) -> Result<CompiledReply, Invalid> {
    Ok(match reply {
        Reply::Empty => CompiledReply::Empty,
        Reply::NoContent => CompiledReply::NoContent,
        Reply::Fixed(json) => CompiledReply::Fixed(json),
        Reply::Text(field) => CompiledReply::Text(fields.add(field)?),
        Reply::Json(name, field) => CompiledReply::Json(name, fields.add(field)?),
        Reply::PlainAndEncryptedToken(field) => CompiledReply::PlainAndEncryptedToken(fields.add(field)?),
    })
}

fn short(values: &Values<'_>, field: FieldIndex) -> Option<String> {
    let value = values.get(field)?;
    is_short(&value).then(|| value.into_owned())
}

fn is_short(value: &str) -> bool {
    !value.is_empty() && value.len() <= MAX_ECHO_BYTES && !value.chars().any(char::is_control)
}

/// The consent that CloudEvents ask for before they deliver (HTTP webhooks, section 4): whoever asks may send, and
/// what is sent has to verify.
fn cloud_events(request: &Request<'_>) -> Option<Answer> {
    let header = |name: &'static str| super::single(request.headers, &HeaderName::from_static(name));
    let origin = std::str::from_utf8(header("webhook-request-origin")?).ok()?;
    let mut answer = Answer::empty();
    answer.headers.push(("webhook-allowed-origin", Some(origin).filter(|text| is_short(text))?.to_owned()));
    answer.headers.push(("webhook-allowed-rate", "*".to_owned()));
    Some(answer)
}
