//! The encryption keys: from the setting, or a file in the data directory that Postroom makes itself.
//!
//! The file holds one base64 key a line, newest first, and is readable by its owner only.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::hmac;
use postroom_domain::Secret;
use postroom_domain::keyring::Keyring;

use crate::config::{Config, Database};

/// Name of the key file in the data directory.
const FILE_NAME: &str = "encryption.keys";
/// Name of the database in the data directory: keys are never made anew beside an existing one.
const DATABASE_NAME: &str = "postroom.db";

/// The keys in force, and where they stand.
#[derive(Debug)]
pub struct Keys {
    /// The ring.
    pub keyring: Keyring,
    /// The file they were read from, if it was one of ours.
    pub file: Option<PathBuf>,
    /// What is allowed but should be looked at.
    pub warning: Option<String>,
    /// Encrypts list cursors: derived from the keys, so that a cursor outlives a restart.
    pub cursor_key: Secret,
}

/// Reads the keys; makes the file on the very first start.
///
/// # Errors
/// When the keys cannot be read, or are missing although there is a database that needs them.
pub fn open(config: &Config) -> anyhow::Result<Keys> {
    if let Some(keys) = &config.encryption_keys {
        let keyring = Keyring::parse(keys)?;
        return Ok(Keys { keyring, file: None, warning: None, cursor_key: cursor_key(keys) });
    }
    let Database::Embedded(data_dir) = &config.database else {
        anyhow::bail!("POSTROOM_ENCRYPTION_KEYS must be set on PostgreSQL: `postroom keys generate` prints a key");
    };
    make_data_dir(data_dir)?;
    let path = data_dir.join(FILE_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => Secret::from(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => first_keys(data_dir, &path)?,
        Err(error) => {
            return Err(error).with_context(|| format!("the encryption keys {} cannot be read", path.display()));
        }
    };
    let keyring =
        Keyring::parse(&text).with_context(|| format!("the encryption keys {} cannot be used", path.display()))?;
    let mode = fs::metadata(&path).map_or(0, |meta| meta.permissions().mode());
    let warning = (mode & 0o077 != 0)
        .then(|| format!("{0} holds encryption keys and others may read it: run chmod 600 {0}", path.display()));
    Ok(Keys { keyring, file: Some(path), warning, cursor_key: cursor_key(&text) })
}

/// The key file of a data directory.
#[must_use]
pub fn file_in(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// The database of a data directory.
#[must_use]
pub fn database_in(data_dir: &Path) -> PathBuf {
    data_dir.join(DATABASE_NAME)
}

/// Gives a new data directory the keys of another one, and reads them.
///
/// # Errors
/// When there are none, or the new directory has others.
pub fn copy_file(from: &Path, to: &Path) -> anyhow::Result<Keyring> {
    let (file, copied) = (file_in(from), file_in(to));
    let keys = Secret::from(
        fs::read_to_string(&file).with_context(|| format!("the encryption keys {} cannot be read", file.display()))?,
    );
    let keyring =
        Keyring::parse(&keys).with_context(|| format!("the encryption keys {} cannot be used", file.display()))?;
    make_data_dir(to)?;
    let trimmed = Secret::new(keys.expose().trim_ascii());
    match write_new(&copied, &trimmed) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = Keyring::parse(&Secret::from(fs::read_to_string(&copied)?))?;
            anyhow::ensure!(
                found.ids().eq(keyring.ids()),
                "{} holds other keys than {}: give a new directory",
                copied.display(),
                file.display()
            );
        }
        written => written.with_context(|| format!("the encryption keys cannot be written to {}", copied.display()))?,
    }
    Ok(keyring)
}

fn cursor_key(keys: &Secret) -> Secret {
    let newest = keys.expose_str().unwrap_or_default().split(|c: char| c == ',' || c.is_whitespace());
    let newest = newest.into_iter().find(|key| !key.is_empty()).unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, newest.as_bytes());
    Secret::new(hmac::sign(&key, b"postroom cursor key").as_ref())
}

fn first_keys(data_dir: &Path, path: &Path) -> anyhow::Result<Secret> {
    anyhow::ensure!(
        !database_in(data_dir).exists(),
        "{} is missing, and the database beside it holds secrets that only its keys open: put the file back from a \
         backup, or give its keys in POSTROOM_ENCRYPTION_KEYS",
        path.display()
    );
    let key = Keyring::generate();
    match write_new(path, &key) {
        Ok(()) => Ok(key),
        // Another process was faster: both must use the same keys.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Secret::from(fs::read_to_string(path)?)),
        Err(error) => {
            Err(error).with_context(|| format!("the encryption keys cannot be written to {}", path.display()))
        }
    }
}

/// Makes the data directory, for its owner only.
fn make_data_dir(data_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).with_context(|| {
        format!("the data directory {} cannot be used: choose another with --data-dir", data_dir.display())
    })
}

/// Puts a fresh key before those in the file.
///
/// # Errors
/// When the file cannot be read or replaced. It is replaced as a whole or not at all.
pub fn add(file: &Path) -> anyhow::Result<()> {
    let old = Secret::from(fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?);
    Keyring::parse(&old)?;
    let fresh = Keyring::generate();
    let both = Secret::new([fresh.expose(), b"\n", old.expose().trim_ascii()].concat());
    replace(file, &both).with_context(|| format!("{} cannot be replaced", file.display()))
}

/// Durable before its name appears, so that a crash leaves no empty key file; refuses if the name exists.
fn write_new(path: &Path, key: &Secret) -> io::Result<()> {
    let temporary = write_beside(path, key)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    sync_directory(path)
}

fn replace(path: &Path, keys: &Secret) -> io::Result<()> {
    let temporary = write_beside(path, keys)?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

fn write_beside(path: &Path, keys: &Secret) -> io::Result<PathBuf> {
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(keys.expose())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Loaded};

    fn config(dir: &Path) -> Config {
        let flags = Flags { data_dir: Some(dir.to_str().unwrap().to_owned()), ..Flags::default() };
        Loaded::read_from(&flags, std::iter::empty()).config.unwrap()
    }

    #[test]
    fn the_first_start_makes_a_key_file_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/data");
        let first = open(&config(&data)).unwrap();
        let file = first.file.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(open(&config(&data)).unwrap().keyring.newest(), first.keyring.newest());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn lost_keys_of_an_existing_database_are_not_replaced_by_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(DATABASE_NAME), "x").unwrap();
        let error = open(&config(dir.path())).unwrap_err().to_string();
        assert!(error.contains("put the file back from a backup"), "{error}");
    }

    #[test]
    fn a_fresh_key_goes_first_and_the_old_one_still_opens() {
        let dir = tempfile::tempdir().unwrap();
        let before = open(&config(dir.path())).unwrap();
        let file = before.file.unwrap();
        add(&file).unwrap();
        let both = open(&config(dir.path())).unwrap().keyring;
        assert_eq!(both.ids().collect::<Vec<_>>()[1], before.keyring.newest());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_that_others_may_read_is_warned_of_and_a_broken_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&config(dir.path())).unwrap().file.unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(open(&config(dir.path())).unwrap().warning.unwrap().contains("chmod 600"));
        fs::write(&file, "short").unwrap();
        assert!(format!("{:#}", open(&config(dir.path())).unwrap_err()).contains("not base64 of exactly 32 bytes"));
    }
}
