//! Keys that a request only names, and that its provider keeps on a server of its own.
//!
//! Nothing is fetched here: a check that lacks a key stops with a [`KeyRequest`], and runs again once its caller has
//! the answer. Only hosts of the provider are ever asked, decided before anything else of the request is believed.

use url::Url;

use super::{Confirm, Refusal};
use crate::Secret;

/// The longest URL that a request may name.
const MAX_URL_BYTES: usize = 512;

/// The longest id of a key.
const MAX_KID_BYTES: usize = 128;

/// A key to fetch. `Debug` shows no credentials.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// What is asked: https, on a host of the provider.
    pub url: Url,
    /// With a `POST` of this JSON, which holds credentials; else with a `GET`.
    pub json: Option<Secret>,
    /// What names this key among all that can be fetched: equal names have equal answers.
    pub name: String,
}

impl KeyRequest {
    pub(super) fn certificate(url: Url) -> Self {
        Self { name: url.as_str().to_owned(), url, json: None }
    }

    /// Plaid's `/webhook_verification_key/get`; none if this can not be the id of a key.
    pub(super) fn plaid(host: &str, client_id: &str, secret: &Secret, kid: &str) -> Option<Self> {
        let fits = !kid.is_empty() && kid.len() <= MAX_KID_BYTES && kid.bytes().all(|byte| byte.is_ascii_graphic());
        let url = Url::parse(&format!("https://{host}/webhook_verification_key/get")).ok().filter(|_| fits)?;
        let secret = secret.expose_str()?;
        let json = serde_json::json!({ "client_id": client_id, "secret": secret, "key_id": kid });
        Some(Self { url, json: Some(Secret::from(json.to_string())), name: format!("{host} {client_id} {kid}") })
    }
}

/// Why a check ends before it has an answer.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    Key(Box<KeyRequest>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A URL in a request that must be one of its provider: https, no user, no other port, and a host that `is_ours`.
pub(super) fn on_host(text: &str, is_ours: impl Fn(&str) -> bool) -> Option<Url> {
    // A backslash or a blank reads differently in different parsers.
    let plain = text.len() <= MAX_URL_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let url = Url::parse(text).ok().filter(|_| plain && text.starts_with("https://"))?;
    let bare = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    let host = url.host_str().filter(|_| bare && url.fragment().is_none())?;
    is_ours(host).then_some(url)
}

/// Whether a host is one of Amazon SNS: `sns.<region>.amazonaws.com`, in China with `.cn` after it.
pub(super) fn is_sns(host: &str) -> bool {
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let region = host.strip_prefix("sns.").and_then(|rest| rest.strip_suffix(".amazonaws.com"));
    region.is_some_and(|region| region.len() >= 3 && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

/// Whether a host is one of PayPal: any below `paypal.com`.
pub(super) fn is_paypal(host: &str) -> bool {
    host.strip_suffix(".paypal.com").is_some_and(|name| !name.is_empty())
}

/// A visit that confirms a subscription; none if the URL is not one of Amazon SNS.
pub(super) fn visit(text: &str) -> Option<Confirm> {
    on_host(text, is_sns).map(|url| Confirm { url })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_the_provider_are_asked() {
        for (text, good) in [
            ("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem", true),
            ("https://sns.cn-north-1.amazonaws.com.cn/x.pem", true),
            ("https://sns.us-east-1.amazonaws.com:443/x.pem", true),
            ("http://sns.us-east-1.amazonaws.com/x.pem", false),
            ("https://sns.us-east-1.amazonaws.com:8443/x.pem", false),
            ("https://sns.us-east-1.amazonaws.com.evil.example/x.pem", false),
            ("https://sns.us.evil.amazonaws.com/x.pem", false),
            ("https://sns.a.amazonaws.com/x.pem", false),
            ("https://s3.us-east-1.amazonaws.com/x.pem", false),
            ("https://evil.example/sns.us-east-1.amazonaws.com/x.pem", false),
            ("https://sns.us-east-1.amazonaws.com@evil.example/x.pem", false),
            ("https://user@sns.us-east-1.amazonaws.com/x.pem", false),
            ("https://evil.example\\@sns.us-east-1.amazonaws.com/x.pem", false),
            ("https://sns.us-east-1.amazonaws.com/x.pem#y", false),
            ("", false),
        ] {
            assert_eq!(on_host(text, is_sns).is_some(), good, "{text}");
        }
        for (text, good) in [
            ("https://api.paypal.com/v1/notifications/certs/CERT-1", true),
            ("https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1", true),
            ("https://paypal.com/x", false),
            ("https://evilpaypal.com/x", false),
            ("https://api.paypal.com.evil.example/x", false),
        ] {
            assert_eq!(on_host(text, is_paypal).is_some(), good, "{text}");
        }
    }

    #[test]
    fn a_request_for_a_key_shows_no_credentials() {
        let request = KeyRequest::plaid("sandbox.plaid.com", "client", &Secret::from("hunter2"), "kid").unwrap();
        assert!(!format!("{request:?}").contains("hunter2") && !request.name.contains("hunter2"));
        assert!(KeyRequest::plaid("sandbox.plaid.com", "client", &Secret::from("x"), "a b").is_none());
        assert!(KeyRequest::plaid("sandbox.plaid.com", "client", &Secret::from("x"), "").is_none());
    }
}
