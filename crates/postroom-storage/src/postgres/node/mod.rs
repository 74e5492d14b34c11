//! This process among the others: one row for each start, alive as long as its lease is renewed by the database's clock.
//!
//! What a node accepted it delivers from memory; how far that is settled it writes down as its watermark ([`ledger`]).
//! When its lease is over, any other node takes what lies above the watermark ([`recovery`]). A node that comes back
//! after that finds its row dead: nothing it writes into the log is let in any more, it forgets what it held, and goes on
//! under a new number. Deliveries that wait as exceptions belong to whoever leases the shard of their endpoint
//! ([`shards`]).
//!
//! What this node writes for another one's endpoint, it pokes the other about ([`pokes`]).
//!
//! Nothing is begun that the database's clock could see as begun after the end of the lease: by this process's own
//! steady clock a lease ends a fifth earlier, and begins when its renewal was asked for.

mod beat;
mod ledger;
mod pokes;
mod recovery;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashSet;
use parking_lot::Mutex;
use postroom_domain::Clock;
use postroom_domain::keyring::KeyId;
use tokio::sync::Notify;

use self::ledger::Ledger;
pub(super) use self::ledger::{Mark, Taken};
pub(super) use self::recovery::recover_beside;
use self::shards::Shards;
use super::pool::Pool;
use crate::worker::{DeliveryKey, EndpointKey};
use crate::{Error, Handoff, Result};

/// Who writes: a node, and how often the answer to one of its batches was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) node: i32,
    pub(super) epoch: i64,
}

/// How a node lives.
pub(super) struct Settings {
    pub(super) worker: Pool,
    pub(super) clock: Clock,
    pub(super) handoff: Arc<dyn Handoff>,
    /// Told when there are pokes, for this node or others.
    pub(super) poked: Arc<Notify>,
    pub(super) lease: Duration,
    /// Whether it takes shards.
    pub(super) delivers: bool,
    /// Which encryption key it seals with.
    pub(super) key: KeyId,
}

/// See the [module](self).
pub(super) struct Node {
    settings: Settings,
    state: Mutex<State>,
    /// Held while the row is made or renewed.
    beating: tokio::sync::Mutex<()>,
    /// Somebody found out that this node is thought dead.
    hurry: Notify,
    /// There are pokes to write down.
    pokes: Notify,
}

struct State {
    /// None before the first row, and for a process that is no node.
    identity: Option<Identity>,
    /// When its lease is over, by this process's own clock.
    alive_until: Option<Instant>,
    ledger: Ledger,
    /// A mark that is on its way: it is sent again, as it is, until it is known to be stored.
    mark: Option<Mark>,
    /// The last mark that is stored: watermark and count.
    last: Option<(i64, i64)>,
    shards: Shards,
    /// Organizations with so many waiting deliveries that their events are refused.
    full: HashSet<i64>,
    /// Endpoints at which others are to look.
    pokes: BTreeSet<EndpointKey>,
    /// Organizations of which nothing begins here: they are being moved, or are elsewhere.
    away: HashSet<i64>,
}

impl State {
    fn is_alive(&self) -> bool {
        self.alive_until.is_some_and(|until| Instant::now() < until)
    }

    /// A mark is stored.
    fn marked(&mut self, mark: Mark) {
        self.last = Some((mark.watermark, mark.counted));
        self.mark = None;
    }

    /// Whether events of these organizations are accepted and not in their months' counts.
    fn has_uncounted(&self, limited: &BTreeMap<i64, u64>) -> bool {
        let mut on_its_way = self.mark.iter().flat_map(|mark| &mark.counts);
        on_its_way.any(|((org, _), _)| limited.contains_key(org)) || limited.keys().any(|org| self.ledger.counts(*org))
    }

    /// Whether there is more to write down than is stored.
    fn has_moved(&self) -> bool {
        self.mark.is_some() || self.last != Some(self.ledger.reaches())
    }
}

impl Node {
    /// A process that is not yet a node, and is none if [`Node::begin`] is not called.
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let state = State {
            identity: None,
            alive_until: None,
            ledger: Ledger::new(0),
            mark: None,
            last: None,
            shards: Shards::default(),
            full: HashSet::default(),
            pokes: BTreeSet::new(),
            away: HashSet::default(),
        };
        let (beating, hurry, pokes) = (tokio::sync::Mutex::new(()), Notify::new(), Notify::new());
        Arc::new(Self { settings, state: Mutex::new(state), beating, hurry, pokes })
    }

    /// Under which number this process may write; none while its lease is over.
    pub(super) fn identity(&self) -> Option<Identity> {
        let state = self.state.lock();
        state.identity.filter(|_| state.is_alive())
    }

    /// Enters a stored batch, if it is still this node's: not when the node was thought dead since.
    pub(super) fn enter(&self, by: Identity, enter: impl FnOnce(&mut Ledger)) -> bool {
        let mut state = self.state.lock();
        let is_ours = state.identity.is_some_and(|identity| identity.node == by.node);
        if is_ours {
            enter(&mut state.ledger);
        }
        is_ours
    }

    /// The lane has moved the node's epoch.
    pub(super) fn moved_to(&self, by: Identity, epoch: i64) {
        if let Some(identity) = self.state.lock().identity.as_mut().filter(|identity| identity.node == by.node) {
            identity.epoch = epoch;
        }
    }

    /// The node's row was found dead: it stops at once, and goes on under a new number.
    pub(super) fn fenced(&self, by: Identity) {
        let mut state = self.state.lock();
        if state.identity.is_some_and(|identity| identity.node == by.node) {
            state.alive_until = None;
            self.hurry.notify_one();
        }
    }

    /// Takes a delivery out of memory to settle it, if it is there.
    pub(super) fn take(&self, delivery: DeliveryKey) -> Option<Taken> {
        self.state.lock().ledger.take(delivery)
    }

    /// What became of a delivery is durable: no attempt of it is under way here any more.
    pub(super) fn ended(&self, delivery: DeliveryKey) {
        self.state.lock().shards.ended(delivery);
    }

    /// Whether a delivery is in memory only.
    pub(super) fn has_in_memory(&self, delivery: DeliveryKey) -> bool {
        self.state.lock().ledger.holds(delivery)
    }

    /// Whether nothing is in memory only.
    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().ledger.is_empty()
    }

    /// As [`Ledger::take_older_than`].
    pub(super) fn take_older_than(&self, before: i64, now: i64, limit: usize) -> Vec<Taken> {
        self.state.lock().ledger.take_older_than(before, now, limit)
    }

    /// As [`Ledger::take_of`], of organizations that are away.
    pub(super) fn take_away(&self, limit: usize) -> Vec<Taken> {
        let state = &mut *self.state.lock();
        if state.away.is_empty() { Vec::new() } else { state.ledger.take_of(&state.away, limit) }
    }

    /// Of these organizations nothing begins here from now on, and of others again.
    pub(super) fn set_away(&self, orgs: HashSet<i64>) {
        self.state.lock().away = orgs;
    }

    /// Whether an organization is away.
    pub(super) fn is_away(&self, org: i64) -> bool {
        self.state.lock().away.contains(&org)
    }

    /// Whether nothing of an organization that is away is in memory. For the lane of outcomes, between two statements.
    pub(super) fn is_without(&self, org: i64) -> bool {
        let state = self.state.lock();
        state.away.contains(&org) && state.ledger.is_without(org)
    }

    /// What settles a delivery is durable.
    pub(super) fn settled(&self, taken: Taken) {
        self.state.lock().ledger.settled(taken);
    }

    /// What would have settled a delivery is not known to be stored.
    pub(super) fn put_back(&self, taken: Taken) {
        self.state.lock().ledger.put_back(taken);
    }

    /// Whether an attempt of a delivery may begin here and now. `false`: it is another node's by now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while this node's lease is over: it may still turn out to be alive.
    pub(super) fn admit(&self, delivery: DeliveryKey, org: Option<i64>) -> Result<bool> {
        let mut state = self.state.lock();
        if org.is_some_and(|org| state.away.contains(&org)) {
            return Ok(false);
        }
        if !state.is_alive() {
            return Err(Error::Unavailable("this node has lost touch with the database".into()));
        }
        Ok(state.ledger.holds(delivery) || state.shards.admit(delivery))
    }

    /// The shards whose deliveries this node makes.
    pub(super) fn shards(&self) -> Vec<i64> {
        let state = self.state.lock();
        if state.is_alive() { state.shards.held() } else { Vec::new() }
    }

    /// Whether waiting deliveries of this endpoint are made here.
    pub(super) fn holds(&self, endpoint: EndpointKey) -> bool {
        let state = self.state.lock();
        state.is_alive() && state.shards.holds(endpoint)
    }

    /// Whether an organization has as many waiting deliveries as it may have.
    pub(super) fn is_full(&self, org: i64) -> bool {
        self.state.lock().full.contains(&org)
    }
}
