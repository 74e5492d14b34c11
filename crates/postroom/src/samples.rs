//! Sample sources and really signed sample webhooks, for `seed`, `demo` and `send --provider`.

use anyhow::Context as _;
use postroom_domain::endpoint::SignatureScheme;
use postroom_domain::provider::{self, SecretForm};
use postroom_domain::verify::{SignedRequest, sign};
use postroom_domain::{Secret, Timestamp, signing};
use serde_json::{Map, Value};

/// The providers that samples are made for, each as a source of its own name.
pub const PROVIDERS: [&str; 7] = ["stripe", "github", "shopify", "slack", "mandrill", "workos", "standard-webhooks"];

/// A fresh secret in the form that the provider uses.
#[must_use]
pub fn secret(name: &str) -> Secret {
    let form = provider::find(name).map(provider::Provider::secret_form);
    match form {
        Some(SecretForm::Whsec | SecretForm::WhsecOrText) => signing::generate(SignatureScheme::HmacSha256),
        _ => Secret::from(hex::encode(Secret::random(24).expose())),
    }
}

/// The `n`-th sample webhook of a provider, signed as the provider would for a source with these options at `url`. Where the source
/// holds a public key only, `secret` is the private one.
///
/// # Errors
/// When there is no such provider, it has no such sample, or the secret is not of its form.
pub fn webhook(
    name: &str,
    kind: Option<&str>,
    number: u64,
    url: &str,
    options: &Map<String, Value>,
    secret: Option<&Secret>,
    now: Timestamp,
) -> anyhow::Result<SignedRequest> {
    let payload = provider::sample(name, kind, number, now).with_context(|| {
        let kinds: Vec<&str> = provider::sample_kinds(name).collect();
        if kinds.is_empty() {
            format!("there is no provider {name:?}; `postroom sources providers` lists them")
        } else {
            format!("there is no such sample of {name}; there are {}", kinds.join(", "))
        }
    })?;
    sign(name, options, secret, &payload, url, now).map_err(|errors| {
        let errors: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.invalid.detail)).collect();
        anyhow::anyhow!("the sample of {name} cannot be signed: {}", errors.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroom_domain::verify::{Outcome, Request, Verifier};

    #[test]
    fn every_sample_is_accepted_by_its_own_verifier() {
        let now = Timestamp::from_seconds(1_790_000_000);
        for name in PROVIDERS {
            let secret = secret(name);
            let verifier = Verifier::compile(name, &Map::new(), std::slice::from_ref(&secret)).unwrap();
            let url = "http://127.0.0.1:1/in/acme-corp/x";
            let signed = webhook(name, None, 1, url, &Map::new(), Some(&secret), now).unwrap();
            let request = Request { method: "POST", url, headers: &signed.headers, body: &signed.body };
            assert!(matches!(verifier.verify(&request, now), Outcome::Verified(_)), "{name}");
        }
        assert!(webhook("nobody", None, 1, "http://x", &Map::new(), None, now).is_err());
    }
}
