//! Mail.

use super::super::scheme::{
    Algorithm, Batch, Encoding, Field, Handshake, Hmac, Reply, Scheme, SecretForm, SignatureFrom, SignedTime, TimeFrom,
    TokenFrom, Unit,
};
use super::super::{Provider, SecretSpec};
use super::{HMAC, ROW, SECRET, SVIX_HEADERS, WHSEC, plain, text, untimed};

// mandrill.zendesk.com articles 360039232513, 360038740014; checked against django-anymail.
pub(super) const MANDRILL: Provider = Provider {
    name: "mandrill",
    title: "Mandrill",
    scheme: Scheme::Hmac(&[Hmac {
        algorithm: Algorithm::Sha1,
        message: "{url}{form_sorted}",
        signature: plain("X-Mandrill-Signature", ""),
        encoding: Encoding::Base64,
        ..HMAC
    }]),
    secret: text("the webhook's Key, shown in Mandrill's settings under Webhooks once the webhook exists"),
    event_type: &[&[Field::Form("mandrill_events", "*.event")], &[Field::Form("mandrill_events", "*.type")]],
    // There is no id of the batch or of an event; a retry repeats the batch, so its content names it.
    event_id: &[&[Field::FormDigest]],
    // The id of an item is that of its message, which has many events.
    batch: Some(Batch {
        form: Some("mandrill_events"),
        items: "",
        event_type: &[&[Field::Json("event")], &[Field::Json("type")]],
        event_id: &[&[Field::BodyDigest]],
    }),
    handshakes: &[
        Handshake::Probe { method: "HEAD" },
        Handshake::PublicKey { key: "test-webhook", form: "mandrill_events", equals: "[]" },
        Handshake::Verified { when: Field::Form("mandrill_events", ""), equals: "[]", reply: Reply::Empty },
    ],
    ..ROW
};

// Only the time and the token are signed, never the body: a repeated token is a replay, so the token is the id.
pub(super) const MAILGUN: Provider = Provider {
    name: "mailgun",
    title: "Mailgun",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{json:signature.timestamp}{json:signature.token}",
        signature: SignatureFrom::Json { path: "signature.signature" },
        // Mailgun itself warns that its webhooks may be late.
        time: Some(SignedTime {
            from: TimeFrom::Json("signature.timestamp"),
            unit: Unit::Seconds,
            past: None,
            future: None,
        }),
        ..HMAC
    }]),
    secret: text("the HTTP webhook signing key of the account (Send, Sending, Webhooks), not an API key"),
    event_type: &[&[Field::Json("event-data.event")]],
    event_id: &[&[Field::Json("signature.token")]],
    ..ROW
};

pub(super) const POSTMARK_BASIC_AUTH: Provider = Provider {
    name: "postmark-basic-auth",
    title: "Postmark (user and password in the URL)",
    scheme: Scheme::Token(TokenFrom::Basic),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::UserAndPassword,
        hint: "the user and password of the webhook URL, as user:password",
        mistakes: &[],
    },
    event_type: &[&[Field::Json("RecordType")]],
    ..ROW
};

pub(super) const RESEND: Provider = Provider {
    name: "resend",
    title: "Resend",
    scheme: Scheme::Hmac(&[SVIX_HEADERS]),
    secret: WHSEC,
    event_type: &[&[Field::Json("type")]],
    event_id: &[&[Field::Header("svix-id")]],
    ..ROW
};

// sendgrid 6.12 (PyPI). Its bodies end in CRLF, which is signed. There is no limit of age in its libraries.
pub(super) const SENDGRID: Provider = Provider {
    name: "sendgrid",
    title: "SendGrid Event Webhook",
    scheme: Scheme::Hmac(&[Hmac {
        algorithm: Algorithm::EcdsaP256,
        message: "{timestamp}{body}",
        signature: plain("X-Twilio-Email-Event-Webhook-Signature", ""),
        encoding: Encoding::Base64,
        time: untimed("X-Twilio-Email-Event-Webhook-Timestamp"),
    }]),
    secret: SecretSpec {
        form: SecretForm::EcdsaSpki,
        hint: "the Verification Key (Settings, Mail Settings, Event Webhook, Signature Verification)",
        mistakes: &[("SG.", "this is an API key; use the Verification Key of the event webhook")],
        ..SECRET
    },
    event_type: &[&[Field::Json("*.event")]],
    event_id: &[&[Field::Json("*.sg_event_id")]],
    batch: Some(Batch {
        form: None,
        items: "",
        event_type: &[&[Field::Json("event")]],
        event_id: &[&[Field::Json("sg_event_id")]],
    }),
    ..ROW
};
