//! What the installation keeps for itself in the database: the sentinel that tells whether the keyring is the right
//! one, and the keys of fingerprints and of the audit log.

use postroom_domain::Secret;
use postroom_domain::keyring::{Keyring, KeyringError};
use rusqlite::{Connection, OptionalExtension};

use super::open::OpenError;
use crate::copy::side::UNFINISHED;
use crate::engine::vault::{AuditKeys, SENTINEL, Vault, meta};

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
    let audit = audit_keys(&transaction, &keyring)?;
    transaction.commit()?;
    Ok(Vault::new(keyring, fingerprint_key, audit))
}

fn audit_keys(connection: &Connection, keyring: &Keyring) -> Result<AuditKeys, OpenError> {
    let chain = kept(connection, keyring, AuditKeys::CHAIN, || Secret::random(16))?;
    let chain = chain.expose().try_into().map_err(|_| OpenError::WrongKey(KeyringError::Damaged))?;
    kept(connection, keyring, &AuditKeys::name(chain), || Secret::random(32))?;
    let mut names = connection.prepare("select name from meta")?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let keys = names.iter().filter_map(|name| Some((AuditKeys::chain(name)?, name)));
    let open =
        |(chain, name): ([u8; 16], &String)| Ok((chain, kept(connection, keyring, name, || Secret::random(32))?));
    Ok(AuditKeys { chain, all: keys.map(open).collect::<Result<_, OpenError>>()? })
}

/// A secret of the installation, made when it is not there.
fn kept(
    connection: &Connection,
    keyring: &Keyring,
    name: &str,
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
