//! What is counted on the way. Handles are made once, so the program's recorder has to be installed before a database is
//! opened.

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

use crate::receiver::Recorded;
use crate::{Error, Result};

/// See the [module](self).
pub(crate) struct Metrics {
    inbound: Counter,
    outbound: Counter,
    duplicate: Counter,
    pub(crate) batch_events: Histogram,
    pub(crate) commit_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!("postroom_events_accepted_total", "Events recorded, by direction");
        describe_counter!("postroom_events_duplicate_total", "Events recognised as recorded before");
        describe_histogram!("postroom_storage_batch_events", "Events in one transaction");
        describe_histogram!("postroom_storage_commit_duration_seconds", "One transaction, its flush included");
        Self {
            inbound: counter!("postroom_events_accepted_total", "direction" => "inbound"),
            outbound: counter!("postroom_events_accepted_total", "direction" => "outbound"),
            duplicate: counter!("postroom_events_duplicate_total"),
            batch_events: histogram!("postroom_storage_batch_events"),
            commit_seconds: histogram!("postroom_storage_commit_duration_seconds"),
        }
    }

    /// An event was committed.
    pub(crate) fn accepted(&self, inbound: bool) {
        if inbound { self.inbound.increment(1) } else { self.outbound.increment(1) }
    }

    /// An answer to who wanted an event recorded.
    pub(crate) fn answered(&self, answer: Option<&Result<Recorded, Error>>) {
        if let Some(Ok(Recorded { duplicate: true, .. })) = answer {
            self.duplicate.increment(1);
        }
    }
}
