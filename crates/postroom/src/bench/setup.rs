//! Gets a server ready for a bench over its own API: organizations, sources, endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use postroom_domain::Secret;
use serde_json::{Value, json};

use super::event::{Shape, event_type, hmac_key, path};
use super::load::{Kind, bearer};
use crate::cli::client::Client;

/// What a server of the bench's own was given.
pub struct Prepared {
    /// Ids of the organizations made.
    pub organizations: Vec<String>,
    /// Webhooks from outside.
    pub inbound: Kind,
    /// The organizations' own events.
    pub own: Kind,
}

/// The secret that inbound webhooks are signed with.
pub fn source_secret() -> String {
    hex::encode(Secret::random(24).expose())
}

/// Makes all organizations of a run with one source and their endpoints.
pub async fn prepare(
    server: SocketAddr,
    admin_token: &str,
    run: &str,
    secret: &str,
    shape: &Shape,
    receiver: SocketAddr,
) -> anyhow::Result<Prepared> {
    let url = format!("http://{server}");
    let admin = Client::new(&url, &Secret::from(admin_token), None)?;
    let made = try_join_all((0..shape.organizations).map(|number| {
        let (admin, url) = (&admin, &url);
        async move {
            let (name, slug) = (format!("Bench {run} {number}"), slug(run, number));
            let body = json!({ "name": name, "slug": slug, "plan": "premium" });
            let made = admin.post("/v1/tenants", Some(&body)).await?;
            let key = made["api_key"]["secret"].as_str().context("a new tenant has an API key")?.to_owned();
            let client = Client::new(url, &Secret::from(key.as_str()), None)?;
            make_source(&client, "github", secret).await?;
            make_endpoints(&client, number, shape.endpoints, receiver).await?;
            let id = made["organization"]["id"].as_str().context("a new tenant has an organization")?.to_owned();
            anyhow::Ok((id, key))
        }
    }))
    .await
    .context("the server could not be prepared for the bench")?;
    let paths = (0..shape.organizations).map(|number| format!("/in/{}/github", slug(run, number))).collect();
    let keys: anyhow::Result<Vec<_>> = made.iter().map(|(_, key)| bearer(key)).collect();
    Ok(Prepared {
        organizations: made.into_iter().map(|(id, _)| id).collect(),
        inbound: Kind::Inbound { key: Arc::new(hmac_key(secret)), paths },
        own: Kind::Own { keys: keys?.into() },
    })
}

/// Unlike those of every other run, because a database may have seen one before.
fn slug(run: &str, number: u64) -> String {
    format!("bench-{run}-{number}")
}

async fn make_source(client: &Client, name: &str, secret: &str) -> anyhow::Result<Value> {
    client.post("/v1/sources", Some(&json!({ "provider": "github", "name": name, "secret": secret }))).await
}

/// Endpoints that want one event type each. Returns their ids.
async fn make_endpoints(
    client: &Client,
    organization: u64,
    count: u64,
    receiver: SocketAddr,
) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for number in 0..count {
        let url = format!("http://{receiver}{}", path(organization, number));
        let body = json!({ "url": url, "event_types": [event_type(number)], "description": "postroom bench" });
        let made = client.post("/v1/endpoints", Some(&body)).await?;
        ids.push(made["id"].as_str().context("an endpoint has an id")?.to_owned());
    }
    Ok(ids)
}

/// What was added to a server that is not the bench's own, to be taken away again.
pub struct Guest {
    client: Client,
    source: String,
    endpoints: Vec<String>,
    /// Webhooks from outside.
    pub kind: Kind,
}

impl Guest {
    /// Adds a source and endpoints to the organization of an API key.
    pub async fn add(
        client: Client,
        api_key: &str,
        own: bool,
        run: &str,
        shape: &Shape,
        receiver: SocketAddr,
    ) -> anyhow::Result<Self> {
        let secret = source_secret();
        let source = make_source(&client, &format!("bench-{run}"), &secret).await?;
        let id = source["id"].as_str().context("a source has an id")?.to_owned();
        let endpoints = make_endpoints(&client, 0, shape.endpoints, receiver).await?;
        let kind = if own {
            Kind::Own { keys: Arc::new([bearer(api_key)?]) }
        } else {
            let url = source["url"].as_str().context("a source has a URL")?;
            let path = url::Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.path().to_owned());
            Kind::Inbound { key: Arc::new(hmac_key(&secret)), paths: Arc::new([path]) }
        };
        Ok(Self { client, source: id, endpoints, kind })
    }

    /// Takes everything away again.
    pub async fn remove(&self) -> anyhow::Result<()> {
        let paths = self.endpoints.iter().map(|id| format!("/v1/endpoints/{id}"));
        for path in paths.chain([format!("/v1/sources/{}", self.source)]) {
            self.client.json(http::Method::DELETE, &path, None).await?;
        }
        Ok(())
    }
}
