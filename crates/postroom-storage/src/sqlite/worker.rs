//! What delivery asks for: endpoints from memory, exceptions by steps over their index, settlements to the writer.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::{EventId, Timestamp};

use super::connection::Connection;
use super::convert::{broken, headers, moment, pack_headers};
use super::grants::Part;
use super::{Changed, Sqlite, configuration, rows};
use crate::engine::record::Settle;
use crate::worker::{
    DeliveryKey, Due, Endpoint, EndpointKey, EventKey, OrganizationKey, Settlement, StoredEvent, Transition, Worker,
};
use crate::{Error, Result};

/// Index: exception_due, one step for each endpoint.
const HEADS: &str = "with recursive head (endpoint) as ( \
         select min(endpoint) from exception indexed by exception_due where state = 'waiting' and endpoint > ?1 \
         union all \
         select (select min(endpoint) from exception indexed by exception_due \
                 where state = 'waiting' and endpoint > head.endpoint) \
         from head where endpoint is not null limit ?2 \
     ) \
     select endpoint, (select min(due_at) from exception indexed by exception_due \
                       where state = 'waiting' and exception.endpoint = head.endpoint) \
     from head where endpoint is not null";

/// Index: exception_due; the event by primary key.
const DUE: &str = "select exception.event, exception.run, due_at, attempts, attempts_of_schedule, \
            event.org, event.id, event.type, event.headers, event.body \
     from exception indexed by exception_due join event on event.seq = exception.event \
     where exception.endpoint = ?1 and state = 'waiting' and due_at <= ?2 \
     order by due_at limit ?3";

#[async_trait]
impl Worker for Sqlite {
    async fn endpoint_find(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        match self.0.directory.endpoint(endpoint) {
            Some((found, entry)) if !entry.is_stale(|| self.now()) => Ok(Some(found)),
            _ => Box::pin(self.endpoint_read(endpoint)).await,
        }
    }

    /// One process has the file, so what it holds is its own.
    fn delivery_admit(&self, _: DeliveryKey) -> Result<bool> {
        Ok(true)
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
        self.0.writer.queue.settle(Box::new(settle)).await
    }

    async fn delivery_move(&self, delivery: DeliveryKey, attempts: u32, next: Transition) -> Result<()> {
        if next == Transition::Done {
            return Err(broken("a delivery is done by an attempt only"));
        }
        let org = self.owner(delivery.endpoint).await?;
        let settle = Settle { delivery, org, attempts, attempts_of_schedule: None, attempt: None, next };
        self.0.writer.queue.settle(Box::new(settle)).await
    }

    async fn endpoint_disable_gone(&self, endpoint: EndpointKey, now: Timestamp) -> Result<()> {
        let vault = self.0.vault.clone();
        // Configuration, and its entry in the audit log: neither is the worker's to change.
        self.configure(Part::Api, move |connection, _| {
            let org = configuration::endpoints::disable_gone(connection, &vault, endpoint, now)?;
            Ok(Changed { org, wake: vec![endpoint], value: () })
        })
        .await
    }

    async fn pending_heads(&self, after: Option<EndpointKey>, limit: usize) -> Result<Vec<(EndpointKey, Timestamp)>> {
        let (after, limit) = (after.map_or(i64::MIN, |key| key.0), i64::try_from(limit).unwrap_or(i64::MAX));
        self.0
            .readers
            .read(Part::Worker, move |connection| {
                let heads = rows::all(connection, HEADS, &[&after, &limit], |row| {
                    Ok((EndpointKey(row.get(0)?), moment(row, 1)?))
                })?;
                Ok(heads)
            })
            .await
    }

    async fn pending_due(
        &self,
        endpoint: EndpointKey,
        until: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Due>> {
        self.0
            .readers
            .read(Part::Worker, move |connection| Ok(due(connection, endpoint, until, limit, max_bytes)?))
            .await
    }
}

impl Sqlite {
    /// An endpoint that is not in memory as it is now. In a box wherever it is waited for: its future is large.
    async fn endpoint_read(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        if let Some((_, entry)) = self.0.directory.endpoint(endpoint) {
            self.reload(entry.org).await?;
            if let Some((found, _)) = self.0.directory.endpoint(endpoint) {
                return Ok(Some(found));
            }
        }
        let (vault, now) = (self.0.vault.clone(), self.now());
        let found = self.0.readers.borrow(move |c| super::directory::load_endpoint(c, &vault, endpoint, now)).await?;
        Ok(found.map(Arc::new))
    }

    /// The organization an endpoint belongs to.
    async fn owner(&self, endpoint: EndpointKey) -> Result<i64> {
        if let Some((found, _)) = self.0.directory.endpoint(endpoint) {
            return Ok(found.organization.0);
        }
        let found = self.endpoint_find(endpoint).await?.ok_or(Error::NotFound { kind: "endpoint" })?;
        Ok(found.organization.0)
    }
}

fn due(
    connection: &Connection,
    endpoint: EndpointKey,
    until: Timestamp,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Due>> {
    let mut statement = connection.prepare_cached(DUE)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((endpoint.0, until.as_millis(), limit))?;
    let (mut due, mut bytes) = (Vec::new(), 0);
    while due.is_empty() || bytes < max_bytes {
        let Some(row) = rows.next()? else { break };
        let event = StoredEvent {
            key: EventKey::from_seq(row.get(0)?),
            organization: OrganizationKey(row.get(5)?),
            id: EventId::from_bytes(row.get(6)?),
            event_type: row.get(7)?,
            headers: headers(row, 8)?,
            body: row.get::<_, Vec<u8>>(9)?.into(),
        };
        bytes += event.body.len();
        due.push(Due {
            delivery: DeliveryKey { event: event.key, endpoint, run: row.get(1)? },
            event: Arc::new(event),
            due_at: moment(row, 2)?,
            attempts: row.get(3)?,
            attempts_of_schedule: row.get(4)?,
        });
    }
    Ok(due)
}
