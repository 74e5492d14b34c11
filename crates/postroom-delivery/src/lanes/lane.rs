//! The lane of one endpoint: what waits for it in memory, and what is on its way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom_domain::Timestamp;
use postroom_storage::worker::{DeliveryKey, Due, OrganizationKey, StoredEvent};

use super::LaneLimits;
use super::pace::{Concurrency, RateLimit};
use crate::prepared::Prepared;

/// A delivery to make.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) delivery: DeliveryKey,
    pub(crate) event: Arc<StoredEvent>,
    /// Attempts so far.
    pub(crate) attempts: u32,
    /// Attempts that used up steps of the schedule.
    pub(crate) attempts_of_schedule: u32,
    /// Whether it came from storage's waiting rows, and can be read from there again.
    pub(crate) stored: bool,
}

impl Job {
    pub(crate) fn bytes(&self) -> usize {
        self.event.body.len()
    }
}

impl From<Due> for Job {
    fn from(due: Due) -> Self {
        Self {
            delivery: due.delivery,
            event: due.event,
            attempts: due.attempts,
            attempts_of_schedule: due.attempts_of_schedule,
            stored: true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    /// Known with the first delivery.
    pub(crate) organization: Option<OrganizationKey>,
    /// What may be tried now.
    pub(crate) queue: VecDeque<Job>,
    /// Waiting rows whose time has not come, by their time.
    pub(crate) later: VecDeque<(Timestamp, Job)>,
    /// Fresh deliveries in `queue` and promised to storage, and the bytes of their bodies.
    pub(crate) fresh: usize,
    pub(crate) fresh_bytes: usize,
    /// Waiting rows in `queue` and `later`, and the bytes of their bodies.
    pub(crate) stored: usize,
    pub(crate) stored_bytes: usize,
    /// Attempts under way.
    pub(crate) in_flight: usize,
    pub(crate) pace: Concurrency,
    pub(crate) rate: Option<RateLimit>,
    /// The configuration the last attempt found; without one, a single attempt goes ahead to find it.
    pub(crate) prepared: Option<Arc<Prepared>>,
    /// Whether it is among its organization's ready lanes.
    pub(crate) ready: bool,
    /// Whether it waits for its rate limit.
    pub(crate) delayed: bool,
    /// Whether storage has more waiting rows than were read.
    pub(crate) more_stored: bool,
    /// While waiting rows are being read: what was settled meanwhile, and may still be in what comes.
    pub(crate) loading: Option<Vec<DeliveryKey>>,
    /// Whether a row was left out that was in hand: what became of it has to be read once it is settled.
    pub(crate) missed: bool,
    /// When waiting rows were last read.
    pub(crate) loaded: Option<Instant>,
    /// When it last had something to do.
    pub(crate) used: Instant,
}

impl Lane {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            organization: None,
            queue: VecDeque::new(),
            later: VecDeque::new(),
            fresh: 0,
            fresh_bytes: 0,
            stored: 0,
            stored_bytes: 0,
            in_flight: 0,
            pace: Concurrency::new(),
            rate: None,
            prepared: None,
            ready: false,
            delayed: false,
            more_stored: false,
            loading: None,
            missed: false,
            loaded: None,
            used: now,
        }
    }

    /// How many attempts may be under way.
    pub(crate) fn limit(&self) -> usize {
        if self.prepared.is_some() { self.pace.limit() } else { 1 }
    }

    /// How many fresh deliveries may wait in memory. An endpoint that is slow or away gets fewer places: places are
    /// shared by all, and what does not fit is safe in storage.
    pub(crate) fn places(&self, limits: &LaneLimits) -> usize {
        (self.pace.limit() * 16).clamp(32.min(limits.lane_items), limits.lane_items)
    }

    /// How many waiting rows to read at once.
    pub(crate) fn chunk(&self) -> usize {
        (self.pace.limit() * 4).clamp(8, 256)
    }

    /// Whether an attempt could begin if its rate limit lets it.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() && self.in_flight < self.limit()
    }

    /// Whether so little is left to do that more should be read from storage.
    pub(crate) fn is_hungry(&self) -> bool {
        self.more_stored && self.loading.is_none() && self.queue.len() <= self.pace.limit()
    }

    /// Whether it can be forgotten.
    pub(crate) fn is_idle(&self, now: Instant, after: Duration) -> bool {
        self.queue.is_empty()
            && self.later.is_empty()
            && self.fresh == 0
            && self.in_flight == 0
            && self.loading.is_none()
            && now.saturating_duration_since(self.used) >= after
    }
}
