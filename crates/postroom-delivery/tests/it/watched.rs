//! Storage between delivery and the engine: writes down what delivery tells it, and fails on demand.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use postroom_domain::delivery::DeadReason;
use postroom_domain::{DeliveryId, Timestamp};
use postroom_storage::worker::{Attempt, DeliveryKey, Due, Endpoint, EndpointKey, Settlement, Transition};
use postroom_storage::{Error, Result, Worker};
use tokio::sync::watch;

/// A [`Worker`] in front of the real one.
pub struct Watched {
    pub inner: Arc<dyn Worker>,
    pub seen: Mutex<Seen>,
    pub changed: watch::Sender<()>,
}

/// What was seen, and what is to go wrong.
#[derive(Default)]
pub struct Seen {
    /// Recorded attempts, in the order of their recording.
    pub attempts: Vec<Recorded>,
    /// Numbers of endpoints whose delivery was moved to the dead letters without an attempt.
    pub moved: Vec<(u32, DeadReason)>,
    /// Numbers of endpoints that answered 410.
    pub gone: Vec<u32>,
    numbers: HashMap<EndpointKey, u32>,
    /// Refuses so many settlements.
    pub failures: usize,
    /// The look-up of the endpoint with this number panics.
    pub poisoned: Option<u32>,
    /// Deliveries to the endpoint with this number have become another process's to make.
    pub taken_over: Option<u32>,
    /// So often it is not known whose a delivery is.
    pub unsure: usize,
    /// Deliveries that were not this process's to make.
    pub dropped: usize,
    /// The endpoint with this number cannot sign.
    pub mute: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Recorded {
    pub delivery: DeliveryId,
    pub attempt: Arc<Attempt>,
    pub next: Transition,
}

impl Watched {
    pub fn new(inner: Arc<dyn Worker>) -> Arc<Self> {
        Arc::new(Self { inner, seen: Mutex::default(), changed: watch::Sender::default() })
    }

    fn see(&self, see: impl FnOnce(&mut Seen)) {
        see(&mut self.seen.lock());
        self.changed.send_replace(());
    }
}

#[async_trait]
impl Worker for Watched {
    async fn endpoint_find(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        let found = self.inner.endpoint_find(endpoint).await?;
        let mut seen = self.seen.lock();
        let Some(found) = found else { return Ok(None) };
        seen.numbers.insert(endpoint, found.number);
        assert_ne!(seen.poisoned, Some(found.number), "a poisoned endpoint");
        if seen.mute != Some(found.number) {
            return Ok(Some(found));
        }
        let (settings, signer) = (found.settings.clone(), Err("the secret can not be decrypted".to_owned()));
        let Endpoint { organization, organization_id, id, number, blocked, .. } = *found;
        Ok(Some(Arc::new(Endpoint { organization, organization_id, id, number, settings, signer, blocked })))
    }

    fn delivery_admit(&self, delivery: DeliveryKey) -> Result<bool> {
        let mut seen = self.seen.lock();
        if seen.unsure > 0 {
            seen.unsure -= 1;
            return Err(Error::Unavailable("no touch with the database".into()));
        }
        if seen.taken_over.is_none() || seen.taken_over != seen.numbers.get(&delivery.endpoint).copied() {
            return self.inner.delivery_admit(delivery);
        }
        seen.dropped += 1;
        drop(seen);
        self.changed.send_replace(());
        Ok(false)
    }

    async fn attempt_settle(&self, settlement: Settlement) -> Result<()> {
        let fails = {
            let mut seen = self.seen.lock();
            let fails = seen.failures > 0;
            seen.failures = seen.failures.saturating_sub(1);
            fails
        };
        if fails {
            return Err(Error::Unavailable("the disk is full".into()));
        }
        let recorded =
            Recorded { delivery: settlement.delivery_id, attempt: settlement.attempt.clone(), next: settlement.next };
        self.inner.attempt_settle(settlement).await?;
        self.see(|seen| seen.attempts.push(recorded));
        Ok(())
    }

    async fn delivery_move(&self, delivery: DeliveryKey, attempts: u32, next: Transition) -> Result<()> {
        self.inner.delivery_move(delivery, attempts, next).await?;
        if let Transition::Dead(reason) = next {
            self.see(|seen| {
                let number = seen.numbers.get(&delivery.endpoint).copied().unwrap_or_default();
                seen.moved.push((number, reason));
            });
        }
        Ok(())
    }

    async fn endpoint_disable_gone(&self, endpoint: EndpointKey, now: Timestamp) -> Result<()> {
        self.inner.endpoint_disable_gone(endpoint, now).await?;
        self.see(|seen| seen.gone.push(seen.numbers[&endpoint]));
        Ok(())
    }

    async fn pending_heads(&self, after: Option<EndpointKey>, limit: usize) -> Result<Vec<(EndpointKey, Timestamp)>> {
        self.inner.pending_heads(after, limit).await
    }

    async fn pending_due(
        &self,
        endpoint: EndpointKey,
        until: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Due>> {
        self.inner.pending_due(endpoint, until, limit, max_bytes).await
    }
}
