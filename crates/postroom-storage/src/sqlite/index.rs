//! The search tables and the duplicate guard: everything about an event whose place in a tree is scattered.

use rusqlite::Connection;

use super::rows;
use super::writer::Record;

/// By primary key.
const BY_ORG: &str = "insert or ignore into event_by_org (org, seq) values (?1, ?2)";

/// By primary key.
const BY_TYPE: &str = "insert or ignore into event_by_type (org, type, seq) values (?1, ?2, ?3)";

/// By primary key.
const BY_ENDPOINT: &str = "insert or ignore into delivery_by_endpoint (endpoint, event, run) values (?1, ?2, ?3)";

/// By primary key.
const GUARD_FIND: &str = "select event from duplicate_guard where hash = ?1";

/// By primary key. An event older than the window gives way to the newer one with its id.
const GUARD_PUT: &str = "insert into duplicate_guard (hash, event) values (?1, ?2) \
     on conflict (hash) do update set event = excluded.event";

/// Where an event with this external id is in the log.
pub(super) fn guard_find(connection: &Connection, hash: &[u8; 16]) -> rusqlite::Result<Option<i64>> {
    rows::one(connection, GUARD_FIND, &[hash], |row| row.get(0))
}

/// Enters an event that was just appended.
pub(super) fn enter(connection: &Connection, record: &Record, seq: i64) -> rusqlite::Result<()> {
    connection.prepare_cached(BY_ORG)?.execute((record.org, seq))?;
    connection.prepare_cached(BY_TYPE)?.execute((record.org, record.event_type.as_str(), seq))?;
    for endpoint in &record.endpoints {
        connection.prepare_cached(BY_ENDPOINT)?.execute((endpoint.0, seq, 0))?;
    }
    if let Some(hash) = &record.guard {
        connection.prepare_cached(GUARD_PUT)?.execute((hash, seq))?;
    }
    Ok(())
}
