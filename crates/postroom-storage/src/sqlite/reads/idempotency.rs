//! Answers kept for an `Idempotency-Key`, so that a repeated request is answered the same and not done again.
//!
//! The row is claimed in a transaction of the writer before the request is done, and so a second one that comes
//! meanwhile sees it.

use std::time::Duration;

use bytes::Bytes;
use postroom_domain::{OrganizationId, Secret, Timestamp};
use rusqlite::params;

use crate::api::{Idempotency, IdempotencyClaim, StoredAnswer};
use crate::engine::vault::{Vault, stored_answer};
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{broken, moment};
use crate::sqlite::rows;
use crate::{Result, Scope};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a claim holds whose request was never finished: its process may have died.
const HELD: Duration = Duration::from_secs(60);

/// By primary key.
const FIND: &str = "select request_hash, claimed_at, status, body from idempotency where org = ?1 and key = ?2";

/// By primary key; writes index idempotency_by_age.
const CLAIM: &str = "insert into idempotency (org, key, request_hash, claimed_at) values (?1, ?2, ?3, ?4) \
     on conflict (org, key) do update set request_hash = excluded.request_hash, claimed_at = excluded.claimed_at, \
     status = null, body = null";

/// By primary key. A claim that was given up and taken by another request is not touched.
const ANSWER: &str = "update idempotency set status = ?4, body = ?5 \
     where org = ?1 and key = ?2 and request_hash = ?3 and status is null";

/// By primary key.
const GIVE_BACK: &str = "delete from idempotency where org = ?1 and key = ?2 and request_hash = ?3 and status is null";

/// Whose keys: an organization's, or [`NOBODY`]'s.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) struct Owner {
    org: i64,
    organization: Option<OrganizationId>,
}

/// The installation itself: a super admin outside of every organization.
pub(in crate::sqlite) const NOBODY: Owner = Owner { org: 0, organization: None };

impl Owner {
    /// What stored answers are sealed for.
    fn bytes(self) -> [u8; 16] {
        self.organization.map_or([0; 16], OrganizationId::to_bytes)
    }
}

impl From<&Scope> for Owner {
    fn from(scope: &Scope) -> Self {
        Self { org: scope.org, organization: Some(scope.organization) }
    }
}

struct Row {
    request_hash: [u8; 32],
    claimed_at: Timestamp,
    answer: Option<(u16, Vec<u8>)>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let answer = match (row.get(2)?, row.get(3)?) {
            (Some(status), Some(body)) => Some((status, body)),
            _ => None,
        };
        Ok(Self { request_hash: row.get(0)?, claimed_at: moment(row, 1)?, answer })
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.claimed_at) >= if self.answer.is_some() { KEPT } else { HELD }
    }
}

/// Claims a key, or says what is known of it.
pub(in crate::sqlite) fn begin(
    connection: &Connection,
    vault: &Vault,
    owner: Owner,
    claim: &IdempotencyClaim,
    now: Timestamp,
) -> Result<Idempotency> {
    let known = rows::one(connection, FIND, &[&owner.org, &claim.key], Row::read)?;
    let Some(row) = known.filter(|row| !row.is_over(now)) else {
        let values = params![owner.org, claim.key, claim.request_hash, now.as_millis()];
        connection.prepare_cached(CLAIM)?.execute(values)?;
        return Ok(Idempotency::New);
    };
    if row.request_hash != claim.request_hash {
        return Ok(Idempotency::Reused);
    }
    let Some((status, sealed)) = row.answer else { return Ok(Idempotency::InProgress) };
    let body = vault
        .open_secret(stored_answer(&owner.bytes(), &claim.key), &sealed)
        .map_err(|error| broken(format!("a stored answer cannot be read: {error}")))?;
    Ok(Idempotency::Answered(StoredAnswer { status, body: Bytes::copy_from_slice(body.expose()) }))
}

/// Stores the answer of a claimed key, or gives the claim back.
pub(in crate::sqlite) fn finish(
    connection: &Connection,
    vault: &Vault,
    owner: Owner,
    claim: &IdempotencyClaim,
    answer: Option<&StoredAnswer>,
) -> Result<()> {
    let Some(answer) = answer else {
        connection.prepare_cached(GIVE_BACK)?.execute(params![owner.org, claim.key, claim.request_hash])?;
        return Ok(());
    };
    // It may show a secret that is shown once.
    let place = owner.bytes();
    let sealed = vault.keyring.seal(stored_answer(&place, &claim.key), &Secret::new(&*answer.body));
    let values = params![owner.org, claim.key, claim.request_hash, answer.status, sealed];
    connection.prepare_cached(ANSWER)?.execute(values)?;
    Ok(())
}
