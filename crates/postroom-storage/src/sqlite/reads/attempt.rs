//! Attempts as their owner sees them.

use std::time::Duration;

use postroom_domain::{AttemptId, DeliveryId};
use rusqlite::Row;

use super::delivery;
use crate::Result;
use crate::api::AttemptView;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{headers, word_or_none};
use crate::sqlite::rows;
use crate::worker::{Attempt, Response};

/// The columns that [`read`] takes.
macro_rules! select_attempt {
    ($rest:literal) => {
        concat!(
            "select id, number, url, status, response_headers, response_body, error, duration_ms, event, endpoint, run ",
            $rest
        )
    };
}
pub(super) use select_attempt;

/// Index: attempt_by_event, from its end.
const NEWEST: &str = select_attempt!(
    "from attempt indexed by attempt_by_event where event = ?1 and endpoint = ?2 and run = ?3 \
     order by attempt desc limit 100"
);

/// The newest 100 attempts of a delivery of the organization, first to last.
pub(in crate::sqlite) fn list(connection: &Connection, org: i64, id: DeliveryId) -> Result<Vec<AttemptView>> {
    let key = delivery::key(connection, org, id)?;
    let mut attempts = rows::all(connection, NEWEST, &[&key.event.seq(), &key.endpoint.0, &key.run], read)?;
    attempts.reverse();
    Ok(attempts)
}

/// From the columns of [`select_attempt`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<AttemptView> {
    let id = AttemptId::from_bytes(row.get(0)?);
    let response = match row.get(3)? {
        Some(status) => Some(Response {
            status,
            headers: headers(row, 4)?,
            body: row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default().into(),
        }),
        None => None,
    };
    let attempt = Attempt {
        id,
        number: row.get(1)?,
        url: row.get(2)?,
        response,
        error: word_or_none(row, 6)?,
        duration: Duration::from_millis(row.get(7)?),
    };
    Ok(AttemptView { attempt, started_at: id.created_at() })
}
