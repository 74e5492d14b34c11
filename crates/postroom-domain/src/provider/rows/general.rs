//! Standard Webhooks and who uses it unchanged; schemes for senders that are not in the catalogue.

use super::super::scheme::{Algorithm, Field, Hmac, Scheme, SecretForm, SignatureFrom, TokenFrom};
use super::super::{Provider, SecretSpec};
use super::{ROW, SECRET, STANDARD, SVIX_HEADERS, WHSEC, text};

pub(super) const STANDARD_WEBHOOKS: Provider = Provider {
    name: "standard-webhooks",
    title: "Standard Webhooks",
    scheme: Scheme::Hmac(&[STANDARD]),
    secret: WHSEC,
    event_type: &[&[Field::Json("type")], &[Field::Json("event_type")]],
    event_id: &[&[Field::Header("webhook-id")]],
    ..ROW
};

// Its own library takes either family of header names.
pub(super) const SVIX: Provider = Provider {
    name: "svix",
    title: "Svix",
    scheme: Scheme::Hmac(&[SVIX_HEADERS, STANDARD]),
    secret: WHSEC,
    event_type: &[&[Field::Json("type")], &[Field::Json("event_type")]],
    event_id: &[&[Field::Header("svix-id")], &[Field::Header("webhook-id")]],
    ..ROW
};

pub(super) const CLERK: Provider = Provider {
    name: "clerk",
    title: "Clerk",
    scheme: Scheme::Hmac(&[SVIX_HEADERS]),
    secret: WHSEC,
    event_type: &[&[Field::Json("type")]],
    event_id: &[&[Field::Header("svix-id")]],
    ..ROW
};

pub(super) const OPENAI: Provider = Provider {
    name: "openai",
    title: "OpenAI",
    scheme: Scheme::Hmac(&[STANDARD]),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::WhsecOrText,
        hint: "the webhook's signing secret, whsec_... (Settings, Project, Webhooks)",
        mistakes: &[("sk-", "this is an API key; use the signing secret of the webhook")],
    },
    event_type: &[&[Field::Json("type")]],
    event_id: &[&[Field::Header("webhook-id")]],
    ..ROW
};

pub(super) const HMAC_PROVIDER: Provider = Provider {
    name: "hmac",
    title: "HMAC",
    scheme: Scheme::HmacFromOptions,
    secret: text("the shared secret of the sender"),
    general: true,
    ..ROW
};

pub(super) const BASIC_AUTH: Provider = Provider {
    name: "basic-auth",
    title: "Basic authentication",
    scheme: Scheme::Token(TokenFrom::Basic),
    secret: SecretSpec {
        is_optional: false,
        form: SecretForm::UserAndPassword,
        hint: "user name, colon, password: user:password",
        mistakes: &[],
    },
    general: true,
    ..ROW
};

pub(super) const TOKEN: Provider = Provider {
    name: "token",
    title: "Secret token in a header",
    scheme: Scheme::Token(TokenFrom::HeaderOption(None)),
    secret: text("the text that the sender puts into the header"),
    general: true,
    ..ROW
};

pub(super) const NONE: Provider = Provider {
    name: "none",
    title: "No verification",
    scheme: Scheme::Open,
    secret: SecretSpec { is_optional: false, form: SecretForm::None, hint: "there is none", mistakes: &[] },
    general: true,
    ..ROW
};

pub(super) const STANDARD_WEBHOOKS_V1A: Provider = Provider {
    name: "standard-webhooks-v1a",
    title: "Standard Webhooks (v1a, public key)",
    scheme: Scheme::Hmac(&[Hmac {
        algorithm: Algorithm::Ed25519,
        signature: SignatureFrom::List { header: "webhook-signature", separator: b' ', label: "v1a," },
        ..STANDARD
    }]),
    secret: SecretSpec {
        form: SecretForm::Whpk,
        hint: "the public key of the endpoint, whpk_ and base64 of 32 bytes",
        mistakes: &[
            ("whsec_", "this is a shared secret of v1; choose the provider standard-webhooks"),
            ("whsk_", "this is a private key and belongs to the sender alone; use the public key, whpk_..."),
        ],
        ..SECRET
    },
    ..STANDARD_WEBHOOKS
};

pub(super) const JWT_PROVIDER: Provider = Provider {
    name: "jwt",
    title: "JSON Web Token",
    scheme: Scheme::JwtFromOptions,
    secret: SecretSpec {
        hint: "the secret shared with the sender, for algorithms that begin with HS; none with the option jwk",
        is_optional: true,
        ..SECRET
    },
    general: true,
    ..ROW
};
