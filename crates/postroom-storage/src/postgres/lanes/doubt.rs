//! What became of a batch whose answer was lost with its connection.
//!
//! The lost statement may have been committed, may be at it, or may not even have reached the server yet. Moving the
//! node's epoch settles that: it waits for a statement that is at it (which holds a key-share lock on the node's row),
//! and one that comes later finds another epoch and writes nothing. After that, what is there of the batch is all there
//! will ever be.

use foldhash::HashSet;
use uuid::Uuid;

use super::batch::{Batch, Why, Written};
use super::line::{Fault, Line};
use crate::Result;
use crate::postgres::convert::{get, uuid};
use crate::postgres::pool::bind;

/// By primary key. Only the lane itself moves its node's epoch, so any epoch is its own.
const MOVE: &str = "with mine as materialized (select node from nodes where node = $1 and state = 'live' for update) \
     update nodes set epoch = epoch + 1 from mine where nodes.node = mine.node returning epoch";

/// By primary key, one step for each.
const STORED: &str = "select events.id, events.tx from unnest($1, $2) as asked (org, id) \
     join events on events.org = asked.org and events.id = asked.id";

/// See the [module](self).
pub(super) enum Found {
    /// It is stored. From here on this is the node's epoch.
    Stored(Written, i64),
    /// Nothing of it is, and nothing of it will be. From here on this is the node's epoch.
    Nothing(i64),
    /// The node is thought dead: whoever recovers it finds what is stored.
    Dead,
}

/// Finds it out, on a new connection.
pub(super) async fn resolve(line: &Line, batch: &Batch) -> Result<Found, Fault> {
    let moved = line.query(MOVE, bind![batch.by.node]).await?;
    let Some(row) = moved.first() else { return Ok(Found::Dead) };
    let epoch: i64 = get(row, 0)?;
    let orgs: Vec<i64> = batch.entries.iter().map(|entry| entry.record.org).collect();
    let ids: Vec<Uuid> = batch.entries.iter().map(|entry| uuid(entry.id.to_bytes())).collect();
    let rows = line.query(STORED, bind![orgs, ids]).await?;
    let Some(row) = rows.first() else { return Ok(Found::Nothing(epoch)) };
    let tx: i64 = get(row, 1)?;
    let stored: HashSet<Uuid> = rows.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let missing = ids.iter().enumerate().filter(|(_, id)| !stored.contains(*id));
    Ok(Found::Stored(Written { tx, left_out: missing.map(|(at, _)| (at, Why::Unknown)).collect() }, epoch))
}
