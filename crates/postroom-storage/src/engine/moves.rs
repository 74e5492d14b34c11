//! What a person may do to deliveries, and the words in which it is refused.

use postroom_domain::EndpointId;
use postroom_domain::delivery::DeliveryStatus;

use super::log::{Exception, ExceptionState};
use crate::worker::EndpointKey;
use crate::{Error, Result};

/// An endpoint, as far as deliveries may go to it.
pub(crate) struct Target {
    pub(crate) key: EndpointKey,
    pub(crate) id: EndpointId,
    pub(crate) number: u32,
    pub(crate) is_disabled: bool,
    pub(crate) is_deleted: bool,
}

impl Target {
    /// Nothing waits for an endpoint that gets nothing: it would be a dead letter at once.
    pub(crate) fn check(&self) -> Result<()> {
        let (code, detail) = if self.is_deleted {
            ("endpoint_deleted", format!("the endpoint {} was deleted: replay the event to another one", self.id))
        } else if self.is_disabled {
            ("endpoint_disabled", format!("the endpoint {} is disabled: enable it first", self.id))
        } else {
            return Ok(());
        };
        Err(Error::Conflict { code, detail })
    }
}

/// How a delivery is tried again.
pub(crate) enum Again {
    /// The dead letter waits, at the beginning of its schedule.
    Anew(Exception),
    /// What waits is due now.
    Now(Exception),
}

/// How a delivery that stands so is retried.
pub(crate) fn retry(status: DeliveryStatus, exception: Option<Exception>) -> Result<Again> {
    let refused = |detail: &str| Error::Conflict { code: "delivery_not_retryable", detail: detail.to_owned() };
    match (status, exception) {
        (DeliveryStatus::DeadLetter, Some(dead)) => Ok(Again::Anew(dead)),
        (DeliveryStatus::Failed | DeliveryStatus::Pending, Some(waiting)) => Ok(Again::Now(waiting)),
        (DeliveryStatus::Success | DeliveryStatus::Discarded, _) => {
            Err(refused("this delivery has ended: replay its event to send it again"))
        }
        _ => Err(refused("this delivery is being made right now: wait for its outcome")),
    }
}

/// The exception of a dead letter.
pub(crate) fn dead_letter(exception: Option<Exception>) -> Result<Exception> {
    exception
        .filter(|exception| exception.state == ExceptionState::DeadLetter)
        .ok_or(Error::NotFound { kind: "dead letter" })
}

/// None of the endpoints of an event can get it again.
pub(crate) fn no_endpoints() -> Error {
    let detail = "none of the endpoints this event went to is left: name endpoint_ids".to_owned();
    Error::Conflict { code: "no_endpoints", detail }
}

/// The run after the last one.
pub(crate) fn next_run(last: u16) -> Result<u16> {
    last.checked_add(1).ok_or_else(|| Error::Conflict {
        code: "too_many_replays",
        detail: format!("this event was replayed to one endpoint {last} times, which is the most there can be"),
    })
}
