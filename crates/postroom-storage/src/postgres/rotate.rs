//! Re-encrypts everything under the newest key, in small transactions, beside running servers or without any.
//!
//! It can be killed at any moment and begun again: a value is sealed either with its old key or with the newest one, and
//! both are in the keyring. What proves that the keyring is the right one is rotated last, so that a server that has
//! only the newest key does not start on a rotation that is not finished. It runs as the login that owns the database,
//! which becomes a role that sees what is sealed and nothing else.

use postroom_domain::Secret;
use postroom_domain::keyring::{KeyId, Keyring, Place};
use tokio_postgres::{Client, Row};

use super::convert::{count, get};
use super::migrate::all::tenants;
use super::migrate::{self, Owner};
use super::open::OpenError;
use super::pool::bind;
use crate::Result;

/// How many values one transaction rotates.
const BATCH: i64 = 100;

/// All rows; there is one for each start of a server.
const OTHERS: &str =
    "select count(*) from nodes where state = 'live' and lease_until > clock_timestamp() and key <> $1";

/// No organization is being moved, as long as this connection lasts: it might have been rotated where it was, and not where
/// it is.
const ALONE: &str = "select pg_try_advisory_lock(470021465459)";

/// Nor does one that was killed go on with what it has copied before. The whole table.
const FORGET_MOVES: &str = "update moves set move = gen_random_uuid() where move is not null";

/// One column of secrets, walked in the order of its primary key: two numbers and a text, some of which may mean nothing.
struct Column {
    /// As sealed values are bound to them: the names are those of the embedded engine, so that rows can be copied.
    table: &'static str,
    column: &'static str,
    /// After the key `$1`, `$2`, `$3`, at most `$4` rows: the key, the value, owner and row that it is sealed for. Walks
    /// the primary key.
    select: &'static str,
    /// Sets `$5` at the key `$1`, `$2`, `$3` where the value is still `$4`: what was changed meanwhile is not undone.
    update: &'static str,
    count: &'static str,
}

/// All columns that hold a sealed value.
const COLUMNS: [Column; 7] = [
    Column {
        table: "organization",
        column: "mandrill_secret",
        select: "select org, 0::bigint, '', mandrill_secret, uuid_send(id), uuid_send(id) \
                 from organizations where org > $1 and mandrill_secret is not null order by org limit $4",
        update: "update organizations set mandrill_secret = $5 where org = $1 and mandrill_secret = $4",
        count: "select count(mandrill_secret) from organizations",
    },
    Column {
        table: "source_secret",
        column: "value",
        select: "select kept.org, kept.secret, '', kept.value, uuid_send(organizations.id), uuid_send(kept.id) \
                 from source_secrets as kept join organizations on organizations.org = kept.org \
                 where (kept.org, kept.secret) > ($1, $2) and kept.value is not null \
                 order by kept.org, kept.secret limit $4",
        update: "update source_secrets set value = $5 where org = $1 and secret = $2 and value = $4",
        count: "select count(value) from source_secrets",
    },
    Column {
        table: "endpoint_secret",
        column: "value",
        select: "select kept.org, kept.secret, '', kept.value, uuid_send(organizations.id), uuid_send(kept.id) \
                 from endpoint_secrets as kept join organizations on organizations.org = kept.org \
                 where (kept.org, kept.secret) > ($1, $2) and kept.value is not null \
                 order by kept.org, kept.secret limit $4",
        update: "update endpoint_secrets set value = $5 where org = $1 and secret = $2 and value = $4",
        count: "select count(value) from endpoint_secrets",
    },
    Column {
        table: "endpoint",
        column: "headers",
        select: "select kept.org, kept.endpoint, '', kept.headers, uuid_send(organizations.id), uuid_send(kept.id) \
                 from endpoints as kept join organizations on organizations.org = kept.org \
                 where (kept.org, kept.endpoint) > ($1, $2) and kept.headers is not null \
                 order by kept.org, kept.endpoint limit $4",
        update: "update endpoints set headers = $5 where org = $1 and endpoint = $2 and headers = $4",
        count: "select count(headers) from endpoints",
    },
    Column {
        table: "idempotency",
        column: "body",
        select: "select kept.org, 0::bigint, kept.key, kept.body, \
                     coalesce(uuid_send(organizations.id), decode(repeat('00', 16), 'hex')), \
                     convert_to(kept.key, 'UTF8') \
                 from idempotency_keys as kept left join organizations on organizations.org = kept.org \
                 where (kept.org, kept.key) > ($1, $3) and kept.body is not null order by kept.org, kept.key limit $4",
        update: "update idempotency_keys set body = $5 where org = $1 and key = $3 and body = $4",
        count: "select count(body) from idempotency_keys",
    },
    Column {
        table: "mail",
        column: "token",
        select: "select kept.org, kept.mail, '', kept.token, \
                     coalesce(uuid_send(organizations.id), decode(repeat('00', 16), 'hex')), uuid_send(kept.id) \
                 from mails as kept left join organizations on organizations.org = kept.org \
                 where (kept.org, kept.mail) > ($1, $2) order by kept.org, kept.mail limit $4",
        update: "update mails set token = $5 where org = $1 and mail = $2 and token = $4",
        count: "select count(token) from mails",
    },
    // Last: see the module.
    Column {
        table: "meta",
        column: "value",
        select: "select 0::bigint, 0::bigint, name, value, ''::bytea, convert_to(name, 'UTF8') \
                 from meta where name > $3 order by name limit $4",
        update: "update meta set value = $5 where name = $3 and value = $4",
        count: "select count(value) from meta",
    },
];

/// Seals every secret of an installation with the newest key of `keyring`, as the login that owns its databases: those of
/// organizations that have their own, and last the one that all share, which `url` names to servers. `progress` is told
/// how many values were looked at and how many there are. Returns how many were sealed anew; what is sealed with the
/// newest key already is left.
///
/// # Errors
/// When a key is missing, or a running server does not seal with the newest key itself. Of what is wrong with
/// organizations' own databases, the first; the shared one is then left as it was, and the others are done.
pub async fn rotate_keys(
    owner_url: &Secret,
    url: &Secret,
    keyring: &Keyring,
    progress: impl FnMut(usize, usize),
) -> Result<usize, OpenError> {
    let shared = enter(owner_url, keyring).await?;
    let alone = shared.client.query_typed(ALONE, &[]).await?;
    if !alone.first().map(|row| get(row, 0)).transpose()?.unwrap_or(false) {
        return Err(OpenError::Moving);
    }
    let tenants = tenants(&shared, owner_url, url).await?;
    shared.become_keys().await?;
    shared.client.execute_typed(FORGET_MOVES, &[]).await?;
    let total = count_values(&shared).await?;
    let mut walk = Walk { keyring, progress, total, seen: 0, sealed: 0 };
    let mut failed = None;
    for database in &tenants {
        // Also where the making has stopped half way: what it left is opened by whoever goes on with it.
        let rotated = database.run((), async {
            let owner = enter(database.owner_url(), keyring).await?;
            owner.become_keys().await?;
            walk.total += count_values(&owner).await?;
            walk.rotate(owner).await
        });
        failed = failed.or(rotated.await.err());
    }
    match failed {
        Some(error) => Err(error),
        None => walk.rotate(shared).await.map(|()| walk.sealed),
    }
}

/// A way into a database that can be rotated now.
async fn enter(owner_url: &Secret, keyring: &Keyring) -> Result<Owner, OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let found = owner.version().await?;
    if found < migrate::NEWEST {
        return Err(OpenError::Older { found, known: migrate::NEWEST });
    }
    agree(&owner.client, keyring.newest()).await?;
    Ok(owner)
}

async fn count_values(owner: &Owner) -> Result<usize, OpenError> {
    let mut total = 0;
    for column in &COLUMNS {
        total += number(&owner.client.query_typed(column.count, &[]).await?)?;
    }
    Ok(total)
}

/// A walk over the values of all databases.
struct Walk<'a, P> {
    keyring: &'a Keyring,
    progress: P,
    total: usize,
    seen: usize,
    sealed: usize,
}

impl<P: FnMut(usize, usize)> Walk<'_, P> {
    async fn rotate(&mut self, mut owner: Owner) -> Result<(), OpenError> {
        for column in &COLUMNS {
            let mut after = Key::FIRST;
            while let Some(batch) = column.rotate(&mut owner.client, self.keyring, &after).await? {
                after = batch.last;
                self.seen += batch.seen;
                self.sealed += batch.sealed;
                (self.progress)(self.seen.min(self.total), self.total);
            }
        }
        owner.close().await;
        Ok(())
    }
}

/// Makes sure that the running servers seal with this key themselves: one that seals with an older key goes on making
/// work for a rotation, and one that does not have this one could not read what is rotated.
async fn agree(client: &Client, key: KeyId) -> Result<(), OpenError> {
    let servers = number(&client.query_typed(OTHERS, bind![key.to_bytes().to_vec()]).await?)?;
    if servers > 0 { Err(OpenError::ServersLackKey { servers }) } else { Ok(()) }
}

/// The answer to a count.
fn number(rows: &[Row]) -> Result<usize> {
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

/// A primary key.
#[derive(Clone)]
struct Key {
    org: i64,
    number: i64,
    text: String,
}

impl Key {
    /// Before all others.
    const FIRST: Self = Self { org: i64::MIN, number: i64::MIN, text: String::new() };
}

/// A sealed value and where it is.
struct Value {
    key: Key,
    value: Vec<u8>,
    owner: Vec<u8>,
    row: Vec<u8>,
}

impl Value {
    fn read(row: &Row) -> Result<Self> {
        let key = Key { org: get(row, 0)?, number: get(row, 1)?, text: get(row, 2)? };
        Ok(Self { key, value: get(row, 3)?, owner: get(row, 4)?, row: get(row, 5)? })
    }
}

/// What one transaction did.
struct Batch {
    last: Key,
    seen: usize,
    sealed: usize,
}

impl Column {
    /// The next values of the column in one transaction; none when there are no more.
    async fn rotate(&self, client: &mut Client, keyring: &Keyring, after: &Key) -> Result<Option<Batch>, OpenError> {
        let transaction = client.transaction().await?;
        let asked = bind![after.org, after.number, after.text, BATCH];
        let rows = transaction.query_typed(self.select, asked).await?;
        let values: Vec<Value> = rows.iter().map(Value::read).collect::<Result<_>>()?;
        let Some(last) = values.last().map(|value| value.key.clone()) else { return Ok(None) };
        let (seen, mut sealed) = (values.len(), 0);
        for Value { key, value, owner, row } in values {
            if KeyId::of_ciphertext(&value) == Some(keyring.newest()) {
                continue;
            }
            let place = Place { table: self.table, column: self.column, organization: &owner, row: &row };
            let secret = keyring.open(place, &value).map_err(OpenError::WrongKey)?;
            let anew = keyring.seal(place, &secret);
            let values = bind![key.org, key.number, key.text, value, anew];
            sealed += usize::from(transaction.execute_typed(self.update, values).await? > 0);
        }
        transaction.commit().await?;
        Ok(Some(Batch { last, seen, sealed }))
    }
}
