//! Standard Webhooks and who uses it unchanged; schemes for senders that are not in the catalogue.

use super::super::scheme::{Field, Scheme, SecretForm, TokenFrom};
use super::super::{Provider, SecretSpec};
use super::{ROW, STANDARD, SVIX_HEADERS, WHSEC, text};

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
    secret: SecretSpec { form: SecretForm::None, hint: "there is none", mistakes: &[] },
    general: true,
    ..ROW
};
