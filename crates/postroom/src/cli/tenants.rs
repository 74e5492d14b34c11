//! `postroom tenants`: organizations with a database of their own.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use postroom_storage::copy::{self, Installation, Logins};
use postroom_storage::platform::Isolation;
use serde_json::json;

use super::copy::{Progress, explain};
use super::{beside, output};
use crate::config::{Config, Database, Flags, Loaded};
use crate::keys;

/// `postroom tenants`
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// Organizations with a database of their own
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Move an organization into a database of its own, or back, on PostgreSQL while servers run
    #[command(after_help = "Examples:
  postroom tenants move acme-corp --to dedicated
  postroom tenants move acme-corp --to shared

Its data is copied, compared by rows and hashes, and then deleted where it was. It can be stopped at any moment and run
again: until all is copied and the same, the organization stays where it was. Moving back deletes the database it had.

On PostgreSQL servers go on running, and only this organization's requests get a 503 meanwhile. It needs
POSTROOM_MIGRATE_DATABASE_URL, with a login that may make databases. With the embedded engine, stop the server first.")]
    Move(MoveArgs),
}

/// What to move.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The organization, by slug or id
    organization: String,
    /// Where to
    #[arg(long, value_enum)]
    to: Where,
    #[command(flatten)]
    flags: Flags,
}

/// Where an organization can be moved.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Where {
    /// A database of its own
    Dedicated,
    /// The database that all share
    Shared,
}

/// Runs `postroom tenants`. The exit code is 1 when what was copied is not the same, and nothing was moved.
///
/// # Errors
/// When the embedded engine is in use, a server does not let go of the organization, or there is no such one.
pub async fn tenants(command: TenantsCommand) -> anyhow::Result<ExitCode> {
    match command {
        TenantsCommand::List { json, flags } => list(&settings(&flags)?, json).await,
        TenantsCommand::Move(args) => move_to(args).await,
    }
}

fn settings(flags: &Flags) -> anyhow::Result<Config> {
    let loaded = Loaded::read_without_keys(flags);
    super::config::warn(&loaded.warnings);
    Ok(loaded.config?)
}

fn installation(config: &Config) -> Installation {
    match &config.database {
        Database::Embedded(data_dir) => Installation::Embedded(data_dir.clone()),
        Database::Postgres(database) => Installation::Postgres(Logins {
            owner: database.owning_url().clone(),
            url: database.url.clone(),
            part_urls: database.part_urls.clone(),
            patience: copy::PATIENCE,
        }),
    }
}

async fn list(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    for tenant in copy::dedicated(&installation(config)).await? {
        let (id, slug, url) = (tenant.organization.to_string(), tenant.slug, tenant.url);
        if json {
            output::json(&json!({ "organization": id, "slug": slug, "url": url, "complete": tenant.is_complete }))?;
        } else {
            let state = if tenant.is_complete { "" } else { "  being made" };
            output::line(format!("{id}  {}  {}{state}", output::plain(&slug), output::plain(&url)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn move_to(args: MoveArgs) -> anyhow::Result<ExitCode> {
    let MoveArgs { organization, to, flags } = args;
    let config = beside::settings(&flags)?;
    beside::must_exist(&config)?;
    let keys = keys::open(&config)?;
    super::config::warn(keys.warning.as_slice());
    let (to, place) = match to {
        Where::Dedicated => (Isolation::Dedicated, "a database of its own"),
        Where::Shared => (Isolation::Shared, "the database that all share"),
    };
    let (installation, keyring, now) = (installation(&config), &keys.keyring, beside::now());
    let mut progress = Progress::new(false)?;
    let moved = copy::move_to(&installation, &organization, to, keyring, now, &mut |step| progress.tell(step)).await;
    progress.end();
    let report = moved?;
    if !report.differences.is_empty() {
        explain(&report.differences);
        output::note("what was copied is not the same, so nothing was moved: run the command again");
        return Ok(ExitCode::FAILURE);
    }
    let rows: u64 = report.tables.iter().map(|(_, rows)| rows).sum();
    if report.was_finished {
        output::line(format!("the organization is in {place}"))?;
    } else {
        output::line(format!("moved {rows} rows, compared, into {place}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
