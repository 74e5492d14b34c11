//! Accepts events: finds the source, matches endpoints in the caller's task, hands over to the lane.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::{RejectionId, Secret, Timestamp};

use super::convert::{at, uuid};
use super::directory::inbound::Entry;
use super::pool::bind;
use super::{Mode, Postgres};
use crate::api::TestEvent;
use crate::engine::packed::pack_headers;
use crate::engine::record::{Counting, Record};
use crate::engine::rejections::{KEPT, KEPT_BYTES};
use crate::receiver::{NewEvent, NewRejection, Origin, Recorded, Source};
use crate::worker::EndpointKey;
use crate::{Error, Receiver, Result, Scope};

/// Appends.
const REJECT: &str = "insert into rejections \
     (org, id, source, code, check_name, method, path, headers, received_at, body) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// The primary key, from its newest end. `length` does not read bodies.
const OUTLIVED: &str = "delete from rejections where org = $1 and id <= ( \
     select id from (select id, row_number() over newest as place, sum(length(body)) over newest as bytes \
         from rejections where org = $1 window newest as (order by id desc)) as kept \
     where place > $2 or (bytes > $3 and place > 1) order by id desc limit 1)";

#[async_trait]
impl Receiver for Postgres {
    async fn source_find(&self, organization_slug: &str, source_name: &str) -> Result<Option<Arc<Source>>> {
        let known =
            self.0.directories.inbound.by_slug(organization_slug).filter(|entry| !entry.is_stale(|| self.now()));
        if let Some(source) = known.and_then(|entry| entry.source(source_name)) {
            return Ok(Some(source));
        }
        // In a box: a future that reads is some 15 KB large, and would be moved about with every event.
        Box::pin(async {
            let found = self.source_known(organization_slug, source_name).await?;
            if found.is_none() {
                self.0.directories.catch_up().await?;
                return self.source_known(organization_slug, source_name).await;
            }
            Ok(found)
        })
        .await
    }

    async fn event_record(&self, event: NewEvent) -> Result<Recorded> {
        let record = self.resolve(event)?;
        self.0.lanes.record(record).await
    }

    async fn event_record_all(&self, events: Vec<NewEvent>) -> Result<Vec<Recorded>> {
        let records = events.into_iter().map(|event| self.resolve(event)).collect::<Result<_>>()?;
        self.0.lanes.record_all(records).await
    }

    async fn source_learn(&self, source: &Source, secret: Secret, now: Timestamp) -> Result<bool> {
        // Secrets are the api's to write; what the receiver can ask for is this one step of it.
        self.source_first_secret(&source.scope, source.id, &secret, now).await
    }

    async fn rejection_record(&self, rejection: NewRejection) -> Result<Option<RejectionId>> {
        if !self.0.rejection_rate.admits(rejection.source.key, rejection.received_at) {
            return Ok(None);
        }
        self.reject(&rejection).await.map(Some)
    }
}

impl Postgres {
    /// Everything about an event that needs no statement.
    fn resolve(&self, event: NewEvent) -> Result<Record> {
        if self.0.options.mode == Mode::Beside {
            return Err(Error::Unavailable("events are recorded by the server only".into()));
        }
        let (scope, source) = match &event.origin {
            Origin::Source(source) => (&source.scope, Some(source.id)),
            Origin::Organization(scope) => (scope, None),
        };
        let entry = self.0.directories.inbound.entry(scope.org).ok_or(Error::NotFound { kind: "organization" })?;
        if self.0.node.is_full(entry.org) {
            return Err(Error::Overloaded);
        }
        let endpoints = entry.wanting(&event.event_type, source, &event.body);
        Ok(Record::new(event, entry.org, endpoints, Counting::Upto(entry.limit)))
    }

    /// An event for one endpoint alone; it does not count for the month.
    pub(super) async fn record_test(
        &self,
        scope: &Scope,
        endpoint: EndpointKey,
        test: TestEvent,
        now: Timestamp,
    ) -> Result<Recorded> {
        let event = NewEvent::sent(scope.clone(), test.event_type, None, test.body, now);
        let record = Record { endpoints: vec![endpoint], count: Counting::Free, ..self.resolve(event)? };
        self.0.lanes.record(record).await
    }

    /// Keeps a rejected request and forgets the oldest ones above the bounds.
    async fn reject(&self, new: &NewRejection) -> Result<RejectionId> {
        let id = RejectionId::from_bytes(self.0.rejection_ids.lock().next(new.received_at).to_bytes());
        let org = new.source.scope.org;
        let connection = self.0.pools.receiver.connection().await?;
        connection
            .execute(
                REJECT,
                bind![
                    org,
                    uuid(id.to_bytes()),
                    new.source.key,
                    new.code,
                    new.check.as_str(),
                    new.method.as_str(),
                    new.path.as_str(),
                    pack_headers(&new.headers),
                    at(new.received_at),
                    &*new.body,
                ],
            )
            .await?;
        connection.execute(OUTLIVED, bind![org, KEPT, KEPT_BYTES]).await?;
        Ok(id)
    }

    /// A source with the secrets of this moment: those whose time is over are gone from it.
    async fn source_known(&self, organization_slug: &str, source_name: &str) -> Result<Option<Arc<Source>>> {
        let directories = &self.0.directories;
        let Some(mut entry) = directories.inbound.by_slug(organization_slug) else { return Ok(None) };
        let is_stale = |entry: &Entry| entry.is_stale(|| self.now());
        if is_stale(&entry) {
            let (org, known) = (entry.org, || directories.inbound.entry(entry.org));
            directories.refresh(org, || known().is_some_and(|entry| is_stale(&entry))).await?;
            entry = known().ok_or(Error::NotFound { kind: "organization" })?;
        }
        Ok(entry.source(source_name))
    }
}
