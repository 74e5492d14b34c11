//! Public keys, certificates and tokens.

use super::super::{Bodies, HANDSHAKE, Handshake, ROW, Row};

pub const DISCORD: Row = Row {
    provider: "discord",
    header: "X-Signature-Ed25519",
    variants: &[("ed25519={s}", false), ("{s},{s}", false)],
    handshakes: &[
        Handshake {
            body: r#"{"id":"1","application_id":"2","type":1,"token":"x"}"#,
            answer: (200, Some("application/json"), r#"{"type":1}"#),
            ..HANDSHAKE
        },
        Handshake {
            body: r#"{"version":1,"application_id":"2","type":0}"#,
            answer: (204, Some("application/json"), ""),
            ..HANDSHAKE
        },
    ],
    differences: &[("malformed: upper case", "Python reads digits of either case; here a signature has one spelling")],
    ..ROW
};

pub const SENDGRID: Row = Row {
    provider: "sendgrid",
    header: "X-Twilio-Email-Event-Webhook-Signature",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    differences: &[
        ("variant {s},{s}", "Python's base64 reads over what follows the padding"),
        ("malformed: longer", "Python's base64 reads over what follows the padding"),
        ("malformed: doubled", "Python's base64 reads over what follows the padding"),
    ],
    ..ROW
};

pub const STANDARD_WEBHOOKS_V1A: Row = Row {
    provider: "standard-webhooks-v1a",
    header: "webhook-signature",
    shape: "v1a,{s}",
    variants: &[
        ("v1a,AAAA v1a,{s}", true),
        ("v1a,{w} v1a,{s}", true),
        ("v1a,{s} v1,AAAA", true),
        ("v1,{s}", false),
        ("v2,{s}", false),
        ("{s}", false),
        ("v1a,{s},v1a,{s}", false),
    ],
    past: 300,
    future: 300,
    ..ROW
};

pub const PAYPAL: Row = Row {
    provider: "paypal",
    header: "PAYPAL-TRANSMISSION-SIG",
    variants: &[("sha256={s}", false), ("{s},{s}", false)],
    differences: &[
        ("variant {s},{s}", "Python's base64 reads over what follows the padding"),
        ("malformed: longer", "Python's base64 reads over what follows the padding"),
        ("malformed: doubled", "Python's base64 reads over what follows the padding"),
    ],
    ..ROW
};

pub const PLAID: Row = Row {
    provider: "plaid",
    header: "Plaid-Verification",
    variants: &[("Basic {s}", false), ("{s},{s}", false)],
    past: 300,
    future: 300,
    differences: &[("as new as allowed", "PyJWT refuses what was made later than now; clocks differ a little")],
    ..ROW
};

pub const MONDAY: Row = Row {
    provider: "monday",
    header: "Authorization",
    variants: &[("Basic {s}", false), ("{s},{s}", false)],
    past: 299,
    bodies: Bodies::Unsigned,
    differences: &[(
        "as new as allowed",
        "Python's library refuses what was made later than now; RFC 7519 gives a token's making no such meaning",
    )],
    handshakes: &[Handshake {
        body: r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#,
        signed: false,
        answer: (
            200,
            Some("application/json"),
            r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#,
        ),
        ..HANDSHAKE
    }],
    ..ROW
};

pub const JWT: Row = Row { provider: "jwt", shape: "Bearer {s}", handshakes: &[], ..MONDAY };
