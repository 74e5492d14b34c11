//! Lists of events: which index a filter is answered by, and what is checked row by row.

use std::ops::ControlFlow::Break;

use memchr::memmem::Finder;
use postroom_domain::SourceId;
use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::event::EventTypePattern;
use rusqlite::Row;

use super::event::{self, Viewer, status};
use super::scan::{self, By, Met, Progress, Span};
use crate::api::{EventFilter, EventView, Page, PageRequest};
use crate::engine::guard::guard_hash;
use crate::engine::log::{EventRow, ExceptionState};
use crate::engine::pager::{Go, Pager, Place};
use crate::sqlite::connection::Connection;
use crate::sqlite::rows;
use crate::sqlite::writer::guard_find;
use crate::{Handoff, Result};

/// By the unique index on id; deleted sources too.
const SOURCE: &str = "select source from source where id = ?1 and org = ?2";

/// Index: the unique one on (org, source); deleted sources too.
const SOURCES: &str = "select source from source where org = ?1 limit ?2";

/// By primary key. The payload alone.
const BODY: &str = "select body from event where seq = ?1";

/// How many sources are asked whether they know an external id.
const SOURCES_ASKED: i64 = 1_000;

/// Events of the organization that pass a filter, newest first.
pub(in crate::sqlite) fn list(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    filter: EventFilter,
    request: &PageRequest,
) -> Result<Page<EventView>> {
    page(connection, handoff, org, filter, Place::after(request)?, Pager::new(request))
}

pub(super) fn page(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    filter: EventFilter,
    after: Place,
    mut pager: Pager<EventView>,
) -> Result<Page<EventView>> {
    let source = match filter.source {
        Some(id) => match source_key(connection, org, id)? {
            Some(source) => Some(source),
            // Nobody's, or somebody else's: no event is from there.
            None => return Ok(pager.finish()),
        },
        None => None,
    };
    let upto = after.event.seq().saturating_sub(1);
    let span = Span::of(connection, org, filter.created_after, filter.created_before, upto)?;
    let walks = walks(connection, org, &filter, source, span)?;
    let mut check = Check {
        connection,
        handoff,
        finder: filter.text.as_ref().map(|text| Finder::new(text.as_bytes())),
        filter: &filter,
        source,
        viewer: Viewer::new(connection),
    };
    for (span, by) in walks {
        let end = scan::events(connection, org, span, by, |met| match met {
            Met::Foreign(place) => Ok(pager.pass_foreign(place)),
            Met::Own(row) => check.meet(row, &mut pager),
        })?;
        if end == Break(()) {
            break;
        }
    }
    Ok(pager.finish())
}

fn source_key(connection: &Connection, org: i64, id: SourceId) -> Result<Option<i64>> {
    Ok(rows::one(connection, SOURCE, &[&id.to_bytes(), &org], |row| row.get(0))?)
}

/// The walks, newest part first, that together meet every event that can pass the filter.
fn walks<'a>(
    connection: &Connection,
    org: i64,
    filter: &'a EventFilter,
    source: Option<i64>,
    span: Span,
) -> Result<Vec<(Span, By<'a>)>> {
    let progress = Progress::read(connection)?;
    let by = match &filter.event_type {
        Some(EventTypePattern::Exact(event_type)) => By::Type(event_type),
        Some(EventTypePattern::Below(_)) | None => By::Organization,
    };
    if let Some(id) = &filter.external_id
        && let Some(newest) = newest_with(connection, org, source, id)?
    {
        // From the newest one that the guard knows up to the end of what it knows there is none.
        return Ok(vec![(span.above(progress.guarded_upto.max(newest)), by), (span.below(newest), by)]);
    }
    let waiting = By::Exception(ExceptionState::Waiting);
    Ok(match filter.status {
        Some(DeliveryStatus::DeadLetter) => vec![(span, By::Exception(ExceptionState::DeadLetter))],
        Some(DeliveryStatus::Discarded) => vec![(span, By::Exception(ExceptionState::Discarded))],
        Some(DeliveryStatus::Failed) => vec![(span, waiting)],
        // Up to the watermark, whatever is not settled waits as an exception.
        Some(DeliveryStatus::Pending | DeliveryStatus::Processing) => {
            vec![(span.above(progress.watermark), by), (span.below(progress.watermark), waiting)]
        }
        Some(DeliveryStatus::Success) | None => vec![(span, by)],
    })
}

/// The newest event with an external id, as far as the duplicate guard remembers.
fn newest_with(connection: &Connection, org: i64, source: Option<i64>, external_id: &str) -> Result<Option<i64>> {
    let mut owners = match source {
        Some(source) => vec![(b's', source)],
        None => rows::all(connection, SOURCES, &[&org, &SOURCES_ASKED], |row| Ok((b's', row.get(0)?)))?,
    };
    if source.is_none() {
        if i64::try_from(owners.len()) == Ok(SOURCES_ASKED) {
            return Ok(None);
        }
        owners.push((b'o', org));
    }
    let mut newest = None;
    for owner in owners {
        newest = newest.max(guard_find(connection, &guard_hash(owner, external_id))?);
    }
    Ok(newest)
}

/// Checks events one by one.
struct Check<'a> {
    connection: &'a Connection,
    handoff: &'a dyn Handoff,
    filter: &'a EventFilter,
    /// The filter's source inside this engine.
    source: Option<i64>,
    finder: Option<Finder<'a>>,
    viewer: Viewer<'a>,
}

impl Check<'_> {
    fn meet(&mut self, row: &Row<'_>, pager: &mut Pager<EventView>) -> Result<Go> {
        let event = event::read(row)?;
        let place = Place::event(event.key);
        if !event.passes(self.filter, self.source) || !self.contains_text(&event, pager)? {
            return Ok(pager.pass(place));
        }
        let status = status(self.connection, self.handoff, &event)?;
        if self.filter.status.is_some_and(|wanted| status != Some(wanted)) {
            return Ok(pager.pass(place));
        }
        Ok(pager.show(place, self.viewer.view(event, status)?))
    }

    fn contains_text(&self, event: &EventRow, pager: &mut Pager<EventView>) -> Result<bool> {
        let Some(finder) = &self.finder else { return Ok(true) };
        let found = rows::one(self.connection, BODY, &[&event.key.seq()], |row| {
            let body = row.get_ref(0)?.as_blob()?;
            pager.searched(u64::try_from(body.len()).unwrap_or(u64::MAX));
            Ok(finder.find(body).is_some())
        })?;
        Ok(found.unwrap_or(false))
    }
}
