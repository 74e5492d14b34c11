//! `postroom copy`: everything of one installation into another, empty one.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use postroom_domain::Secret;
use postroom_domain::keyring::Keyring;
use postroom_storage::copy::{self, Difference, Doing, Mode, Place, Report, Step};
use postroom_storage::postgres::DatabaseUrl;
use serde_json::json;

use super::{beside, output};
use crate::config::{Config, Database, Flags, Loaded};
use crate::keys;

/// `postroom copy`
#[derive(Debug, Args)]
#[command(
    after_help = "Example, from the file to PostgreSQL, with POSTROOM_MIGRATE_DATABASE_URL and POSTROOM_ENCRYPTION_KEYS set:
  postroom copy --from ./postroom-data

Stop the servers of both sides first. It can be stopped at any moment and run again: it goes on where it was. When all
is copied, both sides are compared. The source is not changed. On PostgreSQL it needs the login that owns the database;
a URL with a password is better given in POSTROOM_COPY_FROM and POSTROOM_COPY_TO than as an argument, which others see."
)]
pub struct CopyArgs {
    /// The installation to copy: a data directory, or the URL of a PostgreSQL database [default: that of the settings]
    #[arg(long, value_name = "URL|DIR", env = "POSTROOM_COPY_FROM", hide_env_values = true, value_parser = place)]
    from: Option<Place>,
    /// Where to: a new directory, or the URL of a migrated, empty database [default: that of the settings]
    #[arg(long, value_name = "URL|DIR", env = "POSTROOM_COPY_TO", hide_env_values = true, value_parser = place)]
    to: Option<Place>,
    /// Compare a finished copy with its source again, before servers start on it, and change nothing
    #[arg(long)]
    verify: bool,
    /// Print what was done as one line of JSON at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// A directory, or a URL that can be used.
fn place(text: &str) -> Result<Place, String> {
    if !text.contains("://") {
        return Ok(Place::Embedded(PathBuf::from(text)));
    }
    let url = Secret::from(text);
    DatabaseUrl::parse(&url).map_err(|error| error.to_string())?;
    Ok(Place::Postgres(url))
}

/// Runs `postroom copy`. The exit code is 1 when the two sides are not the same.
///
/// # Errors
/// When one side cannot be used for it; each says what to do.
pub async fn copy(args: CopyArgs) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::read_without_keys(&args.flags);
    super::config::warn(&loaded.warnings);
    let config = loaded.config?;
    ensure!(
        args.from.is_some() || args.to.is_some(),
        "say what to copy: --from, a data directory or the URL of a PostgreSQL database; the other side is that of the \
         settings"
    );
    let from = args.from.clone().unwrap_or_else(|| of_settings(&config));
    let to = args.to.clone().unwrap_or_else(|| of_settings(&config));
    let keyring = keyring(&config, &from, &to)?;
    let mode = if args.verify { Mode::Verify } else { Mode::Copy };
    let mut progress = Progress::new(args.json)?;
    let copied = copy::copy(&from, &to, &keyring, beside::now(), mode, &mut |step| progress.tell(step)).await;
    progress.end();
    say(&copied?, &args)
}

/// The database of the settings, with the login that owns it.
fn of_settings(config: &Config) -> Place {
    match &config.database {
        Database::Embedded(data_dir) => Place::Embedded(data_dir.clone()),
        Database::Postgres(database) => Place::Postgres(database.owning_url().clone()),
    }
}

/// The keys of the source: those of the settings, or of its data directory. A new data directory gets the same ones.
fn keyring(config: &Config, from: &Place, to: &Place) -> anyhow::Result<Keyring> {
    if let Some(keys) = &config.encryption_keys {
        return Ok(Keyring::parse(keys)?);
    }
    let Place::Embedded(from) = from else {
        bail!("POSTROOM_ENCRYPTION_KEYS must be set: give the keys that the servers of the source use");
    };
    let file = keys::file_in(from);
    match to {
        Place::Embedded(to) => keys::copy_file(from, to),
        Place::Postgres(_) => bail!(
            "POSTROOM_ENCRYPTION_KEYS must be set, and the servers of the target need the same: give the keys of the \
             source (export POSTROOM_ENCRYPTION_KEYS=\"$(cat {})\")",
            file.display()
        ),
    }
}

/// Shows how far it is: a bar for people, a line for each table elsewhere.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    last: Option<(Doing, &'static str)>,
}

impl Progress {
    pub(super) fn new(is_quiet: bool) -> anyhow::Result<Self> {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
        if let Some(bar) = &bar {
            bar.set_style(ProgressStyle::with_template("{msg:28} {bar:40} {pos}/{len} {per_sec} {eta}")?);
        }
        Ok(Self { bar, is_quiet, last: None })
    }

    pub(super) fn tell(&mut self, step: Step) {
        let doing = match step.doing {
            Doing::Copying => "copying",
            Doing::Comparing => "comparing",
        };
        let is_new = self.last.replace((step.doing, step.table)) != Some((step.doing, step.table));
        match &self.bar {
            Some(bar) => {
                if is_new {
                    bar.reset();
                    bar.set_message(format!("{doing} {}", step.table));
                }
                bar.set_length(step.of.max(step.rows));
                bar.set_position(step.rows);
            }
            None if is_new && !self.is_quiet => output::note(format!("{doing} {}, {} rows", step.table, step.of)),
            None => {}
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn say(report: &Report, args: &CopyArgs) -> anyhow::Result<ExitCode> {
    if args.json {
        output::json(&in_json(report))?;
    } else {
        in_words(report)?;
    }
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_words(report: &Report) -> anyhow::Result<()> {
    if report.was_finished && !report.is_compared {
        return Ok(output::line("the copy was finished before; nothing was changed")?);
    }
    explain(&report.differences);
    if !report.differences.is_empty() {
        output::note(
            "the two sides are not the same: empty the target (drop and make the database, or remove the directory), and \
             copy again",
        );
        return Ok(());
    }
    let rows = |name: &str| report.tables.iter().find(|(table, _)| *table == name).map_or(0, |(_, rows)| *rows);
    let all: u64 = report.tables.iter().map(|(_, rows)| rows).sum();
    Ok(output::line(format!(
        "{}: {} organizations, {} events, {all} rows in all, the same on both sides",
        if report.was_finished { "compared" } else { "copied" },
        rows("organizations"),
        rows("events"),
    ))?)
}

/// Differences, for people.
pub(super) fn explain(differences: &[Difference]) {
    for difference in differences {
        output::note(format!("{} {}", output::styled(output::BAD, "different:"), told(difference)));
    }
}

/// One of them.
fn told(difference: &Difference) -> String {
    let whose = difference.organization.map_or("the installation".to_owned(), |id| id.to_string());
    let Difference { table, source_rows, target_rows, .. } = difference;
    if source_rows == target_rows {
        format!("{table} of {whose}: {source_rows} rows on both sides, with other contents")
    } else {
        format!("{table} of {whose}: {source_rows} rows in the source and {target_rows} in the target")
    }
}

fn in_json(report: &Report) -> serde_json::Value {
    let tables: serde_json::Map<String, serde_json::Value> =
        report.tables.iter().map(|(name, rows)| ((*name).to_owned(), json!(rows))).collect();
    let differences = report.differences.iter().map(|difference| {
        json!({
            "table": difference.table,
            "organization": difference.organization.map(|id| id.to_string()),
            "source_rows": difference.source_rows,
            "target_rows": difference.target_rows,
        })
    });
    json!({
        "was_finished": report.was_finished,
        "compared": report.is_compared,
        "tables": tables,
        "differences": differences.collect::<Vec<_>>(),
    })
}
