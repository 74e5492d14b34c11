//! Chat, telephony, streams, support, mail.

use super::super::{Bodies, HANDSHAKE, Handshake, ROW, Row};

pub const SLACK: Row = Row {
    provider: "slack",
    header: "X-Slack-Signature",
    shape: "v0={s}",
    variants: &[("{s}", false), ("v1={s}", false), ("V0={s}", false), ("v0={s},v0={s}", false), ("v0={s} ", false)],
    past: 300,
    future: 300,
    handshakes: &[Handshake {
        body: r#"{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}"#,
        answer: (200, Some("text/plain"), "3eZbrw1aBm2rZgRNFdxV"),
        ..HANDSHAKE
    }],
    ..ROW
};

pub const INTERCOM: Row = Row {
    provider: "intercom",
    header: "X-Hub-Signature",
    shape: "sha1={s}",
    variants: &[("{s}", false), ("sha256={s}", false)],
    handshakes: &[Handshake { body: r#"{"type":"notification_event","topic":"ping","data":{}}"#, ..HANDSHAKE }],
    ..ROW
};

pub const LINE: Row = Row {
    provider: "line",
    header: "X-Line-Signature",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    handshakes: &[Handshake { body: r#"{"destination":"U4af4980629","events":[]}"#, ..HANDSHAKE }],
    ..ROW
};

pub const META: Row = Row {
    provider: "meta",
    header: "X-Hub-Signature-256",
    shape: "sha256={s}",
    variants: &[("{s}", false), ("sha1={s}", false), ("sha256={s},sha1=00", false)],
    handshakes: &[Handshake {
        method: "GET",
        query: "&hub.mode=subscribe&hub.verify_token=meatyhamhock&hub.challenge=1158201444",
        option: Some(("verify_token", "meatyhamhock")),
        signed: false,
        answer: (200, Some("text/plain"), "1158201444"),
        ..HANDSHAKE
    }],
    ..ROW
};

pub const ROBLOX: Row = Row {
    provider: "roblox",
    header: "roblox-signature",
    shape: "t={t},v1={s}",
    variants: &[
        ("t={t}, v1={s}", true),
        ("v1={s},t={t}", true),
        ("t={t},v1={w},v1={s}", true),
        ("t={t},v2={s}", false),
        ("t={t}", false),
        ("v1={s}", false),
    ],
    past: 600,
    future: 600,
    ..ROW
};

pub const TWITCH: Row = Row {
    provider: "twitch",
    header: "Twitch-Eventsub-Message-Signature",
    shape: "sha256={s}",
    variants: &[("{s}", false), ("sha1={s}", false)],
    headers: &[
        ("Twitch-Eventsub-Message-Id", "e76c6bd4-55c9-4987-8304-da1588d8988b"),
        ("Twitch-Eventsub-Message-Type", "notification"),
        ("Twitch-Eventsub-Subscription-Type", "channel.follow"),
    ],
    past: 600,
    handshakes: &[Handshake {
        headers: &[("Twitch-Eventsub-Message-Type", "webhook_callback_verification")],
        body: r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"f1c2a387"}}"#,
        answer: (200, Some("text/plain"), "pogchamp-kappa-360noscope-vohiyo"),
        ..HANDSHAKE
    }],
    ..ROW
};

pub const TWILIO: Row = Row {
    provider: "twilio",
    header: "X-Twilio-Signature",
    variants: &[("sha1={s}", false), ("{s},{s}", false)],
    bodies: Bodies::Form,
    ..ROW
};

pub const ZENDESK: Row = Row {
    provider: "zendesk",
    header: "X-Zendesk-Webhook-Signature",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    ..ROW
};

pub const ZOOM: Row = Row {
    provider: "zoom",
    header: "x-zm-signature",
    shape: "v0={s}",
    differences: &[
        ("tampered: longer", RIVET),
        ("unicode", RIVET),
        ("respelled {\"a\":1,  \"a\":2}", RIVET),
        ("respelled {\"n\":1e2,\"big\":123456789012345678901234567890}", RIVET),
        ("respelled {\"t\":\"\\u00e9 \\/ \u{e9}\"}\r\n", RIVET),
        ("respelled \u{feff}{}", RIVET),
        ("respelled {\"lone\":\"\\ud800\"}", RIVET),
        ("respelled {\n  \"pretty\": [ 1.0, 2 ]\n}\n", RIVET),
        ("empty body", RIVET),
    ],
    variants: &[("{s}", false), ("v1={s}", false)],
    handshakes: &[Handshake {
        body: r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#,
        // The keyed hash of the token under the secret of these tests, made with Python's hmac.
        answer: (
            200,
            Some("application/json"),
            "{\"encryptedToken\":\"34695fa238d44562f131448d95b5f5df2e52e07c8793d7f2dc630f6159e5cd5e\",\
             \"plainToken\":\"qgg8vlvZRS6UYooatFL8Aw\"}",
        ),
        ..HANDSHAKE
    }],
    ..ROW
};

/// It signs anew what its JSON library makes of the body, and wants an event in it; the raw bytes are what is signed.
const RIVET: &str = "it looks for an event in the body, and signs anew what JSON.stringify makes of it";

pub const MANDRILL: Row = Row {
    provider: "mandrill",
    header: "X-Mandrill-Signature",
    variants: &[("sha1={s}", false), ("{s},{s}", false)],
    bodies: Bodies::Form,
    handshakes: &[
        Handshake { method: "HEAD", signed: false, ..HANDSHAKE },
        Handshake { body: "mandrill_events=%5B%5D", ..HANDSHAKE },
    ],
    ..ROW
};
