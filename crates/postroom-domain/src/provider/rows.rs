//! The catalogue itself.

use super::scheme::{
    Algorithm, Encoding, Field, Handshake, Hmac, Reply, Scheme, SecretForm, SignatureFrom, SignedTime, TimeFrom, Unit,
};
use super::{Provider, SecretSpec};

/// The commonest scheme; rows say where they differ.
const HMAC: Hmac<'static> = Hmac {
    algorithm: Algorithm::Sha256,
    message: "{body}",
    signature: SignatureFrom::Plain { header: "", prefix: "" },
    encoding: Encoding::Hex,
    time: None,
};

/// A row to start from.
const ROW: Provider = Provider {
    name: "",
    title: "",
    scheme: Scheme::Open,
    secret: SecretSpec { form: SecretForm::Text, hint: "", mistakes: &[] },
    event_type: &[],
    event_id: &[],
    handshakes: &[],
    forwards: &[],
    empty_answer: false,
};

const fn plain(header: &'static str, prefix: &'static str) -> SignatureFrom<'static> {
    SignatureFrom::Plain { header, prefix }
}

const fn text(hint: &'static str) -> SecretSpec {
    SecretSpec { form: SecretForm::Text, hint, mistakes: &[] }
}

const fn seconds(from: TimeFrom<'static>, past: u32, future: Option<u32>) -> Option<SignedTime<'static>> {
    Some(SignedTime { from, unit: Unit::Seconds, past: Some(past), future })
}

const STANDARD_WEBHOOKS: Hmac<'static> = Hmac {
    message: "{header:webhook-id}.{timestamp}.{body}",
    signature: SignatureFrom::List { header: "webhook-signature", separator: b' ', label: "v1," },
    encoding: Encoding::Base64,
    time: seconds(TimeFrom::Header("webhook-timestamp"), 300, Some(300)),
    ..HMAC
};

pub(super) static ALL: &[Provider] = &[
    Provider {
        name: "github",
        title: "GitHub",
        scheme: Scheme::Hmac(&[Hmac { signature: plain("X-Hub-Signature-256", "sha256="), ..HMAC }]),
        secret: text("the Secret typed when the webhook was created (repository or organization settings, Webhooks)"),
        event_type: &[
            &[Field::Header("X-GitHub-Event"), Field::Json("action")],
            &[Field::Header("X-GitHub-Event"), Field::Form("payload", "action")],
            &[Field::Header("X-GitHub-Event")],
        ],
        event_id: &[&[Field::Header("X-GitHub-Delivery")]],
        handshakes: &[Handshake::Verified {
            when: Field::Header("X-GitHub-Event"),
            equals: "ping",
            reply: Reply::Empty,
        }],
        forwards: &[
            "X-Hub-Signature",
            "X-GitHub-Hook-ID",
            "X-GitHub-Hook-Installation-Target-ID",
            "X-GitHub-Hook-Installation-Target-Type",
            "X-GitHub-Enterprise-Host",
            "X-GitHub-Enterprise-Version",
        ],
        ..ROW
    },
    // mandrill.zendesk.com articles 360039232513, 360038740014; checked against django-anymail.
    Provider {
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
        handshakes: &[
            Handshake::Probe { method: "HEAD" },
            Handshake::PublicKey { key: "test-webhook", form: "mandrill_events", equals: "[]" },
            Handshake::Verified { when: Field::Form("mandrill_events", ""), equals: "[]", reply: Reply::Empty },
        ],
        ..ROW
    },
    Provider {
        name: "shopify",
        title: "Shopify",
        scheme: Scheme::Hmac(&[
            Hmac { signature: plain("X-Shopify-Hmac-Sha256", ""), encoding: Encoding::Base64, ..HMAC },
            // The newer Events deliveries drop the prefix of every header.
            Hmac { signature: plain("Shopify-Hmac-Sha256", ""), encoding: Encoding::Base64, ..HMAC },
        ]),
        secret: SecretSpec {
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
    },
    Provider {
        name: "slack",
        title: "Slack",
        scheme: Scheme::Hmac(&[Hmac {
            message: "v0:{timestamp}:{body}",
            signature: plain("X-Slack-Signature", "v0="),
            time: seconds(TimeFrom::Header("X-Slack-Request-Timestamp"), 300, Some(300)),
            ..HMAC
        }]),
        secret: SecretSpec {
            form: SecretForm::Text,
            hint: "the app's Signing Secret (api.slack.com, Basic Information, App Credentials)",
            mistakes: &[
                ("xoxb-", "this is a bot token; use the app's Signing Secret"),
                ("xoxp-", "this is a user token; use the app's Signing Secret"),
                ("xapp-", "this is an app-level token; use the app's Signing Secret"),
            ],
        },
        event_type: &[
            &[Field::Json("event.type")],
            &[Field::Json("type")],
            &[Field::Form("payload", "type")],
            &[Field::FormMark("command", "slash_command")],
        ],
        event_id: &[&[Field::Json("event_id")]],
        handshakes: &[Handshake::Verified {
            when: Field::Json("type"),
            equals: "url_verification",
            reply: Reply::Text(Field::Json("challenge")),
        }],
        forwards: &["X-Slack-Retry-Num", "X-Slack-Retry-Reason"],
        ..ROW
    },
    Provider {
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
    },
    Provider {
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
            form: SecretForm::Text,
            hint: "the endpoint's Signing secret (WorkOS dashboard, Webhooks)",
            mistakes: &[("sk_", "this is an API key; use the webhook endpoint's signing secret")],
        },
        event_type: &[&[Field::Json("event")]],
        event_id: &[&[Field::Json("id")]],
        ..ROW
    },
    Provider {
        name: "standard-webhooks",
        title: "Standard Webhooks",
        scheme: Scheme::Hmac(&[STANDARD_WEBHOOKS]),
        secret: SecretSpec {
            form: SecretForm::Whsec,
            hint: "the signing secret of the endpoint, whsec_ and base64 of the key",
            mistakes: &[
                (
                    "whpk_",
                    "this is a public key of the asymmetric scheme v1a; this provider checks v1, a shared secret",
                ),
                ("whsk_", "this is a private key of the asymmetric scheme v1a and belongs to the sender alone"),
            ],
        },
        event_type: &[&[Field::Json("type")], &[Field::Json("event_type")]],
        event_id: &[&[Field::Header("webhook-id")]],
        ..ROW
    },
    Provider {
        name: "hmac",
        title: "HMAC",
        scheme: Scheme::HmacFromOptions,
        secret: text("the shared secret of the sender"),
        ..ROW
    },
    Provider {
        name: "none",
        title: "No verification",
        scheme: Scheme::Open,
        secret: SecretSpec { form: SecretForm::None, hint: "there is none", mistakes: &[] },
        ..ROW
    },
];
