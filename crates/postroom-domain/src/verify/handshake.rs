//! Requests by which a provider asks whether we are there. They are answered exactly as it wants, and never recorded.
//!
//! Values are given back only when short and printable, and never as HTML, so that this is no open echo.

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

use super::identity::{FieldIndex, Fields, Values};
use super::{Answer, Request, form, hmac as scheme};
use crate::provider::scheme::{Field, Handshake, Reply};
use crate::{Invalid, Secret};

/// The longest value that is given back.
const MAX_ECHO_BYTES: usize = 512;

/// A compiled handshake.
#[derive(Debug)]
pub(super) enum Rule {
    Probe { method: &'static str },
    Echo { method: &'static str, value: FieldIndex },
    HubChallenge { mode: FieldIndex, token: FieldIndex, challenge: FieldIndex, expected: Option<Secret> },
    PublicKey { key: Box<hmac::Key>, form: &'static str, equals: &'static str },
    Verified { when: FieldIndex, equals: Option<&'static str>, reply: CompiledReply },
}

/// A compiled reply.
#[derive(Debug)]
pub(super) enum CompiledReply {
    Empty,
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
            Handshake::Verified { when, equals, reply } => {
                Self::Verified { when: fields.add(when)?, equals: Some(equals), reply: reply_of(reply, fields)? }
            }
            Handshake::VerifiedHas { has, reply } => {
                Self::Verified { when: fields.add(has)?, equals: None, reply: reply_of(reply, fields)? }
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
            _ => None,
        }
    }

    /// The publicly known key, if the request has the one content that may be signed with it.
    pub fn public_key(&self, request: &Request<'_>) -> Option<&hmac::Key> {
        match self {
            Self::PublicKey { key, form, equals } => {
                (form::field(request.body, form)?.as_ref() == equals.as_bytes()).then_some(key)
            }
            _ => None,
        }
    }

    /// The answer to a verified request, if it is this handshake. `key` is the one that matched.
    pub fn after_verification(&self, values: &Values<'_>, key: Option<&hmac::Key>) -> Option<Answer> {
        let Self::Verified { when, equals, reply } = self else { return None };
        let value = values.get(*when)?;
        if equals.is_some_and(|expected| value != expected) {
            return None;
        }
        match reply {
            CompiledReply::Empty => Some(Answer::empty()),
            CompiledReply::Text(field) => Some(Answer::text(short(values, *field)?)),
            CompiledReply::Json(name, field) => {
                Some(Answer::json(&serde_json::json!({ *name: short(values, *field)? })))
            }
            CompiledReply::PlainAndEncryptedToken(field) => {
                let plain = short(values, *field)?;
                let hash = hmac::sign(key?, plain.as_bytes());
                let hash = hex::encode(hash.as_ref());
                Some(Answer::json(&serde_json::json!({ "plainToken": plain, "encryptedToken": hash })))
            }
        }
    }
}

fn reply_of(reply: Reply, fields: &mut Fields) -> Result<CompiledReply, Invalid> {
    Ok(match reply {
        Reply::Empty => CompiledReply::Empty,
        Reply::Text(field) => CompiledReply::Text(fields.add(field)?),
        Reply::Json(name, field) => CompiledReply::Json(name, fields.add(field)?),
        Reply::PlainAndEncryptedToken(field) => CompiledReply::PlainAndEncryptedToken(fields.add(field)?),
    })
}

fn short(values: &Values<'_>, field: FieldIndex) -> Option<String> {
    let value = values.get(field)?;
    let fits = value.len() <= MAX_ECHO_BYTES && !value.chars().any(char::is_control);
    fits.then(|| value.into_owned())
}
