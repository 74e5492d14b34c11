//! Accepts events: finds the source, matches endpoints in the caller's task, hands over to the writer.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::{RejectionId, Secret, Timestamp};

use super::configuration::sources;
use super::grants::Part;
use super::{Changed, Mode, Sqlite, rejections};
use crate::api::TestEvent;
use crate::engine::record::{Counting, Record};
use crate::receiver::{NewEvent, NewRejection, Origin, Recorded, Source};
use crate::worker::EndpointKey;
use crate::{Error, Receiver, Result, Scope};

#[async_trait]
impl Receiver for Sqlite {
    async fn source_find(&self, organization_slug: &str, source_name: &str) -> Result<Option<Arc<Source>>> {
        let known = self.0.directory.by_slug(organization_slug).filter(|entry| !entry.is_stale(|| self.now()));
        if let Some(source) = known.and_then(|entry| entry.source(source_name)) {
            return Ok(Some(source));
        }
        // In a box: a future that reads is large, and would be moved about with every event.
        Box::pin(async {
            let found = self.source_known(organization_slug, source_name).await?;
            if found.is_none() {
                self.catch_up().await?;
                return self.source_known(organization_slug, source_name).await;
            }
            Ok(found)
        })
        .await
    }

    async fn event_record(&self, event: NewEvent) -> Result<Recorded> {
        let record = self.resolve(event)?;
        self.0.writer.queue.record(Box::new(record)).await
    }

    async fn event_record_all(&self, events: Vec<NewEvent>) -> Result<Vec<Recorded>> {
        let records = events.into_iter().map(|event| self.resolve(event)).collect::<Result<_>>()?;
        self.0.writer.queue.record_all(records).await
    }

    async fn source_learn(&self, source: &Source, secret: Secret, now: Timestamp) -> Result<bool> {
        let (vault, scope, id) = (self.0.vault.clone(), source.scope.clone(), source.id);
        // Secrets are the api's to write; what the receiver can ask for is this one step of it.
        self.configure(Part::Api, move |connection, _| {
            let value = sources::learn(connection, &vault, &scope, id, &secret, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn rejection_record(&self, rejection: NewRejection) -> Result<Option<RejectionId>> {
        if !self.0.rejection_rate.admits(rejection.source.key, rejection.received_at) {
            return Ok(None);
        }
        self.write(Part::Receiver, move |connection, _| rejections::keep(connection, &rejection).map(Some)).await
    }
}

impl Sqlite {
    async fn source_known(&self, organization_slug: &str, source_name: &str) -> Result<Option<Arc<Source>>> {
        let Some(entry) = self.0.directory.by_slug(organization_slug) else { return Ok(None) };
        Ok(self.fresh(entry).await?.source(source_name))
    }

    /// Everything about an event that needs no transaction.
    fn resolve(&self, event: NewEvent) -> Result<Record> {
        if self.0.mode == Mode::Beside {
            return Err(Error::Unavailable("events are recorded by the server only".into()));
        }
        let (scope, source) = match &event.origin {
            Origin::Source(source) => (&source.scope, Some(source)),
            Origin::Organization(scope) => (scope, None),
        };
        let entry = self.0.directory.entry(scope.org).ok_or(Error::NotFound { kind: "organization" })?;
        let source_id = source.map(|source| source.id);
        let endpoints = entry.wanting(&event.event_type, source_id, &event.body);
        Ok(Record::new(event, entry.org, endpoints, Counting::Upto(entry.limit)))
    }
}

impl Sqlite {
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
        self.0.writer.queue.record(Box::new(record)).await
    }
}
