//! Re-encrypts everything under the newest key, in small transactions, beside a running server or without one.
//!
//! It can be killed at any moment and begun again: a value is sealed either with its old key or with the newest one, and
//! both are in the keyring. What proves that the keyring is the right one is rotated last, so that a server that has
//! only the newest key does not start on a rotation that is not finished.

use std::path::Path;

use postroom_domain::keyring::{KeyId, Keyring, Place};
use rusqlite::Row;

use super::connection::Connection;
use super::grants::Part;
use super::migrate::{self, Database};
use super::open::{self, OpenError};
use super::rows;

/// How many values one transaction rotates.
const BATCH: i64 = 100;

/// One column of secrets, walked in the order of its primary key: a number and a text, one of which may mean nothing.
struct Column {
    table: &'static str,
    column: &'static str,
    /// After the key `?1`, `?2`, at most `?3` rows: the key, the value, owner and row that it is sealed for.
    select: &'static str,
    /// Sets `?4` at the key `?1`, `?2` where the value is still `?3`: what was changed meanwhile is not undone.
    update: &'static str,
    count: &'static str,
}

/// All columns that hold a sealed value.
const COLUMNS: [Column; 7] = [
    Column {
        table: "organization",
        column: "mandrill_secret",
        select: "select org, '', mandrill_secret, id, id from organization \
                 where org > ?1 and ?2 = '' and mandrill_secret is not null order by org limit ?3",
        update: "update organization set mandrill_secret = ?4 where org = ?1 and ?2 = '' and mandrill_secret = ?3",
        count: "select count(mandrill_secret) from organization",
    },
    Column {
        table: "source_secret",
        column: "value",
        select: "select secret, '', value, organization.id, source_secret.id \
                 from source_secret join organization on organization.org = source_secret.org \
                 where secret > ?1 and ?2 = '' and value is not null order by secret limit ?3",
        update: "update source_secret set value = ?4 where secret = ?1 and ?2 = '' and value = ?3",
        count: "select count(value) from source_secret",
    },
    Column {
        table: "endpoint_secret",
        column: "value",
        select: "select secret, '', value, organization.id, endpoint_secret.id \
                 from endpoint_secret join organization on organization.org = endpoint_secret.org \
                 where secret > ?1 and ?2 = '' and value is not null order by secret limit ?3",
        update: "update endpoint_secret set value = ?4 where secret = ?1 and ?2 = '' and value = ?3",
        count: "select count(value) from endpoint_secret",
    },
    Column {
        table: "endpoint",
        column: "headers",
        select: "select endpoint, '', headers, organization.id, endpoint.id \
                 from endpoint join organization on organization.org = endpoint.org \
                 where endpoint > ?1 and ?2 = '' and headers is not null order by endpoint limit ?3",
        update: "update endpoint set headers = ?4 where endpoint = ?1 and ?2 = '' and headers = ?3",
        count: "select count(headers) from endpoint",
    },
    Column {
        table: "idempotency",
        column: "body",
        select: "select idempotency.org, key, body, coalesce(organization.id, zeroblob(16)), cast(key as blob) \
                 from idempotency left join organization on organization.org = idempotency.org \
                 where (idempotency.org, key) > (?1, ?2) and body is not null order by 1, 2 limit ?3",
        update: "update idempotency set body = ?4 where org = ?1 and key = ?2 and body = ?3",
        count: "select count(body) from idempotency",
    },
    Column {
        table: "mail",
        column: "token",
        select: "select mail, '', token, coalesce(organization.id, zeroblob(16)), mail.id \
                 from mail left join organization on organization.org = mail.org \
                 where mail > ?1 and ?2 = '' order by mail limit ?3",
        update: "update mail set token = ?4 where mail = ?1 and ?2 = '' and token = ?3",
        count: "select count(token) from mail",
    },
    // Last: see the module.
    Column {
        table: "meta",
        column: "value",
        select: "select 0, name, value, x'', cast(name as blob) from meta \
                 where ?1 <= 0 and name > ?2 order by name limit ?3",
        update: "update meta set value = ?4 where ?1 = 0 and name = ?2 and value = ?3",
        count: "select count(value) from meta",
    },
];

/// Seals every secret in `data_dir` with the newest key of `keyring`, also in the databases of organizations that have
/// their own. `progress` is told how many values were looked at and how many there are. Returns how many were sealed
/// anew; what is sealed with the newest key already is left. The shared database is last: while one of the others
/// cannot be done, it does not become one that the newest key alone opens.
///
/// # Errors
/// When a key is missing, or a running server does not seal with the newest key itself. Of what is wrong with
/// organizations' own databases, the first.
pub fn rotate_keys(
    data_dir: &Path,
    keyring: &Keyring,
    mut progress: impl FnMut(usize, usize),
) -> Result<usize, OpenError> {
    let _lock = open::lock_or_agree(data_dir, keyring.newest())?;
    let Some(file) = open::connect_existing(data_dir)? else { return Ok(0) };
    let found = migrate::version(&file)?;
    if found < migrate::NEWEST {
        return Err(OpenError::Older { found, known: migrate::NEWEST });
    }
    let tenants = migrate::tenants(data_dir, &file)?;
    let mut shared = Connection::new(file, Part::Keys)?;
    let mut walk = Walk { keyring, progress: &mut progress, total: count(&shared)?, seen: 0, sealed: 0 };
    let mut failed = None;
    for database in &tenants {
        match open_tenant(database, keyring).and_then(|opened| opened.map(|(_, c)| count(&c)).transpose()) {
            Ok(counted) => walk.total += counted.unwrap_or(0),
            Err(error) => failed = failed.or_else(|| Some(database.wrap(error))),
        }
    }
    for database in &tenants {
        let rotated = open_tenant(database, keyring)
            .and_then(|opened| opened.map_or(Ok(()), |(_lock, mut connection)| walk.rotate(&mut connection)));
        failed = failed.or_else(|| rotated.err().map(|error| database.wrap(error)));
    }
    match failed {
        Some(error) => Err(error),
        None => walk.rotate(&mut shared).map(|()| walk.sealed),
    }
}

/// Opens an organization's own database for rotation; none if it is still to be made.
fn open_tenant(database: &Database, keyring: &Keyring) -> Result<Option<(Option<open::Lock>, Connection)>, OpenError> {
    if !database.is_there()? {
        return Ok(None);
    }
    let lock = open::lock_or_agree(&database.directory, keyring.newest())?;
    let mut file = open::connect(&database.directory)?;
    open::bring_up_to_date(&mut file, lock.is_some())?;
    Ok(Some((lock, Connection::new(file, Part::Keys)?)))
}

/// How many values there are.
fn count(connection: &Connection) -> Result<usize, OpenError> {
    let mut total = 0;
    for column in &COLUMNS {
        total += connection.prepare_cached(column.count)?.query_row([], |row| row.get::<_, usize>(0))?;
    }
    Ok(total)
}

/// A walk over the values of all databases.
struct Walk<'a> {
    keyring: &'a Keyring,
    progress: &'a mut dyn FnMut(usize, usize),
    total: usize,
    seen: usize,
    sealed: usize,
}

impl Walk<'_> {
    fn rotate(&mut self, connection: &mut Connection) -> Result<(), OpenError> {
        for column in &COLUMNS {
            let mut after = (i64::MIN, String::new());
            while let Some(batch) = column.rotate(connection, self.keyring, &after)? {
                after = batch.last;
                self.seen += batch.seen;
                self.sealed += batch.sealed;
                (self.progress)(self.seen.min(self.total), self.total);
            }
        }
        Ok(())
    }
}

/// What one transaction did.
struct Batch {
    last: (i64, String),
    seen: usize,
    sealed: usize,
}

/// A sealed value and where it is.
struct Value {
    key: (i64, String),
    value: Vec<u8>,
    owner: Vec<u8>,
    row: Vec<u8>,
}

impl Value {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { key: (row.get(0)?, row.get(1)?), value: row.get(2)?, owner: row.get(3)?, row: row.get(4)? })
    }
}

impl Column {
    /// The next values of the column in one transaction; none when there are no more.
    fn rotate(
        &self,
        connection: &mut Connection,
        keyring: &Keyring,
        after: &(i64, String),
    ) -> Result<Option<Batch>, OpenError> {
        let transaction = connection.transaction()?;
        let values = rows::all(&transaction, self.select, &[&after.0, &after.1, &BATCH], Value::read)?;
        let Some(last) = values.last().map(|value| value.key.clone()) else { return Ok(None) };
        let (seen, mut sealed) = (values.len(), 0);
        for Value { key, value, owner, row } in values {
            if KeyId::of_ciphertext(&value) == Some(keyring.newest()) {
                continue;
            }
            let place = Place { table: self.table, column: self.column, organization: &owner, row: &row };
            let secret = keyring.open(place, &value).map_err(OpenError::WrongKey)?;
            let anew = keyring.seal(place, &secret);
            sealed += transaction.prepare_cached(self.update)?.execute((key.0, key.1, value, anew))?;
        }
        transaction.commit()?;
        Ok(Some(Batch { last, seen, sealed }))
    }
}
