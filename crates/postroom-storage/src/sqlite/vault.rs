//! What the installation keeps for itself in the database: the sentinel that tells whether the keyring is the right
//! one, and the key of fingerprints.

use postroom_domain::Secret;
use postroom_domain::keyring::{Keyring, KeyringError};
use rusqlite::{Connection, OptionalExtension};

use super::open::OpenError;
use crate::copy::side::UNFINISHED;
use crate::engine::vault::{SENTINEL, Vault, meta};

/// Checks that the keyring is the one of this database, and makes what a new database lacks.
pub(super) fn open_vault(connection: &mut Connection, keyring: Keyring) -> Result<Vault, OpenError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let unfinished = "select 1 from meta where name = ?1";
    if transaction.query_row(unfinished, [UNFINISHED], |_| Ok(())).optional()?.is_some() {
        return Err(OpenError::Unfinished);
    }
    let sentinel = kept(&transaction, &keyring, "sentinel", || Secret::from(SENTINEL))?;
    if sentinel != Secret::from(SENTINEL) {
        return Err(OpenError::WrongKey(KeyringError::Damaged));
    }
    let fingerprint_key = kept(&transaction, &keyring, "fingerprint_key", || Secret::random(32))?;
    transaction.commit()?;
    Ok(Vault::new(keyring, fingerprint_key))
}

/// A secret of the installation, made when it is not there.
fn kept(
    connection: &Connection,
    keyring: &Keyring,
    name: &'static str,
    make: impl FnOnce() -> Secret,
) -> Result<Secret, OpenError> {
    let sealed: Option<Vec<u8>> =
        connection.query_row("select value from meta where name = ?1", [name], |row| row.get(0)).optional()?;
    if let Some(sealed) = sealed {
        return keyring.open(meta(name), &sealed).map_err(OpenError::WrongKey);
    }
    let secret = make();
    connection.execute("insert into meta (name, value) values (?1, ?2)", (name, keyring.seal(meta(name), &secret)))?;
    Ok(secret)
}
