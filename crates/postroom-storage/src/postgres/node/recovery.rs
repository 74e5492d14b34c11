//! What is done for nodes whose lease is over, by any node that notices.
//!
//! First the row is marked dead: that waits for a batch of its that is under way, and no later one is let in. So what is
//! in the log by then is all there will ever be. Then everything above the watermark that has neither an attempt nor an
//! exception becomes an exception, and what was not counted is counted, in one transaction with the row's end.

use std::time::Duration;

use postroom_domain::Timestamp;
use tokio_postgres::Client;
use tracing::{info, warn};

use super::Node;
use crate::Result;
use crate::postgres::convert::{at, get};
use crate::postgres::pool::{Transaction, bind};
use crate::worker::EndpointKey;

/// How long the recovery of one node may take. Whoever is killed in the middle has done nothing.
const PATIENCE: Duration = Duration::from_secs(600);

/// The most endpoints that delivery is told to look at after a recovery; the others are found by its own walk.
const WAKE_MAX: i64 = 1_000;

/// The whole table of nodes. Its shards go at once: its lease over them was the same. It may have left something in
/// databases of single organizations, too: whoever delivers and has none of theirs open is told to look.
const BURY: &str = "\
    with over as materialized ( \
        select node from nodes where state = 'live' and lease_until < clock_timestamp() order by node for update \
    ), dead as ( \
        update nodes set state = 'dead' from over where nodes.node = over.node returning nodes.node \
    ), freed as ( \
        update shards set node = null, lease_until = '-infinity' from dead where shards.node = dead.node \
    ), roused as ( \
        update tenants set wakes = wakes + 1 where awake and exists (select from dead) \
    ) \
    select node from dead";

/// By primary key; as [`BURY`], for a node that ends itself.
const LEAVE: &str = "\
    with mine as materialized (select node from nodes where node = $1 and state = 'live' for update), \
    dead as (update nodes set state = 'dead' from mine where nodes.node = mine.node returning nodes.node), \
    freed as (update shards set node = null, lease_until = '-infinity' from dead where shards.node = dead.node), \
    roused as (update tenants set wakes = wakes + 1 where awake and exists (select from dead)) \
    select node from dead";

/// The whole table of nodes. Whoever is at one already keeps it.
const DEAD: &str = "select node, watermark, counted from nodes where state = 'dead' order by node limit 1 \
     for update skip locked";

/// Index: events_by_tx; attempts and exceptions by their primary keys. Targets are 4 bytes each, big end first. Of an
/// organization that has moved away nothing was left open by any node, and what is left of it here is being deleted.
const RECOVER: &str = "\
    with target as ( \
        select events.org, events.id, \
            get_byte(targets, at)::bigint << 24 | get_byte(targets, at + 1)::bigint << 16 \
                | get_byte(targets, at + 2)::bigint << 8 | get_byte(targets, at + 3)::bigint as endpoint \
        from events, generate_series(0, length(targets) - 4, 4) as at \
        where events.node = $1 and events.tx >= $2 \
            and events.org <> all (array(select moves.org from moves where stage = 'sealed')) \
    ), recovered as ( \
        insert into exceptions (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, since) \
        select target.org, target.endpoint, target.id, 0, 'waiting', $3, 0, 0, $3 from target \
        where not exists (select from attempts where attempts.org = target.org \
            and attempts.endpoint = target.endpoint and attempts.event = target.id and attempts.run = 0) \
        order by target.org, target.endpoint, target.id \
        on conflict do nothing returning endpoint \
    ) \
    select (select count(*) from recovered), array(select distinct endpoint from recovered limit $4)";

/// Index: events_by_tx. A UUIDv7 begins with 48 bits of milliseconds.
const COUNT: &str = "\
    insert into usage as usage (org, month, count) \
    select org, date_trunc('month', to_timestamp( \
            ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) at time zone 'utc') \
            at time zone 'utc' as month, count(*) \
    from events where node = $1 and tx >= $2 and not counted group by 1, 2 order by 1, 2 \
    on conflict (org, month) do update set count = usage.count + excluded.count";

/// By primary key.
const RECOVERED: &str = "update nodes set state = 'recovered' where node = $1";

/// The whole table, which is nearly always empty. Whoever moves an organization holds its lock: without one the move was
/// killed, and the organization goes on where it is.
const TAKE_BACK: &str = "\
    with over as materialized ( \
        select org, move, exists (select from tenants where org_id = org) as is_away from moves \
        where move is not null and pg_try_advisory_xact_lock(1836021349, org::integer) \
    ), away as ( \
        update moves set move = null, acks = '{}' from over where moves.move = over.move and is_away \
    ), back as ( \
        delete from moves using over where moves.move = over.move and not is_away \
    ) \
    select org from over";

/// The whole table of nodes. A node that comes back and has no row is as good as dead.
const FORGET: &str =
    "delete from nodes where state = 'recovered' and lease_until < clock_timestamp() - interval '1 day'";

impl Node {
    /// Marks nodes dead whose lease is over, and takes moves back that nobody makes any more.
    pub(super) async fn bury(&self) -> Result<()> {
        let worker = self.settings.worker.connection().await?;
        for row in worker.query(BURY, bind![]).await? {
            let node: i32 = get(&row, 0)?;
            warn!(node, "node {node} gives no sign of life: its deliveries are taken over");
        }
        worker.execute(FORGET, bind![]).await?;
        for row in worker.query(TAKE_BACK, bind![]).await? {
            let org: i64 = get(&row, 0)?;
            info!(org, "a move of an organization was interrupted: it goes on where it is");
        }
        Ok(())
    }

    /// Recovers dead nodes until there are none that nobody is at.
    pub(super) async fn recover_all(&self) -> Result<()> {
        while self.recover_one().await? {}
        Ok(())
    }

    async fn recover_one(&self) -> Result<bool> {
        let transaction = self.settings.worker.begin_unscoped().await?.patient(PATIENCE);
        let Some(row) = transaction.query_one(DEAD, bind![]).await? else {
            transaction.rollback().await?;
            return Ok(false);
        };
        let (node, watermark, counted): (i32, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let now = self.settings.clock.now();
        let (deliveries, endpoints) = recover(&transaction, node, (watermark, counted), now).await?;
        transaction.commit().await?;
        if deliveries > 0 {
            info!(node, deliveries, "{deliveries} deliveries of node {node} have no known outcome and are made again");
        }
        endpoints.into_iter().for_each(|endpoint| self.wake(EndpointKey(endpoint), at(now)));
        Ok(true)
    }

    /// A planned end.
    pub(super) async fn leave(&self, node: i32) -> Result<()> {
        self.settings.worker.connection().await?.query(LEAVE, bind![node]).await?;
        self.recover_all().await?;
        self.poke_others().await
    }
}

/// The same for whoever is no node and finds that all of them have died or left.
pub(in crate::postgres) async fn recover_beside(client: &mut Client, now: Timestamp) -> Result<()> {
    client.query_typed(BURY, &[]).await?;
    loop {
        let transaction = client.transaction().await?;
        let Some(row) = transaction.query_typed(DEAD, &[]).await?.pop() else { return Ok(()) };
        let (node, watermark, counted): (i32, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        transaction.query_typed(RECOVER, bind![node, watermark, at(now), WAKE_MAX]).await?;
        transaction.execute_typed(COUNT, bind![node, counted]).await?;
        transaction.execute_typed(RECOVERED, bind![node]).await?;
        transaction.commit().await?;
    }
}

async fn recover(
    transaction: &Transaction,
    node: i32,
    (watermark, counted): (i64, i64),
    now: Timestamp,
) -> Result<(i64, Vec<i64>)> {
    const BOUND: &str = "select set_config('statement_timeout', $1, true)";
    transaction.query(BOUND, bind![PATIENCE.as_millis().to_string()]).await?;
    let row = transaction.query_one(RECOVER, bind![node, watermark, at(now), WAKE_MAX]).await?;
    let row = row.ok_or_else(|| crate::Error::Internal("a statement of one row found none".into()))?;
    transaction.execute(COUNT, bind![node, counted]).await?;
    transaction.execute(RECOVERED, bind![node]).await?;
    Ok((get(&row, 0)?, get(&row, 1)?))
}
