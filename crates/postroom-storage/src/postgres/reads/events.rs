//! Lists of events: which index a filter is answered by, and what is checked row by row.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow::{Break, Continue};

use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::event::EventTypePattern;
use postroom_domain::{EventId, SourceId};
use uuid::Uuid;

use super::Desk;
use super::log::key;
use super::scan::{By, CHUNK, Span};
use crate::api::{EventFilter, EventPayload, EventView, Page, PageRequest};
use crate::engine::guard::guard_hash;
use crate::engine::log::{EventRow, ExceptionState, worse};
use crate::engine::page;
use crate::engine::pager::{Go, Pager, Place};
use crate::postgres::Postgres;
use crate::postgres::convert::{count, created_by, get, headers, id, uuid};
use crate::postgres::pool::bind;
use crate::worker::EventKey;
use crate::{Error, Result, Scope};

/// By the unique index on (org, id); deleted sources too.
const SOURCE: &str = "select source from sources where org = $1 and id = $2";

/// By primary key; deleted sources too, because their events stay.
const SOURCE_IDS: &str = "select source, id from sources where org = $1 and source = any($2)";

/// By primary key.
const SOURCES: &str = "select source from sources where org = $1 limit $2";

/// By primary key.
const GUARDED: &str = "select event from duplicate_guard where org = $1 and hash = any($2) order by event desc limit 1";

/// By primary key. Payloads are not read: their lengths are in the rows' headers. Who sent an event is kept with its headers,
/// which are short of one that was not received.
const REST: &str = "select id, octet_length(body)::bigint, case when source is null then headers end from events \
     where org = $1 and id = any($2)";

/// By primary key. The same of payloads that are to be searched.
const PAYLOAD_BYTES: &str = "select id, octet_length(body)::bigint from events where org = $1 and id = any($2)";

/// By primary key. The payloads alone.
const WITH_TEXT: &str = "select id from events where org = $1 and id = any($2) and position($3 in body) > 0";

/// By primary key.
const PAYLOAD: &str = "select headers, body from events where org = $1 and id = $2";

/// How many sources are asked whether they know an external id.
const SOURCES_ASKED: i64 = 1_000;
/// How many bytes of payloads are searched in one statement; the last payload may exceed it.
const SEARCHED: u64 = 4 << 20;
/// How many deliveries are looked up in one statement; the last event may exceed it.
const LOOKED_UP: usize = 2_000;

impl Postgres {
    pub(in crate::postgres) async fn event_list(
        &self,
        scope: &Scope,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventView>> {
        let (after, pager) = (Place::after(&page)?, Pager::new(&page));
        let desk = self.read_at(&self.0.pools.api, scope.org).await?;
        let first = i64::try_from(page::limit(&page) + 1).unwrap_or(CHUNK);
        let page = list(&desk, &filter, after, first, pager).await;
        desk.end(page).await
    }

    pub(in crate::postgres) async fn event_get(&self, scope: &Scope, id: EventId) -> Result<EventView> {
        let desk = self.read_at(&self.0.pools.api, scope.org).await?;
        let view = view(&desk, id).await;
        desk.end(view).await
    }

    pub(in crate::postgres) async fn event_payload(&self, scope: &Scope, id: EventId) -> Result<EventPayload> {
        let desk = self.read_at(&self.0.pools.api, scope.org).await?;
        let row = desk.transaction.expect("event", PAYLOAD, bind![scope.org, uuid(id.to_bytes())]).await;
        let row = desk.end(row).await?;
        Ok(EventPayload { headers: headers(&row, 0)?, body: get::<Vec<u8>>(&row, 1)?.into() })
    }
}

pub(super) async fn view(desk: &Desk, id: EventId) -> Result<EventView> {
    let event = desk.event(id).await?.ok_or(Error::NotFound { kind: "event" })?;
    let status = desk.statuses(std::slice::from_ref(&event)).await?.remove(0);
    desk.event_views(vec![(event, status)]).await?.pop().ok_or(Error::NotFound { kind: "event" })
}

impl Desk {
    /// The worst state of the deliveries of each event, replays too; none when there are none.
    pub(super) async fn statuses(&self, events: &[EventRow]) -> Result<Vec<Option<DeliveryStatus>>> {
        let runs = self.runs(events).await?;
        let keys: Vec<_> = runs.iter().flatten().map(|run| run.key).collect();
        let mut standings = self.standings(&keys).await?.into_iter();
        let mut status = |of: &Vec<_>| {
            let each = standings.by_ref().zip(of.iter()).take(of.len());
            each.map(|(standing, run): (_, &crate::engine::log::Run)| standing.status(&*self.handoff, run.key))
                .reduce(worse)
        };
        Ok(runs.iter().map(&mut status).collect())
    }

    /// Events as their owner sees them, those that are still there.
    pub(super) async fn event_views(&self, events: Vec<(EventRow, Option<DeliveryStatus>)>) -> Result<Vec<EventView>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let mut rest = self.rest(events.iter().map(|(event, _)| event.key)).await?;
        let sources: Vec<i64> =
            events.iter().filter_map(|(event, _)| event.source).collect::<HashSet<_>>().into_iter().collect();
        let mut ids = HashMap::new();
        if !sources.is_empty() {
            for row in self.transaction.query(SOURCE_IDS, bind![self.org, sources]).await? {
                ids.insert(get::<i64>(&row, 0)?, SourceId::from_bytes(id(&row, 1)?));
            }
        }
        let views = events.into_iter().filter_map(|(event, status)| {
            let rest = rest.remove(&event.key)?;
            let known = |source| ids.get(&source).copied().ok_or(Error::NotFound { kind: "source" });
            let source = event.source.map(known).transpose();
            Some(source.map(|source| event.view(source, rest, status)))
        });
        views.collect()
    }

    /// The length of the payload of each of the events, and who sent it.
    async fn rest(&self, events: impl Iterator<Item = EventKey>) -> Result<HashMap<EventKey, (u64, Option<String>)>> {
        let ids: Vec<Uuid> = events.map(EventKey::uuid).collect();
        let rows = self.transaction.query(REST, bind![self.org, ids]).await?;
        rows.iter().map(|row| Ok((EventKey::from_uuid(get(row, 0)?), (count(row, 1)?, created_by(row, 2)?)))).collect()
    }

    async fn payload_bytes(&self, events: impl Iterator<Item = EventKey>) -> Result<HashMap<EventKey, u64>> {
        let ids: Vec<Uuid> = events.map(EventKey::uuid).collect();
        let rows = self.transaction.query(PAYLOAD_BYTES, bind![self.org, ids]).await?;
        rows.iter().map(|row| Ok((EventKey::from_uuid(get(row, 0)?), count(row, 1)?))).collect()
    }
}

/// Events of the organization that pass a filter, newest first; `first` is how many are read at first.
pub(super) async fn list(
    desk: &Desk,
    filter: &EventFilter,
    after: Place,
    first: i64,
    pager: Pager<EventView>,
) -> Result<Page<EventView>> {
    let source = match filter.source {
        Some(id) => match desk.transaction.query_one(SOURCE, bind![desk.org, uuid(id.to_bytes())]).await? {
            Some(row) => Some(get(&row, 0)?),
            // Nobody's, or somebody else's: no event is from there.
            None => return Ok(pager.finish()),
        },
        None => None,
    };
    let span = Span::of(filter.created_after, filter.created_before).before(after.event);
    let mut most = first.min(CHUNK);
    let mut list = List { desk, filter, source, pager };
    for (part, by) in list.parts(span).await? {
        let mut left = Some(part);
        while let Some(span) = left {
            let (events, behind) = desk.newest(span, by, most).await?;
            if list.meet(events).await?.is_break() {
                return Ok(list.pager.finish());
            }
            (left, most) = (behind, (most * 2).min(CHUNK));
        }
    }
    Ok(list.pager.finish())
}

/// One page in the making.
struct List<'a> {
    desk: &'a Desk,
    filter: &'a EventFilter,
    /// The filter's source inside this engine.
    source: Option<i64>,
    pager: Pager<EventView>,
}

impl<'a> List<'a> {
    /// The parts of all walks, one after the other.
    async fn parts(&self, span: Span) -> Result<Vec<(Span, By<'a>)>> {
        let parts = |(span, by): (Span, By<'a>)| match by {
            By::Exception(_) => vec![(span, by)],
            By::Organization | By::Type(_) => span.parts(self.desk.now).map(|part| (part, by)).collect(),
        };
        Ok(self.walks(span).await?.into_iter().flat_map(parts).collect())
    }

    /// The walks, newest part first, that together meet every event that can pass the filter.
    async fn walks(&self, span: Span) -> Result<Vec<(Span, By<'a>)>> {
        let filter = self.filter;
        let by = match &filter.event_type {
            Some(EventTypePattern::Exact(event_type)) => By::Type(event_type),
            Some(EventTypePattern::Below(_)) | None => By::Organization,
        };
        if let Some(id) = &filter.external_id
            && let Some(newest) = self.newest_with(id).await?
        {
            return Ok(vec![(span.upto(newest), by)]);
        }
        let waiting = By::Exception(ExceptionState::Waiting);
        Ok(match filter.status {
            Some(DeliveryStatus::DeadLetter) => vec![(span, By::Exception(ExceptionState::DeadLetter))],
            Some(DeliveryStatus::Discarded) => vec![(span, By::Exception(ExceptionState::Discarded))],
            Some(DeliveryStatus::Failed) => vec![(span, waiting)],
            // Before it, whatever is not settled waits as an exception.
            Some(DeliveryStatus::Pending | DeliveryStatus::Processing) => {
                let unsettled = self.desk.first_unsettled().await?;
                vec![(span.from(unsettled), by), (span.before(unsettled), waiting)]
            }
            Some(DeliveryStatus::Success) | None => vec![(span, by)],
        })
    }

    /// The newest event with an external id, as far as the duplicate guard remembers.
    async fn newest_with(&self, external_id: &str) -> Result<Option<EventKey>> {
        let (desk, org) = (self.desk, self.desk.org);
        let mut hashes = Vec::new();
        if let Some(source) = self.source {
            hashes.push(uuid(guard_hash((b's', source), external_id)));
        } else {
            let sources = desk.transaction.query(SOURCES, bind![org, SOURCES_ASKED]).await?;
            if i64::try_from(sources.len()) == Ok(SOURCES_ASKED) {
                return Ok(None);
            }
            for row in &sources {
                hashes.push(uuid(guard_hash((b's', get(row, 0)?), external_id)));
            }
            hashes.push(uuid(guard_hash((b'o', org), external_id)));
        }
        let newest = desk.transaction.query_one(GUARDED, bind![org, hashes]).await?;
        newest.map(|row| get(&row, 0).map(EventKey::from_uuid)).transpose()
    }

    async fn meet(&mut self, events: Vec<EventRow>) -> Result<Go> {
        let bytes = match &self.filter.text {
            Some(_) => {
                let passing = events.iter().filter(|event| event.passes(self.filter, self.source));
                self.desk.payload_bytes(passing.map(|event| event.key)).await?
            }
            None => HashMap::new(),
        };
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let (mut some, mut searched, mut deliveries) = (Vec::new(), 0, 0);
            while searched < SEARCHED
                && deliveries < LOOKED_UP
                && let Some(event) = events.next()
            {
                searched += bytes.get(&event.key).copied().unwrap_or(0);
                deliveries += event.targets.len();
                some.push(event);
            }
            if self.meet_some(some, &bytes).await?.is_break() {
                return Ok(Break(()));
            }
        }
        Ok(Continue(()))
    }

    async fn meet_some(&mut self, events: Vec<EventRow>, bytes: &HashMap<EventKey, u64>) -> Result<Go> {
        let looked_at: Vec<EventKey> = events.iter().map(|event| event.key).collect();
        let mut passing: Vec<EventRow> =
            events.into_iter().filter(|event| event.passes(self.filter, self.source)).collect();
        if let Some(text) = &self.filter.text {
            let found = self.with_text(text, &passing).await?;
            passing.retain(|event| found.contains(&event.key));
        }
        let statuses = self.desk.statuses(&passing).await?;
        let wanted = |status: &Option<_>| self.filter.status.is_none_or(|wanted| *status == Some(wanted));
        let passing: Vec<_> = passing.into_iter().zip(statuses).filter(|(_, status)| wanted(status)).collect();
        let views = self.desk.event_views(passing).await?;
        let mut views = views.into_iter().map(|view| (key(view.id), view)).peekable();
        for event in looked_at {
            self.pager.searched(bytes.get(&event).copied().unwrap_or(0));
            let place = Place::event(event);
            let go = match views.next_if(|(key, _)| *key == event) {
                Some((_, view)) => self.pager.show(place, view),
                None => self.pager.pass(place),
            };
            if go.is_break() {
                return Ok(go);
            }
        }
        Ok(Continue(()))
    }

    async fn with_text(&self, text: &str, events: &[EventRow]) -> Result<HashSet<EventKey>> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.key.uuid()).collect();
        let rows = self.desk.transaction.query(WITH_TEXT, bind![self.desk.org, ids, text.as_bytes()]).await?;
        rows.iter().map(|row| get(row, 0).map(EventKey::from_uuid)).collect()
    }
}
