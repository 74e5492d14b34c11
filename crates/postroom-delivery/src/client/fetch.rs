//! Single requests beside deliveries: a provider's key, or a visit that it asks for. The same guard, the same client; an
//! answer in full or none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use url::Url;

use super::connection::BODY_KEPT_MAX;
use super::{Client, Target};

/// An answer in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its status; a redirect is one like any other, and not followed.
    pub status: StatusCode,
    /// Its body, at most 16 KiB.
    pub body: Bytes,
}

/// What is posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The media type of the body.
    pub content_type: HeaderValue,
    /// The value of the header `Authorization`; mark it as sensitive.
    pub authorization: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
}

/// There is no answer in full; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(String);

impl Client {
    /// Asks for a URL: with a `POST` of this, or with a `GET`. No connection is kept.
    ///
    /// # Errors
    /// The address may not be dialled, nobody answers in time, or the answer is longer than 16 KiB.
    pub async fn fetch(&self, url: &Url, post: Option<Posted>, timeout: Duration) -> Result<Fetched, FetchError> {
        let target = Target::of(url).map_err(FetchError)?;
        let mut answer = None;
        let pool = self.pool();
        let make = || request(&target, self.user_agent(), post.clone());
        let exchange = self.exchange(&pool, &target.destination, make, &mut answer);
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(FetchError(error.to_string())),
            Err(_) => return Err(FetchError(format!("no answer within {} s", timeout.as_secs()))),
        }
        let answer = answer.ok_or_else(|| FetchError("no answer".to_owned()))?;
        if answer.body.len() >= BODY_KEPT_MAX {
            return Err(FetchError(format!("the answer is longer than {} KiB", BODY_KEPT_MAX / 1024)));
        }
        Ok(Fetched { status: answer.head.status, body: answer.body.freeze() })
    }
}

fn request(target: &Target, user_agent: &HeaderValue, post: Option<Posted>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = target.uri.clone();
    let headers = request.headers_mut();
    headers.insert(header::HOST, target.host.clone());
    headers.insert(header::USER_AGENT, user_agent.clone());
    if let Some(post) = post {
        headers.insert(header::CONTENT_TYPE, post.content_type);
        headers.extend(post.authorization.map(|value| (header::AUTHORIZATION, value)));
        *request.method_mut() = Method::POST;
        *request.body_mut() = Full::new(post.body);
    }
    request
}
