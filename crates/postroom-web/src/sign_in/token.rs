//! Session tokens: JSON Web Tokens that say which session their bearer shows, and nothing that is believed.
//!
//! Who a session belongs to, what that person may do and whether the session still lasts is asked of storage at every
//! request. The signature only keeps guesses away from there.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use postroom_domain::keyring::Keyring;
use postroom_domain::{Secret, SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// The one algorithm: whoever checks a token has the key that makes them, so nothing is won by two keys.
const ALGORITHM: Algorithm = Algorithm::HS256;
/// The header's `typ`: another kind of token of this installation would be another one.
const TYPE: &str = "postroom-session+jwt";
const ISSUER: &str = "postroom";
const AUDIENCE: &str = "postroom-api";
/// A longer text is no token of ours.
const BYTES_MAX: usize = 1024;
/// The clocks of two processes may differ by so many seconds: a token may be from the near future.
const EARLY_SECONDS_MAX: i64 = 60;

/// The keys that sign session tokens: one from each encryption key, so that a token outlives a new key and no process
/// needs a secret more. The newest signs.
#[derive(Clone)]
pub struct SessionKeys(Arc<[Key]>);

struct Key {
    /// Every token of this key has exactly this header.
    header: Header,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    jti: SessionId,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// What a good token says: where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub user: UserId,
    pub session: SessionId,
}

impl SessionKeys {
    /// The keys that belong to a keyring.
    #[must_use]
    pub fn new(keyring: &Keyring) -> Self {
        let key = |(id, secret): (postroom_domain::keyring::KeyId, Secret)| {
            let mut header = Header::new(ALGORITHM);
            header.typ = Some(TYPE.to_owned());
            header.kid = Some(id.to_string());
            let (encoding, decoding) =
                (EncodingKey::from_secret(secret.expose()), DecodingKey::from_secret(secret.expose()));
            Key { header, encoding, decoding }
        };
        Self(keyring.derived("session token").into_iter().map(key).collect())
    }

    /// The token of a session.
    pub(crate) fn sign(
        &self,
        shown: Shown,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Secret, jsonwebtoken::errors::Error> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: shown.user,
            jti: shown.session,
            iat: now.as_seconds(),
            nbf: now.as_seconds(),
            exp: expires_at.as_seconds(),
        };
        let newest = &self.0[0];
        jsonwebtoken::encode(&newest.header, &claims, &newest.encoding).map(Secret::from)
    }

    /// What a token says, if one of the keys signed it, in the one form that they sign, and it is its time.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<Shown> {
        if token.len() > BYTES_MAX {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Whatever else a header could ask for (`crit`, `jku`, `jwk`, another `typ`) makes it a header of somebody else.
        let key = self.0.iter().find(|key| key.header == header)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation()).ok()?.claims;
        let now = now.as_seconds();
        let in_time =
            claims.nbf <= now + EARLY_SECONDS_MAX && claims.iat <= now + EARLY_SECONDS_MAX && now < claims.exp;
        in_time.then_some(Shown { user: claims.sub, session: claims.jti })
    }
}

/// What the library checks. Times are compared here, with the clock that the program is given.
fn validation() -> Validation {
    let mut validation = Validation::new(ALGORITHM);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.header.kid)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::hmac;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_795_341_600_500)
    }

    fn shown() -> Shown {
        Shown { user: UserId::new(now()), session: SessionId::new(now()) }
    }

    fn later(seconds: u64) -> Timestamp {
        now() + Duration::from_secs(seconds)
    }

    /// A token with any header and claims, signed with the right key of the keyring.
    fn forged(keyring: &Keyring, header: &Value, claims: &Value) -> String {
        let secret = &keyring.derived("session token")[0].1;
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()), message.as_bytes());
        format!("{message}.{}", BASE64.encode(tag))
    }

    fn parts(token: &str) -> (Value, Value) {
        let part = |index: usize| {
            serde_json::from_slice(&BASE64.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
        };
        (part(0), part(1))
    }

    #[test]
    fn a_token_is_good_from_its_moment_to_its_end_and_survives_a_new_encryption_key() {
        let (old, new) = (Keyring::generate(), Keyring::generate());
        let text = |s: &Secret| s.expose_str().unwrap().to_owned();
        let before = SessionKeys::new(&Keyring::parse(&old).unwrap());
        let token = before.sign(shown(), now(), later(10)).unwrap();
        let token = token.expose_str().unwrap();
        let both = SessionKeys::new(&Keyring::parse(&Secret::from(format!("{},{}", text(&new), text(&old)))).unwrap());
        assert_eq!(
            both.verify(token, now()).map(|shown| shown.session),
            before.verify(token, now()).map(|s| s.session)
        );
        assert!(both.verify(token, later(9)).is_some() && both.verify(token, later(10)).is_none());
        let without = SessionKeys::new(&Keyring::parse(&new).unwrap());
        assert!(without.verify(token, now()).is_none(), "a key that was taken away signs nothing any more");
        assert!(!format!("{both:?}").contains(token.split('.').nth(2).unwrap()));
    }

    #[test]
    fn a_header_that_says_anything_else_is_refused_though_the_signature_is_right() {
        let keyring = Keyring::parse(&Keyring::generate()).unwrap();
        let keys = SessionKeys::new(&keyring);
        let token = keys.sign(shown(), now(), later(60)).unwrap();
        let (header, claims) = parts(token.expose_str().unwrap());
        assert!(keys.verify(&forged(&keyring, &header, &claims), now()).is_some(), "the forger is able");
        let kid = header["kid"].as_str().unwrap().to_owned();
        let with = |name: &str, value: Value| {
            let mut header = header.clone();
            header[name] = value;
            header
        };
        let mut all = vec![
            with("alg", json!("none")),
            with("alg", json!("None")),
            with("alg", json!("HS384")),
            with("alg", json!("RS256")),
            with("typ", json!("JWT")),
            with("typ", json!("POSTROOM-SESSION+JWT")),
            with("kid", json!(kid.to_uppercase())),
            with("kid", json!("../../../../dev/null")),
            with("kid", json!("' or 1=1 --")),
            with("kid", json!("")),
            with("kid", json!(0)),
            with("jku", json!("https://evil.example/keys")),
            with("x5u", json!("https://evil.example/cert")),
            with("x5c", json!(["AAAA"])),
            with("jwk", json!({"kty": "oct", "k": "AAAA"})),
            with("crit", json!(["b64"])),
            with("b64", json!(false)),
            with("cty", json!("JWT")),
            with("zip", json!("DEF")),
            with("anything", json!(1)),
            json!([]),
        ];
        for name in ["alg", "typ", "kid"] {
            let mut without = header.clone();
            without.as_object_mut().unwrap().remove(name);
            all.push(without);
        }
        for bad in all {
            assert_eq!(keys.verify(&forged(&keyring, &bad, &claims), now()), None, "{bad}");
        }
    }

    #[test]
    fn claims_that_are_not_exactly_ours_and_now_are_refused_though_the_signature_is_right() {
        let keyring = Keyring::parse(&Keyring::generate()).unwrap();
        let keys = SessionKeys::new(&keyring);
        let (header, claims) = parts(keys.sign(shown(), now(), later(60)).unwrap().expose_str().unwrap());
        let moment = now().as_seconds();
        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            claims
        };
        let mut all = vec![
            with("exp", json!(moment)),
            with("exp", json!(moment - 1)),
            with("exp", json!("9999999999")),
            with("exp", json!(1e30)),
            with("nbf", json!(moment + 61)),
            with("iat", json!(moment + 61)),
            with("aud", json!("other")),
            with("aud", json!([AUDIENCE])),
            with("iss", json!("https://evil.example")),
            with("iss", json!("")),
            with("sub", json!("ses_0198c1f2a7b37d3e9a4c5b6d7e8f9012")),
            with("jti", json!("1")),
            with("role", json!("super_admin")),
        ];
        for name in ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"] {
            let mut without = claims.clone();
            without.as_object_mut().unwrap().remove(name);
            all.push(without);
        }
        for bad in all {
            assert_eq!(keys.verify(&forged(&keyring, &header, &bad), now()), None, "{bad}");
        }
        assert!(keys.verify(&forged(&keyring, &header, &with("nbf", json!(moment + 60))), now()).is_some());
    }

    #[test]
    fn a_changed_or_cut_token_is_no_token() {
        let keyring = Keyring::parse(&Keyring::generate()).unwrap();
        let keys = SessionKeys::new(&keyring);
        let token = keys.sign(shown(), now(), later(60)).unwrap().expose_str().unwrap().to_owned();
        let other = SessionKeys::new(&Keyring::parse(&Keyring::generate()).unwrap());
        assert_eq!(other.verify(&token, now()), None, "another installation's");
        for end in 0..token.len() {
            assert_eq!(keys.verify(&token[..end], now()), None);
        }
        let (message, _) = token.rsplit_once('.').unwrap();
        let long = "a".repeat(BYTES_MAX);
        for bad in [format!("{message}."), format!("{token}."), format!(".{token}"), format!("{token}{long}")] {
            assert_eq!(keys.verify(&bad, now()), None, "{bad}");
        }
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of an unpadded part has bits that mean nothing; the reader refuses those that are set.
            assert_eq!(keys.verify(&changed, now()), None, "{index}");
        }
    }
}
