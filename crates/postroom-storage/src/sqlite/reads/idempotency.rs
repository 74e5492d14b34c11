//! Answers kept for an `Idempotency-Key`, so that a repeated request is answered the same and not done again.
//!
//! The row is claimed in a transaction of the writer before the request is done, and so a second one that comes
//! meanwhile sees it.

use postroom_domain::Timestamp;
use rusqlite::{Row, params};

use crate::Result;
use crate::api::{Idempotency, IdempotencyClaim, StoredAnswer};
use crate::engine::idempotency::{Claimed, Owner};
use crate::engine::vault::Vault;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::moment;
use crate::sqlite::rows;

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

impl Claimed {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let answer = match (row.get(2)?, row.get(3)?) {
            (Some(status), Some(body)) => Some((status, body)),
            _ => None,
        };
        Ok(Self { request_hash: row.get(0)?, claimed_at: moment(row, 1)?, answer })
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
    let known = rows::one(connection, FIND, &[&owner.org, &claim.key], Claimed::read)?;
    if let Some(claimed) = known.filter(|claimed| !claimed.is_over(now)) {
        return claimed.known(vault, owner, claim);
    }
    connection.prepare_cached(CLAIM)?.execute(params![owner.org, claim.key, claim.request_hash, now.as_millis()])?;
    Ok(Idempotency::New)
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
    let sealed = owner.seal(vault, &claim.key, answer);
    let values = params![owner.org, claim.key, claim.request_hash, answer.status, sealed];
    connection.prepare_cached(ANSWER)?.execute(values)?;
    Ok(())
}
