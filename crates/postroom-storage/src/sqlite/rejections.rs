//! Requests that failed verification, kept for their owner to see: bounded in number, in bytes and in rate.

use postroom_domain::{EventId, RejectionId};
use rusqlite::params;

use super::connection::Connection;
use super::rows;
use crate::engine::packed::pack_headers;
use crate::engine::rejections::{KEPT, KEPT_BYTES};
use crate::receiver::NewRejection;
use crate::{Error, Result, Scope};

/// Appends.
const INSERT: &str = "insert into rejection \
     (id, org, source, code, check_name, method, path, headers, received_at, body) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// Index: rejection_by_org, from its newest end. `length` does not read bodies.
const OUTLIVED: &str = "select seq from (select seq, row_number() over newest as place, \
     sum(length(body)) over newest as bytes from rejection where org = ?1 window newest as (order by seq desc)) \
     where place > ?2 or (bytes > ?3 and place > 1) order by seq desc limit 1";

/// Index: rejection_by_org.
const DELETE: &str = "delete from rejection where org = ?1 and seq <= ?2";

/// By the unique indexes on id, of both.
const RESOLVE: &str = "update rejection set event = ?3 \
     where id = ?2 and org = ?1 and exists (select 1 from event where event.id = ?3 and event.org = ?1)";

/// Keeps a rejected request and forgets the oldest ones above the bounds.
pub(super) fn keep(connection: &Connection, new: &NewRejection) -> Result<RejectionId> {
    let id = RejectionId::new(new.received_at);
    let org = new.source.scope.org;
    connection.prepare_cached(INSERT)?.execute(params![
        id.to_bytes(),
        org,
        new.source.key,
        new.code,
        new.check,
        new.method,
        new.path,
        pack_headers(&new.headers),
        new.received_at.as_millis(),
        &*new.body,
    ])?;
    if let Some(last) = rows::one(connection, OUTLIVED, &[&org, &KEPT, &KEPT_BYTES], |row| row.get::<_, i64>(0))? {
        connection.prepare_cached(DELETE)?.execute((org, last))?;
    }
    Ok(id)
}

/// The request was verified again and became an event.
pub(super) fn resolve(connection: &Connection, scope: &Scope, id: RejectionId, event: EventId) -> Result<()> {
    let changed = connection.prepare_cached(RESOLVE)?.execute((scope.org, id.to_bytes(), event.to_bytes()))?;
    if changed == 0 { Err(Error::NotFound { kind: "rejection" }) } else { Ok(()) }
}
