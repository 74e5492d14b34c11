//! An endpoint made ready for requests: what is the same in every attempt is worked out once for each state of its
//! configuration.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use postroom_domain::endpoint::{CustomHeader, EndpointUrl};
use postroom_storage::worker::{Endpoint, StoredEvent};

use crate::client::{Client, Destination, Pool, Target};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Headers of an event that are never passed on: they belong to the connection it came on, or are ours to set.
const NOT_PASSED_ON: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) pool: Pool,
    /// Or why no request can be made, in words for the log.
    pub(crate) recipe: Result<Recipe, String>,
}

/// What every request to an endpoint has in common.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) destination: Destination,
    uri: Uri,
    host: HeaderValue,
    user_agent: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What proves to the receiver that an attempt is ours.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) id: HeaderValue,
    pub(crate) timestamp: HeaderValue,
    pub(crate) signature: HeaderValue,
}

impl Prepared {
    pub(crate) fn new(endpoint: Arc<Endpoint>, client: &Client) -> Self {
        let recipe = Recipe::new(&endpoint.settings.url, &endpoint.settings.headers, client.user_agent().clone());
        Self { endpoint, pool: client.pool(), recipe }
    }

    /// The `webhook-*` headers of an attempt made now.
    pub(crate) fn prove(&self, event: &StoredEvent, now_seconds: i64) -> Result<Proof, String> {
        let signer = self.endpoint.signer.as_ref().map_err(Clone::clone)?;
        let id = event.id.to_string();
        let signature = signer.signature_header(&id, now_seconds, &event.body);
        let value = |text: String| {
            HeaderValue::from_maybe_shared(Bytes::from(text)).map_err(|_| "the signature is not a header".to_owned())
        };
        Ok(Proof { id: value(id)?, timestamp: value(now_seconds.to_string())?, signature: value(signature)? })
    }
}

impl Recipe {
    fn new(url: &EndpointUrl, custom: &[CustomHeader], user_agent: HeaderValue) -> Result<Self, String> {
        let Target { destination, uri, host } = Target::of(url.as_url())?;
        Ok(Self {
            destination,
            uri,
            host,
            user_agent,
            headers: custom.iter().map(custom_header).collect::<Result<_, _>>()?,
        })
    }

    /// The request of one attempt. What is later in this order replaces what is earlier: the event's own headers, the
    /// endpoint's, ours.
    pub(crate) fn request(&self, event: &StoredEvent, proof: &Proof) -> Request<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(event.headers.len() + self.headers.len() + 6);
        headers.insert(header::HOST, self.host.clone());
        for (name, value) in event.headers.iter().filter(|(name, _)| may_be_passed_on(name)) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(WEBHOOK_ID, proof.id.clone());
        headers.insert(WEBHOOK_TIMESTAMP, proof.timestamp.clone());
        headers.insert(WEBHOOK_SIGNATURE, proof.signature.clone());
        let mut request = Request::new(Full::new(event.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

fn may_be_passed_on(name: &str) -> bool {
    NOT_PASSED_ON.binary_search(&name).is_err() && !name.starts_with("webhook-") && !name.starts_with("proxy-")
}

fn custom_header(header: &CustomHeader) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::from_bytes(header.name().as_bytes());
    let value = HeaderValue::from_bytes(header.value().expose());
    let (Ok(name), Ok(mut value)) = (name, value) else {
        return Err(format!("the custom header {} can not be sent", header.name()));
    };
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use postroom_domain::{EventId, Timestamp};
    use postroom_storage::worker::{EventKey, OrganizationKey};

    use super::*;

    fn recipe(url: &str, custom: &[(&str, &str)]) -> Recipe {
        let custom: Vec<_> = custom.iter().map(|(n, v)| CustomHeader::new(n, (*v).into()).unwrap()).collect();
        Recipe::new(&EndpointUrl::parse(url).unwrap(), &custom, HeaderValue::from_static("Postroom/1")).unwrap()
    }

    #[test]
    fn the_request_goes_to_the_path_and_names_the_host_as_the_url_does() {
        for (url, target, host, port, tls) in [
            ("https://example.com", "/", "example.com", 443, true),
            ("http://example.com:8080/a/b?c=d&e=%20", "/a/b?c=d&e=%20", "example.com:8080", 8080, false),
            ("http://[::1]:81/?x", "/?x", "[::1]:81", 81, false),
            ("https://Example.com:443/ü?|`^{}", "/%C3%BC?|`^{}", "example.com", 443, true),
            ("https://bücher.example./a|b'c\"d", "/a|b'c%22d", "xn--bcher-kva.example.", 443, true),
        ] {
            let recipe = recipe(url, &[]);
            assert_eq!(recipe.uri.to_string(), target, "{url}");
            assert_eq!(recipe.host, host, "{url}");
            assert_eq!(recipe.destination.port, port, "{url}");
            assert_eq!(recipe.destination.tls.is_some(), tls, "{url}");
        }
    }

    #[test]
    fn our_headers_are_last_and_the_connections_are_nobodys() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers: Vec<_> = NOT_PASSED_ON.iter().map(|name| header(name, "smuggled")).collect();
        headers.extend([
            header("content-type", "application/json"),
            header("content-encoding", "gzip"),
            header("x-github-event", "push"),
            header("x-twice", "1"),
            header("x-twice", "2"),
            header("x-replaced", "by the event"),
            header("webhook-id", "smuggled"),
            header("webhook-signature", "smuggled"),
            header("webhook-other", "smuggled"),
            header("proxy-authorization", "smuggled"),
            header("bad name", "x"),
            header("x-bad-value", "a\r\nb: c"),
        ]);
        let event = StoredEvent {
            key: EventKey::new(1),
            organization: OrganizationKey::new(1),
            id: EventId::new(Timestamp::ZERO),
            event_type: "push".to_owned(),
            headers,
            body: Bytes::from_static(b"{}"),
        };
        let value = HeaderValue::from_static;
        let proof = Proof { id: value("evt_1"), timestamp: value("7"), signature: value("v1,x") };
        let recipe =
            recipe("https://example.com/", &[("X-Replaced", "by the endpoint"), ("authorization", "Bearer t")]);
        let request = recipe.request(&event, &proof);
        let mut sent: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        sent.sort();
        assert_eq!(
            sent,
            [
                "authorization: Bearer t",
                "content-encoding: gzip",
                "content-type: application/json",
                "host: example.com",
                "user-agent: Postroom/1",
                "webhook-id: evt_1",
                "webhook-signature: v1,x",
                "webhook-timestamp: 7",
                "x-github-event: push",
                "x-replaced: by the endpoint",
                "x-twice: 1",
                "x-twice: 2",
            ]
        );
        assert!(NOT_PASSED_ON.is_sorted(), "searched by halves");
        assert!(!format!("{:?}", recipe.headers).contains("Bearer"), "custom values are secrets");
    }
}
