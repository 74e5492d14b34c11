//! Asks providers for keys, through the one client for everything that goes out.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use postroom_delivery::{Client, Fetched, Posted};
use postroom_domain::Secret;
use postroom_domain::verify::{KeyRequest, Post};
use postroom_web::{KeyFetcher, NoKey};
use url::Url;

/// How long a provider's server may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the [module](self).
pub struct Fetcher(pub Client);

impl Fetcher {
    async fn ask(&self, url: &Url, post: Option<Posted>) -> Result<Fetched, NoKey> {
        self.0.fetch(url, post, TIMEOUT).await.map_err(|error| NoKey::Unavailable(error.to_string()))
    }
}

fn posted(post: &Post) -> Result<Posted, NoKey> {
    let header = |value: &Secret| {
        let mut value = HeaderValue::from_bytes(value.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    // What an account is known by is checked when a source is made: this is a proof, not a case.
    let unfit = || NoKey::Unavailable("its credentials can not stand in a header".to_owned());
    Ok(Posted {
        content_type: HeaderValue::from_static(post.content_type),
        authorization: post.authorization.as_ref().map(|value| header(value).ok_or_else(unfit)).transpose()?,
        body: Bytes::copy_from_slice(post.body.expose()),
    })
}

#[async_trait]
impl KeyFetcher for Fetcher {
    async fn fetch(&self, request: &KeyRequest) -> Result<Bytes, NoKey> {
        let post = request.post.as_ref().map(posted).transpose()?;
        let answer = self.ask(&request.url, post).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            // Too many questions is no answer about this key.
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Err(NoKey::Absent(status.as_u16()))
            }
            status => Err(NoKey::Unavailable(format!("the server answers {status}"))),
        }
    }

    async fn visit(&self, url: &Url) -> Result<(), NoKey> {
        let answer = self.ask(url, None).await?;
        if answer.status.is_success() { Ok(()) } else { Err(NoKey::Absent(answer.status.as_u16())) }
    }
}
