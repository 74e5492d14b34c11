//! What only the provider's own server can answer: keys that a request names, and PayPal's postback.
//!
//! Nothing is fetched here: a check that lacks an answer stops with a [`KeyRequest`], and runs again once its caller has
//! it. Only hosts of the provider are ever asked, decided before anything else of the request is believed.

use url::Url;

use super::{Confirm, Refusal};
use crate::Secret;

/// The longest URL that a request may name.
const MAX_URL_BYTES: usize = 512;

/// The longest id of a key.
const MAX_KID_BYTES: usize = 128;

/// The longest access token, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// A question to a provider's server. `Debug` shows no credentials.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// What is asked: https, on a host of the provider.
    pub url: Url,
    /// With a `POST` of this; else with a `GET`.
    pub post: Option<Post>,
    /// What names this answer among all that can be fetched: equal names have equal answers.
    pub name: String,
    /// The question whose answer gives the access token that this one needs (OAuth 2.0, RFC 6749). An answer had with a
    /// token is about one request: it must not be kept.
    pub token: Option<Box<KeyRequest>>,
}

/// What is posted with a question.
#[derive(Debug, Clone)]
pub struct Post {
    /// The media type of the body.
    pub content_type: &'static str,
    /// The value of the header `Authorization`.
    pub authorization: Option<Secret>,
    /// The body; it may hold credentials.
    pub body: Secret,
}

impl Post {
    pub(super) fn json(body: impl Into<Secret>) -> Self {
        Self { content_type: "application/json", authorization: None, body: body.into() }
    }
}

impl KeyRequest {
    pub(super) fn certificate(url: Url) -> Self {
        Self { name: url.as_str().to_owned(), url, post: None, token: None }
    }

    /// This question with the access token in the answer to [`token`](Self::token); none if there is no token in it.
    #[must_use]
    pub fn with_token(&self, answer: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Granted {
            access_token: String,
        }
        let Granted { access_token } = serde_json::from_slice(answer).ok()?;
        let fits = (1..=MAX_TOKEN_BYTES).contains(&access_token.len());
        let bearer = Secret::from(format!("Bearer {access_token}"));
        let fits = fits && access_token.bytes().all(|byte| byte.is_ascii_graphic());
        let post = self.post.clone().filter(|_| fits)?;
        Some(Self { post: Some(Post { authorization: Some(bearer), ..post }), token: None, ..self.clone() })
    }

    /// Plaid's `/webhook_verification_key/get`; none if this can not be the id of a key.
    pub(super) fn plaid(host: &str, client_id: &str, secret: &Secret, kid: &str) -> Option<Self> {
        let fits = !kid.is_empty() && kid.len() <= MAX_KID_BYTES && kid.bytes().all(|byte| byte.is_ascii_graphic());
        let url = Url::parse(&format!("https://{host}/webhook_verification_key/get")).ok().filter(|_| fits)?;
        let secret = secret.expose_str()?;
        let json = serde_json::json!({ "client_id": client_id, "secret": secret, "key_id": kid });
        let name = format!("{host} {client_id} {kid}");
        Some(Self { url, post: Some(Post::json(json.to_string())), name, token: None })
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
        let granted = request.with_token(br#"{"access_token":"A21AAF","token_type":"Bearer"}"#).unwrap();
        assert_eq!(granted.post.as_ref().unwrap().authorization, Some(Secret::from("Bearer A21AAF")));
        assert!(!format!("{granted:?}").contains("A21AAF"));
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(MAX_TOKEN_BYTES + 1));
        for bad in
            ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":"a\r\nb"}"#, r#"{"access_token":"a b"}"#, &long]
        {
            assert!(request.with_token(bad.as_bytes()).is_none(), "{bad:.40}");
        }
    }
}
