//! The catalogue itself: one row of data per provider.

mod commerce;
mod development;
mod general;
mod mail;
mod messaging;
mod office;

use super::scheme::{
    Algorithm, Encoding, EventAnswer, Hmac, Scheme, SecretForm, SignatureFrom, SignedTime, TimeFrom, Unit,
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
    answer: EventAnswer::Ordinary,
    batch: None,
    general: false,
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

/// Standard Webhooks, v1.
const STANDARD: Hmac<'static> = Hmac {
    message: "{header:webhook-id}.{timestamp}.{body}",
    signature: SignatureFrom::List { header: "webhook-signature", separator: b' ', label: "v1," },
    encoding: Encoding::Base64,
    time: seconds(TimeFrom::Header("webhook-timestamp"), 300, Some(300)),
    ..HMAC
};

/// The same under the header names of Svix.
const SVIX_HEADERS: Hmac<'static> = Hmac {
    message: "{header:svix-id}.{timestamp}.{body}",
    signature: SignatureFrom::List { header: "svix-signature", separator: b' ', label: "v1," },
    time: seconds(TimeFrom::Header("svix-timestamp"), 300, Some(300)),
    ..STANDARD
};

/// A secret of Standard Webhooks.
const WHSEC: SecretSpec = SecretSpec {
    form: SecretForm::Whsec,
    hint: "the signing secret of the endpoint, whsec_ and base64 of the key",
    mistakes: &[
        ("whpk_", "this is a public key of the asymmetric scheme v1a; this provider checks v1, a shared secret"),
        ("whsk_", "this is a private key of the asymmetric scheme v1a and belongs to the sender alone"),
    ],
};

/// Every provider, by name; the general schemes come last.
pub(super) static ALL: &[Provider] = &[
    commerce::ADYEN_PLATFORM,
    development::BITBUCKET,
    office::CALENDLY,
    general::CLERK,
    commerce::COINBASE_COMMERCE,
    office::DOCUSIGN,
    office::DROPBOX,
    development::GITHUB,
    development::GITLAB_SIGNING,
    development::GITLAB_TOKEN,
    office::HUBSPOT,
    messaging::INTERCOM,
    development::JIRA,
    messaging::LINE,
    development::LINEAR,
    mail::MAILGUN,
    mail::MANDRILL,
    messaging::META,
    office::OKTA,
    general::OPENAI,
    commerce::PADDLE,
    development::PAGERDUTY,
    mail::POSTMARK_BASIC_AUTH,
    commerce::RAZORPAY,
    mail::RESEND,
    messaging::ROBLOX,
    development::SENTRY,
    commerce::SHOPIFY,
    messaging::SLACK,
    commerce::SQUARE,
    commerce::STRIPE,
    general::SVIX,
    messaging::TELEGRAM,
    office::TRELLO,
    messaging::TWITCH,
    office::TYPEFORM,
    development::VERCEL,
    office::WORKOS,
    commerce::XERO,
    messaging::ZENDESK,
    messaging::ZOOM,
    general::STANDARD_WEBHOOKS,
    general::HMAC_PROVIDER,
    general::BASIC_AUTH,
    general::TOKEN,
    general::NONE,
];
