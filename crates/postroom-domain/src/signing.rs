//! Signs what goes out to endpoints, after Standard Webhooks (<https://www.standardwebhooks.com>).
//!
//! The signed text is `id.timestamp.body`; `v1` is HMAC-SHA256 with a shared secret (`whsec_` and base64), `v1a`
//! Ed25519 with a private key that never leaves this server (`whsk_` and base64 of seed and public key) and a public
//! key for the receiver (`whpk_`). While a secret rotates, every active one signs, so a receiver that knows the old or
//! the new one is content.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::Secret;
use crate::endpoint::SignatureScheme;

/// How a shared secret begins.
const SHARED_PREFIX: &str = "whsec_";
/// How a private key begins.
const PRIVATE_PREFIX: &str = "whsk_";
/// How a public key begins.
const PUBLIC_PREFIX: &str = "whpk_";

/// Bytes of a shared secret (Standard Webhooks allows 24 to 64), and of an Ed25519 seed.
const KEY_BYTES: usize = 32;

/// Why a stored signing secret can not be used. It does not repeat the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// There is no active secret.
    #[error("the endpoint has no signing secret; rotate it to make one")]
    NoSecret,
    /// Neither `whsec_` and base64 of 24 to 64 bytes, nor `whsk_` and base64 of a key pair.
    #[error("a signing secret of the endpoint is neither whsec_... nor whsk_...; rotate it to make a new one")]
    BadSecret,
}

/// A fresh secret for an endpoint: `whsec_...`, or the private key `whsk_...` whose public half
/// [`public_key`] tells.
#[must_use]
pub fn generate(scheme: SignatureScheme) -> Secret {
    match scheme {
        SignatureScheme::HmacSha256 => text(SHARED_PREFIX, Secret::random(KEY_BYTES).expose()),
        SignatureScheme::Ed25519 => {
            let seed = Secret::random(KEY_BYTES);
            let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are a seed");
            let both = Secret::new([seed.expose(), pair.public_key().as_ref()].concat());
            text(PRIVATE_PREFIX, both.expose())
        }
    }
}

/// The public key `whpk_...` of a private key `whsk_...`, for the endpoint's owner to verify with; none for a shared
/// secret.
#[must_use]
pub fn public_key(secret: &Secret) -> Option<String> {
    match Key::read(secret).ok()? {
        Key::Shared(_) => None,
        Key::Private(pair) => Some(format!("{PUBLIC_PREFIX}{}", BASE64.encode(pair.public_key()))),
    }
}

fn text(prefix: &str, bytes: &[u8]) -> Secret {
    let mut text = prefix.to_owned();
    BASE64.encode_string(bytes, &mut text);
    Secret::from(text)
}

/// Every active secret of an endpoint, ready to sign.
pub struct Signer(Vec<Key>);

enum Key {
    Shared(Box<hmac::Key>),
    Private(Box<Ed25519KeyPair>),
}

impl Signer {
    /// Reads the active secrets, newest first.
    ///
    /// # Errors
    /// When there is none, or one is not what [`generate`] makes.
    pub fn new(secrets: &[Secret]) -> Result<Self, SigningError> {
        let keys: Vec<Key> = secrets.iter().map(Key::read).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(SigningError::NoSecret) } else { Ok(Self(keys)) }
    }

    /// The value of `webhook-signature` for a body: one signature per active secret, newest first, with a blank
    /// between. `id` is the value of `webhook-id` and must not contain a dot; `timestamp` that of `webhook-timestamp`,
    /// in seconds.
    #[must_use]
    pub fn signature_header(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let before = [id, ".", &timestamp.to_string(), "."].concat();
        let mut header = String::with_capacity(self.0.len() * 96);
        for key in &self.0 {
            if !header.is_empty() {
                header.push(' ');
            }
            match key {
                Key::Shared(key) => {
                    let mut hash = hmac::Context::with_key(key);
                    hash.update(before.as_bytes());
                    hash.update(body);
                    header.push_str("v1,");
                    BASE64.encode_string(hash.sign(), &mut header);
                }
                Key::Private(pair) => {
                    // Ed25519 reads its message twice, so it can not be given in pieces.
                    let message = [before.as_bytes(), body].concat();
                    header.push_str("v1a,");
                    BASE64.encode_string(pair.sign(&message), &mut header);
                }
            }
        }
        header
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.0.iter().map(|key| match key {
            Key::Shared(_) => "v1",
            Key::Private(_) => "v1a",
        });
        f.debug_list().entries(kinds).finish()
    }
}

impl Key {
    fn read(secret: &Secret) -> Result<Self, SigningError> {
        let text = secret.expose_str().ok_or(SigningError::BadSecret)?;
        let decode = |text: &str| BASE64.decode(text).map(Secret::new).map_err(|_| SigningError::BadSecret);
        if let Some(shared) = text.strip_prefix(SHARED_PREFIX) {
            let bytes = decode(shared)?;
            let fits = (24..=64).contains(&bytes.expose().len());
            let key = fits.then(|| hmac::Key::new(hmac::HMAC_SHA256, bytes.expose()));
            return key.map(|key| Self::Shared(Box::new(key))).ok_or(SigningError::BadSecret);
        }
        let both = decode(text.strip_prefix(PRIVATE_PREFIX).ok_or(SigningError::BadSecret)?)?;
        let (seed, public) = both.expose().split_at_checked(KEY_BYTES).ok_or(SigningError::BadSecret)?;
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| SigningError::BadSecret)?;
        Ok(Self::Private(Box::new(pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    const ID: &str = "dlv_0198c1f2a7b37d3e9a4c5b6d7e8f90120000000100000";

    fn standard(secret: &Secret) -> standardwebhooks::Webhook {
        standardwebhooks::Webhook::new(secret.expose_str().unwrap()).unwrap()
    }

    /// The reference library asks the wall clock, so these tests sign for now.
    #[expect(clippy::disallowed_methods, reason = "see above")]
    fn now() -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    }

    fn headers(timestamp: i64, signature: &str) -> http::HeaderMap {
        let mut map = http::HeaderMap::new();
        map.insert("webhook-id", ID.parse().unwrap());
        map.insert("webhook-timestamp", timestamp.to_string().parse().unwrap());
        map.insert("webhook-signature", signature.parse().unwrap());
        map
    }

    #[test]
    fn the_reference_library_accepts_what_we_sign() {
        let secret = generate(SignatureScheme::HmacSha256);
        let signer = Signer::new(std::slice::from_ref(&secret)).unwrap();
        let at = now();
        for body in ["{\"a\":1}", "", "\u{1f4e6} \u{e9}\n", &"x".repeat(100_000)] {
            let header = signer.signature_header(ID, at, body.as_bytes());
            standard(&secret).verify(body.as_bytes(), &headers(at, &header)).unwrap();
            assert!(standard(&secret).verify(b"other", &headers(at, &header)).is_err());
        }
    }

    #[test]
    fn while_rotating_the_old_and_the_new_secret_both_verify() {
        let [old, new, stranger] = [0; 3].map(|_| generate(SignatureScheme::HmacSha256));
        let at = now();
        let header = Signer::new(&[new.clone(), old.clone()]).unwrap().signature_header(ID, at, b"body");
        assert_eq!(header.split(' ').count(), 2);
        assert!(header.split(' ').all(|item| item.starts_with("v1,")));
        for secret in [&old, &new] {
            standard(secret).verify(b"body", &headers(at, &header)).unwrap();
        }
        assert!(standard(&stranger).verify(b"body", &headers(at, &header)).is_err());
    }

    #[test]
    fn a_private_key_signs_and_its_public_key_verifies() {
        let private = generate(SignatureScheme::Ed25519);
        let shared = generate(SignatureScheme::HmacSha256);
        let public = public_key(&private).unwrap();
        assert_eq!(public_key(&shared), None);
        let at = now();
        let header = Signer::new(&[private, shared.clone()]).unwrap().signature_header(ID, at, b"body");
        let (asymmetric, _) = header.split_once(' ').unwrap();
        let signature = BASE64.decode(asymmetric.strip_prefix("v1a,").unwrap()).unwrap();
        let key = BASE64.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
        let message = format!("{ID}.{at}.body");
        UnparsedPublicKey::new(&ED25519, &key).verify(message.as_bytes(), &signature).unwrap();
        // Moving from one scheme to the other is a rotation like any other.
        standard(&shared).verify(b"body", &headers(at, &header)).unwrap();
    }

    #[test]
    fn the_published_vector_of_the_asymmetric_scheme_verifies_with_the_library_we_sign_with() {
        // From the tests of svix-server.
        let key = BASE64.decode("1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=").unwrap();
        let signature = "hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        let message = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        UnparsedPublicKey::new(&ED25519, &key).verify(message, &BASE64.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn two_generated_secrets_differ_and_are_long_enough() {
        for scheme in [SignatureScheme::HmacSha256, SignatureScheme::Ed25519] {
            let [one, two] = [0; 2].map(|_| generate(scheme));
            assert_ne!(one, two);
            assert!(Signer::new(&[one, two]).is_ok());
        }
    }

    #[test]
    fn what_is_not_a_signing_secret_is_refused_without_repeating_it() {
        let half = "whsk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
        for bad in ["", "whsec_", "whsec_c2hvcnQ=", "hunter2", "whsec_%%%", "whsk_c2hvcnQ=", half] {
            let error = Signer::new(&[Secret::from(bad)]).unwrap_err();
            assert_eq!(error, SigningError::BadSecret, "{bad}");
        }
        assert_eq!(Signer::new(&[]).unwrap_err(), SigningError::NoSecret);
        let signer = Signer::new(&[generate(SignatureScheme::HmacSha256)]).unwrap();
        assert_eq!(format!("{signer:?}"), "[\"v1\"]");
    }
}
