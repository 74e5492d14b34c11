//! The part that delivers: reads endpoints with their secrets, appends attempts, moves exceptions.
//!
//! An event row is the durable record of its deliveries. A delivery gets a row of its own only as an *exception*: it
//! waits for a retry, overflowed memory, is a replay, is slow, or is a dead letter.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_domain::delivery::{AttemptError, DeadReason};
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::signing::Signer;
use postroom_domain::{AttemptId, DeliveryId, EndpointId, EventId, OrganizationId, Timestamp};

use crate::Result;

/// An endpoint inside this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey(pub(crate) i64);

impl EndpointKey {
    /// The endpoint an engine keeps under this number. Only engines, and tests that stand in for one, know numbers.
    #[must_use]
    pub fn new(number: i64) -> Self {
        Self(number)
    }
}

/// An organization inside this engine; only good for telling one from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationKey(pub(crate) i64);

impl OrganizationKey {
    /// The organization an engine keeps under this number.
    #[must_use]
    pub fn new(number: i64) -> Self {
        Self(number)
    }
}

/// An event inside this engine: a row number, or its id where the log has no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(pub(crate) u128);

impl EventKey {
    /// The event an engine keeps under this number.
    #[must_use]
    pub fn new(number: u128) -> Self {
        Self(number)
    }
}

/// A delivery inside this engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The event.
    pub event: EventKey,
    /// The endpoint.
    pub endpoint: EndpointKey,
    /// 0 for the original, k for the k-th replay.
    pub run: u16,
}

/// See the [module](self).
#[async_trait]
pub trait Worker: Send + Sync {
    /// The endpoint's configuration of this moment. `None` when the row does not exist at all.
    async fn endpoint_find(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>>;

    /// Whether an attempt of this delivery, which delivery holds in memory, may begin here and now; asked right before
    /// it. `false`: it has become another process's to make, so it is to be forgotten.
    ///
    /// # Errors
    /// [`Unavailable`](crate::Error::Unavailable) while that is not known: ask again.
    fn delivery_admit(&self, delivery: DeliveryKey) -> Result<bool>;

    /// Records how an attempt ended and what follows, in one transaction; resolves when durable. The queue behind it is
    /// bounded: a full one makes callers wait.
    async fn attempt_settle(&self, settlement: Settlement) -> Result<()>;

    /// Moves a delivery without an attempt: a dead letter because its endpoint is disabled or deleted, or a later time.
    async fn delivery_move(&self, delivery: DeliveryKey, attempts: u32, next: Transition) -> Result<()>;

    /// 410: disables the endpoint; its waiting deliveries become dead letters as they come due.
    async fn endpoint_disable_gone(&self, endpoint: EndpointKey, now: Timestamp) -> Result<()>;

    /// The earliest due time of every endpoint that has waiting exceptions, in steps over the index: the cost grows with
    /// endpoints, never with waiting rows. Starts after `after`, at most `limit`.
    async fn pending_heads(&self, after: Option<EndpointKey>, limit: usize) -> Result<Vec<(EndpointKey, Timestamp)>>;

    /// Waiting exceptions of one endpoint due at or before `until`, earliest first, with their events: at most `limit`,
    /// and no more once their bodies come to `max_bytes` (but always the first). Reading takes nothing: the caller must
    /// know which of them it already holds.
    async fn pending_due(
        &self,
        endpoint: EndpointKey,
        until: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Due>>;
}

/// An endpoint as the worker needs it.
#[derive(Debug)]
pub struct Endpoint {
    /// Inside this engine.
    pub organization: OrganizationKey,
    /// For logs.
    pub organization_id: OrganizationId,
    /// For logs.
    pub id: EndpointId,
    /// Its number in its organization, part of delivery ids.
    pub number: u32,
    /// What its owner decided.
    pub settings: EndpointSettings,
    /// Signs with every active secret; or says why it cannot (a secret that cannot be decrypted).
    pub signer: std::result::Result<Signer, String>,
    /// Why nothing may be sent to it now.
    pub blocked: Option<DeadReason>,
}

/// A recorded event, as delivery needs it.
#[derive(Debug)]
pub struct StoredEvent {
    /// Inside this engine.
    pub key: EventKey,
    /// Whose it is: work is shared out fairly among organizations.
    pub organization: OrganizationKey,
    /// The id endpoints see as `webhook-id`.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// Headers to pass on, names in lower case, `content-type` among them.
    pub headers: Vec<(String, String)>,
    /// What endpoints get, byte for byte.
    pub body: Bytes,
}

impl StoredEvent {
    /// The original delivery of this event to an endpoint.
    #[must_use]
    pub fn delivery(&self, endpoint: EndpointKey) -> DeliveryKey {
        DeliveryKey { event: self.key, endpoint, run: 0 }
    }
}

/// A waiting exception.
#[derive(Debug, Clone)]
pub struct Due {
    /// Which delivery.
    pub delivery: DeliveryKey,
    /// Its event.
    pub event: Arc<StoredEvent>,
    /// When it may be tried.
    pub due_at: Timestamp,
    /// Attempts so far, all of them.
    pub attempts: u32,
    /// Attempts since it was made or last requeued: what the retry schedule counts.
    pub attempts_of_schedule: u32,
}

/// How an attempt ended, and what follows.
#[derive(Debug)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliveryKey,
    /// The id endpoints and people see.
    pub delivery_id: DeliveryId,
    /// What is appended to the log. Shared, because it is asked for again until it is stored.
    pub attempt: Arc<Attempt>,
    /// Attempts of the schedule used up by now, this one included if it counts.
    pub attempts_of_schedule: u32,
    /// What follows.
    pub next: Transition,
}

/// What follows after an attempt, or instead of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Delivered.
    Done,
    /// Waits until then.
    Wait(Timestamp),
    /// A dead letter.
    Dead(DeadReason),
}

/// One HTTP try of a delivery. Append-only.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Made when it began.
    pub id: AttemptId,
    /// 1 for the first try of this delivery.
    pub number: u32,
    /// Where it went.
    pub url: String,
    /// What came back, if anything did.
    pub response: Option<Response>,
    /// How the connection failed, if it did; with an answer that broke off, both are there.
    pub error: Option<AttemptError>,
    /// From the first look-up to the last byte.
    pub duration: Duration,
}

/// What an endpoint answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// At most 100 headers, names in lower case, values as UTF-8 with what is not replaced.
    pub headers: Vec<(String, String)>,
    /// The first 16 KiB of the body.
    pub body: Bytes,
}
