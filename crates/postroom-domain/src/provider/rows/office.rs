//! Documents, forms, calendars, people.

use super::super::scheme::{
    Algorithm, Batch, Encoding, EventAnswer, Field, Handshake, Hmac, Jwt, JwtAlgorithm, Reply, Scheme, SecretForm,
    SignatureFrom, SignedTime, TimeFrom, TokenFrom, Unit,
};
use super::super::{Provider, SecretSpec};
use super::{HMAC, ROW, SECRET, plain, seconds, text};

pub(super) const WORKOS: Provider = Provider {
    name: "workos",
    title: "WorkOS",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{timestamp}.{body}",
        signature: SignatureFrom::Pairs { header: "WorkOS-Signature", separator: b',', label: "v1", trim: true },
        time: Some(SignedTime {
            from: TimeFrom::Pair("t"),
            unit: Unit::Milliseconds,
            past: Some(180),
            future: Some(180),
        }),
        ..HMAC
    }]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Text,
        hint: "the endpoint's Signing secret (WorkOS dashboard, Webhooks)",
        mistakes: &[("sk_", "this is an API key; use the webhook endpoint's signing secret")],
    },
    event_type: &[&[Field::Json("event")]],
    event_id: &[&[Field::Json("id")]],
    ..ROW
};

pub(super) const CALENDLY: Provider = Provider {
    name: "calendly",
    title: "Calendly",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{timestamp}.{body}",
        signature: SignatureFrom::Pairs {
            header: "Calendly-Webhook-Signature",
            separator: b',',
            label: "v1",
            trim: false,
        },
        time: seconds(TimeFrom::Pair("t"), 300, None),
        ..HMAC
    }]),
    secret: text("the signing_key given when the webhook subscription was created"),
    event_type: &[&[Field::Json("event")]],
    ..ROW
};

pub(super) const DOCUSIGN: Provider = Provider {
    name: "docusign",
    title: "DocuSign Connect",
    scheme: Scheme::Hmac(&[Hmac {
        signature: SignatureFrom::Numbered { first: "X-DocuSign-Signature-1" },
        encoding: Encoding::Base64,
        ..HMAC
    }]),
    secret: text("a Connect key of the account, as text although it looks like base64 (Connect, Keys)"),
    event_type: &[&[Field::Json("event")]],
    forwards: &["X-Authorization-Digest", "X-DocuSign-AccountId"],
    ..ROW
};

pub(super) const DROPBOX: Provider = Provider {
    name: "dropbox",
    title: "Dropbox",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Dropbox-Signature", ""), ..HMAC }]),
    secret: text("the App secret (App Console, Settings)"),
    event_type: &[&[Field::JsonMark("list_folder.accounts.0", "list_folder")]],
    handshakes: &[Handshake::Echo { method: "GET", query: "challenge" }],
    ..ROW
};

// A request may carry up to 100 events. eventId alone is not promised to be unique.
pub(super) const HUBSPOT: Provider = Provider {
    name: "hubspot",
    title: "HubSpot",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{method}{url}{body}{timestamp}",
        signature: plain("X-HubSpot-Signature-v3", ""),
        encoding: Encoding::Base64,
        time: Some(SignedTime {
            from: TimeFrom::Header("X-HubSpot-Request-Timestamp"),
            unit: Unit::Milliseconds,
            past: Some(300),
            future: None,
        }),
        ..HMAC
    }]),
    secret: text("the app's Client secret (Auth tab)"),
    event_type: &[&[Field::Json("*.subscriptionType")]],
    batch: Some(Batch {
        form: None,
        items: "",
        event_type: &[&[Field::Json("subscriptionType")]],
        event_id: &[&[
            Field::Json("eventId"),
            Field::Json("subscriptionId"),
            Field::Json("objectId"),
            Field::Json("occurredAt"),
        ]],
    }),
    forwards: &["X-HubSpot-Signature", "X-HubSpot-Signature-Version"],
    ..ROW
};

pub(super) const OKTA: Provider = Provider {
    name: "okta",
    title: "Okta event hooks",
    scheme: Scheme::Token(TokenFrom::HeaderOption(Some("Authorization"))),
    secret: text("the Authentication secret of the event hook; the option header names another Authentication field"),
    event_type: &[&[Field::Json("data.events.*.eventType")]],
    event_id: &[&[Field::Json("eventId")]],
    handshakes: &[Handshake::VerifiedHas {
        has: Field::Header("x-okta-verification-challenge"),
        reply: Reply::Json("verification", Field::Header("x-okta-verification-challenge")),
    }],
    answer: EventAnswer::Empty,
    ..ROW
};

pub(super) const TRELLO: Provider = Provider {
    name: "trello",
    title: "Trello",
    scheme: Scheme::Hmac(&[Hmac {
        algorithm: Algorithm::Sha1,
        message: "{body}{url}",
        signature: plain("X-Trello-Webhook", ""),
        encoding: Encoding::Base64,
        ..HMAC
    }]),
    secret: text("the Power-Up's OAuth secret (API key page)"),
    event_type: &[&[Field::Json("action.type")]],
    event_id: &[&[Field::Json("action.id")]],
    handshakes: &[Handshake::Probe { method: "HEAD" }],
    ..ROW
};

pub(super) const TYPEFORM: Provider = Provider {
    name: "typeform",
    title: "Typeform",
    scheme: Scheme::Hmac(&[Hmac {
        signature: plain("Typeform-Signature", "sha256="),
        encoding: Encoding::Base64,
        ..HMAC
    }]),
    secret: text("the Secret of the webhook (Connect, Webhooks, Edit)"),
    event_type: &[&[Field::Json("event_type")]],
    event_id: &[&[Field::Json("event_id")]],
    ..ROW
};

// developers.asana.com, webhooks guide: the secret comes once, in the handshake.
pub(super) const ASANA: Provider = Provider {
    name: "asana",
    title: "Asana",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Hook-Signature", ""), ..HMAC }]),
    secret: SecretSpec {
        hint: "the X-Hook-Secret of the handshake; leave it out, the source learns it when the webhook is created",
        is_optional: true,
        ..SECRET
    },
    event_type: &[&[Field::Json("events.*.resource.resource_type"), Field::Json("events.*.action")]],
    // An event has no id, but the time at which it happened.
    event_id: &[&[Field::BodyDigest]],
    batch: Some(Batch {
        form: None,
        items: "events",
        event_type: &[&[Field::Json("resource.resource_type"), Field::Json("action")]],
        event_id: &[&[Field::BodyDigest]],
    }),
    handshakes: &[
        Handshake::LearnSecret { header: "X-Hook-Secret" },
        // A heartbeat.
        Handshake::Verified { when: Field::Json("events"), equals: "[]", reply: Reply::Empty },
    ],
    ..ROW
};

// The challenge by which monday checks the URL may come unsigned (third parties agree); triggerUuid is unverified.
pub(super) const MONDAY: Provider = Provider {
    name: "monday",
    title: "monday.com",
    scheme: Scheme::Jwt(Jwt {
        header: "Authorization",
        algorithm: JwtAlgorithm::Hs256,
        body_claim: None,
        max_age: None,
        needs_expiry: true,
        plaid_keys: false,
    }),
    secret: text("the app's Signing Secret (Developer Center, Basic information); for some webhooks its Client Secret"),
    event_type: &[&[Field::Json("event.type")]],
    event_id: &[&[Field::Json("event.triggerUuid")]],
    handshakes: &[Handshake::JsonEcho { member: "challenge", unless_header: "authorization" }],
    ..ROW
};
