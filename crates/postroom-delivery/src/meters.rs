//! Figures for `/metrics`. No organization and no endpoint in the labels: there may be any number of them.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use postroom_domain::delivery::{AttemptError, Outcome};

use crate::attempt::Report;

/// Looked up once: an attempt only counts.
pub(crate) struct Meters {
    accepted: Counter,
    /// Refused with 1xx or 3xx, 4xx, 5xx.
    refused: [Counter; 3],
    /// In the order of `ERRORS`.
    errors: [Counter; ERRORS.len()],
    duration: Histogram,
    pub(crate) in_flight: Gauge,
}

const ERRORS: [AttemptError; 7] = [
    AttemptError::BlockedAddress,
    AttemptError::Dns,
    AttemptError::Connect,
    AttemptError::Tls,
    AttemptError::Timeout,
    AttemptError::Protocol,
    AttemptError::Configuration,
];

impl Meters {
    pub(crate) fn new() -> Self {
        describe_counter!(
            "postroom_attempts_total",
            "Attempts, by outcome and class (status class or kind of failure)"
        );
        describe_histogram!("postroom_attempt_duration_seconds", "From the first look-up to the last byte");
        describe_gauge!("postroom_deliveries_in_flight", "Attempts under way");
        let failure = |class| counter!("postroom_attempts_total", "outcome" => "failure", "class" => class);
        Self {
            accepted: counter!("postroom_attempts_total", "outcome" => "success", "class" => "2xx"),
            refused: ["3xx", "4xx", "5xx"].map(failure),
            errors: ERRORS.map(|error| failure(error.as_str())),
            duration: histogram!("postroom_attempt_duration_seconds"),
            in_flight: gauge!("postroom_deliveries_in_flight"),
        }
    }

    pub(crate) fn count(&self, report: &Report) {
        self.duration.record(report.duration);
        let counter = match (&report.outcome, report.status(), report.error) {
            (Outcome::Accepted, _, _) => Some(&self.accepted),
            (_, Some(400..=499), _) => Some(&self.refused[1]),
            (_, Some(500..), _) => Some(&self.refused[2]),
            (_, Some(_), _) => Some(&self.refused[0]),
            (_, None, error) => {
                error.and_then(|e| ERRORS.iter().position(|known| *known == e)).map(|at| &self.errors[at])
            }
        };
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}

/// The longest an attempt can take, for whoever chooses the histogram's buckets.
pub const ATTEMPT_DURATION_MAX: Duration = crate::attempt::LEASE_MAX;
