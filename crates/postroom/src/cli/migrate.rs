//! `postroom migrate`: the schema of the database, forward and back.

use clap::{Args, Subcommand};
use postroom_storage::{postgres, sqlite};

use super::output;
use crate::config::{Config, Database, Flags, Loaded};

/// `postroom migrate`
#[derive(Debug, Args)]
#[command(
    after_help = "On PostgreSQL it logs in with POSTROOM_MIGRATE_DATABASE_URL, makes the roles of the parts, and grants
them to the logins of POSTROOM_DATABASE_URL and of the parts that have one of their own. It can be stopped at any
moment and run again, by several at once too."
)]
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
    /// Bring the database to this program's version; `serve` does this itself on the embedded engine
    Up,
    /// Take the newest migration back, with the data that it holds
    Down {
        /// Yes, delete that data
        #[arg(long)]
        yes: bool,
    },
}

/// Runs `postroom migrate`.
///
/// # Errors
/// When a server is running on the embedded engine, or the database cannot be used.
pub async fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let loaded = Loaded::read_without_keys(&args.flags);
    super::config::warn(&loaded.warnings);
    let config = loaded.config?;
    match args.command {
        None | Some(MigrateCommand::Up) => up(&config).await,
        Some(MigrateCommand::Status) => {
            for (name, applied) in status(&config).await? {
                output::line(format!("{}  {name}", if applied { "applied" } else { "missing" }))?;
            }
            Ok(())
        }
        Some(MigrateCommand::Down { yes }) => {
            anyhow::ensure!(yes, "this deletes what the newest migration holds: make a backup, then say --yes");
            let taken_back = match &config.database {
                Database::Embedded(data_dir) => sqlite::migrate::down(data_dir)?,
                Database::Postgres(database) => postgres::migrate::down(database.owning_url()).await?,
            };
            match taken_back {
                Some(name) => output::line(format!("took back {name}"))?,
                None => output::line("there is nothing to take back")?,
            }
            Ok(())
        }
    }
}

async fn up(config: &Config) -> anyhow::Result<()> {
    let applied = match &config.database {
        Database::Embedded(data_dir) => sqlite::migrate::up(data_dir)?,
        Database::Postgres(database) => {
            let migrated = postgres::migrate::up(database.owning_url(), &database.logins()?).await?;
            super::config::warn(&migrated.advice);
            migrated.applied
        }
    };
    if applied.is_empty() {
        output::line("the database is up to date")?;
    }
    Ok(applied.iter().try_for_each(|name| output::line(format!("applied {name}")))?)
}

/// Every migration of this program, and whether the database has it.
async fn status(config: &Config) -> anyhow::Result<Vec<(&'static str, bool)>> {
    Ok(match &config.database {
        Database::Embedded(data_dir) => {
            sqlite::migrate::status(data_dir)?.into_iter().map(|step| (step.name, step.applied)).collect()
        }
        Database::Postgres(database) => {
            let steps = postgres::migrate::status(database.owning_url()).await?;
            steps.into_iter().map(|step| (step.name, step.applied)).collect()
        }
    })
}
