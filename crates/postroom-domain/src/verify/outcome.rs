//! What checking a request can come to.

use aws_lc_rs::digest::{SHA256, digest};

use super::check;
use super::fetch::KeyRequest;
use crate::Secret;
use crate::event::{EventType, ExternalId};
use crate::provider::scheme::EventAnswer;

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Proved: record it.
    Verified(Verified),
    /// The provider asked whether we are there: answer this, record nothing.
    Handshake(Answer),
    /// A handshake that brings the secret of a source which has none: keep it as the source's secret, and answer this
    /// only when it is kept.
    Learned {
        /// The secret that requests will be signed with.
        secret: Secret,
        /// The answer by which the provider knows that it is kept.
        answer: Answer,
    },
    /// A proved request to confirm a subscription: visit this URL once, then answer like a handshake.
    Confirm(Confirm),
    /// The request names a key that is not known: fetch it and run the checks again with
    /// [`verify_with_key`](super::Verifier::verify_with_key). Nothing is proved so far.
    NeedsKey(Box<KeyRequest>),
    /// Not proved: 401, and keep it for the source's owner to see.
    Refused(Refusal),
}

/// A visit by which a subscription is confirmed.
#[derive(Debug, Clone)]
pub struct Confirm {
    /// Where to: https, on a host of the provider.
    pub url: url::Url,
}

impl Confirm {
    /// What the request is answered when the visit was made.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer::empty()
    }
}

/// A proved request. Only [`super::Verifier::verify`] makes one, so what takes a `Verified` can not be given
/// anything else.
#[derive(Debug)]
pub struct Verified {
    event_type: EventType,
    external_id: Option<String>,
    answer: Option<Answer>,
    parts: Vec<Part>,
}

/// One of several events that a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its type in the provider's words, made to fit.
    pub event_type: EventType,
    /// The provider's own id of it, the same on every repetition. A valid [`ExternalId`].
    pub external_id: Option<String>,
    /// The request's body without the other items: the item is the exact slice of the original, and what stands
    /// around the list is as it came. Of a form, that JSON is encoded anew. The media type is the request's.
    pub body: Vec<u8>,
}

impl Verified {
    pub(super) fn new(event_type: EventType, external_id: Option<String>, answer: Option<Answer>) -> Self {
        Self { event_type, external_id: external_id.map(bounded_id), answer, parts: Vec::new() }
    }

    pub(super) fn with_parts(self, parts: Vec<Part>) -> Self {
        Self { parts, ..self }
    }

    /// The events of a request that carries several, in their order, to be recorded all or not at all. Empty where the
    /// request is one event, which is then its body as it came, with [`event_type`](Self::event_type) and
    /// [`external_id`](Self::external_id).
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The same, taken out.
    #[must_use]
    pub fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    /// The event's type in the provider's words, made to fit; the provider's name if the request names none, and
    /// `unknown` if nothing is known of the sender.
    #[must_use]
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// The provider's own id of the event, the same on every repetition; unique within one source at most. A valid
    /// [`ExternalId`].
    #[must_use]
    pub fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }

    /// What the provider wants to be answered, if it is not the ordinary answer.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Type, id and answer.
    #[must_use]
    pub fn into_parts(self) -> (EventType, Option<String>, Option<Answer>) {
        (self.event_type, self.external_id, self.answer)
    }
}

/// An id that is too long or holds control characters is stood for by its digest, so that it still tells repetitions.
pub(super) fn bounded_id(id: String) -> String {
    match ExternalId::parse(&id) {
        Ok(_) => id,
        Err(_) => format!("sha256:{}", hex::encode(digest(&SHA256, id.as_bytes()))),
    }
}

/// An HTTP answer in the exact form a provider expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The media type.
    pub content_type: Option<&'static str>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    pub(super) fn empty() -> Self {
        Self { status: 200, content_type: None, headers: Vec::new(), body: Vec::new() }
    }

    /// What a provider wants for an event, if it is not the ordinary answer.
    pub(super) fn to_event(wanted: EventAnswer) -> Option<Self> {
        Some(match wanted {
            EventAnswer::Ordinary => return None,
            EventAnswer::Empty => Self::empty(),
            EventAnswer::NoContent => Self::no_content(),
            EventAnswer::Text(text) => Self::text(text.to_owned()),
        })
    }

    pub(super) fn text(body: String) -> Self {
        Self::with("text/plain", body.into_bytes())
    }

    /// Only for Discord, which wants a media type even where there is no body.
    pub(super) fn no_content() -> Self {
        Self { status: 204, content_type: Some("application/json"), ..Self::empty() }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self::with("application/json", value.to_string().into_bytes())
    }

    pub(super) fn with(content_type: &'static str, body: Vec<u8>) -> Self {
        // A value given back must not become a page in anybody's browser.
        let headers = vec![("x-content-type-options", "nosniff".to_owned())];
        Self { status: 200, content_type: Some(content_type), headers, body }
    }
}

/// Why a request was not proved. The sender learns the [`code`](Self::code), the source's owner also the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Something that has to be there is not: the signature, its time, or another signed header.
    SignatureMissing {
        /// The failing check, one of [`check`].
        check: &'static str,
    },
    /// A signature is there and does not prove the request.
    SignatureInvalid {
        /// The failing check, one of [`check`].
        check: &'static str,
    },
    /// The signature is right and the time too far from now.
    TimestampOutOfTolerance {
        /// The failing check, one of [`check`].
        check: &'static str,
    },
    /// The source has no secret yet.
    NoSecret,
}

impl Refusal {
    /// `signature_missing`, `signature_invalid` or `timestamp_out_of_tolerance`. A source without a secret answers
    /// like a wrong signature: its state is nobody else's business.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::SignatureMissing { .. } => "signature_missing",
            Self::SignatureInvalid { .. } | Self::NoSecret => "signature_invalid",
            Self::TimestampOutOfTolerance { .. } => "timestamp_out_of_tolerance",
        }
    }

    /// The stable name of the check that failed, one of [`check`].
    #[must_use]
    pub fn check(&self) -> &'static str {
        match self {
            Self::SignatureMissing { check }
            | Self::SignatureInvalid { check }
            | Self::TimestampOutOfTolerance { check } => check,
            Self::NoSecret => check::SECRET,
        }
    }
}
