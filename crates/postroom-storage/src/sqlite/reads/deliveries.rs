//! Lists of deliveries. A delivery has no row of its own, so a list is made from what its filter can begin with: an
//! event, the exceptions of an endpoint or of the organization, what went to an endpoint, or else the log.

use std::ops::ControlFlow::{Break, Continue};

use postroom_domain::EndpointId;
use postroom_domain::delivery::DeliveryStatus;
use rusqlite::{Row, ToSql};

use super::delivery::{self, Viewer};
use super::event;
use super::scan::{self, By, Met, Progress, Span};
use crate::api::{DeliveryFilter, DeliveryView, Page, PageRequest};
use crate::engine::log::{EventRow, ExceptionState, Run, is_between};
use crate::engine::pager::{Go, Pager, Place};
use crate::sqlite::connection::Connection;
use crate::sqlite::rows;
use crate::worker::{DeliveryKey, EndpointKey, EventKey};
use crate::{Error, Handoff, Result};

/// By the unique index on id; deleted endpoints too.
const ENDPOINT: &str = "select endpoint from endpoint where id = ?1 and org = ?2";

/// Index: exception_by_org.
const EXCEPTIONS: &str = "select event, endpoint, run from exception indexed by exception_by_org \
     where org = ?1 and state = ?2 and event >= ?3 and (event, endpoint, run) < (?4, ?5, ?6) \
     order by event desc, endpoint desc, run desc";

/// By primary key.
const EXCEPTIONS_OF_ENDPOINT: &str = "select event, endpoint, run from exception \
     where endpoint = ?1 and state = ?2 and event >= ?3 and (event, run) < (?4, ?5) order by event desc, run desc";

/// By primary key.
const OF_ENDPOINT: &str = "select event, endpoint, run from delivery_by_endpoint \
     where endpoint = ?1 and event >= ?2 and (event, run) < (?3, ?4) order by event desc, run desc";

/// For the test that looks at how they are answered.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[ENDPOINT, EXCEPTIONS, EXCEPTIONS_OF_ENDPOINT, OF_ENDPOINT];

/// Deliveries of the organization that pass a filter, newest event first.
pub(in crate::sqlite) fn list(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    filter: &DeliveryFilter,
    request: &PageRequest,
) -> Result<Page<DeliveryView>> {
    page(connection, handoff, org, filter, Place::after(request)?, Pager::new(request))
}

pub(super) fn page(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    filter: &DeliveryFilter,
    after: Place,
    pager: Pager<DeliveryView>,
) -> Result<Page<DeliveryView>> {
    let mut list = List {
        connection,
        org,
        filter,
        after,
        endpoint: None,
        viewer: Viewer::new(connection, handoff),
        event: None,
        pager,
    };
    if let Some(id) = filter.endpoint {
        list.endpoint = endpoint_key(connection, org, id)?;
        if list.endpoint.is_none() {
            // Nobody's, or somebody else's: nothing went there.
            return Ok(list.pager.finish());
        }
    }
    let _page_is_complete = list.fill()?;
    Ok(list.pager.finish())
}

fn endpoint_key(connection: &Connection, org: i64, id: EndpointId) -> Result<Option<i64>> {
    Ok(rows::one(connection, ENDPOINT, &[&id.to_bytes(), &org], |row| row.get(0))?)
}

/// One page in the making.
struct List<'a> {
    connection: &'a Connection,
    org: i64,
    filter: &'a DeliveryFilter,
    /// Only what lies behind this.
    after: Place,
    /// The filter's endpoint inside this engine.
    endpoint: Option<i64>,
    viewer: Viewer<'a>,
    /// The event of the last delivery: the next one is often of the same.
    event: Option<EventRow>,
    pager: Pager<DeliveryView>,
}

impl List<'_> {
    fn fill(&mut self) -> Result<Go> {
        if let Some(id) = self.filter.event {
            return match event::find(self.connection, self.org, id) {
                Ok(event) => self.of_event(event),
                Err(Error::NotFound { .. }) => Ok(Continue(())),
                Err(error) => Err(error),
            };
        }
        let (after, before) = (self.filter.created_after, self.filter.created_before);
        let span = Span::of(self.connection, self.org, after, before, self.after.event.seq())?;
        let progress = Progress::read(self.connection)?;
        match self.filter.status {
            Some(DeliveryStatus::DeadLetter) => self.exceptions(span, ExceptionState::DeadLetter),
            Some(DeliveryStatus::Discarded) => self.exceptions(span, ExceptionState::Discarded),
            Some(DeliveryStatus::Failed) => self.exceptions(span, ExceptionState::Waiting),
            Some(DeliveryStatus::Pending | DeliveryStatus::Processing) => {
                if self.log(span.above(progress.watermark))?.is_break() {
                    return Ok(Break(()));
                }
                // Up to the watermark, whatever is not settled waits as an exception.
                self.exceptions(span.below(progress.watermark), ExceptionState::Waiting)
            }
            Some(DeliveryStatus::Success) | None if self.endpoint.is_some() => {
                if self.tail(span.above(progress.indexed_upto))?.is_break() {
                    return Ok(Break(()));
                }
                self.endpoint_index(span.below(progress.indexed_upto))
            }
            Some(DeliveryStatus::Success) | None => self.log(span),
        }
    }

    /// Events of the organization, each with its deliveries.
    fn log(&mut self, span: Span) -> Result<Go> {
        let (connection, org) = (self.connection, self.org);
        scan::events(connection, org, span, By::Organization, |met| self.meet(met))
    }

    /// The same of what is not in the search tables yet.
    fn tail(&mut self, span: Span) -> Result<Go> {
        let (connection, org) = (self.connection, self.org);
        scan::tail(connection, org, span, &mut |met| self.meet(met))
    }

    fn meet(&mut self, met: Met<'_, '_>) -> Result<Go> {
        let (end, is_own) = match met {
            Met::Foreign(place) => (place, false),
            Met::Own(row) => {
                let event = event::read(row)?;
                let end = Place::event(event.key);
                if self.of_event(event)?.is_break() {
                    return Ok(Break(()));
                }
                (end, true)
            }
        };
        if end >= self.after {
            // The event that the page before ended with is met again.
            return Ok(Continue(()));
        }
        Ok(if is_own { self.pager.pass(end) } else { self.pager.pass_foreign(end) })
    }

    fn of_event(&mut self, event: EventRow) -> Result<Go> {
        for run in delivery::runs(self.connection, &event)? {
            let wanted = self.endpoint.is_none_or(|endpoint| run.key.endpoint.0 == endpoint);
            if wanted && self.look(&event, run)?.is_break() {
                return Ok(Break(()));
            }
        }
        Ok(Continue(()))
    }

    fn exceptions(&mut self, span: Span, state: ExceptionState) -> Result<Go> {
        let state = state.as_str();
        let Some(start) = self.start(span) else { return Ok(Continue(())) };
        match self.endpoint {
            Some(endpoint) => {
                let values: [&dyn ToSql; 5] = [&endpoint, &state, &span.from, &start.event.seq(), &start.run];
                self.steps(EXCEPTIONS_OF_ENDPOINT, &values)
            }
            None => {
                let values: [&dyn ToSql; 6] =
                    [&self.org.clone(), &state, &span.from, &start.event.seq(), &start.endpoint, &start.run];
                self.steps(EXCEPTIONS, &values)
            }
        }
    }

    fn endpoint_index(&mut self, span: Span) -> Result<Go> {
        let (Some(endpoint), Some(start)) = (self.endpoint, self.start(span)) else { return Ok(Continue(())) };
        self.steps(OF_ENDPOINT, &[&endpoint, &span.from, &start.event.seq(), &start.run])
    }

    /// Where a walk by rows of deliveries begins: behind the last page, and not above the span.
    fn start(&self, span: Span) -> Option<Place> {
        let top = Place { event: EventKey::from_seq(span.upto), endpoint: i64::MAX, run: i64::MAX };
        (span.upto >= span.from).then(|| top.min(self.after))
    }

    fn steps(&mut self, sql: &'static str, values: &[&dyn ToSql]) -> Result<Go> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            if self.step(row)?.is_break() {
                return Ok(Break(()));
            }
        }
        Ok(Continue(()))
    }

    fn step(&mut self, row: &Row<'_>) -> Result<Go> {
        let (seq, endpoint, run): (i64, i64, u16) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if self.event.as_ref().is_none_or(|event| event.key.seq() != seq) {
            self.event = event::at(self.connection, self.org, seq)?;
        }
        let key = DeliveryKey { event: EventKey::from_seq(seq), endpoint: EndpointKey(endpoint), run };
        let place = Place::delivery(key);
        // Retention may have taken the event first.
        let Some(event) = self.event.take() else { return Ok(self.pager.pass(place)) };
        let end = match delivery::run(self.connection, &event, endpoint, run)? {
            Some(run) => self.look(&event, run),
            None => Ok(self.pager.pass(place)),
        };
        self.event = Some(event);
        end
    }

    /// Shows one delivery if it passes the filter.
    fn look(&mut self, event: &EventRow, run: Run) -> Result<Go> {
        let place = Place::delivery(run.key);
        if place >= self.after {
            return Ok(Continue(()));
        }
        if !is_between(event.id.created_at(), self.filter.created_after, self.filter.created_before) {
            return Ok(self.pager.pass(place));
        }
        let view = self.viewer.view(event, run)?;
        if self.filter.status.is_some_and(|wanted| view.status != wanted) {
            return Ok(self.pager.pass(place));
        }
        Ok(self.pager.show(place, view))
    }
}
