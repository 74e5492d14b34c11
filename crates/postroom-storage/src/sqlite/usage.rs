//! Events counted for each organization and calendar month (UTC), in the transaction of the event itself.

use rusqlite::OptionalExtension;

use super::connection::Connection;

/// By primary key.
const GET: &str = "select count from usage where org = ?1 and month = ?2";

/// By primary key.
const SET: &str = "insert into usage (org, month, count) values (?1, ?2, ?3) \
     on conflict (org, month) do update set count = excluded.count";

/// How many are counted. `month` is its first millisecond.
pub(super) fn stored(connection: &Connection, org: i64, month: i64) -> rusqlite::Result<u64> {
    let count = connection.prepare_cached(GET)?.query_row((org, month), |row| row.get(0)).optional()?;
    Ok(count.unwrap_or(0))
}

/// Stores a count.
pub(super) fn store(connection: &Connection, org: i64, month: i64, count: u64) -> rusqlite::Result<()> {
    connection.prepare_cached(SET)?.execute((org, month, count)).map(drop)
}
