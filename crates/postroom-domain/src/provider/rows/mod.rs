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
    secret: SECRET,
    event_type: &[],
    event_id: &[],
    handshakes: &[],
    forwards: &[],
    answer: EventAnswer::Ordinary,
    batch: None,
    general: false,
};

/// A secret to start from.
const SECRET: SecretSpec = SecretSpec { form: SecretForm::Text, hint: "", is_optional: false, mistakes: &[] };

const fn plain(header: &'static str, prefix: &'static str) -> SignatureFrom<'static> {
    SignatureFrom::Plain { header, prefix }
}

const fn text(hint: &'static str) -> SecretSpec {
    SecretSpec { hint, ..SECRET }
}

/// A signed time in a header, in seconds, of which no limit is stated.
const fn untimed(header: &'static str) -> Option<SignedTime<'static>> {
    Some(SignedTime { from: TimeFrom::Header(header), unit: Unit::Seconds, past: None, future: None })
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
    is_optional: false,
    form: SecretForm::Whsec,
    hint: "the signing secret of the endpoint, whsec_ and base64 of the key",
    mistakes: &[
        ("whpk_", "this is a public key of the asymmetric scheme v1a; this provider checks v1, a shared secret"),
        ("whsk_", "this is a private key of the asymmetric scheme v1a and belongs to the sender alone"),
    ],
};

/// Every provider, by name; the general schemes come last.
pub(super) static ALL: &[Provider] = &[
    commerce::ADYEN,
    commerce::ADYEN_PLATFORM,
    office::ASANA,
    development::AWS_SNS,
    development::AZURE_EVENT_GRID,
    development::BITBUCKET,
    office::CALENDLY,
    general::CLERK,
    commerce::COINBASE_COMMERCE,
    messaging::DISCORD,
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
    office::MONDAY,
    office::OKTA,
    general::OPENAI,
    commerce::PADDLE,
    development::PAGERDUTY,
    commerce::PAYPAL,
    commerce::PLAID,
    mail::POSTMARK_BASIC_AUTH,
    commerce::RAZORPAY,
    mail::RESEND,
    messaging::ROBLOX,
    mail::SENDGRID,
    development::SENTRY,
    commerce::SHOPIFY,
    messaging::SLACK,
    commerce::SQUARE,
    commerce::STRIPE,
    general::SVIX,
    messaging::TELEGRAM,
    office::TRELLO,
    messaging::TWILIO,
    messaging::TWITCH,
    office::TYPEFORM,
    development::VERCEL,
    office::WORKOS,
    commerce::XERO,
    messaging::ZENDESK,
    messaging::ZOOM,
    general::STANDARD_WEBHOOKS,
    general::STANDARD_WEBHOOKS_V1A,
    general::HMAC_PROVIDER,
    general::JWT_PROVIDER,
    general::BASIC_AUTH,
    general::TOKEN,
    general::NONE,
];
