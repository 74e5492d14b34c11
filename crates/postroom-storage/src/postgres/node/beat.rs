//! The beat: renews the lease, writes down how far the node has come, takes and gives back shards, and looks after the
//! dead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use postroom_domain::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::shards::SHARDS;
use super::{Identity, Mark, Node};
use crate::Result;
use crate::postgres::convert::{at, get};
use crate::postgres::pool::bind;

/// How often what has moved is written down.
const MARK_EVERY: Duration = Duration::from_millis(400);
/// A lease has so many beats, and ends this part of it earlier by this process's own clock.
const BEATS: u32 = 5;
/// Nobody else is thought dead in this part of a lease after this node was out of touch itself.
const GRACE: u32 = 3;
/// What the dead have left is looked for before a node begins; a start waits for that so long. Where much was accepted
/// since, or many have died, it goes on beside everything else.
const RECOVERY_FIRST: Duration = Duration::from_secs(5);
/// How often it is looked which organizations have too many waiting deliveries; less often if that takes long.
const CENSUS_EVERY: Duration = Duration::from_secs(10);
/// At most this part of the time goes into it.
const CENSUS_SHARE: u32 = 20;
/// The most waiting deliveries of one organization: above, its events are refused and nobody else's.
const WAITING_PER_ORGANIZATION: i64 = 1_000_000;

/// Appends.
const JOIN: &str = "insert into nodes (lease_until, watermark, counted, delivers, key) \
     values (clock_timestamp() + $1 * interval '1 millisecond', txid_current(), txid_current(), $2, $3) \
     returning node, watermark";

/// By the primary keys of both. What is counted already is not counted again when this comes a second time.
const MARK: &str = "\
    with mine as materialized ( \
        select node, counted from nodes where node = $1 and state = 'live' for no key update \
    ), marked as ( \
        update nodes set lease_until = clock_timestamp() + $2 * interval '1 millisecond', \
            watermark = greatest(watermark, $3), counted = greatest(nodes.counted, $4) \
        from mine where nodes.node = mine.node \
    ), added as ( \
        insert into usage as usage (org, month, count) \
        select u.org, u.month, u.count from mine, unnest($5, $6, $7) as u (org, month, count) \
        where mine.counted < $4 order by u.org, u.month \
        on conflict (org, month) do update set count = usage.count + excluded.count \
    ) \
    select count(*) from mine";

/// The whole table: it has as many rows as there are nodes alive, and a few that were.
const PEERS: &str = "select count(*) from nodes where state = 'live' and delivers \
     and (lease_until > clock_timestamp() or node = $1)";

/// By primary key.
const RENEW_SHARDS: &str = "update shards set lease_until = clock_timestamp() + $2 * interval '1 millisecond' \
     where node = $1 returning shard::bigint";

/// The whole table of 64 rows.
const TAKE_SHARDS: &str = "update shards set node = $1, epoch = epoch + 1, \
         lease_until = clock_timestamp() + $2 * interval '1 millisecond' \
     where shard in (select shard from shards where node is null or lease_until < clock_timestamp() \
                     order by shard limit $3 for update skip locked) \
     returning shard::bigint";

/// By primary key.
const GIVE_BACK: &str =
    "update shards set node = null, lease_until = '-infinity' where node = $1 and shard = any($2::bigint[])";

/// Index: exceptions_by_state, one step for each organization, and over the first of its waiting deliveries.
const CENSUS: &str = "with recursive owner (org) as ( \
         select min(org) from exceptions where state = 'waiting' \
         union all \
         select (select min(org) from exceptions where state = 'waiting' and org > owner.org) \
         from owner where org is not null \
     ) \
     select org from owner where org is not null and exists ( \
         select from exceptions where state = 'waiting' and exceptions.org = owner.org offset $1)";

impl Node {
    /// Becomes a node, beats once, recovers whoever is dead, and goes on with both until `stop`.
    pub(in crate::postgres) async fn begin(self: &Arc<Self>, stop: CancellationToken) -> Result<()> {
        self.bury().await?;
        self.beat().await?;
        let node = self.clone();
        // Apart from each other: the lease has to be renewed also while a recovery takes long.
        let beating = async move { tokio::join!(node.live(), node.look_after(), node.poke()) };
        tokio::spawn(stop.clone().run_until_cancelled_owned(beating));
        let node = self.clone();
        let recovering = async move { node.recover_all().await };
        let recovering = tokio::spawn(stop.run_until_cancelled_owned(recovering));
        match tokio::time::timeout(RECOVERY_FIRST, recovering).await {
            Ok(Ok(recovered)) => recovered.unwrap_or(Ok(())),
            Ok(Err(error)) => Err(crate::Error::Internal(error.into())),
            // Should it fail yet, it is tried again like any other.
            Err(_) => Ok(()),
        }
    }

    async fn live(&self) {
        let every = self.settings.lease / BEATS;
        let (mut beaten, mut failing) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = tokio::time::sleep(MARK_EVERY.min(every)) => {}
                () = self.hurry.notified() => {}
            }
            let beat = if beaten.elapsed() >= every || self.identity().is_none() {
                beaten = Instant::now();
                self.beat().await
            } else {
                self.mark_if_moved().await
            };
            match &beat {
                Ok(()) if failing => info!("this node is in touch with the database again"),
                Err(error) if !failing => warn!(%error, "this node has lost touch with the database"),
                _ => {}
            }
            failing = beat.is_err();
        }
    }

    /// Looks after the dead, and after organizations with too many waiting deliveries.
    async fn look_after(&self) {
        let mut counted = None::<(Instant, Duration)>;
        let mut in_touch = None::<Instant>;
        loop {
            tokio::time::sleep(self.settings.lease / BEATS).await;
            if self.identity().is_none() {
                in_touch = None;
                continue;
            }
            // A database that was away for longer than a lease was so for all: first they come back, then it is looked
            // who has not.
            if in_touch.get_or_insert_with(Instant::now).elapsed() < self.settings.lease / GRACE {
                continue;
            }
            let buried = async {
                self.bury().await?;
                self.recover_all().await
            };
            if let Err(error) = buried.await {
                warn!(%error, "nodes that give no sign of life could not be looked after");
            }
            if counted.is_none_or(|(at, took)| at.elapsed() >= CENSUS_EVERY.max(took * CENSUS_SHARE)) {
                let started = Instant::now();
                if let Err(error) = self.census().await {
                    warn!(%error, "waiting deliveries could not be counted");
                }
                counted = Some((Instant::now(), started.elapsed()));
            }
        }
    }

    /// One whole beat. A node that is found dead begins anew first.
    pub(in crate::postgres) async fn beat(&self) -> Result<()> {
        let _one_at_a_time = self.beating.lock().await;
        let me = match self.known() {
            Some(me) if self.mark(me).await? => me,
            _ => self.join().await?,
        };
        if self.settings.delivers { self.share(me).await } else { Ok(()) }
    }

    fn known(&self) -> Option<Identity> {
        self.state.lock().identity
    }

    /// Writes down how far the node has come, if that has changed.
    async fn mark_if_moved(&self) -> Result<()> {
        let _one_at_a_time = self.beating.lock().await;
        match self.known() {
            Some(me) if self.has_moved() => self.mark(me).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Adds what this node has accepted for these organizations to their months, if it is not in there yet: it is for one
    /// that had no limit until now.
    pub(in crate::postgres) async fn count(&self, limited: &BTreeMap<i64, u64>) -> Result<()> {
        // One mark may be on its way without what came after it.
        for _ in 0..2 {
            if limited.is_empty() || !self.state.lock().has_uncounted(limited) {
                break;
            }
            self.mark_if_moved().await?;
        }
        Ok(())
    }

    /// Renews the lease and writes the mark; `false` if the node is thought dead.
    async fn mark(&self, me: Identity) -> Result<bool> {
        let (asked, mark) = (Instant::now(), self.next_mark());
        let (orgs, months, counts) = columns(&mark);
        let lease = self.lease_ms();
        let values = bind![me.node, lease, mark.watermark, mark.counted, orgs, months, counts];
        let row = self.settings.worker.connection().await?.query_one(MARK, values).await?;
        let is_alive = row.map(|row| get::<i64>(&row, 0)).transpose()? == Some(1);
        let mut state = self.state.lock();
        if is_alive {
            state.alive_until = Some(asked + self.lease_by_own_clock());
            state.marked(mark);
        } else {
            // What was in memory is recovered by whoever thought this node dead, its counts too.
            state.alive_until = None;
        }
        Ok(is_alive)
    }

    fn next_mark(&self) -> Mark {
        let mut state = self.state.lock();
        match state.mark.clone() {
            Some(mark) => mark,
            None => {
                let mark = state.ledger.mark();
                state.mark.insert(mark).clone()
            }
        }
    }

    fn has_moved(&self) -> bool {
        self.state.lock().has_moved()
    }

    /// A new row.
    async fn join(&self) -> Result<Identity> {
        let before = self.known();
        let asked = Instant::now();
        let (lease, key) = (self.lease_ms(), self.settings.key.to_bytes().to_vec());
        let values = bind![lease, self.settings.delivers, key];
        let row = self.settings.worker.connection().await?.query_one(JOIN, values).await?;
        let row = row.ok_or_else(|| crate::Error::Internal("a node has no row".into()))?;
        let me = Identity { node: get(&row, 0)?, epoch: 0 };
        let mut state = self.state.lock();
        state.ledger.reset(get(&row, 1)?);
        state.identity = Some(me);
        state.mark = None;
        state.last = None;
        state.shards.clear();
        state.alive_until = Some(asked + self.lease_by_own_clock());
        drop(state);
        match before {
            Some(before) => error!(
                node = me.node,
                "node {} was thought dead by the others, which have taken over its deliveries; going on as node {}",
                before.node,
                me.node
            ),
            None => info!(node = me.node, "this process is node {}", me.node),
        }
        Ok(me)
    }

    /// Renews the shards, and takes or leaves some, so that every node has its share.
    async fn share(&self, me: Identity) -> Result<()> {
        let worker = self.settings.worker.connection().await?;
        let shards = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>>>();
        let done = self.state.lock().shards.done_with(&*self.settings.handoff);
        if !done.is_empty() {
            worker.execute(GIVE_BACK, bind![me.node, done]).await?;
        }
        let mut leased = shards(worker.query(RENEW_SHARDS, bind![me.node, self.lease_ms()]).await?)?;
        let row = worker.query_one(PEERS, bind![me.node]).await?;
        let peers = row.map(|row| get::<i64>(&row, 0)).transpose()?.unwrap_or(1).max(1);
        let share = (SHARDS + peers - 1) / peers;
        let more = share - i64::try_from(leased.len()).unwrap_or(SHARDS);
        if more > 0 {
            leased.extend(shards(worker.query(TAKE_SHARDS, bind![me.node, self.lease_ms(), more]).await?)?);
        }
        let fresh = {
            let mut state = self.state.lock();
            let fresh = state.shards.set(&leased);
            state.shards.fit(usize::try_from(share).unwrap_or(usize::MAX));
            fresh
        };
        drop(worker);
        if !fresh.is_empty() {
            self.wake_shards(fresh).await?;
        }
        Ok(())
    }

    /// Delivery looks at endpoints of shards that have just come here.
    async fn wake_shards(&self, shards: Vec<i64>) -> Result<()> {
        let heads = super::super::worker::heads(&self.settings.worker, None, 1_000, shards).await?;
        heads.into_iter().for_each(|(endpoint, _)| self.settings.handoff.wake(endpoint));
        Ok(())
    }

    /// Looks which organizations have too many waiting deliveries.
    async fn census(&self) -> Result<()> {
        let rows = self.settings.worker.connection().await?.query(CENSUS, bind![WAITING_PER_ORGANIZATION - 1]).await?;
        self.state.lock().full = rows.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
        Ok(())
    }

    /// The end of a planned stop, after the lanes have ended: what is still in memory becomes exceptions at once, and
    /// the shards go to the others.
    pub(in crate::postgres) async fn close(&self) -> Result<()> {
        let _one_at_a_time = self.beating.lock().await;
        let Some(me) = self.known() else { return Ok(()) };
        while self.has_moved() {
            if !self.mark(me).await? {
                return Ok(());
            }
        }
        {
            let mut state = self.state.lock();
            state.alive_until = None;
            state.shards.clear();
        }
        self.leave(me.node).await
    }

    fn lease_ms(&self) -> i64 {
        i64::try_from(self.settings.lease.as_millis()).unwrap_or(i64::MAX)
    }

    fn lease_by_own_clock(&self) -> Duration {
        self.settings.lease - self.settings.lease / BEATS
    }
}

type Columns = (Vec<i64>, Vec<SystemTime>, Vec<i64>);

fn columns(mark: &Mark) -> Columns {
    let orgs = mark.counts.iter().map(|((org, _), _)| *org).collect();
    let months = mark.counts.iter().map(|((_, month), _)| at(Timestamp::from_millis(*month))).collect();
    (orgs, months, mark.counts.iter().map(|(_, count)| *count).collect())
}
