//! Lanes: deliveries in memory, one lane for each endpoint, and whose turn it is.
//!
//! Storage's writer puts fresh deliveries in through [`Handoff`]; the loader adds waiting rows that come due; the
//! dispatcher takes out what may begin. What does not fit is stored and comes back through the loader, so nothing here
//! is the only copy of anything.

mod lane;
mod pace;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use foldhash::{HashMap, HashSet};
use futures_util::future::{AbortHandle, AbortRegistration};
use parking_lot::Mutex;
use postroom_domain::Timestamp;
use postroom_storage::Handoff;
use postroom_storage::worker::{DeliveryKey, EndpointKey, OrganizationKey, StoredEvent};
use tokio::sync::Notify;

pub(crate) use self::lane::Job;
use self::state::{Held, State};
pub(crate) use self::state::{Sign, Turn};
use crate::prepared::Prepared;

/// How much may be in memory and in flight. Everything beyond waits in storage.
#[derive(Debug, Clone, Copy)]
pub struct LaneLimits {
    /// Fresh deliveries that wait for one healthy endpoint; a slow one gets fewer places.
    pub lane_items: usize,
    /// Bytes of their bodies.
    pub lane_bytes: usize,
    /// Fresh deliveries that wait for all endpoints.
    pub items: usize,
    /// Bytes of their bodies; a body counts once for each endpoint.
    pub bytes: usize,
    /// Rows read from storage that wait in memory.
    pub stored: usize,
    /// Bytes of their bodies.
    pub stored_bytes: usize,
    /// Attempts under way; the bytes of their bodies are bounded by `bytes` too.
    pub in_flight: usize,
    /// Outcomes that are not yet durable; at this bound no attempt begins.
    pub settling: usize,
}

impl Default for LaneLimits {
    fn default() -> Self {
        Self {
            lane_items: 1024,
            lane_bytes: 4 << 20,
            items: 50_000,
            bytes: 256 << 20,
            stored: 20_000,
            stored_bytes: 64 << 20,
            in_flight: 4096,
            settling: 4096,
        }
    }
}

/// See the [module](self). Made before storage is opened, which it is handed to; [`crate::run()`] empties it.
#[derive(Debug)]
pub struct Lanes {
    state: Mutex<State>,
    /// The dispatcher has something to look at.
    pub(crate) dispatch: Notify,
    /// The loader has something to look at.
    pub(crate) load: Notify,
    /// The clock was set.
    pub(crate) recheck: Notify,
}

impl Lanes {
    /// Empty lanes.
    #[must_use]
    pub fn new(limits: LaneLimits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(limits)),
            dispatch: Notify::new(),
            load: Notify::new(),
            recheck: Notify::new(),
        })
    }

    /// Looks at the clock and at storage's waiting rows again. For whoever moved the clock; otherwise a jump is noticed
    /// within seconds.
    pub fn recheck(&self) {
        self.recheck.notify_one();
        self.dispatch.notify_one();
    }

    /// Attempts that may begin now, at most `limit`, and how many are under way then. Each is in hand until its guard is
    /// dropped.
    pub(crate) fn pop(self: &Arc<Self>, limit: usize) -> (Vec<(Turn, InHand, AbortRegistration)>, usize) {
        let now = Instant::now();
        let mut taken = Vec::new();
        let mut state = self.state.lock();
        while taken.len() < limit {
            let Some(turn) = state.pop(now) else { break };
            let (abort, registration) = AbortHandle::new_pair();
            let (organization, bytes) = (turn.job.event.organization, turn.job.bytes());
            state.in_hand.insert(turn.job.delivery, Held { abort, organization, bytes });
            let guard = InHand { lanes: self.clone(), delivery: turn.job.delivery, started: now, in_flight: true };
            taken.push((turn, guard, registration));
        }
        if state.has_news() {
            self.load.notify_one();
        }
        (taken, state.in_flight)
    }

    pub(crate) fn configured(&self, endpoint: EndpointKey, prepared: Arc<Prepared>) {
        self.state.lock().configured(endpoint, prepared, Instant::now());
        self.dispatch.notify_one();
    }

    pub(crate) fn tick(&self, clock: Timestamp) {
        self.state.lock().tick(Instant::now(), clock);
    }

    pub(crate) fn next_tick(&self) -> (Option<Instant>, Option<Timestamp>) {
        self.state.lock().next_tick()
    }

    /// A waiting row was written that is due then.
    pub(crate) fn note(&self, endpoint: EndpointKey, due: Timestamp) {
        let mut state = self.state.lock();
        let first = state.noted.entry(endpoint).or_insert(due);
        *first = due.min(*first);
        drop(state);
        self.load.notify_one();
    }

    /// What has come up for the loader since it last asked.
    pub(crate) fn news(&self) -> News {
        let mut state = self.state.lock();
        News {
            woken: std::mem::take(&mut state.woken),
            hungry: std::mem::take(&mut state.hungry),
            noted: std::mem::take(&mut state.noted),
        }
    }

    /// When the waiting rows of an endpoint were last read, and whether it still holds enough of them to be busy.
    pub(crate) fn loaded(&self, endpoint: EndpointKey) -> Option<(Instant, bool)> {
        let state = self.state.lock();
        let lane = state.lanes.get(&endpoint)?;
        Some((lane.loaded?, lane.stored > lane.pace.limit()))
    }

    pub(crate) fn load_begin(&self, endpoint: EndpointKey) -> Option<(usize, usize)> {
        self.state.lock().load_begin(endpoint, Instant::now())
    }

    pub(crate) fn load_end(&self, endpoint: EndpointKey, rows: Vec<(Timestamp, Job)>, more: bool, clock: Timestamp) {
        let mut state = self.state.lock();
        state.load_end(endpoint, rows, more, Instant::now(), clock);
        let has_news = state.has_news();
        drop(state);
        if has_news {
            self.load.notify_one();
        }
        self.dispatch.notify_one();
    }

    pub(crate) fn load_failed(&self, endpoint: EndpointKey) {
        if let Some(lane) = self.state.lock().lanes.get_mut(&endpoint) {
            lane.loading = None;
        }
    }

    pub(crate) fn sweep(&self) {
        let prepared = self.state.lock().sweep(Instant::now());
        for endpoint in prepared {
            endpoint.pool.sweep();
        }
    }

    /// Takes nothing more and lets nothing begin. Returns how many deliveries wait in memory: they are safe in storage.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        state.fresh + state.stored
    }

    /// Ends the attempts under way.
    pub(crate) fn interrupt(&self) {
        self.state.lock().in_hand.values().for_each(|held| held.abort.abort());
    }

    pub(crate) fn in_hand(&self) -> usize {
        self.state.lock().in_hand.len()
    }
}

impl Handoff for Lanes {
    fn reserve(&self, endpoint: EndpointKey, body_bytes: usize) -> bool {
        self.state.lock().reserve(endpoint, body_bytes, Instant::now())
    }

    fn deliver(&self, event: Arc<StoredEvent>, endpoints: Vec<EndpointKey>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        for endpoint in endpoints {
            let delivery = event.delivery(endpoint);
            let event = event.clone();
            state.push(Job { delivery, event, attempts: 0, attempts_of_schedule: 0, stored: false }, now);
        }
        drop(state);
        self.dispatch.notify_one();
    }

    fn release(&self, endpoint: EndpointKey, body_bytes: usize) {
        self.state.lock().release(endpoint, body_bytes);
    }

    fn wake(&self, endpoint: EndpointKey) {
        self.state.lock().woken.insert(endpoint);
        self.load.notify_one();
    }

    fn is_processing(&self, delivery: DeliveryKey) -> bool {
        self.state.lock().in_hand.contains_key(&delivery)
    }

    fn is_busy(&self, organization: OrganizationKey) -> bool {
        self.state.lock().in_hand.values().any(|held| held.organization == organization)
    }
}

/// Endpoints the loader has to look at.
#[derive(Debug)]
pub(crate) struct News {
    /// Storage moved or wrote rows of these.
    pub(crate) woken: HashSet<EndpointKey>,
    /// Of these, little is left in memory and more in storage.
    pub(crate) hungry: HashSet<EndpointKey>,
    /// Of these, rows were written, the first of them due then.
    pub(crate) noted: HashMap<EndpointKey, Timestamp>,
}

/// A delivery that is being attempted or settled. Dropping it, however that comes about, frees what it held.
#[derive(Debug)]
pub(crate) struct InHand {
    lanes: Arc<Lanes>,
    delivery: DeliveryKey,
    started: Instant,
    in_flight: bool,
}

impl InHand {
    /// The attempt is over; the slot is free for the next.
    pub(crate) fn ended(&mut self, sign: Sign) {
        if std::mem::take(&mut self.in_flight) {
            self.lanes.state.lock().ended(self.delivery, sign, self.started, Instant::now());
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.ended(Sign::Neither);
        let mut state = self.lanes.state.lock();
        let was_full = state.settled(self.delivery);
        let has_news = state.has_news();
        drop(state);
        if has_news {
            self.lanes.load.notify_one();
        }
        if was_full {
            self.lanes.dispatch.notify_one();
        }
    }
}
