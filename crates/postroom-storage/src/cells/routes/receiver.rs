//! Events go where their organization's data is: by the slug in the URL, then by the proof that came of it.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::{RejectionId, Secret, Timestamp};

use crate::cells::{Router, leaving};
use crate::receiver::{NewEvent, NewRejection, Origin, Recorded, Source};
use crate::{Receiver, Result, Scope};

#[async_trait]
impl Receiver for Router {
    async fn source_find(&self, organization_slug: &str, source_name: &str) -> Result<Option<Arc<Source>>> {
        let map = self.cells.map();
        if let Some(moving) = map.moving().iter().find(|moving| *moving.slug == *organization_slug) {
            return Err(leaving::unavailable(moving));
        }
        match map.by_slug(organization_slug) {
            None => self.shared.receiver.source_find(organization_slug, source_name).await,
            Some(place) => {
                let open = place.enter(&self.cells).await?;
                open.receiver.source_find(organization_slug, source_name).await
            }
        }
    }

    async fn event_record(&self, event: NewEvent) -> Result<Recorded> {
        let engine = self.of(scope(event.origin())).await?;
        engine.receiver.event_record(event).await
    }

    async fn event_record_all(&self, events: Vec<NewEvent>) -> Result<Vec<Recorded>> {
        let Some(first) = events.first() else { return Ok(Vec::new()) };
        let engine = self.of(scope(first.origin())).await?;
        engine.receiver.event_record_all(events).await
    }

    async fn source_learn(&self, source: &Source, secret: Secret, now: Timestamp) -> Result<bool> {
        let engine = self.of(source.scope()).await?;
        engine.receiver.source_learn(source, secret, now).await
    }

    async fn rejection_record(&self, rejection: NewRejection) -> Result<Option<RejectionId>> {
        let engine = self.of(rejection.source.scope()).await?;
        engine.receiver.rejection_record(rejection).await
    }
}

fn scope(origin: &Origin) -> &Scope {
    match origin {
        Origin::Source(source) => source.scope(),
        Origin::Organization(scope) => scope,
    }
}
