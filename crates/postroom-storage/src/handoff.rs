//! How a recorded event gets from storage to delivery without being read back: storage offers, delivery takes.
//!
//! Delivery implements [`Handoff`]; the binary hands it to the engine when it opens the database. It is called from the
//! engine's writer, so no method may block.

use std::sync::Arc;

use crate::worker::{DeliveryKey, EndpointKey, OrganizationKey, StoredEvent};

/// Takes fresh deliveries from the engine.
pub trait Handoff: Send + Sync {
    /// Before the commit: may this delivery wait in memory? On `false` it is stored as an exception in the same
    /// transaction, and comes back by [`crate::Worker::pending_due`].
    fn reserve(&self, endpoint: EndpointKey, body_bytes: usize) -> bool;

    /// After the commit: these reserved deliveries are durable and are now delivery's to make.
    fn deliver(&self, event: Arc<StoredEvent>, endpoints: Vec<EndpointKey>);

    /// The commit failed: give back what was reserved.
    fn release(&self, endpoint: EndpointKey, body_bytes: usize);

    /// Exceptions of this endpoint were written or moved (overflow, requeue, retry now), or its configuration was
    /// changed: look again.
    fn wake(&self, endpoint: EndpointKey);

    /// Whether an attempt of this delivery is under way right now: what is shown as `processing`.
    fn is_processing(&self, delivery: DeliveryKey) -> bool;

    /// Whether an attempt of any delivery of this organization is under way, or its outcome not yet durable. An
    /// organization has the same key in a database of its own.
    fn is_busy(&self, organization: OrganizationKey) -> bool;
}
