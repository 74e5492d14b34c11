//! Events as their owner sees them.

use std::collections::HashMap;

use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::event::Direction;
use postroom_domain::{EventId, SourceId};
use rusqlite::Row;

use super::delivery;
use super::scan::select_event;
use crate::api::{EventPayload, EventView};
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{headers, targets};
use crate::sqlite::rows;
use crate::{Handoff, Result};

/// By the unique index on id.
const BY_ID: &str = select_event!("from event where id = ?1 and org = ?2");

/// By primary key.
const BY_PLACE: &str = select_event!("from event where seq = ?1 and org = ?2");

/// By the unique index on id.
const PAYLOAD: &str = "select headers, body from event where id = ?1 and org = ?2";

/// By primary key; deleted sources too, because their events stay.
const SOURCE: &str = "select id from source where source = ?1";

/// By primary key. The payload is not read: its length is in the row's header.
const PAYLOAD_BYTES: &str = "select length(body) from event where seq = ?1";

/// An event as it is stored, without its headers and payload.
#[derive(Debug, Clone)]
pub(in crate::sqlite) struct EventRow {
    pub(in crate::sqlite) seq: i64,
    pub(in crate::sqlite) id: EventId,
    pub(in crate::sqlite) source: Option<i64>,
    pub(in crate::sqlite) event_type: String,
    pub(in crate::sqlite) external_id: Option<String>,
    /// Endpoints that it went to at first.
    pub(in crate::sqlite) targets: Vec<i64>,
}

impl EventRow {
    /// From the columns of [`select_event`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            id: EventId::from_bytes(row.get(2)?),
            source: row.get(3)?,
            event_type: row.get(4)?,
            external_id: row.get(5)?,
            targets: targets(row, 6)?,
        })
    }

    pub(super) fn direction(&self) -> Direction {
        if self.source.is_some() { Direction::Inbound } else { Direction::Outbound }
    }
}

/// An event of the organization.
pub(in crate::sqlite) fn find(connection: &Connection, org: i64, id: EventId) -> Result<EventRow> {
    rows::expect("event", connection, BY_ID, &[&id.to_bytes(), &org], EventRow::read)
}

/// An event of the organization by its place in the log, if it is still there.
pub(super) fn at(connection: &Connection, org: i64, seq: i64) -> Result<Option<EventRow>> {
    Ok(rows::one(connection, BY_PLACE, &[&seq, &org], EventRow::read)?)
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

/// The worst state of an event's deliveries, replays too; none when there are none. From worst to best: `dead_letter`,
/// `failed`, `processing`, `pending`, `discarded`, `success`. So an event shows what a person may have to look at, then
/// what is still going on, and `success` only when every delivery succeeded.
pub(super) fn status(
    connection: &Connection,
    handoff: &dyn Handoff,
    event: &EventRow,
) -> Result<Option<DeliveryStatus>> {
    let mut worst: Option<DeliveryStatus> = None;
    for run in delivery::runs(connection, event)? {
        let status = delivery::Standing::read(connection, run.key)?.status(handoff, run.key);
        if worst.is_none_or(|worst| severity(status) > severity(worst)) {
            worst = Some(status);
        }
        if status == DeliveryStatus::DeadLetter {
            break;
        }
    }
    Ok(worst)
}

fn severity(status: DeliveryStatus) -> u8 {
    match status {
        DeliveryStatus::Success => 0,
        DeliveryStatus::Discarded => 1,
        DeliveryStatus::Pending => 2,
        DeliveryStatus::Processing => 3,
        DeliveryStatus::Failed => 4,
        DeliveryStatus::DeadLetter => 5,
    }
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
        Ok(EventView {
            direction: event.direction(),
            source: event.source.map(|source| self.source(source)).transpose()?,
            id: event.id,
            event_type: event.event_type,
            external_id: event.external_id,
            created_at: event.id.created_at(),
            status,
            deliveries: u32::try_from(event.targets.len()).unwrap_or(u32::MAX),
            payload_bytes: self.payload_bytes(event.seq)?,
        })
    }

    fn payload_bytes(&self, seq: i64) -> Result<u64> {
        rows::expect("event", self.connection, PAYLOAD_BYTES, &[&seq], |row| row.get(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_shows_trouble_first_then_what_goes_on_and_success_last() {
        let mut all = DeliveryStatus::ALL.to_vec();
        all.sort_by_key(|status| std::cmp::Reverse(severity(*status)));
        let words: Vec<_> = all.into_iter().map(DeliveryStatus::as_str).collect();
        assert_eq!(words, ["dead_letter", "failed", "processing", "pending", "discarded", "success"]);
    }
}
