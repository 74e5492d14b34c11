//! Deliveries as their owner sees them: not stored, but computed from event, exception, newest attempt, and from what
//! is under way right now.

use std::collections::HashMap;

use postroom_domain::{AttemptId, DeliveryId, EndpointId};
use rusqlite::Row;

use super::event;
use crate::api::DeliveryView;
use crate::engine::log::{EventRow, Newest, Run, Standing};
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{broken, moment, word_or_none};
use crate::sqlite::exceptions;
use crate::sqlite::rows;
use crate::worker::{DeliveryKey, EndpointKey};
use crate::{Error, Handoff, Result};

/// Index: attempt_by_event.
const NEWEST: &str = "select id, number, succeeded, status, error from attempt indexed by attempt_by_event \
     where event = ?1 and endpoint = ?2 and run = ?3 order by attempt desc limit 1";

/// By the unique index on (org, number).
const BY_NUMBER: &str = "select endpoint from endpoint where org = ?1 and number = ?2";

/// By primary key.
const ENDPOINT: &str = "select id, number from endpoint where endpoint = ?1";

/// By primary key.
const REPLAY: &str = "select created_at, actor from replay where event = ?1 and endpoint = ?2 and run = ?3";

/// By primary key.
const REPLAYS: &str = "select endpoint, run, created_at, actor from replay where event = ?1";

/// All runs of an event, in the order of lists.
pub(super) fn runs(connection: &Connection, event: &EventRow) -> Result<Vec<Run>> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, moment(row, 2)?, row.get(3)?));
    Ok(event.runs(rows::all(connection, REPLAYS, &[&event.key.seq()], read)?))
}

/// One run of an event, if there is such a one.
pub(super) fn run(connection: &Connection, event: &EventRow, endpoint: i64, run: u16) -> Result<Option<Run>> {
    let created = if run > 0 {
        let read = |row: &Row<'_>| Ok((moment(row, 0)?, Some(row.get(1)?)));
        rows::one(connection, REPLAY, &[&event.key.seq(), &endpoint, &run], read)?
    } else {
        event.targets.contains(&endpoint).then(|| (event.id.created_at(), None))
    };
    let key = DeliveryKey { event: event.key, endpoint: EndpointKey(endpoint), run };
    Ok(created.map(|(created_at, created_by)| Run { key, created_at, created_by }))
}

/// A delivery of the organization, taken apart.
pub(super) fn find(connection: &Connection, org: i64, id: DeliveryId) -> Result<(EventRow, Run)> {
    const UNKNOWN: Error = Error::NotFound { kind: "delivery" };
    let event = event::find(connection, org, id.event).map_err(|error| match error {
        Error::NotFound { .. } => UNKNOWN,
        other => other,
    })?;
    let read = |row: &Row<'_>| row.get::<_, i64>(0);
    let endpoint = rows::one(connection, BY_NUMBER, &[&org, &id.endpoint_number], read)?.ok_or(UNKNOWN)?;
    let run = run(connection, &event, endpoint, id.run)?.ok_or(UNKNOWN)?;
    Ok((event, run))
}

/// The key of a delivery of the organization.
pub(in crate::sqlite) fn key(connection: &Connection, org: i64, id: DeliveryId) -> Result<DeliveryKey> {
    find(connection, org, id).map(|(_, run)| run.key)
}

/// One delivery of the organization.
pub(in crate::sqlite) fn view(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    id: DeliveryId,
) -> Result<DeliveryView> {
    let (event, run) = find(connection, org, id)?;
    Viewer::new(connection, handoff).view(&event, run)
}

/// What is stored of how a delivery goes.
pub(super) fn standing(connection: &Connection, key: DeliveryKey) -> Result<Standing> {
    let newest = rows::one(connection, NEWEST, &[&key.event.seq(), &key.endpoint.0, &key.run], |row| {
        Ok(Newest {
            id: AttemptId::from_bytes(row.get(0)?),
            number: row.get(1)?,
            succeeded: row.get(2)?,
            status: row.get(3)?,
            error: word_or_none(row, 4)?,
        })
    })?;
    Ok(Standing { exception: exceptions::find(connection, key)?, newest })
}

/// Makes views of deliveries; looks each endpoint up once.
pub(super) struct Viewer<'a> {
    connection: &'a Connection,
    handoff: &'a dyn Handoff,
    endpoints: HashMap<EndpointKey, (EndpointId, u32)>,
}

impl<'a> Viewer<'a> {
    pub(super) fn new(connection: &'a Connection, handoff: &'a dyn Handoff) -> Self {
        Self { connection, handoff, endpoints: HashMap::new() }
    }

    pub(super) fn view(&mut self, event: &EventRow, run: Run) -> Result<DeliveryView> {
        let standing = standing(self.connection, run.key)?;
        let endpoint = self.endpoint(run.key.endpoint)?;
        Ok(run.view(event, endpoint, &standing, self.handoff))
    }

    fn endpoint(&mut self, key: EndpointKey) -> Result<(EndpointId, u32)> {
        if let Some(known) = self.endpoints.get(&key) {
            return Ok(*known);
        }
        let read = |row: &Row<'_>| Ok((EndpointId::from_bytes(row.get(0)?), row.get(1)?));
        let found = rows::one(self.connection, ENDPOINT, &[&key.0], read)?
            .ok_or_else(|| broken(format!("endpoint {} has deliveries and no row", key.0)))?;
        self.endpoints.insert(key, found);
        Ok(found)
    }
}
