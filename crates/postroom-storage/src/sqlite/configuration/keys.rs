//! API keys: only their hashes.

use postroom_domain::{ApiKeyId, Timestamp};
use rusqlite::params;

use super::room_for_one_more;
use crate::api::{ApiKeyView, NewApiKey};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::vault::Vault;
use crate::sqlite::audit::write;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::to_json;
use crate::sqlite::rows::{self, KeyRow, select_key};
use crate::{Result, Scope};

/// Unique indexes on id and hash decide.
const INSERT: &str = "insert into api_key (org, id, name, scopes, hash, last_four, expires_at, created_at, created_by) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Index: api_key_by_org, at most as many entries as the bound.
const COUNT: &str = "select count(*) from (select 1 from api_key where org = ?1 and revoked_at is null limit ?2)";

/// By the unique index on id.
const BY_ID: &str = select_key!("where id = ?2 and org = ?1");

/// Index: api_key_by_org, from the place the page before ended.
const PAGE: &str = select_key!(
    "where org = ?1 and (?2 is null or key < (select key from api_key where id = ?2 and org = ?1)) \
     order by key desc limit ?3"
);

/// By the unique index on id.
const REVOKE: &str = "update api_key set revoked_at = ?3 where id = ?2 and org = ?1 and revoked_at is null";

pub(in crate::sqlite) fn create(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    new: &NewApiKey,
    now: Timestamp,
) -> Result<ApiKeyView> {
    room_for_one_more(connection, COUNT, scope.org, "API keys that are not revoked")?;
    let id = ApiKeyId::new(now);
    connection.prepare_cached(INSERT)?.execute(params![
        scope.org,
        id.to_bytes(),
        new.name,
        to_json(&new.scopes),
        new.hash.to_bytes(),
        new.last_four,
        new.expires_at.map(Timestamp::as_millis),
        now.as_millis(),
        scope.actor.to_string(),
    ])?;
    let act = Act::on(Action::ApiKeyCreated, id).to(audit::of_key(new));
    write(connection, vault, scope.into(), act, now)?;
    get(connection, scope.org, id)
}

pub(in crate::sqlite) fn get(connection: &Connection, org: i64, id: ApiKeyId) -> Result<ApiKeyView> {
    rows::expect("API key", connection, BY_ID, &[&org, &id.to_bytes()], KeyRow::read).map(KeyRow::view)
}

pub(in crate::sqlite) fn list(
    connection: &Connection,
    org: i64,
    after: Option<[u8; 16]>,
    limit: i64,
) -> Result<Vec<ApiKeyView>> {
    let rows = rows::all(connection, PAGE, &[&org, &after, &limit], KeyRow::read)?;
    Ok(rows.into_iter().map(KeyRow::view).collect())
}

/// Ends a key; one that has ended stays as it is, and so does the log.
pub(in crate::sqlite) fn revoke(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: ApiKeyId,
    now: Timestamp,
) -> Result<ApiKeyView> {
    if connection.prepare_cached(REVOKE)?.execute((scope.org, id.to_bytes(), now.as_millis()))? > 0 {
        write(connection, vault, scope.into(), Act::on(Action::ApiKeyRevoked, id), now)?;
    }
    get(connection, scope.org, id)
}
