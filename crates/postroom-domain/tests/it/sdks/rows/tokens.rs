//! Secrets that are sent as they are, and the configurable schemes.

use super::super::{Bodies, HANDSHAKE, Handshake, ROW, Row};

const TOKENS: Row = Row { bodies: Bodies::Unsigned, variants: &[("Bearer {s}", false), ("{s},{s}", false)], ..ROW };

pub const GITLAB_TOKEN: Row = Row { provider: "gitlab-token", header: "X-Gitlab-Token", ..TOKENS };

pub const TELEGRAM: Row = Row { provider: "telegram", header: "X-Telegram-Bot-Api-Secret-Token", ..TOKENS };

pub const OKTA: Row = Row {
    provider: "okta",
    header: "Authorization",
    handshakes: &[Handshake {
        method: "GET",
        headers: &[("X-Okta-Verification-Challenge", "hQRx4yKtDvZNaTbsPLvF")],
        answer: (200, Some("application/json"), r#"{"verification":"hQRx4yKtDvZNaTbsPLvF"}"#),
        ..HANDSHAKE
    }],
    ..TOKENS
};

pub const TOKEN: Row = Row { provider: "token", header: "X-Secret-Token", ..TOKENS };

const BASIC: Row = Row {
    header: "Authorization",
    shape: "Basic {s}",
    variants: &[("basic {s}", true), ("Bearer {s}", false), ("{s}", false), ("Basic  {s}", false)],
    bodies: Bodies::Unsigned,
    ..ROW
};

pub const BASIC_AUTH: Row = Row { provider: "basic-auth", ..BASIC };
pub const POSTMARK_BASIC_AUTH: Row = Row { provider: "postmark-basic-auth", ..BASIC };

pub const HMAC: Row = Row {
    provider: "hmac",
    header: "X-Signature",
    shape: "sha256={s}",
    variants: &[("{s}", false), ("sha1={s}", false), ("sha256={s},sha256={s}", false)],
    ..ROW
};
