//! Starting and stopping: the dispatcher that begins attempts, and the drain.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postroom_domain::Clock;
use postroom_domain::delivery::RetrySchedule;
use postroom_storage::Worker;
use postroom_storage::worker::DeliveryKey;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::lanes::Lanes;
use crate::loader::Loader;
use crate::meters::Meters;
use crate::work::{Calm, Office};

/// Attempts begun at once before others get the processor.
const BEGIN_AT_ONCE: usize = 64;
/// The dispatcher looks at the clock at least this often while something waits for a time: the clock may be set.
const TICK_MAX: Duration = Duration::from_secs(5);

/// What the operator decides about deliveries.
#[derive(Clone)]
pub struct Settings {
    /// The one way out.
    pub client: Client,
    /// For endpoints without a schedule of their own.
    pub retry_schedule: RetrySchedule,
    /// Deadline of one attempt, for endpoints without one of their own; at most 30 s count.
    pub timeout: Duration,
    /// How long a stop may take in all. Attempts under way get all of it but a tenth, which is for recording them.
    pub drain: Duration,
}

/// How a stop went. Nothing of it is lost: what is not delivered is delivered after the next start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Attempts that were ended by the stop; nothing is recorded for them.
    pub interrupted: Vec<DeliveryKey>,
    /// Outcomes that storage had not taken when the time was up: these deliveries are made twice.
    pub unsettled: usize,
    /// Deliveries that waited in memory for their turn.
    pub waiting: usize,
}

/// Delivers what storage hands over and what waits there, until `stop`; then lets attempts under way end, ends the
/// rest, and waits for what is to be recorded.
pub async fn run(
    lanes: Arc<Lanes>,
    worker: Arc<dyn Worker>,
    settings: Settings,
    clock: Clock,
    stop: CancellationToken,
) -> Drained {
    let loader = Loader { lanes: lanes.clone(), worker: worker.clone(), clock: clock.clone() };
    let office = Office {
        lanes,
        worker,
        client: settings.client,
        schedule: settings.retry_schedule,
        timeout: settings.timeout,
        clock,
        meters: Meters::new(),
        calm: Calm::default(),
        give_up: CancellationToken::new(),
    };
    let desk = Arc::new(Desk { office, tasks: TaskTracker::new(), interrupted: Mutex::default() });
    // Tasks of their own: both wake often, and neither should wake whatever this future is joined with.
    let mut rooms = JoinSet::new();
    rooms.spawn({
        let (desk, stop) = (desk.clone(), stop.clone());
        async move { desk.dispatch(&stop).await }
    });
    rooms.spawn(async move { loader.run(&stop).await });
    while let Some(ended) = rooms.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    desk.drain(settings.drain).await
}

struct Desk {
    office: Office,
    tasks: TaskTracker,
    interrupted: Mutex<Vec<DeliveryKey>>,
}

impl Desk {
    async fn dispatch(self: &Arc<Self>, stop: &CancellationToken) {
        let lanes = &self.office.lanes;
        while !stop.is_cancelled() {
            lanes.tick(self.office.clock.now());
            while self.begin() == BEGIN_AT_ONCE {
                tokio::task::yield_now().await;
            }
            let (delayed, due) = lanes.next_tick();
            let until_due = due.map(|at| at.since(self.office.clock.now()).min(TICK_MAX));
            let until_delayed = delayed.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            let wait = until_due.into_iter().chain(until_delayed).min();
            tokio::select! {
                () = stop.cancelled() => {}
                () = lanes.dispatch.notified() => {}
                () = async { tokio::time::sleep(wait.unwrap_or_default()).await }, if wait.is_some() => {}
            }
        }
    }

    /// Begins what may begin now, up to a bound; returns how many.
    fn begin(self: &Arc<Self>) -> usize {
        let (turns, in_flight) = self.office.lanes.pop(BEGIN_AT_ONCE);
        let count = turns.len();
        self.office.meters.in_flight.set(f64::from(u32::try_from(in_flight).unwrap_or(u32::MAX)));
        for (turn, in_hand, abort) in turns {
            let desk = self.clone();
            // In a box: on its way into the runtime a future is moved eight times, and this one is large.
            self.tasks.spawn(Box::pin(async move {
                let next = || {
                    if desk.begin() == BEGIN_AT_ONCE {
                        desk.office.lanes.dispatch.notify_one();
                    }
                };
                if let Some(delivery) = desk.office.work(turn, in_hand, abort, next).await {
                    desk.interrupted.lock().push(delivery);
                }
            }));
        }
        count
    }

    async fn drain(&self, grace: Duration) -> Drained {
        let end = Instant::now() + grace;
        let waiting = self.office.lanes.close();
        self.tasks.close();
        let under_way = self.office.lanes.in_hand();
        tracing::info!(
            under_way,
            waiting,
            "deliveries stop: no attempt begins any more, {under_way} under way may end"
        );
        let all_done = tokio::time::timeout_at(end - grace / 10, self.tasks.wait()).await.is_ok();
        if !all_done {
            self.office.lanes.interrupt();
            let _ = tokio::time::timeout_at(end, self.tasks.wait()).await;
        }
        self.office.give_up.cancel();
        let interrupted = std::mem::take(&mut *self.interrupted.lock());
        let drained = Drained { interrupted, unsettled: self.office.lanes.in_hand(), waiting };
        tracing::info!(
            interrupted = drained.interrupted.len(),
            unsettled = drained.unsettled,
            waiting,
            "deliveries stopped, {} interrupted and {} not recorded: these are made after the next start",
            drained.interrupted.len(),
            drained.unsettled
        );
        drained
    }
}
