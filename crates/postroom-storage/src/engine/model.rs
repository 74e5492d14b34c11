//! A log as it is described, and the lists that follow from it by looking at everything: what the lists of every engine
//! are held against.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::event::{Direction, EventTypePattern};
use postroom_domain::{DeliveryId, EndpointId, EventId, SourceId, Timestamp};
use proptest::prelude::*;

use crate::Handoff;
use crate::api::{DeliveryFilter, EventFilter};
use crate::worker::{DeliveryKey, EndpointKey, EventKey, OrganizationKey, StoredEvent};

/// The organization whose lists are read; the other one is 2.
pub(crate) const ORG: i64 = 1;

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
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
pub(crate) struct Spec {
    pub(crate) org: i64,
    pub(crate) event_type: &'static str,
    /// One of two sources of its organization.
    pub(crate) source: Option<i64>,
    pub(crate) external_id: Option<&'static str>,
    pub(crate) body: &'static str,
    /// The first deliveries to the two endpoints of its organization.
    pub(crate) originals: [Option<Stands>; 2],
    /// One replay to each.
    pub(crate) replays: [Option<Stands>; 2],
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

pub(crate) fn event_filter() -> impl Strategy<Value = EventFilter> {
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
pub(crate) struct Which {
    status: Option<DeliveryStatus>,
    endpoint: Option<i64>,
    event: Option<i64>,
    moments: (Option<Timestamp>, Option<Timestamp>),
}

pub(crate) fn delivery_filter() -> impl Strategy<Value = Which> {
    let endpoint = maybe(prop::sample::select(vec![11, 12, 21, 99]));
    (maybe(status()), endpoint, prop::option::weighted(0.1, 1..30_i64), moments())
        .prop_map(|(status, endpoint, event, moments)| Which { status, endpoint, event, moments })
}

/// When the event of a place was accepted: days pass.
pub(crate) fn moment(seq: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seq * 20_000)
}

pub(crate) fn event_id(seq: i64) -> EventId {
    let mut bytes = EventId::floor(moment(seq)).to_bytes();
    bytes[15] = 7;
    EventId::from_bytes(bytes)
}

pub(crate) fn source_id(source: i64) -> SourceId {
    SourceId::from_bytes([u8::try_from(source).unwrap(); 16])
}

pub(crate) fn endpoint_id(endpoint: i64) -> EndpointId {
    EndpointId::from_bytes([u8::try_from(endpoint).unwrap(); 16])
}

/// Attempts that are under way.
#[derive(Debug, Default)]
pub(crate) struct Flying(pub(crate) HashSet<DeliveryKey>);

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
    fn is_busy(&self, _: OrganizationKey) -> bool {
        false
    }
}

/// The events of a log, by their places, which begin at 1.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) events: Vec<Spec>,
    /// How this engine names the event of a place.
    pub(crate) key: fn(i64) -> EventKey,
}

/// Up to 25 events.
pub(crate) fn world(key: fn(i64) -> EventKey) -> impl Strategy<Value = World> {
    prop::collection::vec(spec(), 0..25).prop_map(move |events| World { events, key })
}

/// An event that comes in while pages are read.
pub(crate) fn one_more() -> Spec {
    Spec {
        org: ORG,
        event_type: "order",
        source: None,
        external_id: Some("x"),
        body: "blue",
        originals: [None, None],
        replays: [None, None],
    }
}

impl Spec {
    /// The endpoints it goes to at first.
    pub(crate) fn targets(&self) -> impl Iterator<Item = i64> {
        let wanted = [1, 2].into_iter().zip(self.originals).filter(|(_, stands)| stands.is_some());
        wanted.map(|(number, _)| self.org * 10 + number)
    }

    /// Its source inside the engine.
    pub(crate) fn source_key(&self) -> Option<i64> {
        self.source.map(|source| self.org * 10 + source)
    }

    /// Who knows its external id.
    pub(crate) fn owner(&self) -> (u8, i64) {
        self.source_key().map_or((b'o', self.org), |source| (b's', source))
    }
}

impl World {
    /// Attempts that are under way.
    pub(crate) fn flying(&self) -> Flying {
        let all = self.events.iter().zip(1..).flat_map(|(spec, seq)| self.deliveries_of(spec, seq));
        let is_flying =
            |stands| matches!(stands, Stands::InMemory { flying: true } | Stands::Waiting { flying: true, .. });
        Flying(all.filter(|(_, stands, _)| is_flying(*stands)).map(|(key, _, _)| key).collect())
    }

    /// The first event with a delivery that is only in memory, or the place behind the last one.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = i64> {
        let in_memory = |stands: &Option<Stands>| matches!(stands, Some(Stands::InMemory { .. }));
        let events = self.events.iter().zip(1..);
        events.filter(move |(spec, _)| spec.originals.iter().any(in_memory)).map(|(_, seq)| seq)
    }

    /// A filter in the words of the outside.
    pub(crate) fn name(&self, which: Which) -> DeliveryFilter {
        DeliveryFilter {
            status: which.status,
            endpoint: which.endpoint.map(endpoint_id),
            event: which.event.map(event_id),
            created_after: which.moments.0,
            created_before: which.moments.1,
        }
    }

    /// What the list has to be.
    pub(crate) fn events(&self, filter: &EventFilter) -> Vec<EventId> {
        let passes = |(spec, seq): &(&Spec, i64)| {
            let at = moment(*seq);
            spec.org == ORG
                && filter.event_type.as_ref().is_none_or(|pattern| pattern.matches(spec.event_type))
                && filter.source.is_none_or(|id| spec.source.map(|source| source_id(ORG * 10 + source)) == Some(id))
                && filter.status.is_none_or(|status| self.worst(spec, *seq) == Some(status))
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
    pub(crate) fn deliveries(&self, filter: &DeliveryFilter) -> Vec<DeliveryId> {
        let mut found = Vec::new();
        for (spec, seq) in self.events.iter().zip(1..).filter(|(spec, _)| spec.org == ORG) {
            let (id, at) = (event_id(seq), moment(seq));
            let passes = filter.event.is_none_or(|event| event == id)
                && filter.created_after.is_none_or(|after| at >= after)
                && filter.created_before.is_none_or(|before| at < before);
            for (key, stands, number) in self.deliveries_of(spec, seq).into_iter().filter(|_| passes) {
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

    /// Its deliveries, how they stand, and the numbers of their endpoints.
    pub(crate) fn deliveries_of(&self, spec: &Spec, seq: i64) -> Vec<(DeliveryKey, Stands, u32)> {
        let all = [(0, spec.originals), (1, spec.replays)];
        let each =
            all.into_iter().flat_map(|(run, two)| [1, 2].into_iter().zip(two).map(move |(n, one)| (run, n, one)));
        each.filter_map(|(run, number, stands)| {
            let endpoint = EndpointKey(spec.org * 10 + i64::from(number));
            stands.map(|stands| (DeliveryKey { event: (self.key)(seq), endpoint, run }, stands, number))
        })
        .collect()
    }

    fn worst(&self, spec: &Spec, seq: i64) -> Option<DeliveryStatus> {
        let order: HashMap<&str, u8> =
            ["dead_letter", "failed", "processing", "pending", "discarded", "success"].into_iter().zip(0..).collect();
        let all = self.deliveries_of(spec, seq).into_iter().map(|(_, stands, _)| stands.status());
        all.min_by_key(|status| order[status.as_str()])
    }
}
