//! The log as people see it. A delivery has no row of its own: where it stands follows from its event, from the exception
//! it may have, from its newest attempt, and from what is under way right now; and how an event stands follows from its
//! deliveries.

use postroom_domain::delivery::{AttemptError, DeadReason, DeliveryStatus};
use postroom_domain::event::Direction;
use postroom_domain::{AttemptId, DeliveryId, EndpointId, EventId, SourceId, Timestamp};

use crate::Handoff;
use crate::api::{DeliveryView, EventFilter, EventView};
use crate::worker::{DeliveryKey, EndpointKey, EventKey};

/// In which state an exception is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExceptionState {
    /// It will be tried when it is due.
    Waiting,
    /// It will not be tried again by itself.
    DeadLetter,
    /// A person said that it is not needed any more.
    Discarded,
}

impl ExceptionState {
    /// As it is stored.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::DeadLetter => "dead_letter",
            Self::Discarded => "discarded",
        }
    }
}

/// Where a delivery stands that is not on the straight way.
#[derive(Debug, Clone)]
pub(crate) struct Exception {
    pub(crate) org: i64,
    pub(crate) state: ExceptionState,
    pub(crate) due_at: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) attempts_of_schedule: u32,
    pub(crate) reason: Option<DeadReason>,
    pub(crate) since: Timestamp,
}

impl Exception {
    /// A delivery that was not tried yet and waits until `due_at`.
    pub(crate) fn untried(org: i64, due_at: Timestamp, now: Timestamp) -> Self {
        Self {
            org,
            state: ExceptionState::Waiting,
            due_at,
            attempts: 0,
            attempts_of_schedule: 0,
            reason: None,
            since: now,
        }
    }
}

/// An event as it is stored, without its headers and payload.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) key: EventKey,
    pub(crate) id: EventId,
    pub(crate) source: Option<i64>,
    pub(crate) event_type: String,
    pub(crate) external_id: Option<String>,
    /// Endpoints that it went to at first.
    pub(crate) targets: Vec<i64>,
}

impl EventRow {
    fn direction(&self) -> Direction {
        if self.source.is_some() { Direction::Inbound } else { Direction::Outbound }
    }

    /// Its deliveries with those of its replays, given as endpoint, run, when and by whom it was asked for; in the order
    /// of lists: the highest endpoint first, of one endpoint the newest run first.
    pub(crate) fn runs(&self, replays: impl IntoIterator<Item = (i64, u16, Timestamp, String)>) -> Vec<Run> {
        let run = |(endpoint, run, created_at, created_by)| Run {
            key: DeliveryKey { event: self.key, endpoint: EndpointKey(endpoint), run },
            created_at,
            created_by,
        };
        let replays = replays.into_iter().map(|(endpoint, run, at, by)| (endpoint, run, at, Some(by)));
        let accepted_at = self.id.created_at();
        let originals = self.targets.iter().map(|endpoint| (*endpoint, 0, accepted_at, None));
        let mut runs: Vec<Run> = replays.chain(originals).map(run).collect();
        runs.sort_unstable_by_key(|run| std::cmp::Reverse((run.key.endpoint, run.key.run)));
        runs
    }

    /// Whether it passes what can be told from its row alone. `source` is the filter's source inside the engine.
    pub(crate) fn passes(&self, filter: &EventFilter, source: Option<i64>) -> bool {
        filter.event_type.as_ref().is_none_or(|pattern| pattern.matches(&self.event_type))
            && source.is_none_or(|source| self.source == Some(source))
            && filter.direction.is_none_or(|direction| self.direction() == direction)
            && filter.external_id.as_ref().is_none_or(|id| self.external_id.as_ref() == Some(id))
            && is_between(self.id.created_at(), filter.created_after, filter.created_before)
    }

    /// As its owner sees it, with the length of its payload and who sent it.
    pub(crate) fn view(
        self,
        source: Option<SourceId>,
        (payload_bytes, created_by): (u64, Option<String>),
        status: Option<DeliveryStatus>,
    ) -> EventView {
        EventView {
            direction: self.direction(),
            source,
            id: self.id,
            event_type: self.event_type,
            external_id: self.external_id,
            created_at: self.id.created_at(),
            status,
            deliveries: u32::try_from(self.targets.len()).unwrap_or(u32::MAX),
            payload_bytes,
            created_by,
        }
    }
}

/// At or after the one and before the other.
pub(crate) fn is_between(at: Timestamp, after: Option<Timestamp>, before: Option<Timestamp>) -> bool {
    after.is_none_or(|after| at >= after) && before.is_none_or(|before| at < before)
}

/// One run of an event's delivery to an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) key: DeliveryKey,
    /// When its event was accepted, or the replay was asked for.
    pub(crate) created_at: Timestamp,
    /// Who asked for the replay.
    pub(crate) created_by: Option<String>,
}

impl Run {
    /// As its owner sees it; `endpoint` is the endpoint's id and number.
    pub(crate) fn view(
        self,
        event: &EventRow,
        endpoint: (EndpointId, u32),
        standing: &Standing,
        handoff: &dyn Handoff,
    ) -> DeliveryView {
        let status = standing.status(handoff, self.key);
        let exception = standing.exception.as_ref();
        let newest = standing.newest.as_ref();
        let waits = matches!(status, DeliveryStatus::Pending | DeliveryStatus::Failed);
        let is_dead = status == DeliveryStatus::DeadLetter;
        let attempts = exception.map_or(0, |exception| exception.attempts);
        DeliveryView {
            id: DeliveryId { event: event.id, endpoint_number: endpoint.1, run: self.key.run },
            event: event.id,
            event_type: event.event_type.clone(),
            endpoint: endpoint.0,
            status,
            attempts: newest.map_or(0, |newest| newest.number).max(attempts),
            last_status: newest.and_then(|newest| newest.status),
            last_error: newest.and_then(|newest| newest.error),
            last_attempt_at: newest.map(|newest| newest.id.created_at()),
            next_attempt_at: exception.filter(|_| waits).map(|exception| exception.due_at),
            dead_reason: exception.filter(|_| is_dead).and_then(|exception| exception.reason),
            dead_at: exception.filter(|_| is_dead).map(|exception| exception.since),
            created_at: self.created_at,
            created_by: self.created_by,
        }
    }
}

/// What is stored of how a delivery goes.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) exception: Option<Exception>,
    pub(crate) newest: Option<Newest>,
}

/// The newest attempt of a delivery.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) id: AttemptId,
    pub(crate) number: u32,
    pub(crate) succeeded: bool,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<AttemptError>,
}

impl Standing {
    /// Where the delivery stands.
    ///
    /// An exception that waits is `failed` once an attempt of its schedule failed, and `pending` before: also a dead
    /// letter that was requeued, and one whose only attempt we broke off ourselves. A delivery that is slow has an
    /// exception while its attempt goes on: `processing` wins. What is in memory and was not begun is `pending`.
    pub(crate) fn status(&self, handoff: &dyn Handoff, key: DeliveryKey) -> DeliveryStatus {
        let waiting = match &self.exception {
            Some(exception) => match exception.state {
                ExceptionState::DeadLetter => return DeliveryStatus::DeadLetter,
                ExceptionState::Discarded => return DeliveryStatus::Discarded,
                ExceptionState::Waiting if exception.attempts_of_schedule > 0 => DeliveryStatus::Failed,
                ExceptionState::Waiting => DeliveryStatus::Pending,
            },
            None if self.newest.as_ref().is_some_and(|newest| newest.succeeded) => return DeliveryStatus::Success,
            None => DeliveryStatus::Pending,
        };
        if handoff.is_processing(key) { DeliveryStatus::Processing } else { waiting }
    }
}

/// The worse of two states of an event's deliveries. From worst to best: `dead_letter`, `failed`, `processing`,
/// `pending`, `discarded`, `success`. So an event shows what a person may have to look at, then what is still going on,
/// and `success` only when every delivery succeeded.
pub(crate) fn worse(one: DeliveryStatus, other: DeliveryStatus) -> DeliveryStatus {
    if severity(one) >= severity(other) { one } else { other }
}

fn severity(status: DeliveryStatus) -> u8 {
    match status {
        DeliveryStatus::Success => 0,
        DeliveryStatus::Discarded => 1,
        DeliveryStatus::Pending => 2,
        DeliveryStatus::Processing => 3,
        DeliveryStatus::Failed => 4,
        DeliveryStatus::DeadLetter => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_shows_trouble_first_then_what_goes_on_and_success_last() {
        let mut all = DeliveryStatus::ALL.to_vec();
        all.sort_by_key(|status| std::cmp::Reverse(severity(*status)));
        let words: Vec<_> = all.into_iter().map(DeliveryStatus::as_str).collect();
        assert_eq!(words, ["dead_letter", "failed", "processing", "pending", "discarded", "success"]);
        assert_eq!(worse(DeliveryStatus::Success, DeliveryStatus::Pending), DeliveryStatus::Pending);
    }
}
