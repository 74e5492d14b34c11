//! `postroom tenants`: organizations with a database of their own.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use postroom_storage::copy;
use serde_json::json;

use super::copy::{Progress, explain};
use super::{beside, output};
use crate::config::{Config, Database, Flags, Loaded};
use crate::keys;

/// `postroom tenants`
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// Organizations with a database of their own, on the embedded engine
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Move an organization into a database of its own, on the embedded engine, while the server is stopped
    #[command(after_help = "Example:
  postroom tenants move acme-corp --to dedicated

Its data is copied, compared by rows and hashes, and then deleted where it was. It can be stopped at any moment and run
again: until all is copied and the same, the organization stays where it was.")]
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
}

/// Runs `postroom tenants`. The exit code is 1 when what was copied is not the same, and nothing was moved.
///
/// # Errors
/// When a server is running, or there is no such organization.
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

fn data_dir(config: &Config) -> anyhow::Result<&Path> {
    match &config.database {
        Database::Embedded(data_dir) => Ok(data_dir),
        Database::Postgres(_) => {
            bail!("this command works on the data directory of the embedded engine: unset POSTROOM_DATABASE_URL")
        }
    }
}

async fn list(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    for tenant in copy::dedicated(data_dir(config)?).await? {
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
    let MoveArgs { organization, to: Where::Dedicated, flags } = args;
    let config = beside::settings(&flags)?;
    let data_dir = data_dir(&config)?;
    let keys = keys::open(&config)?;
    super::config::warn(keys.warning.as_slice());
    let mut progress = Progress::new(false)?;
    let now = beside::now();
    let moved = copy::to_dedicated(data_dir, &organization, &keys.keyring, now, &mut |step| progress.tell(step)).await;
    progress.end();
    let report = moved?;
    if !report.differences.is_empty() {
        explain(&report.differences);
        output::note("what was copied is not the same, so nothing was moved: run the command again");
        return Ok(ExitCode::FAILURE);
    }
    let rows: u64 = report.tables.iter().map(|(_, rows)| rows).sum();
    if report.was_finished {
        output::line("the organization has a database of its own")?;
    } else {
        output::line(format!("moved {rows} rows, compared, into a database of its own"))?;
    }
    Ok(ExitCode::SUCCESS)
}
