//! One cell as this process sees it: closed, being opened or closed, or open.
//!
//! It is opened by whoever needs it first, in a task of its own, and the others wait for that one; it is closed again
//! when nobody has used it for a while. Whoever uses it holds it: a cell in use is never closed.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postroom_domain::{OrganizationId, Timestamp};
use tokio::sync::watch;
use tracing::{info, warn};

use super::keys::{CellHandoff, outside};
use super::registry::{CellUpkeep, TenantRow};
use super::{Cells, leaving};
use crate::error::TenantUnavailable;
use crate::{Error, Result, Storage};

/// How long a call waits for a cell to be opened.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an opening may take, whoever waits for it.
const OPENING: Duration = Duration::from_secs(30);
/// A cell that could not be opened is not tried again by a call before this.
const FAILED_WAIT: Duration = Duration::from_secs(1);
/// How long delivery waits for a cell to say at which endpoints something waits.
pub(super) const ANSWER: Duration = Duration::from_secs(2);
/// A cell that gave delivery no answer is not asked again before this.
const SILENT: Duration = Duration::from_secs(5);
/// At how many endpoints delivery looks at once when a cell is opened; at the others with its walk.
const HEADS: usize = 1_000;
/// How often it is said that something is wrong with a cell.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// See the [module](self).
pub(super) struct Place {
    pub(super) cell: u32,
    pub(super) org: i64,
    pub(super) organization: OrganizationId,
    row: Mutex<TenantRow>,
    state: Mutex<State>,
    /// Whether figures have shown it as unavailable: then they have to show when it is no more.
    pub(super) was_unavailable: AtomicBool,
    /// When it was last said what is wrong with it.
    said: Mutex<Option<Instant>>,
    /// When delivery last got no answer.
    silent: Mutex<Option<Instant>>,
}

enum State {
    Closed(Closed),
    /// Somebody opens or closes it; what is sent here, or that nobody sends any more, says that it is done.
    Moving(watch::Receiver<()>),
    Open(Arc<Open>),
    /// The whole installation was closed.
    Ended,
}

#[derive(Default)]
struct Closed {
    failed: Option<(Instant, String)>,
    /// `wakes` when this process closed it: it is not opened for others' sake until they have woken it anew.
    wakes: Option<i64>,
    since: Option<Timestamp>,
}

/// An open cell. Whoever holds it keeps it open.
pub(super) struct Open {
    storage: Storage,
    pub(super) upkeep: Arc<dyn CellUpkeep>,
    /// `wakes` of the registry when it was last looked whether somebody else has come to it.
    wakes: Mutex<i64>,
    used: Mutex<Timestamp>,
    /// Of when the copy of the organization is.
    pub(super) copied: Mutex<Timestamp>,
    /// The count that the shared database was told last.
    pub(super) counted: Mutex<Option<u64>>,
}

impl Deref for Open {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        &self.storage
    }
}

/// How a cell stands, for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Asleep,
    Moving,
    Open,
    Unavailable,
}

impl Place {
    pub(super) fn new(row: TenantRow) -> Self {
        Self {
            cell: row.cell,
            org: row.org,
            organization: row.organization,
            state: Mutex::new(State::Closed(Closed { since: row.slept_at, ..Closed::default() })),
            row: Mutex::new(row),
            was_unavailable: AtomicBool::new(false),
            said: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    /// The row as it was last read.
    pub(super) fn row(&self) -> TenantRow {
        self.row.lock().clone()
    }

    /// The row was read again.
    pub(super) fn follow(&self, row: TenantRow) {
        *self.row.lock() = row;
    }

    /// The cell, if it is open. Does not keep it awake.
    pub(super) fn opened(&self) -> Option<Arc<Open>> {
        match &*self.state.lock() {
            State::Open(open) => Some(open.clone()),
            _ => None,
        }
    }

    /// When it was last used, if it is open.
    pub(super) fn used(&self) -> Option<Timestamp> {
        self.opened().map(|open| *open.used.lock())
    }

    /// Whether it is open and nobody has used it since then.
    pub(super) fn is_unused_since(&self, before: Timestamp) -> bool {
        self.used().is_some_and(|used| used <= before)
    }

    pub(super) fn standing(&self) -> Standing {
        match &*self.state.lock() {
            State::Closed(Closed { failed: Some(_), .. }) => Standing::Unavailable,
            State::Closed(_) | State::Ended => Standing::Asleep,
            State::Moving(_) => Standing::Moving,
            State::Open(_) => Standing::Open,
        }
    }

    /// The cell, opened if need be.
    pub(super) async fn enter(self: &Arc<Self>, cells: &Arc<Cells>) -> Result<Arc<Open>> {
        if !self.row.lock().initialize {
            // Whoever has a key of it may have seen its last step sooner than this map.
            cells.refresh().await?;
        }
        if !self.row.lock().initialize {
            return Err(self.unavailable("it is still being made; repeat the request that makes it"));
        }
        if let Some(moving) = cells.map().move_of(self.organization) {
            return Err(leaving::unavailable(moving));
        }
        self.enter_unfinished(cells).await
    }

    /// As [`enter`](Self::enter), also while it is being made.
    pub(super) async fn enter_unfinished(self: &Arc<Self>, cells: &Arc<Cells>) -> Result<Arc<Open>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut moved = match self.find_or_open(cells, FAILED_WAIT)? {
                Found::Open(open) => {
                    *open.used.lock() = cells.clock.now();
                    return Ok(open);
                }
                Found::Moving(moved) => moved,
            };
            let waited = tokio::time::timeout_at(deadline, moved.changed()).await;
            // Also when its sender is gone: then it is done, too.
            if waited.is_err() {
                return Err(self.unavailable("it takes longer than usual to open"));
            }
        }
    }

    /// Begins to open it if it is closed, and does not wait.
    pub(super) fn begin(self: &Arc<Self>, cells: &Arc<Cells>, failed_wait: Duration) {
        let _failed_before = self.find_or_open(cells, failed_wait);
    }

    /// Whether something may wait in it that this process has not seen.
    pub(super) fn is_called(&self) -> bool {
        let row = self.row.lock();
        let asleep = match &*self.state.lock() {
            State::Closed(closed) => closed.wakes != Some(row.wakes),
            _ => false,
        };
        asleep && row.awake && row.initialize
    }

    /// Since when it has been asleep, if it is.
    pub(super) fn asleep_since(&self) -> Option<Timestamp> {
        match &*self.state.lock() {
            State::Closed(Closed { failed: None, since, .. }) if self.row.lock().initialize => *since,
            _ => None,
        }
    }

    fn find_or_open(self: &Arc<Self>, cells: &Arc<Cells>, failed_wait: Duration) -> Result<Found> {
        let mut state = self.state.lock();
        match &*state {
            State::Open(open) => return Ok(Found::Open(open.clone())),
            State::Moving(moved) => return Ok(Found::Moving(moved.clone())),
            State::Ended => return Err(Error::Unavailable("the database was closed".into())),
            State::Closed(Closed { failed: Some((at, reason)), .. }) if at.elapsed() < failed_wait => {
                return Err(self.unavailable(reason));
            }
            State::Closed(_) => {}
        }
        let (done, moved) = watch::channel(());
        *state = State::Moving(moved.clone());
        drop(state);
        let (place, cells, home) = (self.clone(), cells.clone(), cells.home.clone());
        home.spawn(async move {
            place.clone().open(cells.clone()).await;
            drop(done);
            place.announce(&cells).await;
        });
        Ok(Found::Moving(moved))
    }

    /// Delivery looks at what waits in a cell that was opened, and need not wait for its walk.
    async fn announce(&self, cells: &Cells) {
        let Some(open) = self.opened().filter(|_| cells.delivers) else { return };
        let heads = self.answer(ANSWER, open.worker.pending_heads(None, HEADS)).await;
        let endpoints = heads.into_iter().flatten().map(|(endpoint, _)| outside(self.cell, endpoint));
        endpoints.for_each(|endpoint| cells.handoff.wake(endpoint));
    }

    /// What an open cell answers delivery. Nobody else's deliveries wait for one that says nothing: it is not asked again
    /// for a while, and then by the walk.
    pub(super) async fn answer<T>(&self, within: Duration, asked: impl Future<Output = Result<T>>) -> Option<T> {
        if self.silent.lock().is_some_and(|at| at.elapsed() < SILENT) {
            return None;
        }
        let reason = match tokio::time::timeout(within, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.chain(),
            Err(_) => format!("no answer within {} s", within.as_secs()),
        };
        *self.silent.lock() = Some(Instant::now());
        self.say("does not tell which deliveries wait", &reason);
        None
    }

    /// Opens it, and puts what came of that in place.
    async fn open(self: Arc<Self>, cells: Arc<Cells>) {
        let (place, with) = (self.clone(), cells.clone());
        // A task of its own: whatever happens in there, the place is not left half moved.
        let opening = tokio::spawn(async move { place.open_now(&with).await });
        let opened = match opening.await {
            Ok(opened) => opened,
            Err(panicked) => Err(Error::Internal(panicked.into())),
        };
        let state = match opened {
            Ok(open) => {
                *self.silent.lock() = None;
                if self.said.lock().take().is_some() {
                    info!(organization.id = %self.organization, "the database of {} is available again", self.organization);
                }
                State::Open(Arc::new(open))
            }
            Err(error) => {
                let reason = error.chain();
                self.say("cannot be opened", &reason);
                State::Closed(Closed { failed: Some((Instant::now(), reason)), ..Closed::default() })
            }
        };
        self.put(state);
    }

    async fn open_now(&self, cells: &Arc<Cells>) -> Result<Open> {
        let _turn = cells.openings.acquire().await.map_err(|closed| Error::Unavailable(closed.into()))?;
        let opening = async {
            if let Some(moving) = cells.map().move_of(self.organization) {
                return Err(leaving::unavailable(moving));
            }
            cells.make_room().await;
            let row = self.row();
            cells.registry.cell_wake(row.cell).await?;
            let handoff = CellHandoff { cell: row.cell, delivery: cells.handoff.clone() };
            let cell = cells.registry.cell_open(&row, Arc::new(handoff)).await?;
            let copy = async {
                let copy = cells.registry.organization_copy(row.org).await?;
                cell.upkeep.organization_put(&copy).await?;
                cells.refresh().await?;
                Ok(copy.updated_at)
            };
            match copy.await {
                Ok(copied) => Ok(Open {
                    storage: cell.storage,
                    upkeep: cell.upkeep,
                    wakes: Mutex::new(self.row().wakes),
                    used: Mutex::new(cells.clock.now()),
                    copied: Mutex::new(copied),
                    counted: Mutex::default(),
                }),
                Err(error) => {
                    let _it_may_be_broken = cell.storage.platform.close().await;
                    Err(error)
                }
            }
        };
        let late = |_| Error::Unavailable(format!("it did not open within {} s", OPENING.as_secs()).into());
        tokio::time::timeout(OPENING, opening).await.map_err(late)?
    }

    /// Puts a state in place, unless all was closed meanwhile.
    fn put(&self, new: State) {
        let mut state = self.state.lock();
        match (&*state, new) {
            (State::Ended, State::Open(open)) => {
                tokio::spawn(async move { open.platform.close().await });
            }
            (State::Ended, _) => {}
            (_, new) => *state = new,
        }
    }

    /// Closes it if nobody has used it since `before` and nothing is under way or waits in it.
    pub(super) async fn sleep(self: &Arc<Self>, cells: &Arc<Cells>, before: Timestamp) {
        let Some(open) = self.opened().filter(|open| *open.used.lock() <= before) else { return };
        // Before it is asked whether anything waits: who comes later is seen to have come.
        let is_known = cells.refresh().await.is_ok();
        let wakes = self.row().wakes;
        let is_alone = std::mem::replace(&mut *open.wakes.lock(), wakes) == wakes;
        if !is_known || !is_alone || !matches!(open.upkeep.is_idle().await, Ok(true)) {
            *open.used.lock() = cells.clock.now();
            return;
        }
        let (done, moved) = watch::channel(());
        {
            let mut state = self.state.lock();
            // The state's own and this one.
            let is_used = Arc::strong_count(&open) > 2 || *open.used.lock() > before;
            if is_used || !matches!(&*state, State::Open(_)) {
                return;
            }
            *state = State::Moving(moved);
        }
        self.close(cells, open).await;
        drop(done);
    }

    /// Closes it, whoever uses it, because its organization is being moved: what is in memory of it becomes exceptions.
    /// False while somebody opens or closes it.
    pub(super) async fn leave(self: &Arc<Self>, cells: &Arc<Cells>) -> bool {
        let (done, moved) = watch::channel(());
        let open = {
            let mut state = self.state.lock();
            match &*state {
                State::Open(open) => {
                    let open = open.clone();
                    *state = State::Moving(moved);
                    open
                }
                State::Moving(_) => return false,
                State::Closed(_) | State::Ended => return true,
            }
        };
        self.close(cells, open).await;
        drop(done);
        true
    }

    /// Flushes and closes a cell that nobody can reach any more; says in the registry that nothing waits there.
    async fn close(&self, cells: &Arc<Cells>, open: Arc<Open>) {
        let wakes = *open.wakes.lock();
        cells.count(self, &open).await;
        if let Err(error) = open.platform.close().await {
            self.say("did not close well", &error.chain());
            self.put(State::Closed(Closed::default()));
            return;
        }
        drop(open);
        let now = cells.clock.now();
        if let Err(error) = cells.registry.cell_sleep(self.cell, wakes, now).await {
            // It is opened once more at the next start, and nothing is lost.
            warn!(organization.id = %self.organization, error = %error.chain(), "it could not be noted that a database sleeps");
        }
        // Or the row of before would call it again.
        let _read_later = cells.refresh().await;
        self.put(State::Closed(Closed { failed: None, wakes: Some(wakes), since: Some(now) }));
    }

    /// Closes it for good. Where nothing waits, the next start need not open it.
    pub(super) async fn end(&self, cells: &Arc<Cells>) -> Result<()> {
        let before = std::mem::replace(&mut *self.state.lock(), State::Ended);
        let State::Open(open) = before else { return Ok(()) };
        let is_idle = matches!(open.upkeep.is_idle().await, Ok(true));
        cells.count(self, &open).await;
        open.platform.close().await?;
        if is_idle {
            let wakes = *open.wakes.lock();
            cells.registry.cell_sleep(self.cell, wakes, cells.clock.now()).await?;
        }
        Ok(())
    }

    /// What a caller is told.
    fn unavailable(&self, reason: &str) -> Error {
        Error::Unavailable(TenantUnavailable { organization: self.organization, reason: reason.to_owned() }.into())
    }

    /// Tells the operator, once a minute.
    pub(super) fn say(&self, what: &str, reason: &str) {
        let mut said = self.said.lock();
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            let reason = reason.escape_debug();
            let tenant = self.row.lock().id;
            warn!(organization.id = %self.organization, tenant.id = %tenant, "the database of {} {what}: {reason}", self.organization);
        }
    }
}

enum Found {
    Open(Arc<Open>),
    Moving(watch::Receiver<()>),
}
