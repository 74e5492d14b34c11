//! Endpoints outside of the router: the number of the cell in the upper 32 bits, the engine's own number in the lower.
//! The shared database is 0, so its numbers are the same on both sides.

use std::sync::Arc;

use crate::Handoff;
use crate::worker::{DeliveryKey, EndpointKey, OrganizationKey, StoredEvent};

const BITS: u32 = 32;

/// The cell an endpoint is in; 0 is the shared database.
pub(super) fn cell_of(endpoint: EndpointKey) -> u32 {
    // Only numbers that `outside` made come here, and those are not negative.
    u32::try_from(endpoint.0 >> BITS).unwrap_or(0)
}

/// What its engine calls an endpoint.
pub(super) fn inside(endpoint: EndpointKey) -> EndpointKey {
    EndpointKey(endpoint.0 & i64::from(u32::MAX))
}

/// What the outside calls an endpoint of a cell. An engine's numbers fit 32 bits: its log stores no more.
pub(super) fn outside(cell: u32, endpoint: EndpointKey) -> EndpointKey {
    EndpointKey((i64::from(cell) << BITS) | endpoint.0)
}

/// The same of a delivery.
pub(super) fn delivery_inside(delivery: DeliveryKey) -> DeliveryKey {
    DeliveryKey { endpoint: inside(delivery.endpoint), ..delivery }
}

/// What a cell's engine hands over to: delivery, with the cell's number on every endpoint.
pub(super) struct CellHandoff {
    pub(super) cell: u32,
    pub(super) delivery: Arc<dyn Handoff>,
}

impl Handoff for CellHandoff {
    fn reserve(&self, endpoint: EndpointKey, body_bytes: usize) -> bool {
        self.delivery.reserve(outside(self.cell, endpoint), body_bytes)
    }

    fn deliver(&self, event: Arc<StoredEvent>, endpoints: Vec<EndpointKey>) {
        let endpoints = endpoints.into_iter().map(|endpoint| outside(self.cell, endpoint)).collect();
        self.delivery.deliver(event, endpoints);
    }

    fn release(&self, endpoint: EndpointKey, body_bytes: usize) {
        self.delivery.release(outside(self.cell, endpoint), body_bytes);
    }

    fn wake(&self, endpoint: EndpointKey) {
        self.delivery.wake(outside(self.cell, endpoint));
    }

    fn is_processing(&self, delivery: DeliveryKey) -> bool {
        self.delivery.is_processing(DeliveryKey { endpoint: outside(self.cell, delivery.endpoint), ..delivery })
    }

    fn is_busy(&self, organization: OrganizationKey) -> bool {
        self.delivery.is_busy(organization)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_name_outside_and_the_shared_database_keeps_its_own() {
        for (cell, number) in [(0, 7), (1, 7), (i32::MAX.cast_unsigned(), i64::from(u32::MAX)), (3, 0)] {
            let named = outside(cell, EndpointKey(number));
            assert_eq!((cell_of(named), inside(named)), (cell, EndpointKey(number)));
            assert_eq!(cell == 0, named == EndpointKey(number));
        }
    }
}
