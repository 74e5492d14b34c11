//! Commands that work on the data directory itself, also while a server is running on it: `apikey`, `seed`, `keys`,
//! `migrate`.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::keyring::Keyring;
use postroom_domain::{Secret, Timestamp, organization};
use postroom_storage::api::NewApiKey;
use postroom_storage::sqlite::{self, Mode};
use postroom_storage::worker::{DeliveryKey, EndpointKey, StoredEvent};
use postroom_storage::{Handoff, Scope, Storage, SuperAdmin};
use serde_json::json;

use super::output;
use crate::config::{Config, Flags, Loaded};
use crate::{keys, process};

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
        #[arg(long)]
        name: String,
        /// What it may do: events:write, read, admin
        #[arg(long, value_delimiter = ',', default_value = "admin", value_parser = key_scope)]
        scopes: Vec<KeyScope>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

/// `postroom keys`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a fresh encryption key
    #[command(after_help = "Use it as the first of POSTROOM_ENCRYPTION_KEYS.")]
    Generate,
    /// Encrypt every stored secret anew, under the newest key
    #[command(after_help = "To change keys that stand in POSTROOM_ENCRYPTION_KEYS:
  1. put a fresh key (postroom keys generate) first in the list, and restart the server
  2. postroom keys rotate
  3. take the old keys out of the list, and restart the server

To change the key that Postroom made in the data directory:
  1. postroom keys rotate --new-key
  2. if a server is running, restart it and run: postroom keys rotate

It can be stopped at any moment and run again: what is done stays done. Old keys still open old backups.")]
    Rotate {
        /// First put a fresh key in front of those in the data directory
        #[arg(long)]
        new_key: bool,
        #[command(flatten)]
        flags: Box<Flags>,
    },
}

/// `postroom migrate`
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    #[command(subcommand)]
    command: Option<MigrateCommand>,
    #[command(flatten)]
    flags: Flags,
}

/// What to do with the schema.
#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Which migrations the database has
    Status,
    /// Bring the database to this program's version; `serve` does this itself
    Up,
    /// Take the newest migration back, with the data that it holds
    Down {
        /// Yes, delete that data
        #[arg(long)]
        yes: bool,
    },
}

/// The checked settings of a command; warnings go to standard error.
pub fn settings(flags: &Flags) -> anyhow::Result<Config> {
    let loaded = Loaded::read(flags);
    super::config::warn(&loaded.warnings);
    Ok(loaded.config?)
}

/// Opens the data directory for a command, also beside a running server.
pub async fn open(config: &Config) -> anyhow::Result<Storage> {
    let keys = keys::open(config)?;
    super::config::warn(keys.warning.as_slice());
    let options = sqlite::Options {
        data_dir: config.data_dir.clone(),
        keyring: keys.keyring,
        clock: process::clock(),
        handoff: Arc::new(Nowhere),
        dedupe_window: config.dedupe_window,
        retention: config.retention,
        default_attempt_timeout: config.delivery_timeout,
        mode: Mode::Beside,
    };
    Ok(tokio::task::spawn_blocking(|| sqlite::open(options)).await??)
}

/// A command delivers nothing: what it would record waits in storage for the server.
struct Nowhere;

impl Handoff for Nowhere {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        false
    }
    fn deliver(&self, _: Arc<StoredEvent>, _: Vec<EndpointKey>) {}
    fn release(&self, _: EndpointKey, _: usize) {}
    fn wake(&self, _: EndpointKey) {}
    fn is_processing(&self, _: DeliveryKey) -> bool {
        false
    }
}

fn key_scope(text: &str) -> Result<KeyScope, String> {
    let known = KeyScope::ALL.into_iter().find(|scope| scope.as_str() == text);
    known.ok_or_else(|| format!("there are {}", KeyScope::ALL.map(KeyScope::as_str).join(", ")))
}

/// Runs `postroom apikey`.
///
/// # Errors
/// When there is no such organization, or the data directory cannot be used.
pub async fn api_key(command: ApiKeyCommand) -> anyhow::Result<()> {
    let ApiKeyCommand::Create { organization, name, scopes, json, flags } = command;
    let storage = open(&settings(&flags)?).await?;
    let scope = enter(&storage, &organization).await?.with_context(|| {
        format!("there is no organization {:?} in this data directory", output::plain(&organization))
    })?;
    let (key, view) = make_api_key(&storage, &scope, &name, scopes).await?;
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
    let name = organization::name(name).map_err(|invalid| anyhow::anyhow!("--name: {}", invalid.detail))?;
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

/// Runs `postroom keys`.
///
/// # Errors
/// When the keys or the data directory cannot be used.
pub fn keys(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate => Ok(output::line(Keyring::generate().expose_str().unwrap_or_default())?),
        KeysCommand::Rotate { new_key, flags } => rotate(&settings(&flags)?, new_key),
    }
}

fn rotate(config: &Config, new_key: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.data_dir.exists(),
        "{} does not exist: there is nothing to rotate; see --data-dir",
        config.data_dir.display()
    );
    let file = keys::open(config)?.file;
    match (&file, new_key) {
        (Some(file), true) => {
            keys::add(file)?;
            output::note(format!("a fresh key stands first in {}", file.display()));
        }
        (None, true) => bail!(
            "the keys are those of POSTROOM_ENCRYPTION_KEYS: put a fresh one (postroom keys generate) first in it instead"
        ),
        (_, false) => {}
    }
    let keys = keys::open(config)?;
    let bar = indicatif::ProgressBar::new(0);
    let rotated = sqlite::rotate_keys(&config.data_dir, &keys.keyring, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    output::line(format!("{rotated} secrets were encrypted anew; all are under key {}", keys.keyring.newest()))?;
    if keys.keyring.ids().count() > 1 {
        let place = file.map_or_else(|| "POSTROOM_ENCRYPTION_KEYS".to_owned(), |file| file.display().to_string());
        output::note(format!("the older keys in {place} open nothing but old backups now"));
    }
    Ok(())
}

/// Runs `postroom migrate`.
///
/// # Errors
/// When a server is running, or the database cannot be used.
pub fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let data_dir = settings(&args.flags)?.data_dir;
    match args.command {
        None | Some(MigrateCommand::Up) => {
            let applied = sqlite::migrate::up(&data_dir)?;
            if applied.is_empty() {
                output::line("the database is up to date")?;
            }
            applied.iter().try_for_each(|name| output::line(format!("applied {name}")))?;
        }
        Some(MigrateCommand::Status) => {
            for step in sqlite::migrate::status(&data_dir)? {
                let state = if step.applied { "applied" } else { "missing" };
                output::line(format!("{state}  {}", step.name))?;
            }
        }
        Some(MigrateCommand::Down { yes }) => {
            anyhow::ensure!(yes, "this deletes what the newest migration holds: make a backup, then say --yes");
            match sqlite::migrate::down(&data_dir)? {
                Some(name) => output::line(format!("took back {name}"))?,
                None => output::line("there is nothing to take back")?,
            }
        }
    }
    Ok(())
}
