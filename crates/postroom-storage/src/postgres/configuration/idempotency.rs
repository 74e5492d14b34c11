//! Answers kept for an `Idempotency-Key`, so that a repeated request is answered the same and not done again.
//!
//! The row is claimed before the request is done: a second one that comes meanwhile, at whatever node, sees it or waits
//! for it.

use postroom_domain::Timestamp;

use crate::api::{Idempotency, IdempotencyClaim, StoredAnswer};
use crate::engine::idempotency::{Claimed, Owner};
use crate::engine::packed::broken;
use crate::engine::vault::Vault;
use crate::postgres::Postgres;
use crate::postgres::convert::{at, get, moment};
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::rows::Read;
use crate::{Error, Result, Scope};

/// How often a key is looked for that others take and give back at the same time.
const TRIES: usize = 5;

/// By primary key.
const CLAIM: &str = "insert into idempotency_keys (org, key, request_hash, claimed_at) values ($1, $2, $3, $4) \
     on conflict (org, key) do nothing";

/// By primary key; nobody else claims it meanwhile.
const FIND: &str = "select org, key, request_hash, claimed_at, status, body from idempotency_keys \
     where org = $1 and key = $2 for update";

/// By primary key.
const CLAIM_AGAIN: &str = "update idempotency_keys set request_hash = $3, claimed_at = $4, status = null, body = null \
     where org = $1 and key = $2";

/// By primary key. A claim that was given up and taken by another request is not touched.
const ANSWER: &str = "update idempotency_keys set status = $4, body = $5 \
     where org = $1 and key = $2 and request_hash = $3 and status is null";

/// By primary key.
const GIVE_BACK: &str =
    "delete from idempotency_keys where org = $1 and key = $2 and request_hash = $3 and status is null";

impl Postgres {
    pub(in crate::postgres) async fn idempotency_begin(
        &self,
        scope: &Scope,
        claim: IdempotencyClaim,
        now: Timestamp,
    ) -> Result<Idempotency> {
        let desk = self.desk(scope.org).await?;
        let begun = begin(&desk.transaction, &self.0.vault, scope.into(), &claim, now).await;
        desk.end(begun).await
    }

    pub(in crate::postgres) async fn idempotency_finish(
        &self,
        scope: &Scope,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        _now: Timestamp,
    ) -> Result<()> {
        let desk = self.desk(scope.org).await?;
        let finished = finish(&desk.transaction, &self.0.vault, scope.into(), &claim, answer.as_ref()).await;
        desk.end(finished).await
    }
}

impl Read for Claimed {
    fn read(row: &tokio_postgres::Row) -> Result<Self> {
        let answer = match (get::<Option<i16>>(row, 4)?, get::<Option<Vec<u8>>>(row, 5)?) {
            (Some(status), Some(body)) => Some((status.cast_unsigned(), body)),
            _ => None,
        };
        let hash = get::<&[u8]>(row, 2)?.try_into().map_err(|_| broken("a hash is not 32 bytes long"))?;
        Ok(Self { request_hash: hash, claimed_at: moment(row, 3)?, answer })
    }
}

/// Claims a key, or says what is known of it.
pub(in crate::postgres) async fn begin(
    transaction: &Transaction,
    vault: &Vault,
    owner: Owner,
    claim: &IdempotencyClaim,
    now: Timestamp,
) -> Result<Idempotency> {
    let (hash, claimed_at) = (claim.request_hash.to_vec(), at(now));
    let values = bind![owner.org, claim.key, hash, claimed_at];
    for _ in 0..TRIES {
        if transaction.execute(CLAIM, values).await? > 0 {
            return Ok(Idempotency::New);
        }
        // Given back in between: it can be claimed.
        let Some(row) = transaction.query_one(FIND, bind![owner.org, claim.key]).await? else { continue };
        let claimed = Claimed::read(&row)?;
        if !claimed.is_over(now) {
            return claimed.known(vault, owner, claim);
        }
        transaction.execute(CLAIM_AGAIN, values).await?;
        return Ok(Idempotency::New);
    }
    Err(Error::Overloaded)
}

/// Stores the answer of a claimed key, or gives the claim back.
pub(in crate::postgres) async fn finish(
    transaction: &Transaction,
    vault: &Vault,
    owner: Owner,
    claim: &IdempotencyClaim,
    answer: Option<&StoredAnswer>,
) -> Result<()> {
    let hash = claim.request_hash.to_vec();
    let Some(answer) = answer else {
        transaction.execute(GIVE_BACK, bind![owner.org, claim.key, hash]).await?;
        return Ok(());
    };
    let sealed = owner.seal(vault, &claim.key, answer);
    let status = answer.status.cast_signed();
    transaction.execute(ANSWER, bind![owner.org, claim.key, hash, status, sealed]).await?;
    Ok(())
}
