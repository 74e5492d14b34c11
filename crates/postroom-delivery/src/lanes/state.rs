//! Who is next: all lanes, and the turn-taking among organizations. No clock, no task, no network.
//!
//! Organizations with work stand in a ring and are served by deficit round robin: each turn brings a quantum, each
//! delivery costs one and its KiB, so an organization with many or large events gets no more than its share. Inside an
//! organization its ready lanes take turns.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};
use futures_util::future::AbortHandle;
use postroom_domain::Timestamp;
use postroom_storage::worker::{DeliveryKey, EndpointKey, OrganizationKey};

use super::LaneLimits;
use super::lane::{Job, Lane};
use super::pace::RateLimit;
use crate::prepared::Prepared;

/// What an organization may spend in a turn: 8 deliveries of 1 KiB.
const QUANTUM: usize = 16;
/// A lane without work is forgotten after this time, with its pace and its connections.
const LANE_IDLE: Duration = Duration::from_secs(60);

/// What an attempt said about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It took the event.
    Success,
    /// It has too much to do, or is away.
    Overload,
    /// Nothing about that.
    Neither,
}

/// A delivery whose turn it is, with the configuration the last attempt found.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) job: Job,
    pub(crate) prepared: Option<Arc<Prepared>>,
}

/// A delivery in hand.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) abort: AbortHandle,
    pub(crate) organization: OrganizationKey,
    /// Of the body.
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Organization {
    ready: VecDeque<EndpointKey>,
    in_flight: usize,
    in_flight_bytes: usize,
    deficit: usize,
    in_ring: bool,
}

impl Organization {
    /// Whether it may have another attempt under way: a quarter of the slots, or three quarters while nobody else is
    /// there.
    fn has_share(&self, limits: &LaneLimits, alone: bool) -> bool {
        let share = |all: usize| (all / 4 * if alone { 3 } else { 1 }).max(1);
        self.in_flight < share(limits.in_flight) && self.in_flight_bytes < share(limits.bytes)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    limits: LaneLimits,
    pub(crate) lanes: HashMap<EndpointKey, Lane>,
    organizations: HashMap<OrganizationKey, Organization>,
    ring: VecDeque<OrganizationKey>,
    /// Deliveries in an attempt, or whose outcome is not yet durable.
    pub(crate) in_hand: HashMap<DeliveryKey, Held>,
    pub(crate) in_flight: usize,
    in_flight_bytes: usize,
    /// Fresh deliveries in all lanes.
    pub(crate) fresh: usize,
    pub(crate) fresh_bytes: usize,
    /// Waiting rows held in memory, and the bytes of their bodies.
    pub(crate) stored: usize,
    stored_bytes: usize,
    /// Lanes that wait for their rate limit.
    delayed: BinaryHeap<Reverse<(Instant, EndpointKey)>>,
    /// Lanes with rows whose time comes; entries may be out of date.
    due: BinaryHeap<Reverse<(Timestamp, EndpointKey)>>,
    /// Endpoints that storage said to look at.
    pub(crate) woken: HashSet<EndpointKey>,
    /// Endpoints of which more is to be read, because little is left.
    pub(crate) hungry: HashSet<EndpointKey>,
    /// Endpoints with rows that were just written, and when the first of them is due.
    pub(crate) noted: HashMap<EndpointKey, Timestamp>,
    /// Nothing more is taken.
    pub(crate) closed: bool,
}

impl State {
    pub(crate) fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            lanes: HashMap::default(),
            organizations: HashMap::default(),
            ring: VecDeque::new(),
            in_hand: HashMap::default(),
            in_flight: 0,
            in_flight_bytes: 0,
            fresh: 0,
            fresh_bytes: 0,
            stored: 0,
            stored_bytes: 0,
            delayed: BinaryHeap::new(),
            due: BinaryHeap::new(),
            woken: HashSet::default(),
            hungry: HashSet::default(),
            noted: HashMap::default(),
            closed: false,
        }
    }

    pub(crate) fn lane(&mut self, endpoint: EndpointKey, now: Instant) -> &mut Lane {
        self.lanes.entry(endpoint).or_insert_with(|| Lane::new(now))
    }

    /// Promises a place for a fresh delivery.
    pub(crate) fn reserve(&mut self, endpoint: EndpointKey, bytes: usize, now: Instant) -> bool {
        let limits = self.limits;
        let full = self.fresh >= limits.items || self.fresh_bytes + bytes > limits.bytes;
        if self.closed || full {
            return false;
        }
        let lane = self.lane(endpoint, now);
        if lane.fresh >= lane.places(&limits) || lane.fresh_bytes + bytes > limits.lane_bytes {
            return false;
        }
        lane.fresh += 1;
        lane.fresh_bytes += bytes;
        self.fresh += 1;
        self.fresh_bytes += bytes;
        true
    }

    /// Gives back a promised place.
    pub(crate) fn release(&mut self, endpoint: EndpointKey, bytes: usize) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.fresh = lane.fresh.saturating_sub(1);
            lane.fresh_bytes = lane.fresh_bytes.saturating_sub(bytes);
        }
        self.fresh = self.fresh.saturating_sub(1);
        self.fresh_bytes = self.fresh_bytes.saturating_sub(bytes);
    }

    /// Lines up a delivery that may be tried now.
    pub(crate) fn push(&mut self, job: Job, now: Instant) {
        let endpoint = job.delivery.endpoint;
        let organization = job.event.organization;
        let lane = self.lane(endpoint, now);
        lane.organization = Some(organization);
        lane.used = now;
        lane.queue.push_back(job);
        self.refresh(endpoint);
    }

    /// Puts a lane among its organization's ready ones if it belongs there.
    fn refresh(&mut self, endpoint: EndpointKey) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let Some(key) = lane.organization else { return };
        let organization = self.organizations.entry(key).or_default();
        if !lane.ready && !lane.delayed && lane.has_work() {
            lane.ready = true;
            organization.ready.push_back(endpoint);
        }
        if !organization.in_ring && !organization.ready.is_empty() {
            organization.in_ring = true;
            self.ring.push_back(key);
        }
    }

    /// Whether attempts may begin at all.
    fn has_slot(&self) -> bool {
        let room = self.in_flight < self.limits.in_flight && self.in_flight_bytes < self.limits.bytes;
        !self.closed && room && !self.is_settling_full()
    }

    /// Whether so many outcomes wait for storage that no attempt begins.
    fn is_settling_full(&self) -> bool {
        self.in_hand.len() - self.in_flight >= self.limits.settling
    }

    /// The delivery whose turn it is; it is in flight from now on.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Turn> {
        while self.has_slot() {
            let key = *self.ring.front()?;
            let alone = self.ring.len() == 1;
            let Some(organization) = self.organizations.get_mut(&key) else {
                self.ring.pop_front();
                continue;
            };
            // One organization never takes all slots: a newcomer would wait for the slowest endpoint's deadline.
            let alone = alone && organization.in_flight == self.in_flight;
            let has_share = organization.has_share(&self.limits, alone);
            let Some(endpoint) = organization.ready.front().copied().filter(|_| has_share) else {
                organization.in_ring = false;
                organization.deficit = 0;
                self.ring.pop_front();
                continue;
            };
            let lane = self.lanes.get_mut(&endpoint).filter(|lane| lane.has_work());
            let Some(lane) = lane else {
                organization.ready.pop_front();
                if let Some(lane) = self.lanes.get_mut(&endpoint) {
                    lane.ready = false;
                }
                continue;
            };
            if let Some(at) = lane.rate.as_ref().and_then(|rate| rate.wait_until(now)) {
                organization.ready.pop_front();
                lane.ready = false;
                lane.delayed = true;
                self.delayed.push(Reverse((at, endpoint)));
                continue;
            }
            let cost = 1 + lane.queue.front().map_or(0, Job::bytes) / 1024;
            if organization.deficit < cost {
                organization.deficit += QUANTUM;
                self.ring.rotate_left(1);
                continue;
            }
            organization.deficit -= cost;
            return self.take(key, endpoint, now);
        }
        None
    }

    fn take(&mut self, organization: OrganizationKey, endpoint: EndpointKey, now: Instant) -> Option<Turn> {
        let organization = self.organizations.get_mut(&organization)?;
        let lane = self.lanes.get_mut(&endpoint)?;
        let job = lane.queue.pop_front()?;
        let bytes = job.bytes();
        if job.stored {
            lane.stored -= 1;
            lane.stored_bytes -= bytes;
            self.stored -= 1;
            self.stored_bytes -= bytes;
        } else {
            lane.fresh -= 1;
            lane.fresh_bytes -= bytes;
            self.fresh -= 1;
            self.fresh_bytes -= bytes;
        }
        if let Some(rate) = &mut lane.rate {
            rate.take(now);
        }
        lane.used = now;
        lane.in_flight += 1;
        organization.in_flight += 1;
        organization.in_flight_bytes += bytes;
        self.in_flight += 1;
        self.in_flight_bytes += bytes;
        organization.ready.pop_front();
        lane.ready = lane.has_work();
        if lane.ready {
            organization.ready.push_back(endpoint);
        }
        if lane.is_hungry() {
            self.hungry.insert(endpoint);
        }
        let prepared = lane.prepared.clone();
        Some(Turn { job, prepared })
    }

    /// An attempt found this configuration: the lane opens, and keeps to its rate limit.
    pub(crate) fn configured(&mut self, endpoint: EndpointKey, prepared: Arc<Prepared>, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let per_second = prepared.endpoint.settings.rate_limit;
        if per_second != lane.rate.as_ref().map(RateLimit::per_second) {
            lane.rate = per_second.map(RateLimit::new);
            // The attempt that found it is the first to count.
            if let Some(rate) = &mut lane.rate {
                rate.take(now);
            }
        }
        lane.prepared = Some(prepared);
        self.refresh(endpoint);
    }

    /// An attempt that began at `started` is over; its outcome still has to become durable.
    pub(crate) fn ended(&mut self, delivery: DeliveryKey, sign: Sign, started: Instant, now: Instant) {
        let endpoint = delivery.endpoint;
        let bytes = self.in_hand.get(&delivery).map_or(0, |held| held.bytes);
        self.in_flight -= 1;
        self.in_flight_bytes -= bytes;
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        match sign {
            Sign::Success => lane.pace.succeeded(lane.in_flight >= lane.pace.limit()),
            Sign::Overload => lane.pace.overloaded(started, now),
            Sign::Neither => {}
        }
        lane.in_flight -= 1;
        lane.used = now;
        if let Some(organization) = lane.organization.and_then(|key| self.organizations.get_mut(&key)) {
            organization.in_flight -= 1;
            organization.in_flight_bytes -= bytes;
        }
        self.refresh(endpoint);
    }

    /// The outcome of a delivery is durable, or is given up: storage knows better than we from here on. Returns whether
    /// attempts waited for that.
    pub(crate) fn settled(&mut self, delivery: DeliveryKey) -> bool {
        let was_full = self.is_settling_full();
        self.in_hand.remove(&delivery);
        let Some(lane) = self.lanes.get_mut(&delivery.endpoint) else { return was_full };
        if let Some(loading) = &mut lane.loading {
            loading.push(delivery);
        }
        if std::mem::take(&mut lane.missed) {
            self.woken.insert(delivery.endpoint);
        }
        // What was read last may have been nothing but deliveries in hand.
        if lane.queue.is_empty() && lane.is_hungry() {
            self.hungry.insert(delivery.endpoint);
        }
        was_full
    }

    /// Whether the loader has something to look at.
    pub(crate) fn has_news(&self) -> bool {
        !self.hungry.is_empty() || !self.woken.is_empty()
    }

    /// Moves what has become due, and lanes whose rate limit lets them go on.
    pub(crate) fn tick(&mut self, now: Instant, clock: Timestamp) {
        while let Some(Reverse((_, endpoint))) = self.delayed.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.delayed.pop();
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.delayed = false;
            }
            self.refresh(endpoint);
        }
        while let Some(Reverse((_, endpoint))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= clock) {
            self.due.pop();
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            while lane.later.front().is_some_and(|(at, _)| *at <= clock) {
                lane.queue.extend(lane.later.pop_front().map(|(_, job)| job));
            }
            lane.used = now;
            if let Some((at, _)) = lane.later.front() {
                self.due.push(Reverse((*at, endpoint)));
            }
            self.refresh(endpoint);
        }
    }

    /// When [`State::tick`] has something to do next.
    pub(crate) fn next_tick(&self) -> (Option<Instant>, Option<Timestamp>) {
        (self.delayed.peek().map(|entry| entry.0.0), self.due.peek().map(|entry| entry.0.0))
    }

    /// Begins to read waiting rows: how many to ask for, and for how many bytes. `None` when there is no room.
    pub(crate) fn load_begin(&mut self, endpoint: EndpointKey, now: Instant) -> Option<(usize, usize)> {
        let (limits, stored, stored_bytes) = (self.limits, self.stored, self.stored_bytes);
        let lane = self.lane(endpoint, now);
        // What the lane holds already is read again.
        let room = limits.stored.saturating_sub(stored - lane.stored);
        let room_bytes = limits.stored_bytes.saturating_sub(stored_bytes - lane.stored_bytes);
        if room == 0 || room_bytes == 0 || lane.loading.is_some() {
            return None;
        }
        // Near the bound everybody gets a little, so that a few endpoints with many rows do not shut out the rest.
        let scarce = room < limits.stored / 2 || room_bytes < limits.stored_bytes / 2;
        let (rows, bytes) =
            if scarce { (lane.chunk().min(8), limits.lane_bytes / 16) } else { (lane.chunk(), limits.lane_bytes) };
        lane.loading = Some(Vec::new());
        lane.loaded = Some(now);
        lane.used = now;
        // Rows in hand are still waiting rows there. They come first, and must not hide the others.
        let in_hand = self.in_hand.iter().filter(|(delivery, _)| delivery.endpoint == endpoint);
        let held = in_hand.fold((0, 0), |(rows, bytes), (_, held)| (rows + 1, bytes + held.bytes));
        Some((rows.min(room) + held.0, bytes.min(room_bytes) + held.1))
    }

    /// Takes what was read in the place of the waiting rows held so far: rows may have been moved, or be gone.
    pub(crate) fn load_end(
        &mut self,
        endpoint: EndpointKey,
        rows: Vec<(Timestamp, Job)>,
        more: bool,
        now: Instant,
        clock: Timestamp,
    ) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let settled: HashSet<DeliveryKey> = lane.loading.take().unwrap_or_default().into_iter().collect();
        let fresh: HashSet<DeliveryKey> = lane.queue.iter().filter(|j| !j.stored).map(|j| j.delivery).collect();
        self.stored -= lane.stored;
        self.stored_bytes -= lane.stored_bytes;
        (lane.stored, lane.stored_bytes) = (0, 0);
        lane.queue.retain(|job| !job.stored);
        lane.later.clear();
        lane.more_stored = more;
        for (due, job) in rows {
            let key = job.delivery;
            // Whether the row is from before or after the settlement is not known, so it has to be read again.
            if settled.contains(&key) {
                self.woken.insert(endpoint);
                continue;
            }
            if self.in_hand.contains_key(&key) {
                lane.missed = true;
                continue;
            }
            if fresh.contains(&key) {
                continue;
            }
            lane.organization = Some(job.event.organization);
            lane.stored += 1;
            lane.stored_bytes += job.bytes();
            if due <= clock { lane.queue.push_back(job) } else { lane.later.push_back((due, job)) }
        }
        lane.used = now;
        self.stored += lane.stored;
        self.stored_bytes += lane.stored_bytes;
        if let Some((at, _)) = lane.later.front() {
            self.due.push(Reverse((*at, endpoint)));
        }
        // All that came had been worked off while it was being read: nothing else would ask for the next.
        if more && lane.queue.is_empty() && !settled.is_empty() {
            self.hungry.insert(endpoint);
        }
        self.refresh(endpoint);
    }

    /// Forgets lanes and organizations without work, and closes connections nobody uses.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<Arc<Prepared>> {
        self.lanes.retain(|_, lane| !lane.is_idle(now, LANE_IDLE));
        self.organizations.retain(|_, organization| organization.in_flight > 0 || organization.in_ring);
        self.lanes.values().filter_map(|lane| lane.prepared.clone()).collect()
    }
}
