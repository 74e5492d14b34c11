//! A batch with events of organizations that have a limit: one transaction of two round trips, in which the month's
//! count is locked before anything is decided, so that exactly as many are accepted as there may be, over all nodes.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashSet};
use uuid::Uuid;

use super::batch::{Batch, Guards, Why, Written};
use super::line::{Fault, Line};
use crate::postgres::convert::{at, get};
use crate::postgres::pool::bind;
use crate::{Error, Result};

/// By primary key. Writes nothing new, but locks the rows.
const LOCK: &str = "insert into usage as usage (org, month, count) \
     select org, $2, 0 from unnest($1) as org order by org \
     on conflict (org, month) do update set count = usage.count returning org, count";

/// By primary key.
const GUARD: &str = "insert into duplicate_guard as guard (org, hash, event) \
     select unnest($1), unnest($2), unnest($3) \
     on conflict (org, hash) do update set event = excluded.event where guard.event < $4 returning event";

/// By primary key.
const UNGUARD: &str = "delete from duplicate_guard as guard using (select unnest($1) as org, unnest($2) as hash) as over \
     where guard.org = over.org and guard.hash = over.hash";

/// Writes a batch; `None` if it was not let in.
pub(super) async fn write(line: &Line, batch: &Batch) -> Result<Option<Written>, Fault> {
    let written = transact(line, batch).await;
    if !matches!(written, Ok(Some(_)) | Err(Fault::Lost(_))) {
        line.run("rollback").await?;
    }
    written
}

async fn transact(line: &Line, batch: &Batch) -> Result<Option<Written>, Fault> {
    let limits = batch.limited();
    let orgs: Vec<i64> = limits.keys().copied().collect();
    let month = at(batch.now.month().0);
    let guards = batch.guards(true);
    let lock = bind![orgs, month];
    let guard = bind![guards.orgs, guards.hashes, guards.events, batch.floor];
    let (_, locked, guarded) =
        tokio::try_join!(biased; line.run("begin"), line.write(LOCK, lock), line.write(GUARD, guard))?;
    let counted: HashMap<i64, i64> =
        locked.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<_>>()?;
    let guarded: HashSet<Uuid> = guarded.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let left = limits.iter().map(|(org, limit)| {
        let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
        (*org, limit.saturating_sub(counted.get(org).copied().unwrap_or(0)))
    });
    let (left_out, counts) = decide(batch, &guarded, left.collect());
    let over = left_out.iter().filter(|(_, why)| **why == Why::Over);
    let (orgs, hashes): (Vec<i64>, Vec<Uuid>) = over.filter_map(|(at, _)| batch.entries.get(*at)?.hash()).unzip();
    if !orgs.is_empty() {
        line.query(UNGUARD, bind![orgs, hashes]).await?;
    }
    let (none, values) = (Guards::default(), batch.values(&Guards::default(), &left_out));
    let answer = values.write(line, batch, &none, &counts).await?;
    if !answer.is_alive {
        return Ok(None);
    }
    line.run("commit").await?;
    Ok(Some(Written { tx: answer.tx, left_out }))
}

/// Which entries are not stored, and how many are counted for whom.
fn decide(
    batch: &Batch,
    guarded: &HashSet<Uuid>,
    mut left: BTreeMap<i64, i64>,
) -> (HashMap<usize, Why>, (Vec<i64>, Vec<i64>)) {
    let duplicates = batch.duplicates(guarded);
    let mut left_out: HashMap<usize, Why> = duplicates.into_iter().map(|at| (at, Why::Duplicate)).collect();
    let mut counts = BTreeMap::new();
    let mut at = 0;
    // What stands or falls together: one event, or the set that it is of.
    for together in batch.entries.chunk_by(|one, next| one.set.is_some() && one.set == next.set) {
        let places = at..at + together.len();
        at = places.end;
        let Some(org) = together.first().filter(|entry| entry.limit().is_some()).map(|entry| entry.record.org) else {
            continue;
        };
        let fresh: Vec<usize> = places.filter(|at| !left_out.contains_key(at)).collect();
        let (left, more) = (left.entry(org).or_default(), i64::try_from(fresh.len()).unwrap_or(i64::MAX));
        if more > *left {
            left_out.extend(fresh.into_iter().map(|at| (at, Why::Over)));
        } else {
            *left -= more;
            *counts.entry(org).or_insert(0) += more;
        }
    }
    (left_out, counts.into_iter().unzip())
}

// A refusal leaves the transaction to be rolled back; an error of reading an answer is this program's own.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}
