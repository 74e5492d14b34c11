//! `postroom migrate`: the schema of the database and of those that organizations have to themselves, forward and back.

use clap::{Args, Subcommand};
use postroom_domain::OrganizationId;
use postroom_storage::{postgres, sqlite};

use super::output;
use crate::config::{Config, Database, Flags, Loaded};

/// `postroom migrate`
#[derive(Debug, Args)]
#[command(
    after_help = "Databases of single organizations come after the shared one, a line each. One that fails does not stop
the others; the exit status is 1 then.

On PostgreSQL it logs in with POSTROOM_MIGRATE_DATABASE_URL, makes the roles of the parts, and grants them to the
logins of POSTROOM_DATABASE_URL and of the parts that have one of their own. It can be stopped at any moment and run
again, by several at once too."
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
    Up {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the newest migration back, with the data that it holds
    Down {
        /// Yes, delete that data
        #[arg(long)]
        yes: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `postroom migrate`.
///
/// # Errors
/// When a server is running on the embedded engine, or a database cannot be used.
pub async fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let loaded = Loaded::read_without_keys(&args.flags);
    super::config::warn(&loaded.warnings);
    let config = loaded.config?;
    let mut walk = Walk::default();
    match args.command {
        None | Some(MigrateCommand::Up { dry_run: false }) => walk.up(&config).await?,
        Some(MigrateCommand::Up { dry_run: true }) => walk.would_apply(status(&config).await?)?,
        Some(MigrateCommand::Status) => walk.status(status(&config).await?)?,
        Some(MigrateCommand::Down { dry_run: true, .. }) => walk.would_take_back(status(&config).await?)?,
        Some(MigrateCommand::Down { yes, dry_run: false }) => {
            anyhow::ensure!(yes, "this deletes what the newest migration holds: make a backup, then say --yes");
            walk.down(&config).await?;
        }
    }
    walk.end()
}

/// A database, for people; nothing for the shared one.
struct Name(Option<String>);

impl Name {
    fn new(organization: Option<OrganizationId>, slug: Option<&str>) -> Self {
        Self(organization.map(|id| format!("{} ({id})", output::plain(slug.unwrap_or_default()))))
    }

    /// A line about it.
    fn said(&self, text: &str) -> String {
        self.0.as_ref().map_or_else(|| text.to_owned(), |name| format!("{name}: {text}"))
    }
}

/// The migrations of this program, and whether a database has them; or why that is not known.
type Status = (Name, Result<Vec<(&'static str, bool)>, anyhow::Error>);

/// A walk over all databases, the shared one first.
#[derive(Default)]
struct Walk {
    /// What is wrong with a database, one sentence for each.
    failed: Vec<String>,
    /// Where a line could not be printed: it is told at the end, and stops no migration.
    unprinted: Option<std::io::Error>,
}

impl Walk {
    /// Tells what was done to one database, or that it failed.
    fn tell<T>(&mut self, name: &Name, done: anyhow::Result<T>, say: impl FnOnce(T) -> Vec<String>) {
        let lines = match done {
            Ok(done) => say(done),
            Err(error) => return self.failed.push(name.said(&format!("{error:#}"))),
        };
        let printed = lines.iter().try_for_each(|line| output::line(name.said(line)));
        self.unprinted = self.unprinted.take().or(printed.err());
    }

    fn end(self) -> anyhow::Result<()> {
        if let Some(error) = self.unprinted {
            return Err(error.into());
        }
        match self.failed.as_slice() {
            [] => Ok(()),
            [only] => anyhow::bail!("{only}"),
            all => {
                all.iter().for_each(output::note);
                anyhow::bail!("{} databases could not be used: mend that, and run the command again", all.len())
            }
        }
    }

    async fn up(&mut self, config: &Config) -> anyhow::Result<()> {
        match &config.database {
            Database::Embedded(data_dir) => sqlite::migrate::up_all(data_dir, |database, done| {
                let name = Name::new(database.organization, database.slug.as_deref());
                self.tell(&name, done.map_err(Into::into), |applied| said("applied", &applied));
            })?,
            Database::Postgres(database) => {
                let (owner, logins) = (database.owning_url(), database.logins()?);
                let told = |database: &postgres::migrate::Database, done: Result<postgres::migrate::Migrated, _>| {
                    let name = Name::new(database.organization, database.slug.as_deref());
                    self.tell(&name, done.map_err(anyhow::Error::new), |migrated| {
                        super::config::warn(&migrated.advice);
                        said("applied", &migrated.applied)
                    });
                };
                postgres::migrate::up_all(owner, &database.url, &logins, told).await?;
            }
        }
        Ok(())
    }

    async fn down(&mut self, config: &Config) -> anyhow::Result<()> {
        let say = |taken_back: Option<&str>| {
            vec![
                taken_back
                    .map_or_else(|| "there is nothing to take back".to_owned(), |name| format!("took back {name}")),
            ]
        };
        match &config.database {
            Database::Embedded(data_dir) => sqlite::migrate::down_all(data_dir, |database, done| {
                let name = Name::new(database.organization, database.slug.as_deref());
                self.tell(&name, done.map_err(Into::into), say);
            })?,
            Database::Postgres(database) => {
                let told = |database: &postgres::migrate::Database, done: Result<Option<&'static str>, _>| {
                    let name = Name::new(database.organization, database.slug.as_deref());
                    self.tell(&name, done.map_err(anyhow::Error::new), say);
                };
                postgres::migrate::down_all(database.owning_url(), &database.url, told).await?;
            }
        }
        Ok(())
    }

    fn status(&mut self, all: Vec<Status>) -> anyhow::Result<()> {
        for (name, steps) in all {
            let is_shared = name.0.is_none();
            self.tell(&name, steps, |steps| {
                let state = |applied: bool| if applied { "applied" } else { "missing" };
                if is_shared {
                    return steps.iter().map(|(step, applied)| format!("{}  {step}", state(*applied))).collect();
                }
                let missing = missing(&steps);
                vec![if missing.is_empty() {
                    "up to date".to_owned()
                } else {
                    format!("missing  {}", missing.join(", "))
                }]
            });
        }
        Ok(())
    }

    fn would_apply(&mut self, all: Vec<Status>) -> anyhow::Result<()> {
        for (name, steps) in all {
            self.tell(&name, steps, |steps| said("would apply", &missing(&steps)));
        }
        Ok(())
    }

    fn would_take_back(&mut self, all: Vec<Status>) -> anyhow::Result<()> {
        // What the shared database has last is taken back everywhere.
        let shared = all.first().and_then(|(_, steps)| Some(applied(steps.as_ref().ok()?))).unwrap_or(0);
        for (name, steps) in all {
            self.tell(&name, steps, |steps| {
                let newest = applied(&steps).checked_sub(1).filter(|at| at + 1 >= shared).and_then(|at| steps.get(at));
                vec![newest.map_or_else(
                    || "there is nothing to take back".to_owned(),
                    |(step, _)| format!("would take back {step}"),
                )]
            });
        }
        Ok(())
    }
}

fn missing(steps: &[(&'static str, bool)]) -> Vec<&'static str> {
    steps.iter().filter(|(_, applied)| !applied).map(|(name, _)| *name).collect()
}

fn applied(steps: &[(&'static str, bool)]) -> usize {
    steps.iter().filter(|(_, applied)| *applied).count()
}

/// What was, or would be, done to a database.
fn said(what: &str, names: &[&str]) -> Vec<String> {
    if names.is_empty() {
        return vec!["the database is up to date".to_owned()];
    }
    names.iter().map(|name| format!("{what} {name}")).collect()
}

/// Every migration of this program, and whether each database has it.
async fn status(config: &Config) -> anyhow::Result<Vec<Status>> {
    let mut all = Vec::new();
    match &config.database {
        Database::Embedded(data_dir) => sqlite::migrate::status_all(data_dir, |database, steps| {
            let name = Name::new(database.organization, database.slug.as_deref());
            let steps = steps.map(|steps| steps.into_iter().map(|step| (step.name, step.applied)).collect());
            all.push((name, steps.map_err(anyhow::Error::new)));
        })?,
        Database::Postgres(database) => {
            let told = |database: &postgres::migrate::Database, steps: Result<Vec<postgres::migrate::Step>, _>| {
                let name = Name::new(database.organization, database.slug.as_deref());
                let steps = steps.map(|steps| steps.into_iter().map(|step| (step.name, step.applied)).collect());
                all.push((name, steps.map_err(anyhow::Error::new)));
            };
            postgres::migrate::status_all(database.owning_url(), &database.url, told).await?;
        }
    }
    Ok(all)
}
