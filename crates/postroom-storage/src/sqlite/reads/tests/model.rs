//! A log made of what is described, in a real database, and the same lists made by looking at everything.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::event::{Direction, EventTypePattern};
use postroom_domain::{DeliveryId, EndpointId, EventId, SourceId, Timestamp};
use proptest::prelude::*;
use rusqlite::{OpenFlags, params};

use crate::Handoff;
use crate::api::{DeliveryFilter, EventFilter};
use crate::engine::guard::guard_hash;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::pack_targets;
use crate::sqlite::grants::Part;
use crate::sqlite::migrate;
use crate::worker::{DeliveryKey, EndpointKey, EventKey, StoredEvent};

/// The organization whose lists are read; the other one is 2.
pub(super) const ORG: i64 = 1;

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// In memory, not begun or begun.
    InMemory {
        flying: bool,
    },
    /// A row that waits, after so many attempts of the schedule.
    Waiting {
        attempts: u32,
        of_schedule: u32,
        flying: bool,
    },
    Success,
    Dead,
    Discarded,
}

impl Stands {
    fn status(self) -> DeliveryStatus {
        match self {
            Self::InMemory { flying: true } | Self::Waiting { flying: true, .. } => DeliveryStatus::Processing,
            Self::InMemory { flying: false } | Self::Waiting { of_schedule: 0, .. } => DeliveryStatus::Pending,
            Self::Waiting { .. } => DeliveryStatus::Failed,
            Self::Success => DeliveryStatus::Success,
            Self::Dead => DeliveryStatus::DeadLetter,
            Self::Discarded => DeliveryStatus::Discarded,
        }
    }
}

/// An event to be.
#[derive(Debug, Clone)]
struct Spec {
    org: i64,
    event_type: &'static str,
    /// One of two sources of its organization.
    source: Option<i64>,
    external_id: Option<&'static str>,
    body: &'static str,
    /// The first deliveries to the two endpoints of its organization.
    originals: [Option<Stands>; 2],
    /// One replay to each.
    replays: [Option<Stands>; 2],
}

fn waiting() -> impl Strategy<Value = Stands> {
    (0..2_u32, 0..2_u32, any::<bool>()).prop_map(|(attempts, of_schedule, flying)| Stands::Waiting {
        attempts: attempts.max(of_schedule),
        of_schedule,
        flying,
    })
}

fn stands_as_row() -> impl Strategy<Value = Stands> {
    prop_oneof![waiting(), Just(Stands::Success), Just(Stands::Dead), Just(Stands::Discarded)]
}

fn stands() -> impl Strategy<Value = Stands> {
    let in_memory = any::<bool>().prop_map(|flying| Stands::InMemory { flying });
    prop_oneof![1 => in_memory, 4 => stands_as_row()]
}

fn maybe<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(of)
}

fn event_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["order", "order.paid", "order.paid.late", "push"])
}

fn spec() -> impl Strategy<Value = Spec> {
    let deliveries = || [maybe(stands()).boxed(), maybe(stands()).boxed()];
    let replays = || {
        let replay = || prop::option::weighted(0.2, stands_as_row()).boxed();
        [replay(), replay()]
    };
    let words = (event_type(), maybe(prop::sample::select(vec!["x", "y"])), prop::sample::select(vec!["{}", "blue"]));
    (1..3_i64, words, maybe(0..2_i64), deliveries(), replays()).prop_map(|(org, words, source, originals, replays)| {
        let (event_type, external_id, body) = words;
        Spec { org, event_type, source, external_id, body, originals, replays }
    })
}

/// A condition of a filter: most filters have few.
fn sometimes<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.25, of)
}

pub(super) fn event_filter() -> impl Strategy<Value = EventFilter> {
    let pattern = prop::sample::select(vec!["order", "order.paid", "order.*", "order.paid.*", "push"]);
    let pattern = pattern.prop_map(|text| EventTypePattern::parse(text).unwrap());
    let external_id = maybe(prop::sample::select(vec!["x", "y"]));
    let direction = prop::sample::select(vec![Direction::Inbound, Direction::Outbound]);
    let words = (sometimes(pattern), external_id, sometimes(Just("lu")));
    (words, sometimes(source()), maybe(status()), sometimes(direction), moments()).prop_map(
        |((event_type, external_id, text), source, status, direction, (created_after, created_before))| EventFilter {
            event_type,
            source,
            status,
            direction,
            created_after,
            created_before,
            external_id: external_id.map(str::to_owned),
            text: text.map(str::to_owned),
        },
    )
}

fn status() -> impl Strategy<Value = DeliveryStatus> {
    prop::sample::select(DeliveryStatus::ALL.to_vec())
}

/// Sources of this organization, of the other one, and of none.
fn source() -> impl Strategy<Value = SourceId> {
    prop::sample::select(vec![10, 11, 20, 99]).prop_map(source_id)
}

fn moments() -> impl Strategy<Value = (Option<Timestamp>, Option<Timestamp>)> {
    let moment = || prop::option::weighted(0.1, (0..30_i64).prop_map(moment));
    (moment(), moment())
}

/// Which deliveries, the event by its place.
#[derive(Debug, Clone)]
pub(super) struct Which {
    status: Option<DeliveryStatus>,
    endpoint: Option<i64>,
    event: Option<i64>,
    moments: (Option<Timestamp>, Option<Timestamp>),
}

pub(super) fn delivery_filter() -> impl Strategy<Value = Which> {
    let endpoint = maybe(prop::sample::select(vec![11, 12, 21, 99]));
    (maybe(status()), endpoint, prop::option::weighted(0.1, 1..30_i64), moments())
        .prop_map(|(status, endpoint, event, moments)| Which { status, endpoint, event, moments })
}

fn moment(seq: i64) -> Timestamp {
    Timestamp::from_seconds(1_000_000 + seq)
}

fn event_id(seq: i64) -> EventId {
    let mut bytes = EventId::floor(moment(seq)).to_bytes();
    bytes[15] = 7;
    EventId::from_bytes(bytes)
}

fn source_id(source: i64) -> SourceId {
    SourceId::from_bytes([u8::try_from(source).unwrap(); 16])
}

fn endpoint_id(endpoint: i64) -> EndpointId {
    EndpointId::from_bytes([u8::try_from(endpoint).unwrap(); 16])
}

/// Attempts that are under way.
#[derive(Debug, Default)]
pub(super) struct Flying(HashSet<DeliveryKey>);

impl Handoff for Flying {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        false
    }
    fn deliver(&self, _: Arc<StoredEvent>, _: Vec<EndpointKey>) {}
    fn release(&self, _: EndpointKey, _: usize) {}
    fn wake(&self, _: EndpointKey) {}
    fn is_processing(&self, delivery: DeliveryKey) -> bool {
        self.0.contains(&delivery)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Log {
    /// What the lists are read with.
    pub(super) connection: Connection,
    /// What the log is made with.
    pub(super) raw: rusqlite::Connection,
    pub(super) flying: Flying,
    events: Vec<Spec>,
    newest: Cell<i64>,
}

/// Logs of up to 25 events, with their marks anywhere that is right.
pub(super) fn log() -> impl Strategy<Value = Log> {
    (prop::collection::vec(spec(), 0..25), 0..30_i64, 0..30_i64, 0..30_i64, any::<bool>())
        .prop_map(|(events, watermark, indexed, guarded, ahead)| Log::new(events, watermark, indexed, guarded, ahead))
}

/// Two connections to one new database.
fn twice_in_memory() -> [rusqlite::Connection; 2] {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("file:log{}?mode=memory&cache=shared", NUMBER.fetch_add(1, Ordering::Relaxed));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    [(); 2].map(|()| rusqlite::Connection::open_with_flags(&name, flags).unwrap())
}

impl Log {
    fn new(events: Vec<Spec>, watermark: i64, indexed: i64, guarded: i64, ahead: bool) -> Self {
        let [mut raw, file] = twice_in_memory();
        migrate::to_newest(&mut raw).unwrap();
        let connection = Connection::new(file, Part::Api).unwrap();
        let newest = i64::try_from(events.len()).unwrap();
        let log = Self { connection, raw, flying: Flying::default(), events, newest: Cell::new(newest) };
        log.raw.execute_batch("begin").unwrap();
        log.configure();
        let mut flying = HashSet::new();
        let mut unsettled = newest + 1;
        for (spec, seq) in log.events.iter().zip(1..) {
            log.append(spec, seq);
            for (key, stands, _) in deliveries_of(spec, seq) {
                log.deliver(key, spec.org, stands);
                match stands {
                    Stands::InMemory { flying: is_flying } => {
                        unsettled = unsettled.min(seq);
                        flying.extend(is_flying.then_some(key));
                    }
                    Stands::Waiting { flying: true, .. } => drop(flying.insert(key)),
                    _ => {}
                }
            }
        }
        // While a round goes on, some of what is above the mark is in the search tables already.
        for seq in (1..=newest).filter(|seq| *seq <= indexed || (ahead && seq % 2 == 0)) {
            log.enter(seq);
        }
        for seq in (1..=newest).filter(|seq| *seq <= guarded || ahead) {
            log.guard(seq);
        }
        log.raw
            .execute(
                "update progress set watermark = ?1, indexed_upto = ?2, guarded_upto = ?3",
                (watermark.min(unsettled - 1), indexed.min(newest), guarded.min(newest)),
            )
            .unwrap();
        log.raw.execute_batch("commit").unwrap();
        Self { flying: Flying(flying), ..log }
    }

    fn configure(&self) {
        for org in [1, 2] {
            self.raw
                .execute(
                    "insert into organization values (?1, ?2, ?3, '', 'free', null, 1, null, null, 2, 0, 0)",
                    (org, [u8::try_from(org).unwrap(); 16], format!("org-{org}")),
                )
                .unwrap();
            for number in [1, 2] {
                let (source, endpoint) = (org * 10 + number - 1, org * 10 + number);
                self.raw
                    .execute(
                        "insert into source values (?1, ?2, ?3, ?4, 'github', '{}', 1, 0, 0, 0, null)",
                        (source, org, source_id(source).to_bytes(), format!("s{source}")),
                    )
                    .unwrap();
                self.raw
                    .execute(
                        "insert into endpoint (endpoint, org, id, number, url, description, event_types, source_ids, \
                         signature, created_at, updated_at) values (?1, ?2, ?3, ?4, '', '', '[]', '[]', '', 0, 0)",
                        (endpoint, org, endpoint_id(endpoint).to_bytes(), number),
                    )
                    .unwrap();
            }
        }
    }

    fn append(&self, spec: &Spec, seq: i64) {
        let targets = [1, 2].into_iter().zip(spec.originals).filter(|(_, stands)| stands.is_some());
        self.raw
            .execute(
                "insert into event values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    seq,
                    event_id(seq).to_bytes(),
                    spec.org,
                    spec.source.map(|source| spec.org * 10 + source),
                    spec.event_type,
                    spec.external_id,
                    pack_targets(targets.map(|(number, _)| spec.org * 10 + number)),
                    b"[]",
                    spec.body.as_bytes(),
                ],
            )
            .unwrap();
    }

    fn deliver(&self, key: DeliveryKey, org: i64, stands: Stands) {
        let (endpoint, run) = (key.endpoint.0, key.run);
        if run > 0 {
            let values = (key.event.seq(), endpoint, run);
            self.raw.execute("insert into replay values (?1, ?2, ?3, 5, 'operator')", values).unwrap();
            let values = (endpoint, key.event.seq(), run);
            self.raw.execute("insert into delivery_by_endpoint values (?1, ?2, ?3)", values).unwrap();
        }
        let (state, attempts, of_schedule, succeeded) = match stands {
            Stands::InMemory { .. } => return,
            Stands::Waiting { attempts, of_schedule, .. } => (Some("waiting"), attempts, of_schedule, false),
            Stands::Success => (None, 2, 2, true),
            Stands::Dead => (Some("dead_letter"), 1, 1, false),
            Stands::Discarded => (Some("discarded"), 1, 1, false),
        };
        for number in 1..=attempts {
            self.raw
                .execute(
                    "insert into attempt values (null, ?1, ?2, ?3, ?4, ?5, ?6, ?7, 200, null, 1, 1, '', null, null)",
                    params![[9_u8; 16], org, key.event.seq(), endpoint, run, number, succeeded && number == attempts],
                )
                .unwrap();
        }
        if let Some(state) = state {
            self.raw
                .execute(
                    "insert into exception values (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, null, 1)",
                    params![endpoint, key.event.seq(), run, org, state, attempts, of_schedule],
                )
                .unwrap();
        }
    }

    /// Puts an event into the search tables.
    fn enter(&self, seq: i64) {
        let entries = [
            "insert or ignore into event_by_org select org, seq from event where seq = ?1",
            "insert or ignore into event_by_type select org, type, seq from event where seq = ?1",
        ];
        for sql in entries {
            self.raw.execute(sql, [seq]).unwrap();
        }
        if let Some(spec) = usize::try_from(seq - 1).ok().and_then(|at| self.events.get(at)) {
            for (key, _, _) in deliveries_of(spec, seq) {
                let values = (key.endpoint.0, seq, key.run);
                let sql = "insert or ignore into delivery_by_endpoint values (?1, ?2, ?3)";
                self.raw.execute(sql, values).unwrap();
            }
        }
    }

    fn guard(&self, seq: i64) {
        let spec = &self.events[usize::try_from(seq - 1).unwrap()];
        let Some(id) = spec.external_id else { return };
        let owner = spec.source.map_or((b'o', spec.org), |source| (b's', spec.org * 10 + source));
        let sql = "insert or replace into duplicate_guard values (?1, ?2)";
        self.raw.execute(sql, (guard_hash(owner, id), seq)).unwrap();
    }

    /// A round of indexing.
    pub(super) fn index(&self, events: i64) {
        let upto: i64 = self.raw.query_row("select indexed_upto from progress", [], |row| row.get(0)).unwrap();
        let end = (upto + events).min(self.newest.get());
        (upto + 1..=end).for_each(|seq| self.enter(seq));
        self.raw.execute("update progress set indexed_upto = ?1", [end]).unwrap();
    }

    /// An event comes in while pages are read.
    pub(super) fn append_one_more(&self) {
        let spec = Spec {
            org: ORG,
            event_type: "order",
            source: None,
            external_id: Some("x"),
            body: "blue",
            originals: [None, None],
            replays: [None, None],
        };
        self.newest.set(self.newest.get() + 1);
        self.append(&spec, self.newest.get());
    }

    /// A filter in the words of the outside.
    pub(super) fn name(&self, which: Which) -> DeliveryFilter {
        DeliveryFilter {
            status: which.status,
            endpoint: which.endpoint.map(endpoint_id),
            event: which.event.map(event_id),
            created_after: which.moments.0,
            created_before: which.moments.1,
        }
    }

    pub(super) fn all_events(&self) -> Vec<EventId> {
        (1..=self.newest.get()).map(event_id).collect()
    }

    /// What the list has to be.
    pub(super) fn events(&self, filter: &EventFilter) -> Vec<EventId> {
        let passes = |(spec, seq): &(&Spec, i64)| {
            let at = moment(*seq);
            spec.org == ORG
                && filter.event_type.as_ref().is_none_or(|pattern| pattern.matches(spec.event_type))
                && filter.source.is_none_or(|id| spec.source.map(|source| source_id(ORG * 10 + source)) == Some(id))
                && filter.status.is_none_or(|status| worst(spec, *seq) == Some(status))
                && filter.direction.is_none_or(|direction| (direction == Direction::Inbound) == spec.source.is_some())
                && filter.created_after.is_none_or(|after| at >= after)
                && filter.created_before.is_none_or(|before| at < before)
                && filter.external_id.as_deref().is_none_or(|id| spec.external_id == Some(id))
                && filter.text.as_ref().is_none_or(|text| spec.body.contains(text))
        };
        let mut found: Vec<_> = self.events.iter().zip(1..).filter(passes).map(|(_, seq)| event_id(seq)).collect();
        found.reverse();
        found
    }

    /// What the list has to be.
    pub(super) fn deliveries(&self, filter: &DeliveryFilter) -> Vec<DeliveryId> {
        let mut found = Vec::new();
        for (spec, seq) in self.events.iter().zip(1..).filter(|(spec, _)| spec.org == ORG) {
            let (id, at) = (event_id(seq), moment(seq));
            let passes = filter.event.is_none_or(|event| event == id)
                && filter.created_after.is_none_or(|after| at >= after)
                && filter.created_before.is_none_or(|before| at < before);
            for (key, stands, number) in deliveries_of(spec, seq).into_iter().filter(|_| passes) {
                let wanted = filter.endpoint.is_none_or(|endpoint| endpoint == endpoint_id(key.endpoint.0))
                    && filter.status.is_none_or(|status| status == stands.status());
                if wanted {
                    found.push((key, DeliveryId { event: id, endpoint_number: number, run: key.run }));
                }
            }
        }
        found.sort_by_key(|(key, _)| std::cmp::Reverse((key.event, key.endpoint, key.run)));
        found.into_iter().map(|(_, id)| id).collect()
    }
}

fn deliveries_of(spec: &Spec, seq: i64) -> Vec<(DeliveryKey, Stands, u32)> {
    let all = [(0, spec.originals), (1, spec.replays)];
    let each = all.into_iter().flat_map(|(run, two)| [1, 2].into_iter().zip(two).map(move |(n, one)| (run, n, one)));
    each.filter_map(|(run, number, stands)| {
        let endpoint = EndpointKey(spec.org * 10 + i64::from(number));
        stands.map(|stands| (DeliveryKey { event: EventKey::from_seq(seq), endpoint, run }, stands, number))
    })
    .collect()
}

fn worst(spec: &Spec, seq: i64) -> Option<DeliveryStatus> {
    let order: HashMap<&str, u8> =
        ["dead_letter", "failed", "processing", "pending", "discarded", "success"].into_iter().zip(0..).collect();
    let all = deliveries_of(spec, seq).into_iter().map(|(_, stands, _)| stands.status());
    all.min_by_key(|status| order[status.as_str()])
}
