//! Shops, payments, accounts.

use super::super::scheme::{
    Batch, Code, Encoding, EventAnswer, Field, Handshake, Hmac, Jwt, JwtAlgorithm, Reply, Scheme, SecretForm,
    SignatureFrom, TimeFrom,
};
use super::super::{Provider, SecretSpec};
use super::{HMAC, ROW, SECRET, plain, seconds, text};

pub(super) const SHOPIFY: Provider = Provider {
    name: "shopify",
    title: "Shopify",
    scheme: Scheme::Hmac(&[
        Hmac { signature: plain("X-Shopify-Hmac-Sha256", ""), encoding: Encoding::Base64, ..HMAC },
        // The newer Events deliveries drop the prefix of every header.
        Hmac { signature: plain("Shopify-Hmac-Sha256", ""), encoding: Encoding::Base64, ..HMAC },
    ]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Text,
        hint: "the app's client secret (API secret key); for webhooks made in the admin, the secret shown there",
        mistakes: &[("shpat_", "this is an access token; webhooks are signed with the app's client secret")],
    },
    event_type: &[&[Field::Header("X-Shopify-Topic")], &[Field::Header("Shopify-Topic")]],
    // Several topics and several subscriptions of one topic share an event id.
    event_id: &[
        &[Field::Header("X-Shopify-Event-Id"), Field::Header("X-Shopify-Topic"), Field::Header("X-Shopify-Name")],
        &[Field::Header("X-Shopify-Event-Id"), Field::Header("X-Shopify-Topic")],
        &[Field::Header("X-Shopify-Webhook-Id")],
        &[Field::Header("Shopify-Webhook-Id")],
    ],
    forwards: &[
        "X-Shopify-Shop-Domain",
        "X-Shopify-API-Version",
        "X-Shopify-Triggered-At",
        "X-Shopify-Sub-Topic",
        "Shopify-Event-Id",
        "Shopify-Shop-Domain",
        "Shopify-API-Version",
        "Shopify-Triggered-At",
    ],
    ..ROW
};

pub(super) const STRIPE: Provider = Provider {
    name: "stripe",
    title: "Stripe",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{timestamp}.{body}",
        signature: SignatureFrom::Pairs { header: "Stripe-Signature", separator: b',', label: "v1", trim: false },
        // As in Stripe's own libraries, only the age is limited: their clock may be ahead of ours.
        time: seconds(TimeFrom::Pair("t"), 300, None),
        ..HMAC
    }]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Text,
        hint: "the endpoint's Signing secret (Developers, Webhooks), all of whsec_...; `stripe listen` prints its own",
        mistakes: &[
            ("sk_", "this is an API key; the signing secret of the webhook endpoint begins with whsec_"),
            ("rk_", "this is a restricted API key; the signing secret of the endpoint begins with whsec_"),
            ("pk_", "this is a publishable key; the signing secret of the endpoint begins with whsec_"),
            ("we_", "this is the endpoint's id; its signing secret begins with whsec_"),
        ],
    },
    event_type: &[&[Field::Json("type")]],
    event_id: &[&[Field::Json("id")]],
    ..ROW
};

pub(super) const ADYEN_PLATFORM: Provider = Provider {
    name: "adyen-platform",
    title: "Adyen (platform and management webhooks)",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("HmacSignature", ""), encoding: Encoding::Base64, ..HMAC }]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Hex,
        hint: "the webhook's HMAC key, 64 hexadecimal digits (Customer Area, Developers, Webhooks, Security)",
        mistakes: &[],
    },
    event_type: &[&[Field::Json("type")]],
    forwards: &["Protocol"],
    ..ROW
};

pub(super) const COINBASE_COMMERCE: Provider = Provider {
    name: "coinbase-commerce",
    title: "Coinbase Commerce",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-CC-Webhook-Signature", ""), ..HMAC }]),
    secret: text("the webhook shared secret (Settings, Notifications)"),
    event_type: &[&[Field::Json("event.type")]],
    event_id: &[&[Field::Json("event.id")]],
    ..ROW
};

pub(super) const PADDLE: Provider = Provider {
    name: "paddle",
    title: "Paddle Billing",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{timestamp}:{body}",
        signature: SignatureFrom::Pairs { header: "Paddle-Signature", separator: b';', label: "h1", trim: false },
        // As in Paddle's own library; a source behind a queue of its own sets tolerance_seconds.
        time: seconds(TimeFrom::Pair("ts"), 5, Some(5)),
        ..HMAC
    }]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Text,
        hint: "the notification destination's secret key, all of pdl_ntfset_...",
        mistakes: &[
            ("pdl_live_", "this is an API key; the secret key of the destination begins with pdl_ntfset_"),
            ("pdl_sdbx_", "this is an API key; the secret key of the destination begins with pdl_ntfset_"),
        ],
    },
    event_type: &[&[Field::Json("event_type")]],
    event_id: &[&[Field::Json("event_id")]],
    ..ROW
};

pub(super) const RAZORPAY: Provider = Provider {
    name: "razorpay",
    title: "Razorpay",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Razorpay-Signature", ""), ..HMAC }]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::Text,
        hint: "the secret typed when the webhook was set up, not the API key",
        mistakes: &[("rzp_", "this is an API key id; use the secret typed when the webhook was set up")],
    },
    event_type: &[&[Field::Json("event")]],
    event_id: &[&[Field::Header("X-Razorpay-Event-Id")]],
    ..ROW
};

pub(super) const SQUARE: Provider = Provider {
    name: "square",
    title: "Square",
    scheme: Scheme::Hmac(&[Hmac {
        message: "{url}{body}",
        signature: plain("X-Square-HmacSha256-Signature", ""),
        encoding: Encoding::Base64,
        ..HMAC
    }]),
    secret: text("the webhook subscription's Signature key (Developer Console, Webhooks)"),
    event_type: &[&[Field::Json("type")]],
    event_id: &[&[Field::Json("event_id")]],
    forwards: &[
        "Square-Environment",
        "Square-Retry-Number",
        "Square-Retry-Reason",
        "Square-Initial-Delivery-Timestamp",
    ],
    ..ROW
};

// Wants exactly 200 with an empty body, also for its "intent to receive", which is an empty list of events.
pub(super) const XERO: Provider = Provider {
    name: "xero",
    title: "Xero",
    scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Xero-Signature", ""), encoding: Encoding::Base64, ..HMAC }]),
    secret: text("the Webhooks key of the app (developer.xero.com, Webhooks)"),
    event_type: &[&[Field::Json("events.*.eventCategory"), Field::Json("events.*.eventType")]],
    handshakes: &[Handshake::Verified { when: Field::Json("events"), equals: "[]", reply: Reply::Empty }],
    answer: EventAnswer::Empty,
    ..ROW
};

// Adyen 16.0 (PyPI): the items' own fields are joined without escaping. The answer "[accepted]" is unverified, harmless.
pub(super) const ADYEN: Provider = Provider {
    name: "adyen",
    title: "Adyen standard webhooks",
    scheme: Scheme::Code(Code::Adyen),
    secret: SecretSpec {
        form: SecretForm::Hex,
        hint: "the HMAC key of the webhook, in hexadecimal digits (Customer Area, Developers, Webhooks)",
        ..SECRET
    },
    event_type: &[&[Field::Json("notificationItems.*.NotificationRequestItem.eventCode")]],
    batch: Some(Batch {
        form: None,
        items: "notificationItems",
        event_type: &[&[Field::Json("NotificationRequestItem.eventCode")]],
        event_id: &[
            &[
                Field::Json("NotificationRequestItem.pspReference"),
                Field::Json("NotificationRequestItem.eventCode"),
                Field::Json("NotificationRequestItem.success"),
                Field::Json("NotificationRequestItem.originalReference"),
            ],
            &[
                Field::Json("NotificationRequestItem.pspReference"),
                Field::Json("NotificationRequestItem.eventCode"),
                Field::Json("NotificationRequestItem.success"),
            ],
        ],
    }),
    answer: EventAnswer::Text("[accepted]"),
    ..ROW
};

// paypalrestsdk 1.13 and developer.paypal.com. The simulator signs with the webhook_id WEBHOOK_ID.
pub(super) const PAYPAL: Provider = Provider {
    name: "paypal",
    title: "PayPal",
    scheme: Scheme::Code(Code::PayPal),
    secret: SecretSpec {
        is_optional: true,
        hint: "none, the option webhook_id takes its place; with verify_by=postback the Secret of the app",
        ..SECRET
    },
    event_type: &[&[Field::Json("event_type")]],
    event_id: &[&[Field::Json("id")]],
    forwards: &[
        "PAYPAL-TRANSMISSION-ID",
        "PAYPAL-TRANSMISSION-TIME",
        "PAYPAL-TRANSMISSION-SIG",
        "PAYPAL-CERT-URL",
        "PAYPAL-AUTH-ALGO",
        "PAYPAL-AUTH-VERSION",
    ],
    ..ROW
};

// A repetition and a new webhook may have the same bytes, so there is no id.
pub(super) const PLAID: Provider = Provider {
    name: "plaid",
    title: "Plaid",
    scheme: Scheme::Jwt(Jwt {
        header: "Plaid-Verification",
        algorithm: JwtAlgorithm::Es256,
        body_claim: Some("request_body_sha256"),
        max_age: Some(300),
        needs_expiry: false,
        plaid_keys: true,
    }),
    secret: SecretSpec {
        hint: "the API secret of Plaid's dashboard, with which (and the option client_id) keys are fetched; none with the \
               option jwk",
        is_optional: true,
        ..SECRET
    },
    event_type: &[&[Field::Json("webhook_type"), Field::Json("webhook_code")]],
    forwards: &["Plaid-Verification"],
    ..ROW
};
