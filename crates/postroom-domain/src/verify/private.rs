//! Private keys, for `sign` to play a provider whose sources hold only the public side.
//!
//! A key is PKCS#8 in PEM (`openssl genpkey`), or the same in base64 on one line; Discord's is the 32 bytes of a seed
//! in hexadecimal digits, and one of Standard Webhooks is `whsk_` and base64 of seed and public key.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, Pem};
use x509_parser::public_key::RSAPublicKey;

use crate::Secret;
use crate::provider::scheme::{Algorithm, Hmac, JwtAlgorithm, Scheme};
use crate::provider::{FieldError, Provider, SecretForm};

/// What a source is given so that it accepts what a private key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicSide {
    /// The source's secret: the public key.
    Secret(String),
    /// The source's option `jwk`.
    Jwk(String),
    /// The source's option `cert_pem`: a certificate that somebody has to make for this key (PKCS#8).
    Certificate(Secret),
}

/// The id that made-up keys have.
pub(super) const SAMPLE_KID: &str = "postroom-sample";

/// How a provider's requests are signed by a private key; `None` where secrets are shared.
pub(super) enum Kind {
    Public(Algorithm, SecretForm),
    Jwt(JwtAlgorithm),
    Certificate,
}

impl Kind {
    pub fn of(provider: &Provider, algorithm: Option<JwtAlgorithm>) -> Option<Self> {
        match provider.scheme {
            Scheme::Hmac([Hmac { algorithm, .. }, ..]) if algorithm.is_public_key() => {
                Some(Self::Public(*algorithm, provider.secret.form))
            }
            Scheme::Jwt(_) | Scheme::JwtFromOptions => algorithm.filter(|a| !a.is_shared()).map(Self::Jwt),
            _ if provider.is_certified() => Some(Self::Certificate),
            _ => None,
        }
    }

    /// What a source needs to accept what this key signs.
    pub fn public_side(&self, private: &Secret) -> Result<PublicSide, FieldError> {
        Ok(match self {
            Self::Public(Algorithm::EcdsaP256, _) => {
                let key = ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, private)?;
                let der: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| unusable())?;
                PublicSide::Secret(STANDARD.encode(der.as_ref()))
            }
            Self::Public(_, form) => {
                let key = ed25519(*form, private)?;
                let public = key.public_key().as_ref();
                PublicSide::Secret(match form {
                    SecretForm::Whpk => format!("whpk_{}", STANDARD.encode(public)),
                    _ => hex::encode(public),
                })
            }
            Self::Jwt(algorithm) => PublicSide::Jwk(jwk(*algorithm, private)?.to_string()),
            Self::Certificate => {
                rsa_key(private)?;
                PublicSide::Certificate(pkcs8(private)?)
            }
        })
    }
}

impl Kind {
    /// A fresh private key.
    pub fn generate(&self) -> Result<Secret, FieldError> {
        let random = SystemRandom::new();
        let encoded = |der: &[u8]| Secret::from(STANDARD.encode(der));
        let ecdsa = |algorithm| EcdsaKeyPair::generate_pkcs8(algorithm, &random).map(|der| encoded(der.as_ref()));
        let generated = match self {
            Self::Public(Algorithm::EcdsaP256, _) => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
            Self::Public(_, form) => {
                let seed = Secret::random(32);
                let key = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| unusable())?;
                let both = || [seed.expose(), key.public_key().as_ref()].concat();
                Ok(Secret::from(match form {
                    SecretForm::Whpk => format!("whsk_{}", STANDARD.encode(both())),
                    _ => hex::encode(seed.expose()),
                }))
            }
            Self::Jwt(JwtAlgorithm::Es256) => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Self::Jwt(JwtAlgorithm::Es384) => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Self::Jwt(JwtAlgorithm::EdDsa) => Ed25519KeyPair::generate_pkcs8(&random).map(|der| encoded(der.as_ref())),
            Self::Jwt(_) | Self::Certificate => rsa::KeyPair::generate(KeySize::Rsa2048).and_then(|key| {
                let der: Pkcs8V1Der<'_> = key.as_der()?;
                Ok(encoded(der.as_ref()))
            }),
        };
        generated.map_err(|_| unusable())
    }
}

/// A public-key signature over a message.
pub(super) fn sign(
    algorithm: Algorithm,
    form: SecretForm,
    private: &Secret,
    message: &[u8],
) -> Result<Vec<u8>, FieldError> {
    match algorithm {
        Algorithm::EcdsaP256 => ecdsa_signature(&ECDSA_P256_SHA256_ASN1_SIGNING, private, message),
        _ => Ok(ed25519(form, private)?.sign(message).as_ref().to_vec()),
    }
}

/// A token's signature.
pub(super) fn sign_token(algorithm: JwtAlgorithm, private: &Secret, message: &[u8]) -> Result<Vec<u8>, FieldError> {
    match algorithm {
        JwtAlgorithm::Es256 => ecdsa_signature(&ECDSA_P256_SHA256_FIXED_SIGNING, private, message),
        JwtAlgorithm::Es384 => ecdsa_signature(&ECDSA_P384_SHA384_FIXED_SIGNING, private, message),
        JwtAlgorithm::EdDsa => Ok(ed25519(SecretForm::Text, private)?.sign(message).as_ref().to_vec()),
        JwtAlgorithm::Rs512 => rsa_with(&RSA_PKCS1_SHA512, private, message),
        JwtAlgorithm::Ps256 => rsa_with(&RSA_PSS_SHA256, private, message),
        _ => rsa_with(&RSA_PKCS1_SHA256, private, message),
    }
}

/// RSA, PKCS#1 v1.5 with SHA-256.
pub(super) fn rsa_signature(private: &Secret, message: &[u8]) -> Result<Vec<u8>, FieldError> {
    rsa_with(&RSA_PKCS1_SHA256, private, message)
}

fn rsa_with(encoding: &'static dyn RsaEncoding, private: &Secret, message: &[u8]) -> Result<Vec<u8>, FieldError> {
    let key = rsa_key(private)?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| unusable())?;
    Ok(signature)
}

fn ecdsa_signature(
    algorithm: &'static EcdsaSigningAlgorithm,
    private: &Secret,
    message: &[u8],
) -> Result<Vec<u8>, FieldError> {
    let signature = ecdsa(algorithm, private)?.sign(&SystemRandom::new(), message).map_err(|_| unusable())?;
    Ok(signature.as_ref().to_vec())
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, private: &Secret) -> Result<EcdsaKeyPair, FieldError> {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8(private)?.expose()).map_err(|_| unusable())
}

fn rsa_key(private: &Secret) -> Result<rsa::KeyPair, FieldError> {
    rsa::KeyPair::from_pkcs8(pkcs8(private)?.expose()).map_err(|_| unusable())
}

fn ed25519(form: SecretForm, private: &Secret) -> Result<Ed25519KeyPair, FieldError> {
    let text = private.expose_str().ok_or_else(unusable)?;
    let seed = match form {
        SecretForm::Ed25519Hex => hex::decode(text).ok().map(Secret::new),
        SecretForm::Whpk => text.strip_prefix("whsk_").and_then(|text| STANDARD.decode(text).ok()).map(Secret::new),
        _ => return Ed25519KeyPair::from_pkcs8(pkcs8(private)?.expose()).map_err(|_| unusable()),
    };
    let seed = seed.ok_or_else(unusable)?;
    match seed.expose().split_at_checked(32) {
        Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| unusable()),
        Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| unusable()),
        None => Err(unusable()),
    }
}

fn jwk(algorithm: JwtAlgorithm, private: &Secret) -> Result<Value, FieldError> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = |algorithm, curve: &str| {
        let key = ecdsa(algorithm, private)?;
        // The uncompressed point: a 4, then both halves.
        let halves = key.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = halves.split_at(halves.len() / 2);
        Ok(json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) }))
    };
    let mut key = match algorithm {
        JwtAlgorithm::Es256 => point(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")?,
        JwtAlgorithm::Es384 => point(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")?,
        JwtAlgorithm::EdDsa => {
            let key = ed25519(SecretForm::Text, private)?;
            json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
        }
        _ => {
            let key = rsa_key(private)?;
            let (_, public) = RSAPublicKey::from_der(key.public_key().as_ref()).map_err(|_| unusable())?;
            // A number of DER begins with a zero where its first bit is set.
            let [n, e] = [public.modulus, public.exponent].map(|n| text(n.strip_prefix(&[0]).unwrap_or(n)));
            json!({ "kty": "RSA", "n": n, "e": e })
        }
    };
    for (name, value) in [("alg", algorithm.name()), ("use", "sig"), ("kid", SAMPLE_KID)] {
        key[name] = value.into();
    }
    Ok(key)
}

fn pkcs8(private: &Secret) -> Result<Secret, FieldError> {
    let text = private.expose_str().ok_or_else(unusable)?.trim();
    if !text.starts_with("-----BEGIN") {
        return STANDARD.decode(text).map(Secret::new).map_err(|_| unusable());
    }
    let block = Pem::iter_from_buffer(text.as_bytes()).flatten().find(|block| block.label == "PRIVATE KEY");
    block.map(|block| Secret::new(block.contents)).ok_or_else(unusable)
}

fn unusable() -> FieldError {
    let detail = "to sign as this provider give the private key, of the right kind: PKCS#8 in PEM, as `openssl genpkey` \
                  writes it (Discord: 64 hexadecimal digits; Standard Webhooks v1a: whsk_...)";
    FieldError::new("secret", "invalid_private_key", detail)
}
