//! Public keys as JSON Web Keys (RFC 7517), and checking with them. One algorithm per use: a key never says by itself
//! how a signature is made.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::provider::scheme::JwtAlgorithm;
use crate::{Invalid, Timestamp};

/// The most keys that are looked at in one set.
const MAX_KEYS: usize = 32;

/// One key that a token can be checked with.
#[derive(Debug)]
pub(super) struct Key {
    pub kid: Option<String>,
    /// When its owner withdrew it.
    expired_at: Option<Timestamp>,
    key: ParsedPublicKey,
}

impl Key {
    /// Whether this key made the signature over a message.
    pub fn made(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }

    /// Whether its owner has withdrawn it by now.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expired_at.is_some_and(|at| at <= now)
    }
}

/// A key as it is written.
#[derive(Deserialize)]
struct Written {
    kty: String,
    #[serde(default)]
    crv: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    /// Plaid's own: seconds since 1970.
    expired_at: Option<i64>,
}

/// A document: one key, a set of keys, or Plaid's answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Set { keys: Vec<serde_json::Value> },
    Wrapped { key: Written },
    One(Written),
}

/// The keys in a document that fit the algorithm; at least one.
pub(super) fn read(document: &[u8], algorithm: JwtAlgorithm) -> Result<Vec<Key>, Invalid> {
    let invalid = |detail: &str| Invalid::new("invalid_jwk", detail);
    let document: Document = serde_json::from_slice(document)
        .map_err(|_| invalid("a JSON Web Key: {\"kty\": ...}, or a set of them: {\"keys\": [...]}"))?;
    let keys: Vec<Key> = match document {
        Document::One(one) | Document::Wrapped { key: one } => key(one, algorithm).into_iter().collect(),
        // Sets hold keys for other uses, of kinds that we need not know.
        Document::Set { keys } => keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(|value| key(serde_json::from_value(value).ok()?, algorithm))
            .collect(),
    };
    if keys.is_empty() {
        return Err(invalid(&format!("there is no public key for {} in it", algorithm.name())));
    }
    Ok(keys)
}

fn key(written: Written, algorithm: JwtAlgorithm) -> Option<Key> {
    if written.alg.as_deref().is_some_and(|alg| alg != algorithm.name()) {
        return None;
    }
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let point = |length: usize| {
        let (x, y) = (bytes(&written.x)?, bytes(&written.y)?);
        (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    };
    let elliptic = |algorithm: &'static dyn signature::VerificationAlgorithm, length| {
        ParsedPublicKey::new(algorithm, point(length)?).ok()
    };
    let rsa = |parameters: &'static signature::RsaParameters| {
        PublicKeyComponents { n: bytes(&written.n)?, e: bytes(&written.e)? }.to_parsed_public_key(parameters).ok()
    };
    let key = match (algorithm, written.kty.as_str(), written.crv.as_str()) {
        (JwtAlgorithm::Es256, "EC", "P-256") => elliptic(&ECDSA_P256_SHA256_FIXED, 32),
        (JwtAlgorithm::Es384, "EC", "P-384") => elliptic(&ECDSA_P384_SHA384_FIXED, 48),
        (JwtAlgorithm::EdDsa, "OKP", "Ed25519") => ParsedPublicKey::new(&ED25519, bytes(&written.x)?).ok(),
        (JwtAlgorithm::Rs256, "RSA", _) => rsa(&RSA_PKCS1_2048_8192_SHA256),
        (JwtAlgorithm::Rs512, "RSA", _) => rsa(&RSA_PKCS1_2048_8192_SHA512),
        (JwtAlgorithm::Ps256, "RSA", _) => rsa(&RSA_PSS_2048_8192_SHA256),
        _ => None,
    }?;
    Some(Key { kid: written.kid, expired_at: written.expired_at.map(Timestamp::from_seconds), key })
}

impl JwtAlgorithm {
    /// Its name in the `alg` of a token.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_a_key_a_set_or_an_answer_that_holds_one() {
        let key = r#"{"kty":"EC","crv":"P-256","kid":"k","alg":"ES256","use":"sig","expired_at":1,
            "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        for document in [key.to_owned(), format!(r#"{{"key":{key}}}"#), format!(r#"{{"keys":[{{"kty":"X"}},{key}]}}"#)]
        {
            let keys = read(document.as_bytes(), JwtAlgorithm::Es256).unwrap();
            assert_eq!((keys.len(), keys[0].kid.as_deref()), (1, Some("k")));
            assert!(keys[0].is_expired(Timestamp::from_seconds(1)) && !keys[0].is_expired(Timestamp::ZERO));
            assert!(read(document.as_bytes(), JwtAlgorithm::Es384).is_err());
            assert!(read(document.as_bytes(), JwtAlgorithm::Rs256).is_err());
        }
        for bad in ["", "{}", "[]", r#"{"keys":[]}"#, &key.replace("f83O", ""), &key.replace("P-256", "P-521")] {
            assert!(read(bad.as_bytes(), JwtAlgorithm::Es256).is_err(), "{bad}");
        }
    }
}
