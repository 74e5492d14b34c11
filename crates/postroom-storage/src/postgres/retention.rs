//! What is old goes, a day at a time; everything else that is kept for a time goes in slices of 500 rows.
//!
//! A day of the log is a partition of events and one of attempts. When all of it is older than is kept, both are
//! dropped. A day in which a delivery still waits is kept until that has ended, and its other events are taken out one
//! by one: a delivery ends as a success or where a person can see it. What a node accepted and has not settled yet is
//! not old, whatever its age.
//!
//! Each step is a transaction, and one process of all takes it at a time; the others find somebody at it and do nothing.

use std::time::Duration;

use parking_lot::Mutex;
use postroom_domain::{EventId, Timestamp};
use tracing::info;
use uuid::Uuid;

use super::convert::{at, get, is_locked, uuid};
use super::pool::{Pool, Transaction, bind};
use crate::Result;
use crate::engine::people;

/// The most rows of one kind that a step deletes.
const ROWS: i64 = 500;
/// The most events that a step takes out of a day that is kept.
const EVENTS: i64 = 200;
/// How many pages of the guard's table a step walks over: 2 MiB.
const PAGES: i64 = 256;
/// In how many rounds the walk comes around, if that is more pages than a step takes: an hour at one in a minute.
const ROUNDS: i64 = 60;
/// How long a statement of upkeep may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long rejected requests are kept.
const REJECTIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long answers to repeated requests are kept.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Makes what is missing of the partitions of yesterday, today, and three days to come: nobody waits for one, whatever
/// the clocks of the nodes say.
const MAKE: &str = "select count(make_partition(day::date)) from (select ($1 at time zone 'utc')::date as today) as now, \
     generate_series(today - 1, today + 3, interval '1 day') as day";

/// One at a time, of all processes: "upkeep" in ASCII.
const ALONE: &str = "select pg_try_advisory_xact_lock(129092917585264)";

/// Days of which everything is older than is kept. From the catalogue.
const OLD_DAYS: &str = "select day::text, day_floor(day), day_floor(day + 1) from ( \
     select substring(relname from '^events_(\\d{8})$')::date as day from pg_inherits join pg_class on pg_class.oid = inhrelid \
       where inhparent = 'public.events'::regclass) as days \
     where day < ($1 at time zone 'utc')::date order by day";

/// Whether a node has not settled all of a day: index events_by_tx, at its newest end.
const UNSETTLED: &str = "select exists (select 1 from events join nodes using (node) \
     where id >= $1 and id < $2 and state <> 'recovered' and tx >= least(nodes.watermark, nodes.counted) \
       and tx >= (select min(least(watermark, counted)) from nodes where state <> 'recovered'))";

/// Index: exceptions_by_event. Of events that stay, nothing goes.
const ENDED: &str = "delete from exceptions where (org, endpoint, event, run) in ( \
     select org, endpoint, event, run from exceptions as ended where event >= $1 and event < $2 and state <> 'waiting' \
       and not exists (select 1 from exceptions as other \
         where other.event = ended.event and other.org = ended.org and other.state = 'waiting') limit $3)";

/// Whether anything is left that is not on the straight way. Index: exceptions_by_event.
const LEFT: &str = "select exists (select 1 from exceptions where event >= $1 and event < $2)";

/// Index: replays_by_event.
const REPLAYS: &str = "delete from replays where (org, event, endpoint, run) in \
     (select org, event, endpoint, run from replays where event >= $1 and event < $2 limit $3)";

/// Waits for whoever reads the log at this moment, for a short time.
const DROP: &str = "select drop_partition($1::text::date)";

/// By primary key.
const PAGE: &str = "select org, id from events where (org, id) > ($1, $2) and id >= $3 and id < $4 \
     order by org, id limit $5";

/// Takes out those of a page of events of which no delivery waits: dead letters of theirs have gone before. Indexes:
/// primary keys, *_by_event.
const TAKE_OUT: &str = "with page as (select unnest($1::int8[]) as org, unnest($2::uuid[]) as id), \
     going as materialized (select events.org, events.id, events.targets from events join page using (org, id) \
       where id >= $3 and id < $4 and not exists (select 1 from exceptions \
         where exceptions.event = events.id and exceptions.org = events.org)), \
     ends as (select org, id, ('x' || encode(substr(targets, 4 * at - 3, 4), 'hex'))::bit(32)::int8 as endpoint \
         from going, generate_series(1, length(targets) / 4) as at \
       union select going.org, id, endpoint from going join replays on replays.event = id and replays.org = going.org), \
     attempts_gone as (delete from attempts using ends where attempts.org = ends.org \
       and attempts.endpoint = ends.endpoint and attempts.event = ends.id and event >= $3 and event < $4), \
     replays_gone as (delete from replays using going where replays.event = going.id and replays.org = going.org) \
     delete from events using going where events.org = going.org and events.id = going.id \
       and events.id >= $3 and events.id < $4";

/// How many pages the guard's table has.
const GUARD_PAGES: &str = "select pg_relation_size('duplicate_guard') / current_setting('block_size')::bigint";

/// By the places of rows, page after page: an index by event would cost more with every event than to look at each row a
/// few times in its life does.
const GUARDS: &str = "delete from duplicate_guard \
     where ctid >= format('(%s,0)', $1)::tid and ctid < format('(%s,0)', $2)::tid and event < $3";

/// Index: rejections_by_age.
const REJECTIONS: &str = "delete from rejections where (org, id) in \
     (select org, id from rejections where received_at < $1 order by received_at limit $2)";

/// Index: idempotency_keys_by_age.
const ANSWERS: &str = "delete from idempotency_keys where (org, key) in \
     (select org, key from idempotency_keys where claimed_at < $1 order by claimed_at limit $2)";

/// Index: sign_in_tokens_by_end.
const TOKENS: &str = "delete from sign_in_tokens where hash in \
     (select hash from sign_in_tokens where expires_at <= $1 order by expires_at limit $2)";

/// Index: sessions_by_end.
const SESSIONS: &str = "delete from sessions where id in \
     (select id from sessions where expires_at <= $1 order by expires_at limit $2)";

/// Index: mails_by_end.
const MAILS: &str = "delete from mails where (org, mail) in \
     (select org, mail from mails where expires_at <= $1 order by expires_at limit $2)";

/// Index: source_secrets_by_end.
const SOURCE_SECRETS: &str = "update source_secrets set value = null where expires_at <= $1 and not is_erased";

/// Index: endpoint_secrets_by_end.
const ENDPOINT_SECRETS: &str = "update endpoint_secrets set value = null where expires_at <= $1 and not is_erased";

/// See [`MAKE`].
pub(super) async fn make_partitions(platform: &Pool, now: Timestamp) -> Result<()> {
    platform.connection().await?.query_one(MAKE, bind![at(now)]).await?;
    Ok(())
}

/// See the [module](self).
pub(super) struct Upkeep {
    platform: Pool,
    dedupe_window: Duration,
    retention: Duration,
    /// How far a walk over days that are kept has come: on which day, after which event of which organization.
    walk: Mutex<Option<(String, i64, Uuid)>>,
    /// How far the walk over the guard's table has come.
    guards: Mutex<Guards>,
}

/// A walk over the guard's table, which begins anew at its end.
#[derive(Debug, Default, Clone, Copy)]
struct Guards {
    /// The next page.
    next: i64,
    /// How many pages are left in this round.
    left: i64,
}

/// A day of the log.
struct Day {
    /// As `2026-11-22`: in the order of time.
    name: String,
    floor: Uuid,
    end: Uuid,
}

/// What a step over the log found.
#[derive(PartialEq, Eq)]
enum Found {
    /// There is more to do now.
    More,
    /// Not now.
    Nothing,
}

impl Upkeep {
    /// Upkeep of a log that is kept so long.
    pub(super) fn new(platform: Pool, dedupe_window: Duration, retention: Duration) -> Self {
        Self { platform, dedupe_window, retention, walk: Mutex::default(), guards: Mutex::default() }
    }

    /// One step. Returns whether there is more to do.
    pub(super) async fn step(&self, now: Timestamp) -> Result<bool> {
        make_partitions(&self.platform, now).await?;
        Ok(self.rest(now).await? | self.days(now).await?)
    }

    /// Everything that is kept for a time and is not the log itself.
    async fn rest(&self, now: Timestamp) -> Result<bool> {
        let Some(transaction) = alone(&self.platform).await? else { return Ok(false) };
        let guards = self.guards(&transaction, now).await?;
        let deleted = [
            transaction.execute(REJECTIONS, bind![at(now - REJECTIONS_KEPT), ROWS]).await?,
            transaction.execute(ANSWERS, bind![at(now - ANSWERS_KEPT), ROWS]).await?,
            transaction.execute(TOKENS, bind![at(now - people::KEPT), ROWS]).await?,
            transaction.execute(SESSIONS, bind![at(now - people::KEPT), ROWS]).await?,
            transaction.execute(MAILS, bind![at(now - people::KEPT), ROWS]).await?,
        ];
        transaction.execute(SOURCE_SECRETS, bind![at(now)]).await?;
        transaction.execute(ENDPOINT_SECRETS, bind![at(now)]).await?;
        transaction.commit().await?;
        *self.guards.lock() = guards;
        Ok(guards.left > 0 || deleted.into_iter().any(|rows| rows >= ROWS.unsigned_abs()))
    }

    /// One step of the walk over the guard's table; says where it is then.
    async fn guards(&self, transaction: &Transaction, now: Timestamp) -> Result<Guards> {
        let oldest = EventId::floor(now - self.dedupe_window.min(self.retention)).to_bytes();
        let pages: i64 = transaction.value(GUARD_PAGES, &[]).await?;
        let Guards { mut next, mut left } = *self.guards.lock();
        if next >= pages {
            next = 0;
        }
        if left == 0 {
            left = (pages / ROUNDS).max(PAGES).min(pages);
        }
        let upto = next + left.min(PAGES);
        transaction.execute(GUARDS, bind![next, upto, uuid(oldest)]).await?;
        Ok(Guards { next: upto, left: (left - PAGES).max(0) })
    }

    /// One step over the days that are old, oldest first.
    async fn days(&self, now: Timestamp) -> Result<bool> {
        let days = self.platform.connection().await?.query(OLD_DAYS, bind![at(now - self.retention)]).await?;
        let under_way = self.walk.lock().as_ref().map(|(name, ..)| name.clone());
        for row in days {
            let day = Day { name: get(&row, 0)?, floor: get(&row, 1)?, end: get(&row, 2)? };
            if under_way.as_ref().is_some_and(|name| day.name < *name) {
                continue;
            }
            if self.day(&day).await? == Found::More {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn day(&self, day: &Day) -> Result<Found> {
        let Some(transaction) = alone(&self.platform).await? else { return Ok(Found::Nothing) };
        let (floor, end) = (day.floor, day.end);
        if is(&transaction, UNSETTLED, day).await? {
            return transaction.rollback().await.map(|()| Found::Nothing);
        }
        let mut deleted = transaction.execute(ENDED, bind![floor, end, ROWS]).await?;
        let is_kept = deleted == 0 && is(&transaction, LEFT, day).await?;
        if deleted == 0 && !is_kept {
            deleted = transaction.execute(REPLAYS, bind![floor, end, ROWS]).await?;
        }
        if deleted > 0 {
            return transaction.commit().await.map(|()| Found::More);
        }
        if is_kept { self.take_out(transaction, day).await } else { drop_day(transaction, day).await }
    }

    /// One page of a day that is kept.
    async fn take_out(&self, transaction: Transaction, day: &Day) -> Result<Found> {
        let (mut org, mut id) = (0, day.floor);
        if let Some((name, last_org, last)) = &*self.walk.lock()
            && *name == day.name
        {
            (org, id) = (*last_org, *last);
        }
        let page = transaction.query(PAGE, bind![org, id, day.floor, day.end, EVENTS]).await?;
        let orgs = page.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>>>()?;
        let ids = page.iter().map(|row| get(row, 1)).collect::<Result<Vec<Uuid>>>()?;
        let last = orgs.last().zip(ids.last()).map(|(org, id)| (*org, *id));
        transaction.execute(TAKE_OUT, bind![orgs, ids, day.floor, day.end]).await?;
        transaction.commit().await?;
        let more = i64::try_from(page.len()).unwrap_or(EVENTS) >= EVENTS;
        // At its end the walk begins anew with the next round.
        *self.walk.lock() = last.filter(|_| more).map(|(org, id)| (day.name.clone(), org, id));
        Ok(if more { Found::More } else { Found::Nothing })
    }
}

/// Drops a day. While the tables are locked nobody can read an event of it to send it again, so whoever did before has
/// either an exception that is seen now, or has done nothing.
async fn drop_day(transaction: Transaction, day: &Day) -> Result<Found> {
    match transaction.query_one(DROP, bind![day.name.as_str()]).await {
        // Somebody reads for long: in the next round.
        Err(error) if is_locked(&error) => return Ok(Found::Nothing),
        done => done?,
    };
    if is(&transaction, LEFT, day).await? {
        transaction.rollback().await?;
        return Ok(Found::Nothing);
    }
    transaction.commit().await?;
    info!(day = day.name, "events, attempts and deliveries of a day older than the retention were dropped");
    Ok(Found::More)
}

/// A transaction of upkeep, or nothing when another process is at it.
async fn alone(platform: &Pool) -> Result<Option<Transaction>> {
    let transaction = platform.begin_unscoped().await?.patient(PATIENCE);
    if transaction.value(ALONE, &[]).await? {
        return Ok(Some(transaction));
    }
    transaction.rollback().await?;
    Ok(None)
}

async fn is(transaction: &Transaction, sql: &str, day: &Day) -> Result<bool> {
    transaction.value(sql, bind![day.floor, day.end]).await
}
