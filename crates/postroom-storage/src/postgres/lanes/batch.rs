//! One statement of the ingest lane: its events with their ids, where each delivery waits, and the values that go out.
//!
//! Rows go out in the order of their keys, so that two nodes that write the same keys never wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use postroom_domain::{EventId, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Reply;
use super::line::{Fault, Line};
use crate::engine::packed::{broken, pack_targets};
use crate::engine::places::Place;
use crate::engine::record::{Counting, Record};
use crate::postgres::convert::{at, get, uuid};
use crate::postgres::node::Identity;
use crate::postgres::pool::{Bound, bind};
use crate::receiver::Recorded;
use crate::worker::{EndpointKey, EventKey, OrganizationKey, StoredEvent};
use crate::{Handoff, Result};

/// `$found` says what becomes of external ids that are known already, `$of_new` which events are written then, and `$more`
/// and `$answer` are done and answered in the same statement. Lists become rows in a list of columns: as functions in a `from` each would be laid
/// by first, at a thousand instructions for a value.
macro_rules! write {
    ($found:literal, $of_new:literal, $more:literal, $answer:literal) => {
        concat!(
            "\
    with fence as materialized ( \
        select node from nodes where node = $1 and epoch = $2 and state = 'live' for key share \
    ), guarded as ( \
        insert into duplicate_guard as guard (org, hash, event) select g.org, g.hash, g.event \
        from fence, (select unnest($3) as org, unnest($4) as hash, unnest($5) as event) as g ",
            $found,
            "), written as ( \
        insert into events (org, id, node, tx, source, type, external_id, targets, counted, headers, body) \
        select e.org, e.id, fence.node, (select txid_current()), e.source, e.type, e.external_id, e.targets, \
            e.counted, e.headers, e.body \
        from fence, (select unnest($6) as org, unnest($7) as id, unnest($8) as source, unnest($9) as type, \
            unnest($10) as external_id, unnest($11) as targets, unnest($12) as counted, unnest($13) as headers, \
            unnest($14) as body, ",
            $of_new,
            $more,
            ") select txid_current(), (select count(*) from fence)",
            $answer
        )
    };
}

/// Appends events of which none is a duplicate, for a node that is alive; if one is, the guard's key refuses them all. By
/// the primary keys of nodes and duplicate_guard.
const WRITE: &str = write!("", "true) as e", "", "");

/// How many of the values it needs.
const OF_EVENTS: usize = 14;

/// Appends everything that is not a duplicate, and does whatever else there is: deliveries that wait as exceptions, counts
/// of a month. By the primary key of usage too. Most batches need nothing of it, and to look before each insert and to
/// start what there is nothing to do for takes its time.
const WRITE_ALL: &str = write!(
    "on conflict (org, hash) do update set event = excluded.event where guard.event < $15 returning event ",
    "unnest($16) as is_guarded) as e where not e.is_guarded or e.id in (select event from guarded) ",
    "), parked as ( \
        insert into exceptions (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, since) \
        select p.org, p.endpoint, p.event, 0, 'waiting', $17, 0, 0, $17 \
        from fence, unnest($18, $19, $20, $21) as p (org, endpoint, event, is_guarded) \
        where not p.is_guarded or p.event in (select event from guarded) \
    ), counted as ( \
        insert into usage as usage (org, month, count) \
        select c.org, $22, c.count from fence, unnest($23, $24) as c (org, count) order by c.org \
        on conflict (org, month) do update set count = usage.count + excluded.count ",
    ", (select array_agg(event) from guarded)"
);

const DAY_MS: i64 = 24 * 3600 * 1000;

/// An event that waits to be written, and who waits for its answer.
pub(super) struct Waiting {
    pub(super) record: Box<Record>,
    pub(super) reply: Reply<Recorded>,
    pub(super) place: Place,
    /// Which set it is one of, if it may only be stored with all the others of that set.
    pub(super) set: Option<usize>,
}

/// An event on its way into the log.
pub(super) struct Entry {
    pub(super) id: EventId,
    pub(super) record: Box<Record>,
    /// Stored only with all the others of the same set, which stand beside it.
    pub(super) set: Option<usize>,
    /// Endpoints whose delivery has a place in memory.
    pub(super) memory: Vec<EndpointKey>,
    /// Endpoints whose delivery waits as an exception.
    pub(super) parked: Vec<EndpointKey>,
    /// Who waits for the answer; none when it was given.
    pub(super) reply: Option<Reply<Recorded>>,
    pub(super) place: Place,
}

impl Entry {
    /// What it is recognised by.
    pub(super) fn hash(&self) -> Option<(i64, Uuid)> {
        self.record.guard.map(|hash| (self.record.org, uuid(hash)))
    }

    /// Inside this engine.
    pub(super) fn key(&self) -> EventKey {
        EventKey::from_uuid(uuid(self.id.to_bytes()))
    }

    /// What its sender is answered once it is stored.
    pub(super) fn recorded(&self) -> Recorded {
        let deliveries = u32::try_from(self.record.endpoints.len()).unwrap_or(u32::MAX);
        Recorded { id: self.id, duplicate: false, deliveries }
    }

    /// Hands over the deliveries that have a place in memory; leaves who is to be answered.
    pub(super) fn hand_over(self, handoff: &dyn Handoff) -> (Option<Reply<Recorded>>, Place) {
        let key = self.key();
        let Self { id, record, memory, reply, place, .. } = self;
        if !memory.is_empty() {
            let record = *record;
            let event = StoredEvent {
                key,
                organization: OrganizationKey(record.org),
                id,
                event_type: record.event_type.to_string(),
                headers: record.headers,
                body: record.body,
            };
            handoff.deliver(Arc::new(event), memory);
        }
        (reply, place)
    }

    /// The limit of its month, if it has one.
    pub(super) fn limit(&self) -> Option<u64> {
        match self.record.count {
            Counting::Upto(limit) => limit,
            Counting::Free => None,
        }
    }

    /// Gives back the places in memory.
    pub(super) fn release(&mut self, handoff: &dyn Handoff) {
        for endpoint in self.memory.drain(..) {
            handoff.release(endpoint, self.record.body.len());
        }
    }
}

/// See the [module](self).
pub(super) struct Batch {
    /// Whose batch it is.
    pub(super) by: Identity,
    pub(super) now: Timestamp,
    pub(super) entries: Vec<Entry>,
    /// Events with the same external id as the entry at that place: they get its answer.
    pub(super) followers: Vec<(usize, Reply<Recorded>, Place)>,
    /// An event whose id is below this is not recognised any more.
    pub(super) floor: Uuid,
}

/// What became of a batch that is stored.
pub(super) struct Written {
    pub(super) tx: i64,
    /// Places of the entries that are not, and why.
    pub(super) left_out: HashMap<usize, Why>,
}

/// Why an entry of a stored batch is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its external id was recorded before.
    Duplicate,
    /// Its organization had all events of this month.
    Over,
    /// One of the two; which one went with the answer.
    Unknown,
}

/// What the statement answered.
pub(super) struct Answer {
    pub(super) tx: i64,
    pub(super) is_alive: bool,
    /// Events whose external id is new; none when all are.
    pub(super) guarded: Option<HashSet<Uuid>>,
}

impl Answer {
    fn read(rows: &[Row]) -> Result<Self, Fault> {
        let row = rows.first().ok_or_else(|| Fault::Lost(broken("a statement of one row found none")))?;
        let is_told = row.len() > 2;
        let guarded: Option<Vec<Uuid>> = if is_told { get(row, 2)? } else { None };
        let guarded = is_told.then(|| guarded.unwrap_or_default().into_iter().collect());
        Ok(Self { tx: get(row, 0)?, is_alive: get::<i64>(row, 1)? > 0, guarded })
    }
}

impl Batch {
    /// Finds those that are there twice.
    pub(super) fn places(waiting: &[Waiting]) -> Vec<Option<usize>> {
        let mut first = HashMap::with_capacity_and_hasher(waiting.len(), <_>::default());
        let mut fresh = 0;
        let mut places = Vec::with_capacity(waiting.len());
        for Waiting { record, .. } in waiting {
            let before = record.guard.and_then(|hash| first.get(&(record.org, hash)).copied());
            if before.is_none() {
                if let Some(hash) = record.guard {
                    first.insert((record.org, hash), fresh);
                }
                fresh += 1;
            }
            places.push(before);
        }
        places
    }

    /// Those that are stored.
    pub(super) fn stored<'a>(&'a self, written: &'a Written) -> impl Iterator<Item = &'a Entry> {
        let is_stored = |(at, _): &(usize, _)| !written.left_out.contains_key(at);
        self.entries.iter().enumerate().filter(is_stored).map(|(_, entry)| entry)
    }

    /// A moment of each day that its ids are of, in milliseconds.
    pub(super) fn days(&self) -> Vec<i64> {
        let days: BTreeSet<i64> = self.entries.iter().map(|entry| entry.id.created_at().as_millis() / DAY_MS).collect();
        days.into_iter().map(|day| day * DAY_MS).collect()
    }

    /// Places of the entries whose external id another event has, given the events whose id is guarded now.
    pub(super) fn duplicates(&self, guarded: &HashSet<Uuid>) -> HashSet<usize> {
        let lost = |entry: &Entry| entry.record.guard.is_some() && !guarded.contains(&uuid(entry.id.to_bytes()));
        self.entries.iter().enumerate().filter(|(_, entry)| lost(entry)).map(|(place, _)| place).collect()
    }

    /// Organizations with a limit, in order.
    pub(super) fn limited(&self) -> BTreeMap<i64, u64> {
        self.entries.iter().filter_map(|entry| Some((entry.record.org, entry.limit()?))).collect()
    }

    /// Of an organization whose limit changed while its events waited here, the newest one has the last word.
    pub(super) fn level(&mut self) {
        if self.limited().is_empty() {
            return;
        }
        let upto = |entry: &Entry| match entry.record.count {
            Counting::Upto(limit) => Some((entry.record.org, limit)),
            Counting::Free => None,
        };
        let newest: HashMap<i64, Option<u64>> = self.entries.iter().filter_map(upto).collect();
        for entry in &mut self.entries {
            if let Some((org, _)) = upto(entry) {
                entry.record.count = Counting::Upto(newest.get(&org).copied().flatten());
            }
        }
    }

    /// The guard's rows, in the order of its key. Whether one of them may be there already is for the caller to say.
    pub(super) fn guards(&self, may_be_known: bool) -> Guards {
        let guarded = |entry: &Entry| entry.hash().map(|hash| (hash, uuid(entry.id.to_bytes())));
        let mut rows: Vec<_> = self.entries.iter().filter_map(guarded).collect();
        rows.sort_unstable();
        let mut guards = Guards { may_be_known, ..Guards::default() };
        for ((org, hash), event) in rows {
            guards.orgs.push(org);
            guards.hashes.push(hash);
            guards.events.push(event);
        }
        guards
    }

    /// The whole statement: `guards` are still to be written, `left_out` are not stored, `counts` are added to usage.
    pub(super) fn values<'a>(&'a self, guards: &Guards, left_out: &HashMap<usize, Why>) -> Values<'a> {
        let mut values = Values::default();
        let is_guarded = |entry: &Entry| !guards.events.is_empty() && entry.record.guard.is_some();
        for (_, entry) in self.entries.iter().enumerate().filter(|(at, _)| !left_out.contains_key(at)) {
            values.add(entry, is_guarded(entry));
        }
        values
    }
}

/// Rows of the duplicate guard.
#[derive(Default)]
pub(super) struct Guards {
    pub(super) orgs: Vec<i64>,
    pub(super) hashes: Vec<Uuid>,
    pub(super) events: Vec<Uuid>,
    /// It is looked for each of them before it is written. Otherwise one that is there refuses all.
    may_be_known: bool,
}

/// The columns of events and exceptions.
#[derive(Default)]
pub(super) struct Values<'a> {
    orgs: Vec<i64>,
    ids: Vec<Uuid>,
    sources: Vec<Option<i64>>,
    types: Vec<&'a str>,
    external_ids: Vec<Option<&'a str>>,
    targets: Vec<Vec<u8>>,
    counted: Vec<bool>,
    headers: Vec<&'a [u8]>,
    bodies: Vec<&'a [u8]>,
    guarded: Vec<bool>,
    parked_orgs: Vec<i64>,
    parked_endpoints: Vec<i64>,
    parked_events: Vec<Uuid>,
    parked_guarded: Vec<bool>,
}

impl<'a> Values<'a> {
    fn add(&mut self, entry: &'a Entry, is_guarded: bool) {
        let (id, record) = (uuid(entry.id.to_bytes()), &entry.record);
        self.orgs.push(record.org);
        self.ids.push(id);
        self.sources.push(record.source);
        self.types.push(record.event_type.as_str());
        self.external_ids.push(record.external_id.as_ref().map(|id| id.as_str()));
        self.targets.push(pack_targets(record.endpoints.iter().map(|endpoint| endpoint.0)));
        // Those of organizations without a limit are counted with the node's mark.
        self.counted.push(!matches!(record.count, Counting::Upto(None)));
        self.headers.push(&record.packed_headers);
        self.bodies.push(&record.body);
        self.guarded.push(is_guarded);
        for endpoint in &entry.parked {
            self.parked_orgs.push(record.org);
            self.parked_endpoints.push(endpoint.0);
            self.parked_events.push(id);
            self.parked_guarded.push(is_guarded);
        }
    }

    /// Sends the statement.
    pub(super) async fn write(
        &self,
        line: &Line,
        batch: &Batch,
        guards: &Guards,
        counts: &(Vec<i64>, Vec<i64>),
    ) -> Result<Answer, Fault> {
        let (now, (month, _)) = (at(batch.now), batch.now.month());
        let month = at(month);
        let values: &[Bound<'_>] = bind![
            batch.by.node,
            batch.by.epoch,
            guards.orgs,
            guards.hashes,
            guards.events,
            self.orgs,
            self.ids,
            self.sources,
            self.types,
            self.external_ids,
            self.targets,
            self.counted,
            self.headers,
            self.bodies,
            batch.floor,
            self.guarded,
            now,
            self.parked_orgs,
            self.parked_endpoints,
            self.parked_events,
            self.parked_guarded,
            month,
            counts.0,
            counts.1,
        ];
        let only_events = !guards.may_be_known && self.parked_orgs.is_empty() && counts.0.is_empty();
        let (statement, values) = if only_events { (WRITE, &values[..OF_EVENTS]) } else { (WRITE_ALL, values) };
        Answer::read(&line.write(statement, values).await?)
    }
}
