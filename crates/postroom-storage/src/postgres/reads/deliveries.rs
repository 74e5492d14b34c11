//! Lists of deliveries. A delivery has no row of its own, so a list is made from what its filter can begin with: an
//! event, the exceptions of an endpoint or of the organization, what went to an endpoint, or else the log.

use std::collections::HashMap;
use std::ops::ControlFlow::{Break, Continue};

use postroom_domain::delivery::DeliveryStatus;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Desk;
use super::scan::{By, CHUNK, Span};
use crate::api::{DeliveryFilter, DeliveryView, Page, PageRequest};
use crate::engine::log::{EventRow, ExceptionState, Run, is_between};
use crate::engine::page;
use crate::engine::pager::{Go, Pager, Place};
use crate::postgres::Postgres;
use crate::postgres::convert::{get, small, uuid};
use crate::postgres::pool::bind;
use crate::worker::{DeliveryKey, EndpointKey, EventKey};
use crate::{Result, Scope};

/// By the unique index on (org, id); deleted endpoints too.
const ENDPOINT: &str = "select endpoint from endpoints where org = $1 and id = $2";

/// Index: exceptions_by_state, from its newest end.
pub(super) const EXCEPTIONS: &str = "select event, endpoint, run from exceptions \
     where org = $1 and state = $2 and event between $3 and $4 and (event, endpoint, run) < ($4, $5, $6) \
     order by event desc, endpoint desc, run desc limit $7";

/// By primary key, from its newest end.
pub(super) const EXCEPTIONS_OF_ENDPOINT: &str = "select event, endpoint, run from exceptions \
     where org = $1 and state = $2 and event between $3 and $4 and endpoint = $5 and (event, run) < ($4, $6) \
     order by event desc, run desc limit $7";

/// By primary keys, both from their newest end: what was tried, and what has an exception.
pub(super) const OF_ENDPOINT: &str = "select event, endpoint, run from (\
       (select distinct event, endpoint, run from attempts \
         where org = $1 and event between $2 and $3 and endpoint = $4 and (event, run) < ($3, $5) \
         order by event desc, run desc limit $6) \
       union (select event, endpoint, run from exceptions \
         where org = $1 and event between $2 and $3 and endpoint = $4 and (event, run) < ($3, $5) \
         order by event desc, run desc limit $6)) as known \
     order by event desc, run desc limit $6";

/// How many deliveries are looked up at once; those of the last event may exceed it.
const LOOKED_UP: usize = 1_000;

impl Postgres {
    pub(in crate::postgres) async fn delivery_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        let (after, pager) = (Place::after(&page)?, Pager::new(&page));
        let desk = self.read_at(&self.0.pools.dead_letter, scope.org).await?;
        let first = i64::try_from(page::limit(&page) + 1).unwrap_or(CHUNK);
        let page = list(&desk, &filter, after, first, pager).await;
        desk.end(page).await
    }

    pub(in crate::postgres) async fn dead_letter_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        let filter = DeliveryFilter { status: Some(DeliveryStatus::DeadLetter), ..filter };
        self.delivery_list(scope, filter, page).await
    }
}

/// Deliveries of the organization that pass a filter, newest event first; `first` is how many rows are read at first.
pub(super) async fn list(
    desk: &Desk,
    filter: &DeliveryFilter,
    after: Place,
    first: i64,
    pager: Pager<DeliveryView>,
) -> Result<Page<DeliveryView>> {
    let mut list = List { desk, filter, after, endpoint: None, most: first.min(CHUNK), pager };
    if let Some(id) = filter.endpoint {
        let Some(row) = desk.transaction.query_one(ENDPOINT, bind![desk.org, uuid(id.to_bytes())]).await? else {
            // Nobody's, or somebody else's: nothing went there.
            return Ok(list.pager.finish());
        };
        list.endpoint = Some(EndpointKey(get(&row, 0)?));
    }
    let _page_is_complete = list.fill().await?;
    Ok(list.pager.finish())
}

/// One page in the making.
struct List<'a> {
    desk: &'a Desk,
    filter: &'a DeliveryFilter,
    /// Only what lies behind this.
    after: Place,
    /// The filter's endpoint inside this engine.
    endpoint: Option<EndpointKey>,
    /// How many rows are read at once.
    most: i64,
    pager: Pager<DeliveryView>,
}

/// Something to look at: a delivery, or only a place that was passed.
type Item<'e> = (Place, Option<(&'e EventRow, Run)>);

impl List<'_> {
    async fn fill(&mut self) -> Result<Go> {
        if let Some(id) = self.filter.event {
            return match self.desk.event(id).await? {
                Some(event) => self.of_events(&[event]).await,
                None => Ok(Continue(())),
            };
        }
        let span = Span::of(self.filter.created_after, self.filter.created_before).upto(self.after.event);
        match self.filter.status {
            Some(DeliveryStatus::DeadLetter) => self.exceptions(span, ExceptionState::DeadLetter).await,
            Some(DeliveryStatus::Discarded) => self.exceptions(span, ExceptionState::Discarded).await,
            Some(DeliveryStatus::Failed) => self.exceptions(span, ExceptionState::Waiting).await,
            Some(DeliveryStatus::Pending | DeliveryStatus::Processing) => {
                let unsettled = self.desk.first_unsettled().await?;
                if self.log(span.from(unsettled)).await?.is_break() {
                    return Ok(Break(()));
                }
                // Before it, whatever is not settled waits as an exception.
                self.exceptions(span.before(unsettled), ExceptionState::Waiting).await
            }
            Some(DeliveryStatus::Success) | None => {
                let Some(endpoint) = self.endpoint else { return self.log(span).await };
                let unsettled = self.desk.first_unsettled().await?;
                if self.log(span.from(unsettled)).await?.is_break() {
                    return Ok(Break(()));
                }
                // Before it, whatever went there was tried or has an exception.
                self.went_to(span.before(unsettled), endpoint).await
            }
        }
    }

    /// Events of the organization, each with its deliveries.
    async fn log(&mut self, span: Span) -> Result<Go> {
        for part in span.parts(self.desk.now) {
            let mut left = Some(part);
            while let Some(part) = left {
                let (events, behind) = self.desk.newest(part, By::Organization, self.most()).await?;
                if self.of_events(&events).await?.is_break() {
                    return Ok(Break(()));
                }
                left = behind;
            }
        }
        Ok(Continue(()))
    }

    /// How many rows to read next.
    fn most(&mut self) -> i64 {
        let most = self.most;
        self.most = (most * 2).min(CHUNK);
        most
    }

    async fn of_events(&mut self, events: &[EventRow]) -> Result<Go> {
        let runs = self.desk.runs(events).await?;
        let mut items: Vec<Item<'_>> = Vec::new();
        for (event, runs) in events.iter().zip(runs) {
            let wanted = |run: &Run| self.endpoint.is_none_or(|endpoint| run.key.endpoint == endpoint);
            let runs = runs.into_iter().filter(wanted);
            items.extend(runs.map(|run| (Place::delivery(run.key), Some((event, run)))));
            items.push((Place::event(event.key), None));
            if items.len() >= LOOKED_UP && self.meet(std::mem::take(&mut items)).await?.is_break() {
                return Ok(Break(()));
            }
        }
        self.meet(items).await
    }

    async fn exceptions(&mut self, span: Span, state: ExceptionState) -> Result<Go> {
        let (org, state) = (self.desk.org, state.as_str());
        let mut start = self.start(span);
        while let Some(Start { from, upto, endpoint, run }) = start {
            let most = self.most();
            let rows = match self.endpoint {
                Some(EndpointKey(of)) => {
                    self.desk
                        .transaction
                        .query(EXCEPTIONS_OF_ENDPOINT, bind![org, state, from, upto, of, run, most])
                        .await?
                }
                None => {
                    self.desk.transaction.query(EXCEPTIONS, bind![org, state, from, upto, endpoint, run, most]).await?
                }
            };
            let (go, behind) = self.steps(&rows, most).await?;
            if go.is_break() {
                return Ok(go);
            }
            start = behind.map(|last| Start::behind(last, from));
        }
        Ok(Continue(()))
    }

    /// What went to an endpoint.
    async fn went_to(&mut self, span: Span, endpoint: EndpointKey) -> Result<Go> {
        for part in span.parts(self.desk.now) {
            let mut start = self.start(part);
            while let Some(Start { from, upto, run, .. }) = start {
                let most = self.most();
                let values = bind![self.desk.org, from, upto, endpoint.0, run, most];
                let rows = self.desk.transaction.query(OF_ENDPOINT, values).await?;
                let (go, behind) = self.steps(&rows, most).await?;
                if go.is_break() {
                    return Ok(go);
                }
                start = behind.map(|last| Start::behind(last, from));
            }
        }
        Ok(Continue(()))
    }

    /// Where a walk by rows of deliveries begins: behind the last page, and not above the span.
    fn start(&self, span: Span) -> Option<Start> {
        let (from, upto) = span.ends();
        let after = self.after;
        let (endpoint, run) =
            if after.event.uuid() == upto { (after.endpoint, after.run) } else { (i64::MAX, i64::MAX) };
        (!span.is_empty()).then_some(Start { from, upto, endpoint, run })
    }

    /// Looks at deliveries by their keys. The last one, if there may be more.
    async fn steps(&mut self, rows: &[Row], most: i64) -> Result<(Go, Option<DeliveryKey>)> {
        let key = |row: &Row| -> Result<DeliveryKey> {
            let (event, endpoint) = (EventKey::from_uuid(get(row, 0)?), EndpointKey(get(row, 1)?));
            Ok(DeliveryKey { event, endpoint, run: small(row, 2)? })
        };
        let keys: Vec<DeliveryKey> = rows.iter().map(key).collect::<Result<_>>()?;
        let mut events: Vec<EventKey> = keys.iter().map(|key| key.event).collect();
        events.dedup();
        // Retention may have taken an event first.
        let events = self.desk.events_at(&events).await?;
        let runs = self.desk.runs(events.values()).await?;
        let runs: HashMap<DeliveryKey, Run> = runs.into_iter().flatten().map(|run| (run.key, run)).collect();
        let known = |key: &DeliveryKey| Some((events.get(&key.event)?, runs.get(key)?.clone()));
        let items = keys.iter().map(|key| (Place::delivery(*key), known(key))).collect();
        let go = self.meet(items).await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= most);
        Ok((go, keys.last().copied().filter(|_| is_full)))
    }

    /// Shows those deliveries that pass the filter.
    async fn meet(&mut self, mut items: Vec<Item<'_>>) -> Result<Go> {
        let (after, filter) = (self.after, self.filter);
        // The event that the page before ended with is met again.
        items.retain(|(place, _)| *place < after);
        let in_time = |event: &EventRow| is_between(event.id.created_at(), filter.created_after, filter.created_before);
        for (_, of) in &mut items {
            *of = of.take().filter(|(event, _)| in_time(event));
        }
        let mut views = self.desk.delivery_views(items.iter().filter_map(|(_, of)| of.clone())).await?.into_iter();
        for (place, of) in items {
            let view =
                of.and_then(|_| views.next()).filter(|view| filter.status.is_none_or(|wanted| view.status == wanted));
            let go = match view {
                Some(view) => self.pager.show(place, view),
                None => self.pager.pass(place),
            };
            if go.is_break() {
                return Ok(go);
            }
        }
        Ok(Continue(()))
    }
}

/// Where a statement for rows of deliveries begins and where it ends.
struct Start {
    from: Uuid,
    upto: Uuid,
    endpoint: i64,
    run: i64,
}

impl Start {
    fn behind(last: DeliveryKey, from: Uuid) -> Self {
        Self { from, upto: last.event.uuid(), endpoint: last.endpoint.0, run: i64::from(last.run) }
    }
}
