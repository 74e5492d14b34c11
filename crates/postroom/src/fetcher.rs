//! Asks providers for keys, through the one client for everything that goes out.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use postroom_delivery::{Client, Fetched};
use postroom_domain::verify::KeyRequest;
use postroom_web::{KeyFetcher, NoKey};
use url::Url;

/// How long a provider's server may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the [module](self).
pub struct Fetcher(pub Client);

impl Fetcher {
    async fn ask(&self, url: &Url, json: Option<Bytes>) -> Result<Fetched, NoKey> {
        self.0.fetch(url, json, TIMEOUT).await.map_err(|error| NoKey::Unavailable(error.to_string()))
    }
}

#[async_trait]
impl KeyFetcher for Fetcher {
    async fn fetch(&self, request: &KeyRequest) -> Result<Bytes, NoKey> {
        let json = request.json.as_ref().map(|json| Bytes::copy_from_slice(json.expose()));
        let answer = self.ask(&request.url, json).await?;
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
