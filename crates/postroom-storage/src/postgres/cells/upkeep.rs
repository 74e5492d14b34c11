//! What one organization's database can do beside the five traits, and how it is left.
//!
//! The mark `awake` says that somebody may live there or something wait there, so that somebody looks after a crash. It
//! is set by whoever comes in, after its node can be seen there, and cleared by whoever finds nobody and nothing there:
//! but only if nobody has come in since it began to look, which `wakes` tells.

use std::time::Duration;

use async_trait::async_trait;
use foldhash::HashSet;
use postroom_domain::Timestamp;

use super::place::Place;
use super::unavailable;
use crate::Result;
use crate::cells::registry::{CellUpkeep, OrganizationCopy};
use crate::engine::packed::broken;
use crate::postgres::address::Address;
use crate::postgres::configuration::organizations;
use crate::postgres::convert::{at, get, uuid};
use crate::postgres::open::OpenError;
use crate::postgres::pool::{Part, Transaction, bind};
use crate::postgres::{Options, Postgres};

/// How long it may take to look whether somebody is left in a database.
const LOOK: Duration = Duration::from_secs(5);

/// By primary key.
const PLACE: &str = "select url, database, wakes from tenants where cell = $1 and awake";

/// The whole table of nodes; index exceptions_by_state, at its end.
const LEFT: &str = "select exists (select from nodes where state <> 'recovered'), \
     exists (select from exceptions where state = 'waiting')";

/// By primary key.
const SLEEP: &str = "update tenants set awake = false, slept_at = $3 where cell = $1 and wakes = $2";

/// Whether this node is needed: something waits, somebody has died, or somebody accepts events and delivers none.
const NEEDED: &str = "select $1 and (exists (select from exceptions where state = 'waiting') \
     or exists (select from nodes where state = 'dead' or state = 'live' and \
         (lease_until < clock_timestamp() or not delivers)))";

/// The whole table: it has one row.
const OTHERS: &str = "select 1 from organizations where org <> $1 or id <> $2 limit 1";

/// By primary key; nobody else changes it meanwhile.
const PRESENT: &str = "select mandrill_fingerprint, updated_at from organizations where org = $1 for no key update";

/// Unique indexes on id, slug and mandrill_fingerprint decide.
const INSERT: &str = "insert into organizations (org, id, slug, name, plan, webhook_limit, is_active, mandrill_secret, \
     mandrill_fingerprint, created_at, updated_at) overriding system value \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// By primary key.
const UPDATE: &str = "update organizations set slug = $2, name = $3, plan = $4, webhook_limit = $5, is_active = $6, \
     mandrill_secret = $7, mandrill_fingerprint = $8, updated_at = $9 where org = $1";

#[async_trait]
impl CellUpkeep for Postgres {
    async fn organization_put(&self, copy: &OrganizationCopy) -> Result<()> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let put = put(&transaction, copy).await;
        self.shown(transaction.finish(put).await).await
    }

    fn let_go(&self, org: i64) {
        self.0.node.set_away(HashSet::from_iter([org]));
    }

    async fn is_idle(&self) -> Result<bool> {
        let engine = &self.0;
        if engine.lanes.events() > 0 || engine.lanes.settlements() > 0 || !engine.node.is_settled() {
            return Ok(false);
        }
        let connection = engine.pools.worker.connection().await?;
        let row = connection.query_one(NEEDED, bind![engine.options.delivers]).await?;
        Ok(!get::<bool>(&row.ok_or_else(|| broken("an expression has no row"))?, 0)?)
    }
}

/// The copy, unless a newer one is there.
async fn put(transaction: &Transaction, copy: &OrganizationCopy) -> Result<()> {
    if transaction.query_one(OTHERS, bind![copy.org, uuid(copy.id.to_bytes())]).await?.is_some() {
        return Err(broken("the database is another organization's"));
    }
    let present = transaction.query_one(PRESENT, bind![copy.org]).await?;
    let (limit, updated_at) = (copy.webhook_limit.map(u64::cast_signed), at(copy.updated_at));
    let (plan, fingerprint) = (copy.plan.as_str(), copy.mandrill_fingerprint.clone());
    transaction.enter(copy.org).await?;
    let before = match &present {
        Some(row) if get::<std::time::SystemTime>(row, 1)? > updated_at => return Ok(()),
        Some(row) => {
            let values = bind![
                copy.org,
                copy.slug,
                copy.name,
                plan,
                limit,
                copy.is_active,
                copy.mandrill_secret,
                fingerprint,
                updated_at,
            ];
            transaction.execute(UPDATE, values).await?;
            get::<Option<Vec<u8>>>(row, 0)?
        }
        None => {
            let (id, created_at) = (uuid(copy.id.to_bytes()), at(copy.created_at));
            let values = bind![
                copy.org,
                id,
                copy.slug,
                copy.name,
                plan,
                limit,
                copy.is_active,
                copy.mandrill_secret,
                fingerprint,
                created_at,
                updated_at,
            ];
            transaction.execute(INSERT, values).await?;
            None
        }
    };
    if before == fingerprint {
        return Ok(());
    }
    organizations::imply(transaction, copy.org, fingerprint.is_some(), copy.updated_at).await
}

impl Postgres {
    /// Clears the mark of a database that this process has left, if nobody is in it and nothing waits there. If something
    /// waits and nobody is there, whoever delivers is told to look.
    pub(super) async fn put_to_sleep(&self, cell: u32, now: Timestamp) -> Result<()> {
        let cell_number = i64::from(cell);
        let row = self.0.pools.platform.connection().await?.query_one(PLACE, bind![cell_number]).await?;
        let Some(row) = row else { return Ok(()) };
        // Before it is looked: whoever comes in later has counted it up by then.
        let (url, database, wakes): (String, String, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let (lives, waits) = self.left(&url, &database).await.map_err(unavailable)?;
        if lives {
            return Ok(());
        }
        if waits {
            return self.rouse(cell).await;
        }
        let platform = self.0.pools.platform.connection().await?;
        let asleep = platform.execute(SLEEP, bind![cell_number, wakes, at(now)]).await;
        drop(platform);
        self.shown(asleep).await.map(drop)
    }

    /// Whether anybody lives in a database and whether anything waits there, asked on a connection of its own.
    async fn left(&self, url: &str, database: &str) -> Result<(bool, bool), OpenError> {
        let Options { url: shared, part_urls, .. } = &self.0.options;
        let login = part_urls.get(&Part::Platform).unwrap_or(shared);
        let way = Place::read(url, database)?.way(login, shared)?;
        let address = Address::parse(&way)?.within(Some(&self.0.budget));
        let asked = async {
            let (client, _task) = address.connect().await.map_err(OpenError::unreachable)?;
            // One that is its part already may become it, too.
            client.batch_execute(&format!("set role {}", Part::Platform.role())).await?;
            Ok::<_, OpenError>(client.query_typed(LEFT, &[]).await?)
        };
        let rows = tokio::time::timeout(LOOK, asked).await.map_err(|late| OpenError::Database(late.into()))??;
        let row = rows.first().ok_or_else(|| OpenError::Database("an expression has no row".into()))?;
        Ok((get(row, 0)?, get(row, 1)?))
    }
}
