//! From the text of a secret, as its owner pasted it, to the bytes of a key; the usual mistakes are told at once.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519_PUBLIC_KEY_LEN, ParsedPublicKey};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::provider::{FieldError, SecretForm, SecretSpec};
use crate::{Invalid, Secret};

/// The longest secret, in bytes of text.
const MAX_BYTES: usize = 1024;

/// The shortest key that base64 or hexadecimal digits may mean: below this it is a slip, not a key.
const MIN_KEY_BYTES: usize = 8;

/// Base64 that people paste: the padding may be lost.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key in a secret's text.
pub(super) fn bytes(form: SecretForm, spec: &SecretSpec, secret: &Secret) -> Result<Secret, FieldError> {
    read(form, spec, secret).map_err(|invalid| FieldError { field: "secret".to_owned(), invalid })
}

fn read(form: SecretForm, spec: &SecretSpec, secret: &Secret) -> Result<Secret, Invalid> {
    let text = secret.expose_str().ok_or_else(|| Invalid::new("invalid_secret", "the secret is not UTF-8 text"))?;
    if text.trim().is_empty() {
        return Err(Invalid::new("required", format!("give the secret: {}", spec.hint)));
    }
    if text.len() > MAX_BYTES {
        return Err(Invalid::new("too_long", format!("at most {MAX_BYTES} bytes")));
    }
    if text.trim() != text {
        let detail = "the secret begins or ends with white space or a line end; paste it without";
        return Err(Invalid::new("invalid_secret", detail));
    }
    if let Some((_, advice)) = spec.mistakes.iter().find(|(prefix, _)| text.starts_with(prefix)) {
        return Err(Invalid::new("wrong_kind_of_secret", *advice));
    }
    match form {
        SecretForm::None => Err(Invalid::new("not_needed", "this provider has no secret; leave it out")),
        SecretForm::Text => Ok(secret.clone()),
        SecretForm::Hex => hexadecimal(text),
        SecretForm::Base64 => base64_of(text, "base64 of the key"),
        SecretForm::Whsec => whsec(text),
        SecretForm::WhsecOrText if text.starts_with("whsec_") => whsec(text),
        SecretForm::WhsecOrText => Ok(secret.clone()),
        SecretForm::Ed25519Hex => public_key(hex::decode(text).ok(), "64 hexadecimal digits"),
        SecretForm::Whpk => {
            let bytes = text.strip_prefix("whpk_").and_then(|text| STANDARD.decode(text).ok());
            public_key(bytes, "whpk_ and base64 of 32 bytes")
        }
        SecretForm::EcdsaSpki => {
            let bytes = STANDARD.decode(text).ok();
            let key = bytes.filter(|bytes| ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes).is_ok());
            key.map(Secret::new).ok_or_else(|| {
                Invalid::new("invalid_secret", "the verification key: base64 of a P-256 public key, on one line")
            })
        }
        SecretForm::UserAndPassword => match text.split_once(':') {
            Some((user, _)) if !user.is_empty() => Ok(secret.clone()),
            _ => Err(Invalid::new("invalid_secret", "the user name, a colon and the password: user:password")),
        },
    }
}

fn public_key(bytes: Option<Vec<u8>>, expected: &str) -> Result<Secret, Invalid> {
    let bytes = bytes.filter(|bytes| bytes.len() == ED25519_PUBLIC_KEY_LEN);
    bytes.map(Secret::new).ok_or_else(|| Invalid::new("invalid_secret", format!("the public key: {expected}")))
}

fn hexadecimal(text: &str) -> Result<Secret, Invalid> {
    let bytes = hex::decode(text)
        .map_err(|_| Invalid::new("invalid_secret", "the key must be an even number of hexadecimal digits"))?;
    long_enough(bytes)
}

fn base64_of(text: &str, expected: &str) -> Result<Secret, Invalid> {
    let bytes = LENIENT.decode(text).map_err(|_| {
        let alphabet = if text.contains(['-', '_']) { " (the alphabet with + and /, not - and _)" } else { "" };
        Invalid::new("invalid_secret", format!("the secret is not {expected}{alphabet}"))
    })?;
    long_enough(bytes)
}

fn whsec(text: &str) -> Result<Secret, Invalid> {
    base64_of(text.strip_prefix("whsec_").unwrap_or(text), "whsec_ followed by base64 of the key")
}

fn long_enough(bytes: Vec<u8>) -> Result<Secret, Invalid> {
    let bytes = Secret::new(bytes);
    if bytes.expose().len() < MIN_KEY_BYTES {
        let detail = format!("the key in it is shorter than {MIN_KEY_BYTES} bytes; part of the secret is missing");
        return Err(Invalid::new("too_short", detail));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: SecretSpec = SecretSpec {
        form: SecretForm::Text,
        hint: "the signing secret",
        is_optional: false,
        mistakes: &[("sk_", "an API key")],
    };

    fn code(form: SecretForm, text: &str) -> &'static str {
        bytes(form, &SPEC, &Secret::from(text)).map_or_else(|error| error.invalid.code, |_| "ok")
    }

    #[test]
    fn a_secret_of_another_form_is_refused_with_the_usual_mistake() {
        use SecretForm::{Base64, Hex, None, Text, UserAndPassword, Whsec, WhsecOrText};
        for (form, text, expected) in [
            (Text, "whsec_abc", "ok"),
            (Text, "", "required"),
            (Text, " ", "required"),
            (Text, "secret\n", "invalid_secret"),
            (Text, "sk_live_1", "wrong_kind_of_secret"),
            (Text, &"x".repeat(1025), "too_long"),
            (Hex, "00112233445566778899aabbccddeeff", "ok"),
            (Hex, "00112233445566778899aabbccddeef", "invalid_secret"),
            (Hex, "0011", "too_short"),
            (Base64, "c2VjcmV0IG9mIGEgc2VuZGVy", "ok"),
            (Base64, "c2VjcmV0IG9mIGEgc2VuZGVyIQ", "ok"),
            (Base64, "c2VjcmV0-_9mIGEgc2VuZGVy", "invalid_secret"),
            (Whsec, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ok"),
            (Whsec, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ok"),
            (Whsec, "whsec_", "too_short"),
            (Whsec, "whsec_not base64", "invalid_secret"),
            (WhsecOrText, "plain text", "ok"),
            (WhsecOrText, "whsec_%", "invalid_secret"),
            (UserAndPassword, "user:pass", "ok"),
            (UserAndPassword, "user", "invalid_secret"),
            (None, "x", "not_needed"),
        ] {
            assert_eq!(code(form, text), expected, "{form:?} {text:?}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_secret() {
        let error = bytes(SecretForm::Hex, &SPEC, &Secret::from("hunter2!")).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
