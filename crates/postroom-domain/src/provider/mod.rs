//! The catalogue of providers: who signs how, what an event is called there, what the provider expects as an answer.
//!
//! A provider is one row of data, written in the vocabulary of [`scheme`]. The facts in the rows were read in the
//! providers' official SDKs and documentation (November 2026).

mod custom;
mod describe;
pub mod guide;
mod option;
mod rows;
mod sample;
pub(crate) mod scheme;

pub(crate) use custom::{jwt as custom_jwt, scheme as custom_scheme, secret_form as custom_secret_form};
pub use describe::Description;
pub(crate) use option::Options;
pub use option::{FieldError, OptionKind, OptionSpec};
pub use sample::{Payload, sample, sample_kinds};
pub use scheme::SecretForm;

use scheme::{Batch, EventAnswer, Handshake, Pick, Scheme};

/// One provider of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    /// Its name in a source's settings, for example `stripe`. Never changes.
    pub name: &'static str,
    /// Its name as its makers write it.
    pub title: &'static str,
    pub(crate) scheme: Scheme,
    pub(crate) secret: SecretSpec,
    pub(crate) event_type: Pick<'static>,
    pub(crate) event_id: Pick<'static>,
    pub(crate) handshakes: &'static [Handshake],
    /// Headers that its libraries need besides those the scheme itself reads.
    pub(crate) forwards: &'static [&'static str],
    /// The answer to a recorded event.
    pub(crate) answer: EventAnswer,
    /// How a request carries several events, if it can.
    pub(crate) batch: Option<Batch>,
    /// It says nothing about the sender, so options say where an event's type and id stand.
    pub(crate) general: bool,
}

/// What a provider's secret looks like and where its owner finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretSpec {
    pub form: SecretForm,
    /// What the provider calls it and where it is shown.
    pub hint: &'static str,
    /// A source can work without it.
    pub is_optional: bool,
    /// What people paste by mistake: how it begins, and what to do.
    pub mistakes: &'static [(&'static str, &'static str)],
}

pub(crate) const TOLERANCE: OptionSpec = OptionSpec {
    name: "tolerance_seconds",
    required: false,
    description: "how far the signed time may be from the time of arrival, in seconds",
    kind: OptionKind::Integer { minimum: 1, maximum: 604_800 },
};

pub(crate) const PUBLIC_URL: OptionSpec = OptionSpec::text(
    "public_url",
    "the URL exactly as it is registered with the provider, which signs it; default: this server's public URL, the \
     path and the query",
);

/// Options of keys that would be fetched otherwise.
pub(crate) const JWK: OptionSpec = OptionSpec::document(
    "jwk",
    "the public key, or a set of them, as JSON Web Key; tokens must name its kid if it has one",
);
pub(crate) const CERTIFICATES: [OptionSpec; 3] = [
    OptionSpec::document("cert_pem", "the certificate to check with, in PEM, in place of the one that requests name"),
    OptionSpec::text("cert_url", "the only URL of a certificate that requests may name"),
    OptionSpec::document("trust_root_pem", "the roots that the certificate must lead to, in PEM"),
];

/// Where the event's type and id stand, for the schemes that know nothing of the sender.
pub(crate) const EVENT_OPTIONS: [OptionSpec; 4] = [
    OptionSpec::text("event_type_header", "the header that names the event's type"),
    OptionSpec::text("event_type_path", "where the event's type stands in a JSON body (default type)"),
    OptionSpec::text(
        "event_id_header",
        "the header with the sender's id of the event, by which repetitions are recognised",
    ),
    OptionSpec::text("event_id_path", "where the sender's id of the event stands in a JSON body"),
];

/// Every provider, in alphabetical order but for the general schemes, which come last.
#[must_use]
pub fn all() -> &'static [Provider] {
    rows::ALL
}

/// The provider of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Provider> {
    rows::ALL.iter().find(|provider| provider.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for provider in all() {
            assert!(std::ptr::eq(find(provider.name).unwrap(), provider), "{}", provider.name);
            assert!(crate::source::name(provider.name).is_ok(), "a source is named after its provider by default");
        }
        assert!(find("Stripe").is_none());
    }
}
