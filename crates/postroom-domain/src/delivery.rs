//! A delivery: one event for one endpoint, and the rules by which it moves on.
//!
//! ```text
//! pending -> processing -> success
//!                       -> failed -> processing ...        (waits for its next attempt)
//!                       -> dead_letter -> (requeue) pending
//!                                      -> discarded        (a person said so)
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Invalid, Timestamp};

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// No attempt yet; the worker moves it on.
    Pending,
    /// An attempt is under way, for 30 seconds at most.
    Processing,
    /// An attempt was answered with 2xx. Final.
    Success,
    /// The newest attempt failed and the next one has its time.
    Failed,
    /// It will not be tried again by itself; a person moves it on.
    DeadLetter,
    /// A person said that it is not needed any more. Final.
    Discarded,
}

impl DeliveryStatus {
    /// All states, for lists in errors and documents.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Processing, Self::Success, Self::Failed, Self::DeadLetter, Self::Discarded];

    /// The state as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
            Self::Discarded => "discarded",
        }
    }
}

/// Why a delivery became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// Every attempt of the schedule failed.
    RetriesExhausted,
    /// The endpoint answered 410 and is disabled now.
    EndpointGone,
    /// The endpoint was disabled by a person before the delivery could succeed.
    EndpointDisabled,
    /// The endpoint was deleted before the delivery could succeed.
    EndpointDeleted,
    /// The organization was switched off before the delivery could succeed.
    OrganizationInactive,
}

impl DeadReason {
    /// The reason as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "retries_exhausted",
            Self::EndpointGone => "endpoint_gone",
            Self::EndpointDisabled => "endpoint_disabled",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::OrganizationInactive => "organization_inactive",
        }
    }
}

/// How an attempt ended, as far as the connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptError {
    /// The address is not one that deliveries may go to.
    BlockedAddress,
    /// The name could not be resolved.
    Dns,
    /// No connection: refused, unreachable, or closed before an answer.
    Connect,
    /// The certificate or the TLS handshake is bad.
    Tls,
    /// No complete answer before the deadline.
    Timeout,
    /// What came back is not HTTP, or the connection broke inside the answer.
    Protocol,
    /// The endpoint's configuration cannot be used for a request, for example its secret cannot be decrypted.
    Configuration,
}

impl AttemptError {
    /// The class as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockedAddress => "blocked_address",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Configuration => "configuration",
        }
    }
}

/// What one attempt told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 200 to 299.
    Accepted,
    /// 410: the endpoint is gone for good.
    Gone,
    /// Any other answer, or none. `retry_after` only from 429, 502, 503 and 504.
    Refused {
        /// How long the endpoint asked us to wait.
        retry_after: Option<Duration>,
    },
    /// Our own shutdown ended the attempt: not the endpoint's failure.
    Interrupted,
}

/// What happens to a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is delivered.
    Done,
    /// It waits. `counts` says whether the attempt used up one step of the schedule.
    Again {
        /// Not before this moment.
        at: Timestamp,
        /// False when we interrupted it ourselves.
        counts: bool,
    },
    /// It is a dead letter.
    Dead(DeadReason),
}

/// How many seconds lie between the attempts of a delivery. `[60, 300, 900]` makes four attempts; empty makes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct RetrySchedule(Vec<u32>);

impl RetrySchedule {
    /// The most retries a schedule can have.
    pub const MAX_STEPS: usize = 20;
    /// The longest wait between two attempts, in seconds: seven days.
    pub const MAX_SECONDS: u64 = 7 * 24 * 3600;

    /// Accepts a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(seconds: &[u64]) -> Result<Self, Invalid> {
        if seconds.len() > Self::MAX_STEPS {
            return Err(Invalid::new("too_many", "at most 20 retries"));
        }
        seconds
            .iter()
            .map(|s| u32::try_from(*s).ok().filter(|_| (1..=Self::MAX_SECONDS).contains(s)))
            .collect::<Option<Vec<u32>>>()
            .map(Self)
            .ok_or_else(|| Invalid::new("out_of_range", "each wait is 1 to 604800 seconds"))
    }

    /// The waits, in seconds.
    pub fn seconds(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|s| u64::from(*s))
    }

    /// The wait after the `attempt`-th failed attempt (counted from 1), or `None` when it was the last.
    #[must_use]
    pub fn delay_after(&self, attempt: u32) -> Option<Duration> {
        let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
        self.0.get(index).map(|seconds| Duration::from_secs(u64::from(*seconds)))
    }
}

impl TryFrom<Vec<u64>> for RetrySchedule {
    type Error = Invalid;
    fn try_from(seconds: Vec<u64>) -> Result<Self, Invalid> {
        Self::new(&seconds)
    }
}

impl From<RetrySchedule> for Vec<u64> {
    fn from(schedule: RetrySchedule) -> Self {
        schedule.seconds().collect()
    }
}

/// Decides what an attempt means. `attempt` counts from 1 since the delivery was made or last requeued; `jitter` is a
/// random number in 0..=1 that spreads retries over the 10 % after their time, never before it.
///
/// `Retry-After` can stretch a wait to at most twice the schedule's own: a receiver must not be able to park
/// deliveries for years.
#[must_use]
pub fn after_attempt(schedule: &RetrySchedule, attempt: u32, outcome: &Outcome, jitter: f64, now: Timestamp) -> Next {
    match outcome {
        Outcome::Accepted => Next::Done,
        Outcome::Gone => Next::Dead(DeadReason::EndpointGone),
        Outcome::Interrupted => Next::Again { at: now, counts: false },
        Outcome::Refused { retry_after } => match schedule.delay_after(attempt) {
            None => Next::Dead(DeadReason::RetriesExhausted),
            Some(delay) => {
                let asked = retry_after.unwrap_or_default().min(delay * 2);
                let wait = delay.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0)).max(asked);
                Next::Again { at: now + wait, counts: true }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn refused(retry_after: Option<u64>) -> Outcome {
        Outcome::Refused { retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn refused_deliveries_follow_the_schedule_and_then_become_dead_letters() {
        let schedule = RetrySchedule::new(&[60, 300]).unwrap();
        let at = |seconds| Next::Again { at: Timestamp::from_seconds(seconds), counts: true };
        let next = |attempt, jitter| after_attempt(&schedule, attempt, &refused(None), jitter, NOW);
        assert_eq!(next(1, 0.0), at(60));
        assert_eq!(next(1, 1.0), at(66));
        assert_eq!(next(2, 0.0), at(300));
        assert_eq!(next(3, 0.0), Next::Dead(DeadReason::RetriesExhausted));
    }

    #[test]
    fn retry_after_stretches_a_wait_to_twice_its_length_and_never_shortens_it() {
        let schedule = RetrySchedule::new(&[60]).unwrap();
        for (asked, seconds) in [(1, 60), (90, 90), (120, 120), (u64::from(u32::MAX), 120)] {
            assert_eq!(
                after_attempt(&schedule, 1, &refused(Some(asked)), 0.0, NOW),
                Next::Again { at: Timestamp::from_seconds(seconds), counts: true }
            );
        }
    }

    #[test]
    fn success_is_final_410_is_dead_and_our_own_shutdown_does_not_count() {
        let schedule = RetrySchedule::new(&[]).unwrap();
        assert_eq!(after_attempt(&schedule, 1, &Outcome::Accepted, 0.5, NOW), Next::Done);
        assert_eq!(after_attempt(&schedule, 1, &Outcome::Gone, 0.5, NOW), Next::Dead(DeadReason::EndpointGone));
        let again = Next::Again { at: NOW, counts: false };
        assert_eq!(after_attempt(&schedule, 1, &Outcome::Interrupted, 0.5, NOW), again);
    }

    #[test]
    fn schedules_are_bounded() {
        assert!(RetrySchedule::new(&[1; 20]).is_ok());
        assert_eq!(RetrySchedule::new(&[1; 21]).unwrap_err().code, "too_many");
        assert_eq!(RetrySchedule::new(&[0]).unwrap_err().code, "out_of_range");
        assert_eq!(RetrySchedule::new(&[604_801]).unwrap_err().code, "out_of_range");
    }
}
