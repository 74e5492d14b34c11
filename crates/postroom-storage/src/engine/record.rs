//! What is asked of an engine's log: an event to append, and what became of a delivery.

use std::sync::Arc;

use bytes::Bytes;
use postroom_domain::Timestamp;
use postroom_domain::event::{EventType, ExternalId};

use super::guard::guard_hash;
use super::packed::pack_event_headers;
use crate::receiver::{NewEvent, Origin};
use crate::worker::{Attempt, DeliveryKey, EndpointKey, Transition};

/// An event to record, its deliveries resolved.
pub(crate) struct Record {
    pub(crate) org: i64,
    pub(crate) source: Option<i64>,
    pub(crate) event_type: EventType,
    pub(crate) external_id: Option<ExternalId>,
    /// What the external id is recognised by.
    pub(crate) guard: Option<[u8; 16]>,
    pub(crate) headers: Vec<(String, String)>,
    /// The same, as stored.
    pub(crate) packed_headers: Vec<u8>,
    pub(crate) body: Bytes,
    pub(crate) endpoints: Vec<EndpointKey>,
    /// The limit of the calendar month, if the event counts for it.
    pub(crate) count: Counting,
    pub(crate) received_at: Timestamp,
}

/// Whether an event counts for its organization's calendar month.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counting {
    /// It does not: an endpoint's test.
    Free,
    /// It does, and is refused above the limit; none is unlimited.
    Upto(Option<u64>),
}

impl Record {
    /// An event of an organization, going to these endpoints.
    pub(crate) fn new(event: NewEvent, org: i64, endpoints: Vec<EndpointKey>, count: Counting) -> Self {
        let (source, created_by) = match &event.origin {
            Origin::Source(source) => (Some(source.key), None),
            Origin::Organization(scope) => (None, Some(scope.actor.to_string())),
        };
        let owner: (u8, i64) = source.map_or((b'o', org), |source| (b's', source));
        Self {
            org,
            source,
            guard: event.external_id.as_ref().map(|id| guard_hash(owner, id.as_str())),
            packed_headers: pack_event_headers(&event.headers, created_by),
            headers: event.headers,
            endpoints,
            count,
            event_type: event.event_type,
            external_id: event.external_id,
            body: event.body,
            received_at: event.received_at,
        }
    }

    /// Bytes it keeps in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len() + self.packed_headers.len() + 512
    }
}

/// How a delivery went, or where it moves without an attempt.
pub(crate) struct Settle {
    pub(crate) delivery: DeliveryKey,
    pub(crate) org: i64,
    /// The attempt and its response headers as stored.
    pub(crate) attempt: Option<(Arc<Attempt>, Option<Vec<u8>>)>,
    /// Attempts so far.
    pub(crate) attempts: u32,
    /// Attempts of the schedule so far; none leaves the number as it is.
    pub(crate) attempts_of_schedule: Option<u32>,
    pub(crate) next: Transition,
}

impl Settle {
    /// Bytes it keeps in memory, most of them.
    pub(crate) fn bytes(&self) -> usize {
        self.attempt.as_ref().and_then(|(attempt, _)| attempt.response.as_ref()).map_or(0, |r| r.body.len())
    }

    /// How many places it takes among settlements that wait: a large one counts as one for each 4 KiB.
    pub(crate) fn weight(&self) -> u32 {
        1 + u32::try_from(self.bytes() / 4096).unwrap_or(u32::MAX).min(1_000)
    }
}

/// The most settlements waiting to be written, the large ones counted more than once.
pub(crate) const SETTLEMENTS: usize = 10_000;
