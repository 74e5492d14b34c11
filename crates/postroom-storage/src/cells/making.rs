//! Making an organization with a database of its own, in steps that can each be made again.
//!
//! 1. organization and registry row, not initialized, in one transaction
//! 2. the database, 3. its migrations
//! 4. the copy of the organization, then its first endpoint
//! 5. the API key and `initialize`, in one transaction
//!
//! A process that dies in between leaves a row that is not initialized: nobody has a key of that organization, and it
//! answers 503. The same request made again goes on from there.

use std::sync::Arc;

use postroom_domain::{EndpointId, Timestamp};

use super::place::Open;
use super::registry::TenantRow;
use super::{Cells, Router};
use crate::api::PageRequest;
use crate::error::Unique;
use crate::platform::{NewTenant, Tenant};
use crate::{Error, Result, Scope, SuperAdmin};

/// As many as one page holds.
const PAGE: usize = 250;

impl Router {
    /// Makes an organization in a database of its own. A task of its own does it: a caller that goes away leaves nothing
    /// half made.
    pub(super) async fn make(&self, by: SuperAdmin, new: NewTenant, now: Timestamp) -> Result<Tenant> {
        let cells = self.cells.clone();
        let task = tokio::spawn(async move {
            let slug = new.organization.slug.clone();
            let _alone = Making::begin(&cells, slug)?;
            make(&cells, by, &new, now).await
        });
        task.await.map_err(|ended| Error::Internal(ended.into()))?
    }
}

async fn make(cells: &Arc<Cells>, by: SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<Tenant> {
    let tenant = cells.registry.tenant_begin(&by, new, now).await?;
    cells.registry.tenant_build(&tenant).await?;
    cells.refresh().await?;
    let place = cells.of(tenant.organization);
    let place = place.ok_or_else(|| Error::Internal("the database that is made is not in the registry".into()))?;
    let open = place.enter_unfinished(cells).await?;
    // One that was begun before has a copy of what was asked for then.
    cells.copy_organization(&open, tenant.org).await?;
    let scope = tenant.scope(&by);
    forget_endpoints(&open, &scope, now).await?;
    let endpoint = match &new.endpoint {
        Some(endpoint) => Some(open.api.endpoint_create(&scope, endpoint.clone(), now).await?),
        None => None,
    };
    match cells.registry.tenant_finish(&tenant, &scope, new, now).await {
        Ok((organization, api_key)) => {
            cells.refresh().await?;
            Ok(Tenant { organization, scope, api_key, endpoint })
        }
        Err(error) => {
            if let Some(endpoint) = endpoint {
                take_back(&open, &scope, &tenant, endpoint.id, now).await;
            }
            Err(error)
        }
    }
}

/// Endpoints of an earlier try: whoever asked for them never learned their secrets.
async fn forget_endpoints(open: &Open, scope: &Scope, now: Timestamp) -> Result<()> {
    let earlier = open.api.endpoint_list(scope, PageRequest { limit: PAGE, after: None }).await?;
    for endpoint in earlier.data {
        open.api.endpoint_delete(scope, endpoint.id, now).await?;
    }
    Ok(())
}

/// Somebody else has finished it: what this call made in there must not stay.
async fn take_back(open: &Open, scope: &Scope, tenant: &TenantRow, endpoint: EndpointId, now: Timestamp) {
    if let Err(error) = open.api.endpoint_delete(scope, endpoint, now).await {
        let organization = tenant.organization;
        tracing::warn!(organization.id = %organization, endpoint.id = %endpoint, %error, "an endpoint of a request that failed could not be deleted");
    }
}

/// In one process a slug is made by one call at a time.
struct Making {
    cells: Arc<Cells>,
    slug: String,
}

impl Making {
    fn begin(cells: &Arc<Cells>, slug: String) -> Result<Self> {
        if !cells.making.lock().insert(slug.clone()) {
            return Err(Error::Taken { field: Unique::OrganizationSlug });
        }
        Ok(Self { cells: cells.clone(), slug })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.cells.making.lock().remove(&self.slug);
    }
}
