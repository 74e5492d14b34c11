//! What a stream missed while its reader was away, from the log: in steps of whole transactions, and not from further
//! back than a bound.

use super::poller::{Polled, attempt, event};
use super::{Happened, Item, Mark, placed};
use crate::Result;
use crate::postgres::Postgres;
use crate::postgres::convert::get;
use crate::postgres::pool::bind;

/// How many rows of each kind are read in one step.
const STEP: i64 = 1_024;
/// How many rows of each kind, of all organizations, a stream goes back at most.
const BACK: i64 = 50_000;

/// Index: events_by_tx, from its newest end.
const EVENTS_BACK: &str = "select tx from events where tx >= $1 and tx < $2 order by tx desc offset $3 limit 1";

/// Index: attempts_by_tx, from its newest end.
const ATTEMPTS_BACK: &str = "select tx from attempts where tx >= $1 and tx < $2 order by tx desc offset $3 limit 1";

/// Index: events_by_tx.
const EVENTS: &str = "select tx, id from events where org = $1 and tx >= $2 and tx < $3 order by tx limit $4";

/// Index: attempts_by_tx.
const ATTEMPTS: &str = "select tx, id, event, endpoint, run from attempts \
     where org = $1 and tx >= $2 and tx < $3 order by tx limit $4";

/// What is still to be read.
pub(super) struct Behind {
    from: Mark,
    /// Only what was written before this transaction.
    upto: i64,
    is_cut: bool,
}

impl Behind {
    /// From where a reader was last.
    pub(super) async fn new(engine: &Postgres, last: Mark, upto: i64) -> Result<Self> {
        let connection = engine.0.pools.worker.connection().await?;
        let mut from = last;
        for sql in [EVENTS_BACK, ATTEMPTS_BACK] {
            if let Some(row) = connection.query_one(sql, bind![last.tx, upto, BACK]).await? {
                from = from.max(Mark::before(get::<i64>(&row, 0)? + 1));
            }
        }
        Ok(Self { from, upto, is_cut: from != last })
    }

    /// Whether something further back is left out.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The next rows, and what is still to be read then.
    pub(super) async fn step(self, engine: &Postgres, org: i64) -> Result<(Vec<Item>, Option<Self>)> {
        let desk = engine.read_at(&engine.0.pools.api, org).await?;
        let read = async {
            let events = desk.transaction.query(EVENTS, bind![org, self.from.tx, self.upto, STEP]).await?;
            Ok((events, desk.transaction.query(ATTEMPTS, bind![org, self.from.tx, self.upto, STEP]).await?))
        };
        let read = read.await;
        let (events, attempts) = desk.end(read).await?;
        let events = events.iter().map(|row| Ok((get(row, 0)?, org, event(row, 1)?))).collect::<Result<_>>()?;
        let attempts = attempts.iter().map(|row| Ok((get(row, 0)?, org, attempt(row, 1)?))).collect::<Result<_>>()?;
        let whole = Polled::whole(events, attempts, STEP, self.upto);
        let flood = whole.flood.map(|tx| (tx, Happened::Flood));
        let rows = whole.rows.into_iter().map(|(tx, _, row)| (tx, row)).chain(flood).collect();
        let items = placed(rows).into_iter().filter(|(mark, _)| *mark > self.from).collect();
        let left = Self { from: Mark::before(whole.upto), upto: self.upto, is_cut: false };
        Ok((items, whole.is_cut.then_some(left)))
    }
}
