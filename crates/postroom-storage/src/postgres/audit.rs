//! The audit log: entries go behind the newest of their chain, inside the transaction of what they are about. Who writes one
//! holds its chain until the transaction ends; it is the last thing that a transaction does, so that nobody waits there
//! for rows that somebody else holds who waits for the chain.

use postroom_domain::{OrganizationId, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::convert::{at, get, id, moment, uuid};
use super::pool::{Transaction, bind};
use super::rows::Read;
use crate::Result;
use crate::api::{Page, PageRequest};
use crate::audit::{AuditEntry, AuditFilter, ChainReport};
use crate::engine::audit::{self, Act, By, Entry, Head, Walk};
use crate::engine::packed::broken;
use crate::engine::page;
use crate::engine::vault::Vault;

/// "audi" in ASCII and the organization: until the transaction ends nobody else adds to this chain.
const HOLD: &str = "select pg_advisory_xact_lock(1635083369, hashint8($1))";

/// By primary key.
const HEAD: &str = "select number, id, hash from audit_logs where org = $1 and chain = $2 order by number desc limit 1";

/// Appends; the primary key holds the order.
const INSERT: &str = "insert into audit_logs (org, chain, number, id, at, actor, action, resource_type, resource_id, old_values, \
     new_values, address, request_id, previous, hash) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// The columns of [`Entry`].
macro_rules! select_entry {
    ($rest:literal) => {
        concat!(
            "select org, chain, number, id, at, actor, action, resource_type, resource_id, old_values, new_values, address, \
             request_id, previous, hash from ",
            $rest
        )
    };
}

/// The unique index on (org, id), at most so many entries as a page may look at.
const PAGE: &str = select_entry!(
    "(select * from audit_logs where org = $1 and id >= $2 and id < $3 order by id desc limit $4) as looked_at \
     where ($5 is null or actor = $5) and ($6 is null or action = $6) and ($7 is null or resource_type = $7) \
       and ($8 is null or resource_id = $8) order by id desc limit $9"
);

/// The unique index on (org, id): the last entry that a page looks at, if there are so many.
const LAST_SEEN: &str =
    "select id from audit_logs where org = $1 and id >= $2 and id < $3 order by id desc limit 1 offset $4 - 1";

/// Which chains there are, and whose. All of the primary key, as what is done with them reads everything.
const CHAINS: &str = "select chains.org, chains.chain, organizations.id from (select distinct org, chain from audit_logs) as chains \
     left join organizations on organizations.org = chains.org order by chains.org, chains.chain";

/// By primary key.
const CHAIN: &str = select_entry!("audit_logs where org = $1 and chain = $2 and number > $3 order by number limit $4");

impl Read for Entry {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            org: get(row, 0)?,
            chain: id(row, 1)?,
            number: get(row, 2)?,
            id: id(row, 3)?,
            at: moment(row, 4)?,
            actor: get(row, 5)?,
            action: get(row, 6)?,
            resource_type: get(row, 7)?,
            resource_id: get(row, 8)?,
            old_values: get(row, 9)?,
            new_values: get(row, 10)?,
            address: get(row, 11)?,
            request_id: get(row, 12)?,
            previous: get(row, 13)?,
            hash: get(row, 14)?,
        })
    }
}

/// Writes what was done, as the last part of the transaction that does it.
pub(super) async fn write(
    transaction: &Transaction,
    vault: &Vault,
    by: By<'_>,
    act: Act,
    now: Timestamp,
) -> Result<()> {
    let chain = uuid(vault.audit_chain());
    let (bound_org, bound_chain) = (bind![by.org], bind![by.org, chain]);
    // Both are on their way at once; the second sees the database as it is when the first is done.
    let (_, head) = tokio::try_join!(transaction.query(HOLD, bound_org), transaction.query_one(HEAD, bound_chain))?;
    let entry = Entry::after(head.as_ref().map(read_head).transpose()?, vault, by, act, now);
    transaction
        .execute(
            INSERT,
            bind![
                entry.org,
                uuid(entry.chain),
                entry.number,
                uuid(entry.id),
                at(entry.at),
                entry.actor,
                entry.action,
                entry.resource_type,
                entry.resource_id,
                entry.old_values,
                entry.new_values,
                entry.address,
                entry.request_id,
                entry.previous,
                entry.hash,
            ],
        )
        .await?;
    Ok(())
}

fn read_head(row: &Row) -> Result<Head> {
    let hash =
        get::<&[u8]>(row, 2)?.try_into().map_err(|_| broken("the seal of an audit entry is not 32 bytes long"))?;
    Ok(Head { number: get(row, 0)?, id: id(row, 1)?, hash })
}

async fn list(
    transaction: &Transaction,
    org: i64,
    filter: &AuditFilter,
    request: &PageRequest,
) -> Result<Page<AuditEntry>> {
    let (from, below) = audit::bounds(filter, request);
    let (from, below) = (uuid(from), uuid(below));
    let most = i64::try_from(page::limit(request) + 1).unwrap_or(i64::MAX);
    let AuditFilter { actor, action, resource_type, resource_id, .. } = filter;
    let wanted = bind![org, from, below, audit::SCANNED, *actor, *action, *resource_type, *resource_id, most];
    let rows = transaction.query(PAGE, wanted).await?;
    let found = Entry::all(&rows)?.into_iter().map(Entry::view).collect();
    let page = page::cut(request, found, |entry: &AuditEntry| entry.id.to_bytes());
    if page.next.is_some() {
        return Ok(page);
    }
    let last_seen = transaction.query_one(LAST_SEEN, bind![org, from, below, audit::SCANNED]).await?;
    Ok(Page { next: audit::behind(last_seen.map(|row| id(&row, 0)).transpose()?), ..page })
}

impl Postgres {
    pub(in crate::postgres) async fn audit_list(
        &self,
        scope: &crate::Scope,
        filter: AuditFilter,
        request: PageRequest,
    ) -> Result<Page<AuditEntry>> {
        let desk = self.desk(scope.org).await?;
        let found = list(&desk.transaction, scope.org, &filter, &request).await;
        desk.end(found).await
    }

    /// Entries of what is done outside of every organization.
    pub(in crate::postgres) async fn audit_list_of_all(
        &self,
        filter: AuditFilter,
        request: PageRequest,
    ) -> Result<Page<AuditEntry>> {
        let transaction = self.0.pools.platform.snapshot().await?;
        let found = list(&transaction, audit::INSTALLATION, &filter, &request).await;
        transaction.finish(found).await
    }

    /// Goes along all chains, or that of one organization.
    pub(in crate::postgres) async fn audit_check(&self, only: Option<OrganizationId>) -> Result<Vec<ChainReport>> {
        let rows = self.0.pools.platform.connection().await?.query(CHAINS, &[]).await?;
        let mut reports = Vec::new();
        for row in rows {
            let organization = get::<Option<Uuid>>(&row, 2)?.map(|id| OrganizationId::from_bytes(id.into_bytes()));
            if only.is_none() || organization == only {
                reports.push(self.audit_walk(get(&row, 0)?, id(&row, 1)?).await?.report(organization));
            }
        }
        Ok(reports)
    }

    async fn audit_walk(&self, org: i64, chain: [u8; 16]) -> Result<Walk> {
        let mut walk = Walk::along(chain);
        loop {
            let connection = self.0.pools.platform.connection().await?;
            let rows = connection.query(CHAIN, bind![org, uuid(chain), walk.reached(), audit::CHECKED]).await?;
            drop(connection);
            if !walk.over(Entry::all(&rows)?, &self.0.vault) {
                return Ok(walk);
            }
        }
    }
}
