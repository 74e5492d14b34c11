//! What happens to a delivery whose turn it is: find the endpoint, make the attempt, decide, record.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{AbortRegistration, Abortable};
use parking_lot::Mutex;
use postroom_domain::delivery::{DeadReason, Next, Outcome, RetrySchedule, after_attempt};
use postroom_domain::secret::fill_random;
use postroom_domain::{AttemptId, Clock, DeliveryId, EventId, Timestamp};
use postroom_storage::worker::{Attempt, DeliveryKey, Endpoint, Settlement, Transition};
use postroom_storage::{Error, Worker};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::attempt::{self, NotTried, Report};
use crate::client::Client;
use crate::lanes::{InHand, Job, Lanes, Sign, Turn};
use crate::loader::chain;
use crate::meters::Meters;
use crate::prepared::Prepared;

/// When this machine could not even try, the delivery waits so long.
const NOT_TRIED_WAIT: Duration = Duration::from_secs(5);
/// Storage that fails is asked again after this time, then twice as long, up to the longest.
const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// The same kind of warning is not repeated before this time.
const CALM: Duration = Duration::from_secs(1);
/// A settlement that storage can not take for a reason that will not pass is given up after so many tries; the delivery
/// is still unsettled there, so it comes back.
const TRIES_WITHOUT_HOPE: u32 = 5;

/// What every delivery needs.
pub(crate) struct Office {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) client: Client,
    pub(crate) schedule: RetrySchedule,
    pub(crate) timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) meters: Meters,
    pub(crate) calm: Calm,
    /// Nothing waits for storage any longer.
    pub(crate) give_up: CancellationToken,
}

/// Lets one warning of many through: when storage or this machine has no room, all deliveries notice at once.
#[derive(Debug, Default)]
pub(crate) struct Calm(Mutex<Option<Instant>>);

impl Calm {
    fn speaks(&self) -> bool {
        let mut last = self.0.lock();
        let speaks = last.is_none_or(|at| at.elapsed() >= CALM);
        if speaks {
            *last = Some(Instant::now());
        }
        speaks
    }
}

/// How the part of the work that can be interrupted ended.
enum Made {
    Attempted { prepared: Arc<Prepared>, id: AttemptId, report: Report },
    NotTried(NotTried),
    Blocked(DeadReason),
}

/// A delivery without its event.
struct Tried {
    delivery: DeliveryKey,
    event: EventId,
    attempts: u32,
    attempts_of_schedule: u32,
}

impl From<Job> for Tried {
    fn from(job: Job) -> Self {
        let Job { delivery, event, attempts, attempts_of_schedule, .. } = job;
        Self { delivery, event: event.id, attempts, attempts_of_schedule }
    }
}

impl Office {
    /// Works off one delivery. `next` is called as soon as its slot is free.
    pub(crate) async fn work(
        &self,
        turn: Turn,
        mut in_hand: InHand,
        abort: AbortRegistration,
        next: impl FnOnce(),
    ) -> Option<DeliveryKey> {
        let delivery = turn.job.delivery;
        let made = Abortable::new(self.make(&turn), abort).await;
        in_hand.ended(match &made {
            Ok(Some(Made::Attempted { report, .. })) => sign(report),
            Ok(Some(Made::NotTried(_) | Made::Blocked(_)) | None) | Err(_) => Sign::Neither,
        });
        next();
        // The body is not needed to record what became of it, and recording may take a while.
        let tried = Tried::from(turn.job);
        match made {
            Ok(Some(Made::Attempted { prepared, id, report })) => {
                self.meters.count(&report);
                self.settle(&tried, &prepared.endpoint, id, report).await;
            }
            Ok(Some(Made::NotTried(NotTried(why)))) => {
                if self.calm.speaks() {
                    tracing::warn!(error = shown(&why), "attempts can not be made on this machine, waiting");
                }
                let at = self.clock.now() + NOT_TRIED_WAIT;
                self.move_to(&tried, Transition::Wait(at)).await;
            }
            Ok(Some(Made::Blocked(reason))) => self.move_to(&tried, Transition::Dead(reason)).await,
            Ok(None) => {}
            Err(_) => return Some(delivery),
        }
        None
    }

    /// `None` when this delivery is not this process's to make any more, or storage could not say what to do and nobody
    /// waits any longer.
    async fn make(&self, turn: &Turn) -> Option<Made> {
        let job = &turn.job;
        let found = self.stubborn("endpoint", || self.worker.endpoint_find(job.delivery.endpoint)).await?;
        let Some(endpoint) = found else { return Some(Made::Blocked(DeadReason::EndpointDeleted)) };
        let admit = || std::future::ready(self.worker.delivery_admit(job.delivery));
        if !self.stubborn("turn of a delivery", admit).await? {
            tracing::debug!(event.id = %job.event.id, "a delivery has become another process's to make");
            return None;
        }
        let prepared = self.prepared(turn, endpoint);
        if let Some(reason) = prepared.endpoint.blocked {
            return Some(Made::Blocked(reason));
        }
        let now = self.clock.now();
        let id = AttemptId::new(now);
        let timeout = prepared.endpoint.settings.timeout_ms;
        let timeout = timeout.map_or(self.timeout, |ms| Duration::from_millis(ms.into()));
        // What fails says all of this again, so the span need not cost anything while nobody looks for details.
        let span = tracing::debug_span!(
            "attempt",
            organization.id = %prepared.endpoint.organization_id,
            endpoint.id = %prepared.endpoint.id,
            event.id = %job.event.id,
            attempt.id = %id,
            attempt.number = job.attempts + 1,
        );
        let attempt = attempt::attempt(&self.client, &prepared, &job.event, timeout, now).instrument(span);
        Some(match caught(attempt).await {
            Ok(report) => Made::Attempted { prepared, id, report },
            Err(not_tried) => Made::NotTried(not_tried),
        })
    }

    /// What the last attempt worked out, unless the configuration has changed since.
    fn prepared(&self, turn: &Turn, endpoint: Arc<Endpoint>) -> Arc<Prepared> {
        match &turn.prepared {
            Some(prepared) if Arc::ptr_eq(&prepared.endpoint, &endpoint) => prepared.clone(),
            Some(_) | None => {
                let prepared = Arc::new(Prepared::new(endpoint, &self.client));
                self.lanes.configured(turn.job.delivery.endpoint, prepared.clone());
                prepared
            }
        }
    }

    async fn settle(&self, tried: &Tried, endpoint: &Endpoint, id: AttemptId, report: Report) {
        let now = self.clock.now();
        let number = tried.attempts + 1;
        let of_schedule = tried.attempts_of_schedule + 1;
        let schedule = endpoint.settings.retry_schedule.as_ref().unwrap_or(&self.schedule);
        let jitter = if report.outcome == Outcome::Accepted { 0.0 } else { jitter() };
        let next = match after_attempt(schedule, of_schedule, &report.outcome, jitter, now) {
            Next::Done => Transition::Done,
            Next::Again { at, .. } => Transition::Wait(at),
            Next::Dead(reason) => Transition::Dead(reason),
        };
        let delivery_id = DeliveryId { event: tried.event, endpoint_number: endpoint.number, run: tried.delivery.run };
        tell(endpoint, delivery_id, number, &report, next, now);
        let gone = report.outcome == Outcome::Gone;
        let attempt = Arc::new(Attempt {
            id,
            number,
            url: endpoint.settings.url.as_str().to_owned(),
            response: report.response,
            error: report.error,
            duration: report.duration,
        });
        let settlement = || Settlement {
            delivery: tried.delivery,
            delivery_id,
            attempt: attempt.clone(),
            attempts_of_schedule: of_schedule,
            next,
        };
        self.stubborn("outcome of an attempt", || self.worker.attempt_settle(settlement())).await;
        if gone {
            let disable = || self.worker.endpoint_disable_gone(tried.delivery.endpoint, now);
            self.stubborn("disabling of an endpoint", disable).await;
        }
        if let Transition::Wait(at) = next {
            self.lanes.note(tried.delivery.endpoint, at);
        }
    }

    async fn move_to(&self, tried: &Tried, next: Transition) {
        self.stubborn("move of a delivery", || self.worker.delivery_move(tried.delivery, tried.attempts, next)).await;
        if let Transition::Wait(at) = next {
            self.lanes.note(tried.delivery.endpoint, at);
        }
    }

    /// Asks storage until it answers. `None` when it will not: the delivery is still as it was there, and comes back.
    async fn stubborn<T, F>(&self, what: &str, ask: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = postroom_storage::Result<T>>,
    {
        let mut wait = BACK_OFF;
        for tries in 1_u32.. {
            let error = match ask().await {
                Ok(answer) => return Some(answer),
                Err(error) => error,
            };
            let passes = matches!(error, Error::Overloaded | Error::Unavailable(_));
            match error {
                Error::NotFound { .. } | Error::Conflict { .. } => {
                    tracing::debug!(%error, "the {what} is out of date and was not stored");
                    return None;
                }
                _ if !passes && tries >= TRIES_WITHOUT_HOPE => {
                    tracing::error!(error = %chain(&error), "the {what} can not be stored, the delivery will be tried again");
                    return None;
                }
                _ if self.calm.speaks() => {
                    tracing::warn!(error = %chain(&error), "the {what} could not be stored, trying again in {wait:?}");
                }
                _ => {}
            }
            tokio::select! {
                () = self.give_up.cancelled() => return None,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(BACK_OFF_MAX),
            }
        }
        None
    }
}

/// A fault of ours in one attempt must not take others along, and counts, so that it can not go on for ever.
async fn caught(attempt: impl Future<Output = Result<Report, NotTried>>) -> Result<Report, NotTried> {
    AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|_| Ok(Report::panicked()))
}

fn sign(report: &Report) -> Sign {
    match report.outcome {
        Outcome::Accepted => Sign::Success,
        _ if attempt::is_overload(report) => Sign::Overload,
        _ => Sign::Neither,
    }
}

/// A random number in 0..1.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Text from outside, made fit for a log.
fn shown(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

/// An endpoint that refuses is our daily work: `info`. A success is `debug`.
fn tell(endpoint: &Endpoint, id: DeliveryId, number: u32, report: &Report, next: Transition, now: Timestamp) {
    let duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
    if next == Transition::Done {
        tracing::debug!(delivery.id = %id, duration_ms, "attempt {number} of {id} succeeded");
        return;
    }
    let how = match (report.status(), report.error) {
        (Some(status), _) => format!("was refused with {status}"),
        (None, Some(error)) => format!("failed ({})", error.as_str()),
        (None, None) => "failed".to_owned(),
    };
    let then = match next {
        Transition::Done => String::new(),
        Transition::Wait(at) => format!("next in {} s", at.since(now).as_secs()),
        Transition::Dead(reason) => format!("a dead letter now ({})", reason.as_str()),
    };
    tracing::info!(
        organization.id = %endpoint.organization_id,
        endpoint.id = %endpoint.id,
        delivery.id = %id,
        attempt.number = number,
        status = report.status(),
        class = report.error.map(|error| error.as_str()),
        detail = report.detail.as_deref().map(shown),
        duration_ms,
        "attempt {number} of {id} {how}, {then}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_is_a_failed_attempt() {
        let report = caught(async { panic!("a fault") }).await.unwrap();
        assert_eq!(report.error, Some(postroom_domain::delivery::AttemptError::Configuration));
        assert_eq!(report.outcome, Outcome::Refused { retry_after: None });
        assert_eq!(sign(&report), Sign::Neither);
    }

    #[test]
    fn text_from_outside_can_not_break_a_log_line() {
        assert_eq!(shown("a\r\nb\x1b[31m\u{202e}"), "a\\r\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(1000)).len(), 300);
    }

    #[test]
    fn jitter_is_spread_over_its_range() {
        let some: Vec<f64> = (0..1000).map(|_| jitter()).collect();
        assert!(some.iter().all(|jitter| (0.0..1.0).contains(jitter)));
        assert!(some.iter().any(|jitter| *jitter < 0.1) && some.iter().any(|jitter| *jitter > 0.9));
    }

    #[test]
    fn of_many_warnings_at_once_one_is_given() {
        let calm = Calm::default();
        assert_eq!((0..100).filter(|_| calm.speaks()).count(), 1);
    }
}
