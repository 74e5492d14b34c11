//! The audit log: entries go behind the newest of their chain, inside the transaction of what they are about. The file
//! has one writer at a time, so nobody else can have put one there since.

use rusqlite::{Row, params};

use super::connection::Connection;
use super::convert::moment;
use super::{Sqlite, rows};
use crate::Result;
use crate::api::{Page, PageRequest};
use crate::audit::{AuditEntry, AuditFilter, ChainReport};
use crate::engine::audit::{self, Act, By, Entry, Head, Walk};
use crate::engine::page;
use crate::engine::vault::Vault;
use crate::sqlite::grants::Part;
use postroom_domain::{OrganizationId, Timestamp};

/// By primary key.
const HEAD: &str = "select number, id, hash from audit where org = ?1 and chain = ?2 order by number desc limit 1";

/// Appends; the primary key holds the order.
const INSERT: &str = "insert into audit (org, chain, number, id, at, actor, action, resource_type, resource_id, old_values, \
     new_values, address, request_id, previous, hash) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";

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

/// Index audit_by_id, at most so many entries as a page may look at.
const PAGE: &str = select_entry!(
    "(select * from audit where org = ?1 and id >= ?2 and id < ?3 order by id desc limit ?4) \
     where (?5 is null or actor = ?5) and (?6 is null or action = ?6) and (?7 is null or resource_type = ?7) \
       and (?8 is null or resource_id = ?8) order by id desc limit ?9"
);

/// Index audit_by_id: the last entry that a page looks at, if there are so many.
const LAST_SEEN: &str =
    "select id from audit where org = ?1 and id >= ?2 and id < ?3 order by id desc limit 1 offset ?4 - 1";

/// Which chains there are, and whose. All of the primary key, as what is done with them reads everything.
const CHAINS: &str = "select chains.org, chains.chain, organization.id from (select distinct org, chain from audit) as chains \
     left join organization on organization.org = chains.org order by chains.org, chains.chain";

/// By primary key.
const CHAIN: &str = select_entry!("audit where org = ?1 and chain = ?2 and number > ?3 order by number limit ?4");

fn read(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        org: row.get(0)?,
        chain: row.get(1)?,
        number: row.get(2)?,
        id: row.get(3)?,
        at: moment(row, 4)?,
        actor: row.get(5)?,
        action: row.get(6)?,
        resource_type: row.get(7)?,
        resource_id: row.get(8)?,
        old_values: row.get(9)?,
        new_values: row.get(10)?,
        address: row.get(11)?,
        request_id: row.get(12)?,
        previous: row.get(13)?,
        hash: row.get(14)?,
    })
}

/// Writes what was done, as part of the transaction that does it.
pub(super) fn write(connection: &Connection, vault: &Vault, by: By<'_>, act: Act, now: Timestamp) -> Result<()> {
    let head = rows::one(connection, HEAD, &[&by.org, &vault.audit_chain()], |row| {
        Ok(Head { number: row.get(0)?, id: row.get(1)?, hash: row.get(2)? })
    })?;
    let entry = Entry::after(head, vault, by, act, now);
    connection.prepare_cached(INSERT)?.execute(params![
        entry.org,
        entry.chain,
        entry.number,
        entry.id,
        entry.at.as_millis(),
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
    ])?;
    Ok(())
}

fn list(connection: &Connection, org: i64, filter: &AuditFilter, request: &PageRequest) -> Result<Page<AuditEntry>> {
    let (from, below) = audit::bounds(filter, request);
    let most = i64::try_from(page::limit(request) + 1).unwrap_or(i64::MAX);
    let AuditFilter { actor, action, resource_type, resource_id, .. } = filter;
    let found = rows::all(
        connection,
        PAGE,
        &[&org, &from, &below, &audit::SCANNED, actor, action, resource_type, resource_id, &most],
        read,
    )?;
    let page = page::cut(request, found.into_iter().map(Entry::view).collect(), |entry| entry.id.to_bytes());
    if page.next.is_some() {
        return Ok(page);
    }
    let last_seen = rows::one(connection, LAST_SEEN, &[&org, &from, &below, &audit::SCANNED], |row| row.get(0))?;
    Ok(Page { next: audit::behind(last_seen), ..page })
}

impl Sqlite {
    /// Entries of a chain, newest first.
    pub(super) async fn audit_page(
        &self,
        part: Part,
        org: i64,
        filter: AuditFilter,
        request: PageRequest,
    ) -> Result<Page<AuditEntry>> {
        self.read(part, org, move |connection| list(connection, org, &filter, &request)).await
    }

    /// Goes along all chains, or that of one organization.
    pub(super) async fn audit_check(&self, only: Option<OrganizationId>) -> Result<Vec<ChainReport>> {
        let chains = self
            .read(Part::Platform, audit::INSTALLATION, |connection| {
                let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<[u8; 16]>>(2)?));
                Ok(rows::all(connection, CHAINS, &[], read)?)
            })
            .await?;
        let mut reports = Vec::new();
        for (org, chain, id) in chains {
            let organization = id.map(OrganizationId::from_bytes);
            if only.is_none() || organization == only {
                reports.push(self.audit_walk(org, chain).await?.report(organization));
            }
        }
        Ok(reports)
    }

    async fn audit_walk(&self, org: i64, chain: [u8; 16]) -> Result<Walk> {
        let mut walk = Walk::along(chain);
        loop {
            let reached = walk.reached();
            let next = move |connection: &Connection| {
                Ok(rows::all(connection, CHAIN, &[&org, &chain, &reached, &audit::CHECKED], read)?)
            };
            let entries = self.read(Part::Platform, audit::INSTALLATION, next).await?;
            if !walk.over(entries, &self.0.vault) {
                return Ok(walk);
            }
        }
    }
}
