//! Deliveries as their owner sees them: not stored, but computed from event, exception, attempts, and from what is under
//! way on this node right now.

use postroom_domain::DeliveryId;

use super::Desk;
use crate::api::DeliveryView;
use crate::engine::log::{EventRow, Run, Standing};
use crate::engine::packed::broken;
use crate::postgres::Postgres;
use crate::postgres::convert::get;
use crate::postgres::pool::bind;
use crate::worker::EndpointKey;
use crate::{Error, Result, Scope};

/// By the unique index on (org, number); deleted ones too.
const BY_NUMBER: &str = "select endpoint from endpoints where org = $1 and number = $2";

impl Postgres {
    pub(in crate::postgres) async fn delivery_get(&self, scope: &Scope, id: DeliveryId) -> Result<DeliveryView> {
        let desk = self.read_at(&self.0.pools.dead_letter, scope.org).await?;
        let view = desk.delivery(id).await;
        desk.end(view).await
    }
}

impl Desk {
    /// One delivery of the organization.
    pub(in crate::postgres) async fn delivery(&self, id: DeliveryId) -> Result<DeliveryView> {
        let (event, run) = self.find_delivery(id).await?;
        self.delivery_views([(&event, run)]).await?.pop().ok_or(Error::NotFound { kind: "delivery" })
    }

    /// A delivery of the organization, taken apart.
    pub(in crate::postgres) async fn find_delivery(&self, id: DeliveryId) -> Result<(EventRow, Run)> {
        const UNKNOWN: Error = Error::NotFound { kind: "delivery" };
        let event = self.event(id.event).await?.ok_or(UNKNOWN)?;
        let Ok(number) = i32::try_from(id.endpoint_number) else { return Err(UNKNOWN) };
        let endpoint = self.transaction.query_one(BY_NUMBER, bind![self.org, number]).await?.ok_or(UNKNOWN)?;
        let endpoint = EndpointKey(get(&endpoint, 0)?);
        let runs = self.runs([&event]).await?.concat();
        let is_it = |run: &Run| run.key.endpoint == endpoint && run.key.run == id.run;
        let run = runs.into_iter().find(is_it).ok_or(UNKNOWN)?;
        Ok((event, run))
    }

    /// Deliveries as their owner sees them.
    pub(in crate::postgres) async fn delivery_views<'a>(
        &self,
        runs: impl IntoIterator<Item = (&'a EventRow, Run)>,
    ) -> Result<Vec<DeliveryView>> {
        let runs: Vec<(&EventRow, Run)> = runs.into_iter().collect();
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = runs.iter().map(|(_, run)| run.key).collect();
        let standings = self.standings(&keys).await?;
        let endpoints = self.endpoints(keys.iter().map(|key| key.endpoint)).await?;
        let view = |((event, run), standing): ((&EventRow, Run), Standing)| {
            let endpoint = endpoints.get(&run.key.endpoint);
            let endpoint = endpoint.ok_or_else(|| broken("an endpoint has deliveries and no row"))?;
            Ok(run.view(event, *endpoint, &standing, &*self.handoff))
        };
        runs.into_iter().zip(standings).map(view).collect()
    }
}
