//! Events as their owner sees them.

use std::collections::HashMap;

use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::{EventId, SourceId};
use rusqlite::Row;

use super::delivery;
use super::scan::select_event;
use crate::api::{EventPayload, EventView};
use crate::engine::log::{EventRow, worse};
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{created_by, headers, targets};
use crate::sqlite::rows;
use crate::worker::EventKey;
use crate::{Handoff, Result};

/// By the unique index on id.
const BY_ID: &str = select_event!("from event where id = ?1 and org = ?2");

/// By primary key.
const BY_PLACE: &str = select_event!("from event where seq = ?1 and org = ?2");

/// By the unique index on id.
const PAYLOAD: &str = "select headers, body from event where id = ?1 and org = ?2";

/// By primary key; deleted sources too, because their events stay.
const SOURCE: &str = "select id from source where source = ?1";

/// By primary key. The payload is not read: its length is in the row's header. Who sent it is kept with the headers, which
/// are short of an event that was not received.
const REST: &str = "select length(body), case when source is null then headers end from event where seq = ?1";

/// From the columns of [`select_event`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        key: EventKey::from_seq(row.get(0)?),
        id: EventId::from_bytes(row.get(2)?),
        source: row.get(3)?,
        event_type: row.get(4)?,
        external_id: row.get(5)?,
        targets: targets(row, 6)?,
    })
}

/// An event of the organization.
pub(in crate::sqlite) fn find(connection: &Connection, org: i64, id: EventId) -> Result<EventRow> {
    rows::expect("event", connection, BY_ID, &[&id.to_bytes(), &org], read)
}

/// An event of the organization by its place in the log, if it is still there.
pub(super) fn at(connection: &Connection, org: i64, seq: i64) -> Result<Option<EventRow>> {
    Ok(rows::one(connection, BY_PLACE, &[&seq, &org], read)?)
}

/// One event of the organization.
pub(in crate::sqlite) fn view(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    id: EventId,
) -> Result<EventView> {
    let event = find(connection, org, id)?;
    let status = status(connection, handoff, &event)?;
    Viewer::new(connection).view(event, status)
}

/// What an event of the organization carries.
pub(in crate::sqlite) fn payload(connection: &Connection, org: i64, id: EventId) -> Result<EventPayload> {
    rows::expect("event", connection, PAYLOAD, &[&id.to_bytes(), &org], |row| {
        Ok(EventPayload { headers: headers(row, 0)?, body: row.get::<_, Vec<u8>>(1)?.into() })
    })
}

/// The worst state of an event's deliveries, replays too; none when there are none.
pub(super) fn status(
    connection: &Connection,
    handoff: &dyn Handoff,
    event: &EventRow,
) -> Result<Option<DeliveryStatus>> {
    let mut worst: Option<DeliveryStatus> = None;
    for run in delivery::runs(connection, event)? {
        let status = delivery::standing(connection, run.key)?.status(handoff, run.key);
        worst = Some(worst.map_or(status, |worst| worse(worst, status)));
        if status == DeliveryStatus::DeadLetter {
            break;
        }
    }
    Ok(worst)
}

/// Makes views of events; looks each source up once.
pub(super) struct Viewer<'a> {
    connection: &'a Connection,
    sources: HashMap<i64, SourceId>,
}

impl<'a> Viewer<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, sources: HashMap::new() }
    }

    pub(super) fn view(&mut self, event: EventRow, status: Option<DeliveryStatus>) -> Result<EventView> {
        let source = event.source.map(|source| self.source(source)).transpose()?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, created_by(row, 1)?));
        let rest = rows::expect("event", self.connection, REST, &[&event.key.seq()], read)?;
        Ok(event.view(source, rest, status))
    }

    fn source(&mut self, source: i64) -> Result<SourceId> {
        if let Some(id) = self.sources.get(&source) {
            return Ok(*id);
        }
        let read = |row: &Row<'_>| row.get(0).map(SourceId::from_bytes);
        let id = rows::expect("source", self.connection, SOURCE, &[&source], read)?;
        self.sources.insert(source, id);
        Ok(id)
    }
}
