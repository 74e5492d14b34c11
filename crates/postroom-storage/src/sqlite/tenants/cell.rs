//! A database of one organization, as the router needs it.

use async_trait::async_trait;
use postroom_domain::OrganizationId;

use crate::Result;
use crate::cells::registry::{CellUpkeep, OrganizationCopy, TenantRow};
use crate::sqlite::configuration::organizations;
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::sqlite::{Changed, Sqlite, rows};

/// By primary key.
const IDENTITY: &str = "select id from organization where org = ?1";

#[async_trait]
impl CellUpkeep for Sqlite {
    async fn organization_put(&self, copy: &OrganizationCopy) -> Result<()> {
        let copy = copy.clone();
        self.configure(Part::Platform, move |connection, _| {
            organizations::put(connection, &copy)?;
            Ok(Changed { org: copy.org, wake: Vec::new(), value: () })
        })
        .await
    }

    async fn is_idle(&self) -> Result<bool> {
        let queue = &self.0.writer.queue;
        Ok(self.0.health.is_at_rest() && queue.events() == 0 && queue.settlements() == 0)
    }
}

impl Sqlite {
    /// Whether the organization of a tenant lives here.
    pub(super) async fn holds(&self, tenant: &TenantRow) -> Result<bool> {
        let (org, id) = (tenant.org, tenant.organization);
        let read = move |connection: &Connection| {
            Ok(rows::one(connection, IDENTITY, &[&org], |row| row.get(0))?.map(OrganizationId::from_bytes) == Some(id))
        };
        self.0.readers.read(Part::Platform, read).await
    }
}
