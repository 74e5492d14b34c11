//! `postroom keys`: a fresh key, and every secret encrypted anew.

use anyhow::bail;
use clap::Subcommand;
use postroom_domain::keyring::Keyring;
use postroom_storage::{postgres, sqlite};

use super::{beside, output};
use crate::config::{Config, Database, Flags};
use crate::keys;

/// `postroom keys`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a fresh encryption key
    #[command(after_help = "Use it as the first of POSTROOM_ENCRYPTION_KEYS.")]
    Generate,
    /// Encrypt every stored secret anew, under the newest key
    #[command(after_help = "To change keys that stand in POSTROOM_ENCRYPTION_KEYS:
  1. put a fresh key (postroom keys generate) behind the one in use, and restart the servers, one after the other
  2. put it first, and restart them again
  3. postroom keys rotate
  4. take the old keys out of the list, and restart them
With one server, step 1 can be left out.

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

/// Runs `postroom keys`.
///
/// # Errors
/// When the keys or the database cannot be used.
pub async fn keys(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate => Ok(output::line(Keyring::generate().expose_str().unwrap_or_default())?),
        KeysCommand::Rotate { new_key, flags } => rotate(&beside::settings(&flags)?, new_key).await,
    }
}

async fn rotate(config: &Config, new_key: bool) -> anyhow::Result<()> {
    beside::must_exist(config)?;
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
    let rotated = seal_anew(&config.database, &keys.keyring).await?;
    output::line(format!("{rotated} secrets were encrypted anew; all are under key {}", keys.keyring.newest()))?;
    if keys.keyring.ids().count() > 1 {
        let place = file.map_or_else(|| "POSTROOM_ENCRYPTION_KEYS".to_owned(), |file| file.display().to_string());
        output::note(format!("the older keys in {place} open nothing but old backups now"));
    }
    Ok(())
}

async fn seal_anew(database: &Database, keyring: &Keyring) -> anyhow::Result<usize> {
    let bar = indicatif::ProgressBar::new(0);
    let progress = |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let rotated = match database {
        Database::Embedded(data_dir) => sqlite::rotate_keys(data_dir, keyring, progress)?,
        Database::Postgres(database) => {
            postgres::rotate_keys(database.owning_url(), &database.url, keyring, progress).await?
        }
    };
    bar.finish_and_clear();
    Ok(rotated)
}
