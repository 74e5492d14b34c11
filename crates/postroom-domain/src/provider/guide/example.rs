//! What the commands of the guides are tried with: secrets that are nobody's, and the options that a provider needs.

use crate::provider::{Provider, SecretForm};

/// What a source and its sender are given in an example. Everything is one word for a shell.
pub(super) struct Example {
    /// Commands that make the files which the others name.
    pub before: &'static [&'static str],
    /// The source's secret.
    pub secret: Option<&'static str>,
    /// The private key that signs, where the source has the public side of it only.
    pub signing: Option<&'static str>,
    /// The source's options.
    pub options: &'static [(&'static str, &'static str)],
}

const PLAIN: Example = Example { before: &[], secret: None, signing: None, options: &[] };
/// A private key as `sign` reads it from the file that OpenSSL writes.
const KEY_FILE: &str = "\"$(cat key.pem)\"";
/// A private key of the curve P-256 that is nobody's: PKCS#8, in base64.
const EC_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTIn3AbJqwsM403CD3wP/4nIGwBsLG9dXf6WgzJy9uUmhRANCAASbCS9wqtZ+g71lyFwqK2Tqctmjm6B4ql9kp+OhlB6ANFiNUJCY6FpcWOfO6M11vgoVz5Q1Ey1Nb0EQpZ4hG+XS";
/// Its public key as SendGrid shows its own.
const EC_SPKI: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmwkvcKrWfoO9ZchcKitk6nLZo5ugeKpfZKfjoZQegDRYjVCQmOhaXFjnzujNdb4KFc+UNRMtTW9BEKWeIRvl0g==";
/// The same as Plaid tells its own.
const EC_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"mwkvcKrWfoO9ZchcKitk6nLZo5ugeKpfZKfjoZQegDQ","y":"WI1QkJjoWlxY587ozXW-ChXPlDUTLU1vQRClniEb5dI","alg":"ES256","use":"sig","kid":"postroom-sample"}"#;

/// The example of a provider.
pub(super) fn of(provider: &Provider) -> Example {
    match provider.name {
        "stripe" => Example { secret: Some("whsec_an_example"), ..PLAIN },
        "hmac" => {
            Example { secret: Some("an-example-secret"), options: &[("signature_header", "X-Signature")], ..PLAIN }
        }
        "token" => Example { secret: Some("an-example-secret"), options: &[("header", "X-Token")], ..PLAIN },
        "sendgrid" => Example { secret: Some(EC_SPKI), signing: Some(EC_KEY), ..PLAIN },
        "plaid" => Example { signing: Some(EC_KEY), options: &[("jwk", EC_JWK)], ..PLAIN },
        "discord" => Example {
            secret: Some("4f563f05745fee1f9ed60948d4c353b91d15d158373693daa37baa445f595b29"),
            signing: Some("d34ec57c22e0dd9a808da60b53b1fcf414cfa861629c8e68ac114535578e7808"),
            ..PLAIN
        },
        "standard-webhooks-v1a" => Example {
            secret: Some("whpk_T1Y/BXRf7h+e1glI1MNTuR0V0Vg3NpPao3uqRF9ZWyk="),
            signing: Some(
                "whsk_007FfCLg3ZqAjaYLU7H89BTPqGFinI5orBFFNVeOeAhPVj8FdF/uH57WCUjUw1O5HRXRWDc2k9qje6pEX1lbKQ==",
            ),
            ..PLAIN
        },
        "paypal" => Example {
            before: &[
                "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=example.paypal.com",
            ],
            signing: Some(KEY_FILE),
            options: &[("webhook_id", "4JH86294D6297924G"), ("cert_pem", "@cert.pem")],
            ..PLAIN
        },
        "aws-sns" => Example {
            before: &[
                "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=sns.amazonaws.com",
            ],
            signing: Some(KEY_FILE),
            options: &[("cert_pem", "@cert.pem")],
            ..PLAIN
        },
        _ => Example { secret: secret(provider.secret.form), ..PLAIN },
    }
}

fn secret(form: SecretForm) -> Option<&'static str> {
    Some(match form {
        // Public keys have an example of their own above.
        SecretForm::None | SecretForm::Ed25519Hex | SecretForm::Whpk | SecretForm::EcdsaSpki => return None,
        SecretForm::Text => "an-example-secret",
        SecretForm::Hex => "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        SecretForm::Base64 => "ZXhhbXBsZS1zZWNyZXQta2V5",
        SecretForm::Whsec | SecretForm::WhsecOrText => "whsec_ZXhhbXBsZS1zZWNyZXQta2V5LW9mLW91cnM=",
        SecretForm::UserAndPassword => "postroom:an-example-password",
    })
}
