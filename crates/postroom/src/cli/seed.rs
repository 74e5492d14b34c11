//! `postroom seed`: sample data for trying things out. Running it again changes nothing.

use anyhow::Context as _;
use clap::Args;
use postroom_domain::api_key::KeyScope;
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::organization::Plan;
use postroom_domain::source::SourceSettings;
use postroom_domain::{egress, signing};
use postroom_storage::api::{NewEndpoint, NewSource, PageRequest};
use postroom_storage::platform::NewOrganization;
use postroom_storage::{Scope, Storage, SuperAdmin};
use serde_json::{Map, Value, json};

use super::beside::{self, now};
use super::output::{self, ODD, STRONG, styled};
use crate::config::Flags;
use crate::samples;

const SLUG: &str = "acme-corp";
const ENDPOINT: &str = "http://127.0.0.1:9000/hook";
const KEY_NAME: &str = "seed";
/// Enough to find what an earlier run made.
const LOOK_AT: PageRequest = PageRequest { limit: 250, after: None };

/// Where to put the sample data.
#[derive(Debug, Args)]
#[command(
    after_help = "It works beside a running server on the same database. Secrets and the API key are shown this once."
)]
pub struct SeedArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// What was made; what was there already is `null` or left out.
#[derive(Default)]
struct Made {
    sources: Vec<(String, String)>,
    endpoint: Option<(String, String)>,
    api_key: Option<String>,
}

/// Makes organization `acme-corp` with sources, an endpoint and an API key, as far as they are not there.
///
/// # Errors
/// When the database cannot be used.
pub async fn seed(args: SeedArgs) -> anyhow::Result<()> {
    let config = beside::settings(&args.flags)?;
    let storage = beside::open_or_make(&config).await?;
    let scope = organization(&storage).await?;
    let made = Made {
        sources: sources(&storage, &scope).await?,
        endpoint: endpoint(&storage, &scope).await?,
        api_key: api_key(&storage, &scope).await?,
    };
    storage.platform.close().await?;
    let url = EndpointUrl::parse(ENDPOINT).map_err(|invalid| anyhow::anyhow!(invalid.detail))?;
    let reachable = egress::Policy::new(config.allow_private_networks, Vec::new()).check_url(&url).is_ok();
    if args.json { print_json(&made) } else { print(&made, reachable) }
}

async fn organization(storage: &Storage) -> anyhow::Result<Scope> {
    if let Some(scope) = beside::enter(storage, SLUG).await? {
        return Ok(scope);
    }
    let new = NewOrganization {
        name: "Acme Corp".to_owned(),
        slug: SLUG.to_owned(),
        plan: Plan::Premium,
        webhook_limit: None,
        is_active: true,
        mandrill_webhook_secret: None,
    };
    match storage.platform.organization_create(SuperAdmin::by_operator(), new, now()).await {
        // Another seed was faster.
        Ok(_) | Err(postroom_storage::Error::Taken { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    beside::enter(storage, SLUG).await?.context("the organization that was just made")
}

async fn sources(storage: &Storage, scope: &Scope) -> anyhow::Result<Vec<(String, String)>> {
    let there = storage.api.source_list(scope, LOOK_AT).await?.data;
    let mut made = Vec::new();
    for provider in samples::PROVIDERS {
        if there.iter().any(|source| source.settings.name == provider) {
            continue;
        }
        let secret = samples::secret(provider);
        let settings = SourceSettings { name: provider.to_owned(), provider: provider.to_owned(), options: Map::new() };
        let text = secret.expose_str().unwrap_or_default().to_owned();
        storage.api.source_create(scope, NewSource { settings, secret: Some(secret) }, now()).await?;
        made.push((provider.to_owned(), text));
    }
    Ok(made)
}

async fn endpoint(storage: &Storage, scope: &Scope) -> anyhow::Result<Option<(String, String)>> {
    let there = storage.api.endpoint_list(scope, LOOK_AT).await?.data;
    if there.iter().any(|endpoint| endpoint.settings.url.as_str() == ENDPOINT) {
        return Ok(None);
    }
    let settings = EndpointSettings {
        url: EndpointUrl::parse(ENDPOINT).map_err(|invalid| anyhow::anyhow!(invalid.detail))?,
        description: "sample endpoint".to_owned(),
        event_types: Vec::new(),
        source_ids: Vec::new(),
        filter: None,
        retry_schedule: None,
        timeout_ms: None,
        rate_limit: None,
        headers: Vec::new(),
        signature: SignatureScheme::HmacSha256,
    };
    let secret = signing::generate(SignatureScheme::HmacSha256);
    let text = secret.expose_str().unwrap_or_default().to_owned();
    storage.api.endpoint_create(scope, NewEndpoint { settings, secret }, now()).await?;
    Ok(Some((ENDPOINT.to_owned(), text)))
}

async fn api_key(storage: &Storage, scope: &Scope) -> anyhow::Result<Option<String>> {
    let there = storage.api.api_key_list(scope, LOOK_AT).await?.data;
    if there.iter().any(|key| key.name == KEY_NAME && key.revoked_at.is_none()) {
        return Ok(None);
    }
    let (key, _) = beside::make_api_key(storage, scope, KEY_NAME, vec![KeyScope::Admin]).await?;
    Ok(key.expose_str().map(str::to_owned))
}

fn print_json(made: &Made) -> anyhow::Result<()> {
    let sources: Vec<Value> = made
        .sources
        .iter()
        .map(|(name, secret)| json!({ "name": name, "path": format!("/in/{SLUG}/{name}"), "secret": secret }))
        .collect();
    let endpoint = made.endpoint.as_ref().map(|(url, secret)| json!({ "url": url, "secret": secret }));
    Ok(output::json(&json!({
        "organization": SLUG, "sources": sources, "endpoint": endpoint, "api_key": made.api_key
    }))?)
}

fn print(made: &Made, reachable: bool) -> anyhow::Result<()> {
    if made.sources.is_empty() && made.endpoint.is_none() && made.api_key.is_none() {
        return Ok(output::line(format!("{SLUG} has everything already; `postroom apikey create` makes another key"))?);
    }
    output::line(format!("organization {}\n", styled(STRONG, SLUG)))?;
    let rows =
        made.sources.iter().map(|(name, secret)| vec![name.clone(), format!("/in/{SLUG}/{name}"), secret.clone()]);
    output::table(&["source", "receives at", "signing secret, shown this once"], rows.collect())?;
    if let Some((url, secret)) = &made.endpoint {
        output::line("")?;
        output::table(&["endpoint", "signing secret, shown this once"], vec![vec![url.clone(), secret.clone()]])?;
    }
    if let Some(key) = &made.api_key {
        output::line(format!("\nexport POSTROOM_API_KEY={key}"))?;
    }
    if made.endpoint.is_some() && !reachable {
        output::note(styled(
            ODD,
            "the endpoint is on this machine: serve with --allow-private-networks 127.0.0.0/8 to let deliveries reach it",
        ));
    }
    Ok(())
}
