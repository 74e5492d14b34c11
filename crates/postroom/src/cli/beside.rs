//! What commands share that work on the database itself, also while servers are running on it; and `apikey`.

use anyhow::Context as _;
use clap::Subcommand;
use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::{Secret, Timestamp, organization};
use postroom_storage::api::NewApiKey;
use postroom_storage::{Scope, Storage, SuperAdmin};
use serde_json::json;

use super::client::{Client, ServerArgs};
use super::output;
use super::resources::{JsonArgs, ListArgs};
use super::view::{API_KEYS, View};
use crate::config::{Config, Database, Flags, Loaded};
use crate::{database, keys, process};

/// `postroom apikey`
#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Make an API key for an organization; it is shown this once
    #[command(
        after_help = "Example:\n  postroom apikey create --organization acme-corp --name backend --scopes events:write,read"
    )]
    Create {
        /// The organization, by slug or id
        #[arg(long, value_name = "SLUG")]
        organization: String,
        /// What the key is for, for people
        #[arg(long, value_parser = key_name)]
        name: String,
        /// What it may do: events:write, read, admin
        #[arg(long, value_delimiter = ',', default_value = "admin", value_parser = key_scope)]
        scopes: Vec<KeyScope>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// API keys of the organization, newest first, over the API
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Revoke API keys, over the API; every server refuses them within a second
    #[command(after_help = "Example:\n  postroom apikey revoke key_0198c1f2...")]
    Revoke {
        /// key_...
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// The checked settings of a command; warnings go to standard error.
pub fn settings(flags: &Flags) -> anyhow::Result<Config> {
    let loaded = Loaded::read(flags);
    super::config::warn(&loaded.warnings);
    Ok(loaded.config?)
}

/// Opens the database for a command, also beside running servers. Where there is none it is not made: whoever looks for
/// something has given another place.
pub async fn open(config: &Config) -> anyhow::Result<Storage> {
    must_exist(config)?;
    open_or_make(config).await
}

/// Refuses a data directory without a database.
pub fn must_exist(config: &Config) -> anyhow::Result<()> {
    let Database::Embedded(data_dir) = &config.database else { return Ok(()) };
    let shown = data_dir.display();
    anyhow::ensure!(
        keys::database_in(data_dir).try_exists().unwrap_or(true),
        "there is no database in {shown}: give another --data-dir, or run the command where the server runs"
    );
    Ok(())
}

/// The same for a command that may be the first on a new data directory.
pub async fn open_or_make(config: &Config) -> anyhow::Result<Storage> {
    super::config::warn(keys::open(config)?.warning.as_slice());
    database::beside(config).await
}

fn key_name(text: &str) -> Result<String, String> {
    organization::name(text).map_err(|invalid| invalid.detail)
}

fn key_scope(text: &str) -> Result<KeyScope, String> {
    let known = KeyScope::ALL.into_iter().find(|scope| scope.as_str() == text);
    known.ok_or_else(|| format!("there are {}", KeyScope::ALL.map(KeyScope::as_str).join(", ")))
}

/// Runs `postroom apikey`.
///
/// # Errors
/// When there is no such organization, or the database cannot be used.
pub async fn api_key(command: ApiKeyCommand) -> anyhow::Result<()> {
    match command {
        ApiKeyCommand::Create { organization, name, scopes, json, flags } => {
            create_api_key(&organization, &name, scopes, json, &flags).await
        }
        ApiKeyCommand::List { list, json, server } => {
            View::new(Client::from_environment(&server)?, json.json).list(&API_KEYS, &[], list.limit).await
        }
        ApiKeyCommand::Revoke { ids, json, server } => {
            let view = View::new(Client::from_environment(&server)?, json.json);
            for id in &ids {
                view.remove(&API_KEYS, id, "revoked").await?;
            }
            Ok(())
        }
    }
}

async fn create_api_key(
    organization: &str,
    name: &str,
    scopes: Vec<KeyScope>,
    json: bool,
    flags: &Flags,
) -> anyhow::Result<()> {
    let storage = open(&settings(flags)?).await?;
    let scope = enter(&storage, organization)
        .await?
        .with_context(|| format!("there is no organization {:?} in this database", output::plain(organization)))?;
    let (key, view) = make_api_key(&storage, &scope, name, scopes).await?;
    storage.platform.close().await?;
    let key = key.expose_str().unwrap_or_default();
    if json {
        return Ok(output::json(&json!({ "id": view.to_string(), "secret": key, "name": name }))?);
    }
    output::note(format!("{view} for {}, shown this once:", scope.slug()));
    Ok(output::line(key)?)
}

/// The operator's way into an organization.
pub async fn enter(storage: &Storage, id_or_slug: &str) -> anyhow::Result<Option<Scope>> {
    Ok(storage.authorizer.organization_enter(SuperAdmin::by_operator(), id_or_slug).await?)
}

/// Makes a key and returns it with its id.
pub async fn make_api_key(
    storage: &Storage,
    scope: &Scope,
    name: &str,
    scopes: Vec<KeyScope>,
) -> anyhow::Result<(Secret, postroom_domain::ApiKeyId)> {
    let name = name.to_owned();
    let (key, hash) = api_key::generate();
    let text = key.expose_str().unwrap_or_default();
    let last_four = text.get(text.len().saturating_sub(4)..).unwrap_or_default().to_owned();
    let new = NewApiKey { name, scopes, expires_at: None, hash, last_four };
    let view = storage.api.api_key_create(scope, new, now()).await?;
    Ok((key, view.id))
}

/// The time of a command.
pub fn now() -> Timestamp {
    process::clock().now()
}
