//! An endpoint: an outbound URL with secret, subscription and policy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::delivery::RetrySchedule;
use crate::event::EventTypePattern;
use crate::filter::Filter;
use crate::{Invalid, Secret, SourceId};

/// The URL of an endpoint: absolute `http` or `https`, no user name, no fragment, at most 2,048 bytes, written as the
/// one URL parser of this program writes it. Whether its address may be reached is [`crate::egress`]'s to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointUrl(url::Url);

impl EndpointUrl {
    /// The longest URL, in bytes.
    pub const MAX_BYTES: usize = 2048;

    /// Accepts a URL as a caller wrote it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = |detail: &str| Invalid::new("invalid_url", detail);
        if text.len() > Self::MAX_BYTES {
            return Err(Invalid::new("too_long", "at most 2048 bytes"));
        }
        // The parser silently drops tabs and line ends and turns `\` into `/`: what is checked must be what was meant.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(invalid("no spaces, control characters or backslashes"));
        }
        let scheme_given = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme_given.as_deref(), Some("http" | "https")) {
            return Err(invalid("an absolute URL that begins with https:// or http://"));
        }
        let url = url::Url::parse(text).map_err(|error| invalid(&format!("not a valid URL: {error}")))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(invalid("the URL has no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("no user name or password in the URL; use headers for credentials"));
        }
        if url.fragment().is_some() {
            return Err(invalid("no fragment (#...): it is never sent"));
        }
        if url.port() == Some(0) {
            return Err(invalid("port 0 can not be connected to"));
        }
        Ok(Self(url))
    }

    /// The parsed URL.
    #[must_use]
    pub fn as_url(&self) -> &url::Url {
        &self.0
    }

    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<EndpointUrl> for String {
    fn from(url: EndpointUrl) -> Self {
        url.0.into()
    }
}

/// How attempts to an endpoint are signed (Standard Webhooks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureScheme {
    /// `v1`: HMAC-SHA256 with a shared secret (`whsec_…`).
    #[default]
    HmacSha256,
    /// `v1a`: Ed25519; the endpoint's owner gets the public key (`whpk_…`).
    Ed25519,
}

impl SignatureScheme {
    /// The scheme as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac_sha256",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// One header that the owner wants on every attempt. The value may be a credential, so it is kept as a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomHeader {
    name: String,
    value: Secret,
}

impl CustomHeader {
    /// The most custom headers of an endpoint.
    pub const MAX_COUNT: usize = 20;

    /// Accepts a header: a token of at most 64 bytes that is not ours or the connection's to set, and a value of at
    /// most 4,096 visible ASCII characters and inner spaces.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(name: &str, value: Secret) -> Result<Self, Invalid> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
            return Err(Invalid::new("invalid_header_name", "a header name of 1 to 64 letters, digits and hyphens"));
        }
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
            return Err(Invalid::new("reserved_header", format!("{lower} is set by Postroom or by the connection")));
        }
        let bytes = value.expose();
        if bytes.len() > 4096 {
            return Err(Invalid::new("too_long", "a header value of at most 4096 bytes"));
        }
        if !bytes.iter().all(|b| matches!(b, 0x20..=0x7e)) || bytes.trim_ascii() != bytes {
            return Err(Invalid::new(
                "invalid_header_value",
                "visible ASCII characters and inner spaces only, without line ends",
            ));
        }
        Ok(Self { name: lower, value })
    }

    /// The name, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &Secret {
        &self.value
    }
}

/// Headers that belong to the message or the connection, not to the owner of an endpoint.
const RESERVED: [&str; 14] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "user-agent",
    "date",
    "via",
];
const RESERVED_PREFIXES: [&str; 3] = ["webhook-", "proxy-", "postroom-"];

/// Everything about an endpoint that its owner decides.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSettings {
    /// Where attempts go.
    pub url: EndpointUrl,
    /// For people; at most 500 characters.
    pub description: String,
    /// Which event types it wants; empty is all.
    pub event_types: Vec<EventTypePattern>,
    /// Which sources it wants events of; empty is all, and the organization's own events.
    pub source_ids: Vec<SourceId>,
    /// A condition on the payload.
    pub filter: Option<Filter>,
    /// Its own schedule; `None` is the installation's.
    pub retry_schedule: Option<RetrySchedule>,
    /// Its own deadline of one attempt, in milliseconds (1,000 to 30,000); `None` is the installation's.
    pub timeout_ms: Option<u32>,
    /// At most so many attempts a second (1 to 10,000); `None` is unlimited.
    pub rate_limit: Option<u32>,
    /// Extra headers of every attempt.
    pub headers: Vec<CustomHeader>,
    /// How attempts are signed.
    pub signature: SignatureScheme,
}

/// What of an endpoint's settings says which events it wants: all that may be known where events are accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// As in [`EndpointSettings`].
    pub event_types: Vec<EventTypePattern>,
    /// As in [`EndpointSettings`].
    pub source_ids: Vec<SourceId>,
    /// As in [`EndpointSettings`].
    pub filter: Option<Filter>,
}

impl Subscription {
    /// Whether the endpoint wants an event. `payload` is asked for only when a filter needs it; a payload that is not
    /// JSON matches no filter.
    pub fn wants<'p>(
        &self,
        event_type: &str,
        source: Option<SourceId>,
        payload: impl FnOnce() -> Option<&'p serde_json::Value>,
    ) -> bool {
        let of_type = self.event_types.is_empty() || self.event_types.iter().any(|p| p.matches(event_type));
        let of_source = self.source_ids.is_empty() || source.is_some_and(|source| self.source_ids.contains(&source));
        of_type
            && of_source
            && self.filter.as_ref().is_none_or(|filter| payload().is_some_and(|json| filter.matches(json)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_web_addresses_are_urls_of_endpoints() {
        for good in
            ["https://example.com/hook", "http://127.0.0.1:9000/", "HTTPS://Example.com/x?y=1", "https://[::1]/"]
        {
            assert!(EndpointUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "data:,x",
            "https://",
            "https://user@example.com",
            "https://u:p@example.com",
            "https://example.com/#f",
            "https://example.com:0/",
            "https://exa mple.com",
            "https://example.com\\@evil.com",
            "https://example.com/\n",
            "https://example.com:65536",
            "https:example.com",
            "http:/x",
        ] {
            assert!(EndpointUrl::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(EndpointUrl::parse(&format!("https://a/{}", "x".repeat(2048))).unwrap_err().code, "too_long");
    }

    #[test]
    fn custom_headers_cannot_smuggle_or_replace_ours() {
        assert!(CustomHeader::new("Authorization", "Bearer x".into()).is_ok());
        for name in ["Host", "content-length", "WEBHOOK-ID", "proxy-authorization", "te", "Content-Type"] {
            assert_eq!(CustomHeader::new(name, "x".into()).unwrap_err().code, "reserved_header", "{name}");
        }
        for name in ["", "a b", "a:b", "é", "x\r\ny"] {
            assert_eq!(CustomHeader::new(name, "x".into()).unwrap_err().code, "invalid_header_name", "{name}");
        }
        for value in ["a\r\nb: c", "a\0", "é", " a", "a\t"] {
            assert_eq!(CustomHeader::new("x", value.into()).unwrap_err().code, "invalid_header_value", "{value:?}");
        }
    }
}
