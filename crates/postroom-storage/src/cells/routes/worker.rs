//! Deliveries, by the cell that every endpoint's key names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postroom_domain::Timestamp;
use tracing::debug;

use crate::cells::keys::{cell_of, delivery_inside, inside, outside};
use crate::cells::place::{ANSWER, Place};
use crate::cells::{At, Engine, Router};
use crate::worker::{DeliveryKey, Due, Endpoint, EndpointKey, Settlement, Transition, Worker};
use crate::{Error, Result};

/// How long it waits for the waiting deliveries of one endpoint, which come with their payloads.
const PAYLOADS: Duration = Duration::from_secs(5);

#[async_trait]
impl Worker for Router {
    async fn endpoint_find(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        self.at(endpoint).await?.worker.endpoint_find(inside(endpoint)).await
    }

    fn delivery_admit(&self, delivery: DeliveryKey) -> Result<bool> {
        match cell_of(delivery.endpoint) {
            0 => self.shared.worker.delivery_admit(delivery),
            cell => {
                let place = self.place(cell)?;
                let Some(open) = place.opened() else {
                    let is_moving = self.cells.map().move_of(place.organization).is_some();
                    return if is_moving { Ok(false) } else { Err(Error::Unavailable("the database sleeps".into())) };
                };
                open.worker.delivery_admit(delivery_inside(delivery))
            }
        }
    }

    async fn attempt_settle(&self, settlement: Settlement) -> Result<()> {
        let engine = self.at(settlement.delivery.endpoint).await?;
        let delivery = delivery_inside(settlement.delivery);
        engine.worker.attempt_settle(Settlement { delivery, ..settlement }).await
    }

    async fn delivery_move(&self, delivery: DeliveryKey, attempts: u32, next: Transition) -> Result<()> {
        let engine = self.at(delivery.endpoint).await?;
        engine.worker.delivery_move(delivery_inside(delivery), attempts, next).await
    }

    async fn endpoint_disable_gone(&self, endpoint: EndpointKey, now: Timestamp) -> Result<()> {
        self.at(endpoint).await?.worker.endpoint_disable_gone(inside(endpoint), now).await
    }

    /// The shared database's, then those of each open cell: nothing waits in a cell that sleeps. A cell that fails is
    /// left out, and so is the shared database while there are cells: the others' deliveries do not wait for it.
    async fn pending_heads(&self, after: Option<EndpointKey>, limit: usize) -> Result<Vec<(EndpointKey, Timestamp)>> {
        let map = self.cells.map();
        let first = after.map_or(0, cell_of);
        let mut heads = Vec::new();
        if first == 0 {
            match self.shared.worker.pending_heads(after, limit).await {
                Ok(found) => heads = found,
                Err(error) if map.is_empty() => return Err(error),
                Err(error) => {
                    debug!(error = %error.chain(), "deliveries of the shared database could not be looked up")
                }
            }
        }
        for place in map.from(first.max(1)) {
            if heads.len() >= limit {
                break;
            }
            let Some(open) = place.opened() else { continue };
            let after = after.filter(|_| place.cell == first).map(inside);
            let asked = open.worker.pending_heads(after, limit - heads.len());
            let found = place.answer(ANSWER, asked).await.unwrap_or_default();
            heads.extend(found.into_iter().map(|(endpoint, due)| (outside(place.cell, endpoint), due)));
        }
        Ok(heads)
    }

    /// Nothing from a cell that is not open: delivery is told when it is.
    async fn pending_due(
        &self,
        endpoint: EndpointKey,
        until: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Due>> {
        let cell = cell_of(endpoint);
        if cell == 0 {
            return self.shared.worker.pending_due(endpoint, until, limit, max_bytes).await;
        }
        let place = self.place(cell)?;
        let Some(open) = place.opened() else { return Ok(Vec::new()) };
        let asked = open.worker.pending_due(inside(endpoint), until, limit, max_bytes);
        let mut due = place.answer(PAYLOADS, asked).await.unwrap_or_default();
        for due in &mut due {
            due.delivery.endpoint = endpoint;
        }
        Ok(due)
    }
}

impl Router {
    /// The engine an endpoint is in.
    async fn at(&self, endpoint: EndpointKey) -> Result<Engine<'_>> {
        let call = self.cells.calls.lock().token();
        let cell = cell_of(endpoint);
        if cell == 0 {
            return Ok(Engine { at: At::Shared(&self.shared), _call: call });
        }
        let place = self.place(cell)?;
        // What is under way may end; what was still to be made is made where the organization is moved to.
        let open = match (self.cells.map().move_of(place.organization), place.opened()) {
            (Some(_), Some(open)) => open,
            (Some(_), None) => return Err(Error::NotFound { kind: "endpoint" }),
            (None, _) => place.enter(&self.cells).await?,
        };
        Ok(Engine { at: At::Cell(open), _call: call })
    }

    fn place(&self, cell: u32) -> Result<Arc<Place>> {
        self.cells.map().by_number(cell).ok_or(Error::NotFound { kind: "endpoint" })
    }
}
