//! What delivery asks for: endpoints from memory, exceptions by steps over their index, settlements to the lane.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::{EventId, Timestamp};
use tokio_postgres::Row;

use super::Postgres;
use super::convert::{at, get, headers, moment};
use super::pool::{Pool, bind};
use crate::engine::packed::{broken, pack_headers};
use crate::engine::record::Settle;
use crate::worker::{
    DeliveryKey, Due, Endpoint, EndpointKey, EventKey, OrganizationKey, Settlement, StoredEvent, Transition, Worker,
};
use crate::{Error, Result};

/// Index: exceptions_due, one step for each endpoint, in the shards of this node.
const HEADS: &str = "with recursive head (endpoint) as ( \
         (select endpoint from exceptions where state = 'waiting' and endpoint > $1 order by endpoint limit 1) \
         union all \
         select (select endpoint from exceptions where state = 'waiting' and endpoint > head.endpoint \
                 order by endpoint limit 1) \
         from head where endpoint is not null \
     ) \
     select endpoint, (select due_at from exceptions where state = 'waiting' and exceptions.endpoint = head.endpoint \
                       order by due_at limit 1) \
     from head where endpoint is not null and endpoint % 64 = any($2) limit $3";

/// Index: exceptions_due; the event by primary key. Lengths are known without reading bodies.
const DUE: &str = "with due as materialized ( \
         select exceptions.org, exceptions.event, run, due_at, attempts, attempts_of_schedule, \
             coalesce(sum(length(events.body)) over (order by due_at, exceptions.event, run \
                 rows between unbounded preceding and 1 preceding), 0) as before \
         from exceptions join events on events.org = exceptions.org and events.id = exceptions.event \
         where exceptions.endpoint = $1 and state = 'waiting' and due_at <= $2 \
         order by due_at, exceptions.event, run limit $3 \
     ) \
     select due.event, run, due_at, attempts, attempts_of_schedule, due.org, type, headers, body \
     from due join events on events.org = due.org and events.id = due.event \
     where before < $4 order by due_at, due.event, run";

#[async_trait]
impl Worker for Postgres {
    async fn endpoint_find(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        match self.0.directories.outbound.current(endpoint, || self.now()) {
            Some(found) => Ok(Some(found)),
            None => Box::pin(self.endpoint_read(endpoint)).await,
        }
    }

    fn delivery_admit(&self, delivery: DeliveryKey) -> Result<bool> {
        let endpoint = self.0.directories.outbound.endpoint(delivery.endpoint);
        self.0.node.admit(delivery, endpoint.map(|endpoint| endpoint.organization.0))
    }

    async fn attempt_settle(&self, settlement: Settlement) -> Result<()> {
        let org = self.owner(settlement.delivery.endpoint).await?;
        let response_headers = settlement.attempt.response.as_ref().map(|response| pack_headers(&response.headers));
        let settle = Settle {
            delivery: settlement.delivery,
            org,
            attempts: settlement.attempt.number,
            attempts_of_schedule: Some(settlement.attempts_of_schedule),
            attempt: Some((settlement.attempt, response_headers)),
            next: settlement.next,
        };
        self.0.lanes.settle(settle).await
    }

    async fn delivery_move(&self, delivery: DeliveryKey, attempts: u32, next: Transition) -> Result<()> {
        if next == Transition::Done {
            return Err(broken("a delivery is done by an attempt only"));
        }
        let org = self.owner(delivery.endpoint).await?;
        let settle = Settle { delivery, org, attempts, attempts_of_schedule: None, attempt: None, next };
        self.0.lanes.settle(settle).await
    }

    async fn endpoint_disable_gone(&self, endpoint: EndpointKey, now: Timestamp) -> Result<()> {
        self.disable_gone(self.owner(endpoint).await?, endpoint, now).await
    }

    async fn pending_heads(&self, after: Option<EndpointKey>, limit: usize) -> Result<Vec<(EndpointKey, Timestamp)>> {
        heads(&self.0.pools.worker, after, limit, self.0.node.shards()).await
    }

    async fn pending_due(
        &self,
        endpoint: EndpointKey,
        until: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Due>> {
        let known = self.0.directories.outbound.endpoint(endpoint);
        if !self.0.node.holds(endpoint) || known.is_some_and(|known| self.0.node.is_away(known.organization.0)) {
            return Ok(Vec::new());
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX).max(1);
        let connection = self.0.pools.worker.connection().await?;
        let rows = connection.query(DUE, bind![endpoint.0, at(until), limit, max_bytes]).await?;
        rows.iter().map(|row| due(row, endpoint)).collect()
    }
}

impl Postgres {
    /// An endpoint that is not in memory as it is now. In a box of its own wherever it is waited for: a future that reads
    /// is some 15 KB large, and what is asked for in every attempt would be moved about with it.
    async fn endpoint_read(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        let directories = &self.0.directories;
        if let Some(found) = directories.outbound.endpoint(endpoint) {
            let is_stale = || directories.outbound.is_stale(endpoint, self.now());
            directories.refresh(found.organization.0, is_stale).await?;
            if let Some(found) = directories.outbound.endpoint(endpoint) {
                return Ok(Some(found));
            }
        }
        directories.outbound.find(endpoint).await
    }

    /// The organization an endpoint belongs to.
    async fn owner(&self, endpoint: EndpointKey) -> Result<i64> {
        if let Some(org) = self.0.directories.outbound.owner(endpoint) {
            return Ok(org);
        }
        let found = Box::pin(self.endpoint_read(endpoint)).await?.ok_or(Error::NotFound { kind: "endpoint" })?;
        Ok(found.organization.0)
    }
}

/// The earliest due time of every endpoint with waiting deliveries in these shards.
pub(super) async fn heads(
    worker: &Pool,
    after: Option<EndpointKey>,
    limit: usize,
    shards: Vec<i64>,
) -> Result<Vec<(EndpointKey, Timestamp)>> {
    if shards.is_empty() {
        return Ok(Vec::new());
    }
    let (after, limit) = (after.map_or(i64::MIN, |key| key.0), i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = worker.connection().await?.query(HEADS, bind![after, shards, limit]).await?;
    let head = |row: &Row| match get::<Option<std::time::SystemTime>>(row, 1)? {
        Some(_) => Ok(Some((EndpointKey(get(row, 0)?), moment(row, 1)?))),
        None => Ok(None),
    };
    rows.iter().filter_map(|row| head(row).transpose()).collect()
}

fn due(row: &Row, endpoint: EndpointKey) -> Result<Due> {
    let key: uuid::Uuid = get(row, 0)?;
    let event = StoredEvent {
        key: EventKey::from_uuid(key),
        organization: OrganizationKey(get(row, 5)?),
        id: EventId::from_bytes(key.into_bytes()),
        event_type: get(row, 6)?,
        headers: headers(row, 7)?,
        body: get::<Vec<u8>>(row, 8)?.into(),
    };
    let number = |index| -> Result<u32> { Ok(u32::try_from(get::<i32>(row, index)?).unwrap_or(0)) };
    let run = u16::try_from(get::<i32>(row, 1)?).map_err(|_| broken("a run is out of its range"))?;
    Ok(Due {
        delivery: DeliveryKey { event: event.key, endpoint, run },
        event: Arc::new(event),
        due_at: moment(row, 2)?,
        attempts: number(3)?,
        attempts_of_schedule: number(4)?,
    })
}
