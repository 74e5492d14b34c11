//! Every provider verified as its own library would: one table of cases, run for each provider with signatures that its
//! official library made, or a few independent lines of Python where no library signs (`tests/sdks`). Where a library
//! verifies, it is asked about every case too, and has to say what we say, but for the differences that a row states. A
//! provider that lacks a kind of case which it can have (`kinds`) fails.

mod cases;
mod kinds;
mod rows;
mod special;

use std::collections::BTreeSet;

use postroom_domain::provider;
use postroom_testkit::sdks;

use cases::check;

/// One provider's form of a signed request, as its documents show it, and what it does not settle in the same way as we do.
pub struct Row {
    provider: &'static str,
    /// The header of the signature.
    header: &'static str,
    /// Its value: `{s}` is the signature, `{t}` the signed time.
    shape: &'static str,
    /// Other values made of the same parts, and whether they prove the request; `{w}` is a wrong signature of the right
    /// form.
    variants: &'static [(&'static str, bool)],
    /// A header that may hold another key's signature beside that one.
    beside: &'static str,
    /// Headers that come with every request and are not signed.
    headers: &'static [(&'static str, &'static str)],
    /// How old and how far ahead of our clock a signed time may be, in seconds. `ANY` is no limit.
    past: i64,
    future: i64,
    bodies: Bodies,
    handshakes: &'static [Handshake],
    /// A case in which the library says the opposite, and why we do not.
    differences: &'static [(&'static str, &'static str)],
}

/// No limit for the age of a request.
const ANY: i64 = i64::MAX;

/// What may stand in a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// Any bytes.
    Signed,
    /// JSON with the time of signing in `webhookTimestamp`.
    Timed,
    /// A form with a list of events.
    Form,
    /// Any bytes, which nothing protects.
    Unsigned,
}

/// A request that is answered and not recorded.
struct Handshake {
    method: &'static str,
    /// Appended to the URL.
    query: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// An option that the source has for it.
    option: Option<(&'static str, &'static str)>,
    /// Signed as any other request; it is refused with another signature then.
    signed: bool,
    /// Status, media type, body.
    answer: (u16, Option<&'static str>, &'static str),
}

const HANDSHAKE: Handshake = Handshake {
    method: "POST",
    query: "",
    headers: &[],
    body: "",
    option: None,
    signed: true,
    answer: (200, None, ""),
};

const ROW: Row = Row {
    provider: "",
    header: "",
    shape: "{s}",
    variants: &[],
    beside: "",
    headers: &[],
    past: ANY,
    future: ANY,
    bodies: Bodies::Signed,
    handshakes: &[],
    differences: &[],
};

/// A test for each row, named after its provider.
macro_rules! every {
    ($($test:ident: $group:ident $row:ident),* $(,)?) => {
        mod verifies_as_its_own_library_does {
            $(#[test]
            fn $test() {
                super::check(&super::rows::$group::$row);
            })*
        }

        const ALL: &[&Row] = &[$(&rows::$group::$row),*];
    };
}

every! {
    adyen_platform: commerce ADYEN_PLATFORM,
    asana: work ASANA,
    bitbucket: work BITBUCKET,
    calendly: work CALENDLY,
    clerk: standard CLERK,
    coinbase_commerce: commerce COINBASE_COMMERCE,
    discord: keys DISCORD,
    docusign: work DOCUSIGN,
    dropbox: work DROPBOX,
    github: work GITHUB,
    gitlab_signing: standard GITLAB_SIGNING,
    gitlab_token: tokens GITLAB_TOKEN,
    hubspot: work HUBSPOT,
    intercom: people INTERCOM,
    jira: work JIRA,
    line: people LINE,
    linear: work LINEAR,
    mandrill: people MANDRILL,
    meta: people META,
    monday: keys MONDAY,
    okta: tokens OKTA,
    openai: standard OPENAI,
    paddle: commerce PADDLE,
    pagerduty: work PAGERDUTY,
    paypal: keys PAYPAL,
    plaid: keys PLAID,
    postmark_basic_auth: tokens POSTMARK_BASIC_AUTH,
    razorpay: commerce RAZORPAY,
    resend: standard RESEND,
    roblox: people ROBLOX,
    sendgrid: keys SENDGRID,
    sentry: work SENTRY,
    shopify: commerce SHOPIFY,
    slack: people SLACK,
    square: commerce SQUARE,
    stripe: commerce STRIPE,
    svix: standard SVIX,
    telegram: tokens TELEGRAM,
    trello: work TRELLO,
    twilio: people TWILIO,
    twitch: people TWITCH,
    typeform: work TYPEFORM,
    vercel: work VERCEL,
    workos: work WORKOS,
    xero: commerce XERO,
    zendesk: people ZENDESK,
    zoom: people ZOOM,
    standard_webhooks: standard STANDARD_WEBHOOKS,
    standard_webhooks_v1a: keys STANDARD_WEBHOOKS_V1A,
    hmac: tokens HMAC,
    basic_auth: tokens BASIC_AUTH,
    jwt: keys JWT,
    token: tokens TOKEN,
}

#[test]
fn every_provider_of_the_catalogue_is_checked_against_somebody_else() {
    let checked: BTreeSet<&str> = ALL.iter().map(|row| row.provider).chain(special::PROVIDERS).collect();
    for row in provider::all() {
        assert!(checked.contains(row.name), "{} has no row here", row.name);
        assert!(sdks::signed_by(row.name).is_some(), "tests/sdks signs nothing for {}", row.name);
    }
}
