//! API keys: only their hashes.

use postroom_domain::{ApiKeyId, Timestamp};
use rusqlite::params;

use super::room_for_one_more;
use crate::Result;
use crate::api::{ApiKeyView, NewApiKey};
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::to_json;
use crate::sqlite::rows::{self, KeyRow, select_key};

/// Unique indexes on id and hash decide.
const INSERT: &str = "insert into api_key (org, id, name, scopes, hash, last_four, expires_at, created_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

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
const REVOKE: &str = "update api_key set revoked_at = coalesce(revoked_at, ?3) where id = ?2 and org = ?1";

pub(in crate::sqlite) fn create(
    connection: &Connection,
    org: i64,
    new: &NewApiKey,
    now: Timestamp,
) -> Result<ApiKeyView> {
    room_for_one_more(connection, COUNT, org, "API keys that are not revoked")?;
    let id = ApiKeyId::new(now);
    connection.prepare_cached(INSERT)?.execute(params![
        org,
        id.to_bytes(),
        new.name,
        to_json(&new.scopes),
        new.hash.to_bytes(),
        new.last_four,
        new.expires_at.map(Timestamp::as_millis),
        now.as_millis(),
    ])?;
    get(connection, org, id)
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

pub(in crate::sqlite) fn revoke(connection: &Connection, org: i64, id: ApiKeyId, now: Timestamp) -> Result<ApiKeyView> {
    connection.prepare_cached(REVOKE)?.execute((org, id.to_bytes(), now.as_millis()))?;
    get(connection, org, id)
}
