//! The registry: which organizations have a database of their own, kept by the platform's part in the shared one.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::{OrganizationId, TenantId, Timestamp};
use tokio_postgres::Row;

use super::unavailable;
use crate::api::ApiKeyView;
use crate::cells::registry::{Cell, Moving, OrganizationCopy, Registry, TenantRow, Tenants};
use crate::engine::packed::broken;
use crate::platform::{NewTenant, Organization};
use crate::postgres::convert::{at, get, id, moment, moment_or_none, word};
use crate::postgres::pool::bind;
use crate::postgres::{Mode, Postgres, migrate};
use crate::{Handoff, Result, Scope, SuperAdmin};

macro_rules! select_tenant {
    ($rest:literal) => {
        concat!(
            "select cell, tenants.id, org_id, organizations.id, slug, updated_at, initialize, url, database, \
                 migration_version, awake, wakes, slept_at, begun from tenants join organizations on org = org_id ",
            $rest
        )
    };
}

/// The whole registry.
const ALL: &str = select_tenant!("order by cell");

/// The whole table, which is nearly always empty but for those who have moved away.
const MOVING: &str = "select org, organizations.id, slug, move from moves join organizations using (org) \
     where move is not null order by org";

/// By the primary keys of both. For a node that is thought dead nobody waits.
const LET_GO: &str = "update moves set acks = acks || $3 where org = $1 and move = $2 and not acks @> array[$3] \
     and exists (select from nodes where node = $3 and state = 'live')";

/// By the unique index on slug; nobody else makes it meanwhile.
pub(super) const BY_SLUG: &str = select_tenant!("where slug = $1 for no key update of tenants");

/// By the unique index on org_id.
pub(super) const BY_ORG: &str = select_tenant!("where org_id = $1");

/// By primary key.
const WAKE: &str = "update tenants set awake = true, wakes = wakes + 1 where cell = $1";

/// By primary key.
const VERSION: &str = "update tenants set migration_version = $2 where cell = $1";

/// By primary key. Never less than is known: what arrives late is older.
const USAGE: &str = "insert into usage as usage (org, month, count) values ($1, $2, $3) \
     on conflict (org, month) do update set count = greatest(usage.count, excluded.count)";

/// By primary key.
const ORGANIZATION: &str = "select id, slug, name, plan, webhook_limit, is_active, mandrill_fingerprint, created_at, \
     updated_at from organizations where org = $1";

/// By primary key. The platform may not read it.
const MANDRILL: &str = "select mandrill_secret from organizations where org = $1";

pub(super) fn tenant(row: &Row) -> Result<TenantRow> {
    Ok(TenantRow {
        cell: u32::try_from(get::<i64>(row, 0)?).map_err(|_| broken("a cell's number is out of its range"))?,
        id: TenantId::from_bytes(id(row, 1)?),
        org: get(row, 2)?,
        organization: OrganizationId::from_bytes(id(row, 3)?),
        slug: get::<&str>(row, 4)?.into(),
        updated_at: moment(row, 5)?,
        initialize: get(row, 6)?,
        url: get(row, 7)?,
        database: get(row, 8)?,
        migration_version: get(row, 9)?,
        awake: get(row, 10)?,
        wakes: get(row, 11)?,
        slept_at: moment_or_none(row, 12)?,
        begun: get(row, 13)?,
    })
}

fn moving(row: &Row) -> Result<Moving> {
    let organization = OrganizationId::from_bytes(id(row, 1)?);
    Ok(Moving { org: get(row, 0)?, organization, slug: get::<&str>(row, 2)?.into(), id: get(row, 3)? })
}

#[async_trait]
impl Registry for Postgres {
    async fn tenants(&self, seen: Option<i64>) -> Result<Option<Tenants>> {
        // Read before the rows, which are as new or newer. A command does not follow the database: it always reads.
        let revision = self.0.directories.revision();
        if self.0.options.mode == Mode::Serve && seen == Some(revision) {
            return Ok(None);
        }
        let transaction = self.0.pools.platform.snapshot().await?;
        let (rows, moves) = tokio::try_join!(transaction.query(ALL, &[]), transaction.query(MOVING, &[]))?;
        transaction.commit().await?;
        let rows: Vec<TenantRow> = rows.iter().map(tenant).collect::<Result<_>>()?;
        let moving: Vec<Moving> = moves.iter().map(moving).collect::<Result<_>>()?;
        if self.0.options.mode == Mode::Serve {
            // Whoever has come here is seen with all that came with it before anything is accepted.
            self.0.directories.look().await?;
        }
        let away = rows.iter().map(|row| row.org).chain(moving.iter().map(|moving| moving.org));
        self.0.node.set_away(away.collect());
        Ok(Some(Tenants { revision, rows, moving }))
    }

    fn awake_at_most(&self) -> usize {
        self.0.budget.awake()
    }

    async fn tenant_begin(&self, by: &SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<TenantRow> {
        self.begin_tenant(by, new, now).await
    }

    async fn tenant_build(&self, tenant: &TenantRow) -> Result<()> {
        self.build_tenant(tenant).await.map_err(unavailable)
    }

    async fn tenant_finish(
        &self,
        tenant: &TenantRow,
        scope: &Scope,
        new: &NewTenant,
        now: Timestamp,
    ) -> Result<(Organization, ApiKeyView)> {
        self.finish_tenant(tenant, scope, new, now).await
    }

    async fn organization_copy(&self, org: i64) -> Result<OrganizationCopy> {
        let missing = || crate::Error::NotFound { kind: "organization" };
        let row = self.0.pools.platform.connection().await?.query_one(ORGANIZATION, bind![org]).await?;
        let row = row.ok_or_else(missing)?;
        // Second: a secret that is newer than `updated_at` says is copied again, one that is older would stay.
        let secret = self.0.pools.receiver.connection().await?.query_one(MANDRILL, bind![org]).await?;
        Ok(OrganizationCopy {
            org,
            id: OrganizationId::from_bytes(id(&row, 0)?),
            slug: get(&row, 1)?,
            name: get(&row, 2)?,
            plan: word(&row, 3)?,
            webhook_limit: get::<Option<i64>>(&row, 4)?.map(i64::cast_unsigned),
            is_active: get(&row, 5)?,
            mandrill_secret: get(&secret.ok_or_else(missing)?, 0)?,
            mandrill_fingerprint: get(&row, 6)?,
            created_at: moment(&row, 7)?,
            updated_at: moment(&row, 8)?,
        })
    }

    async fn cell_open(&self, tenant: &TenantRow, handoff: Arc<dyn Handoff>) -> Result<Cell> {
        self.open_cell(tenant, handoff).await.map_err(unavailable)
    }

    async fn cell_wake(&self, cell: u32) -> Result<()> {
        // A server does it when its node can be seen there: whoever looks in before sees neither it nor the mark.
        match self.0.options.mode {
            Mode::Serve => Ok(()),
            Mode::Beside => self.rouse(cell).await,
        }
    }

    async fn cell_sleep(&self, cell: u32, _wakes: i64, now: Timestamp) -> Result<()> {
        self.put_to_sleep(cell, now).await
    }

    async fn let_go(&self, moving: &Moving) -> Result<bool> {
        // A command is no node: the fence alone holds it.
        let Some(me) = self.0.node.identity() else { return Ok(true) };
        let is_without = self.0.lanes.is_without(moving.org).await?;
        if is_without {
            let worker = self.0.pools.worker.connection().await?;
            worker.execute(LET_GO, bind![moving.org, moving.id, me.node]).await?;
        }
        Ok(is_without)
    }

    async fn usage_put(&self, org: i64, events: u64, now: Timestamp) -> Result<()> {
        let month = at(now.month().0);
        self.0.pools.worker.connection().await?.execute(USAGE, bind![org, month, events.cast_signed()]).await?;
        Ok(())
    }
}

impl Postgres {
    /// Marks a database as one in which somebody may live or something wait.
    pub(super) async fn rouse(&self, cell: u32) -> Result<()> {
        let marked = self.0.pools.platform.connection().await?.execute(WAKE, bind![i64::from(cell)]).await;
        self.shown(marked).await.map(drop)
    }

    /// Notes that a database has all migrations of this program.
    pub(super) async fn note_version(&self, cell: u32) -> Result<()> {
        let newest = i64::try_from(migrate::NEWEST).unwrap_or(i64::MAX);
        self.0.pools.platform.connection().await?.execute(VERSION, bind![i64::from(cell), newest]).await?;
        Ok(())
    }
}
