//! How one organization is kept from all nodes while it is moved, and nobody else is.
//!
//! Its row in `moves` is announced. Every node that is alive lets go of it (see [`crate::cells`]) and says so there; the
//! dead are recovered. Then the database itself refuses to write what it owns, and whoever was writing at that moment is
//! waited for: a statement locks the tables it writes to before it decides what it sees, so one that could still see
//! the row as it was holds such a lock when it is asked who does. If all nodes have let go by then, nothing of the
//! organization is written or held in memory anywhere until the move ends or is taken back, however long a process was
//! stopped and whenever it goes on.
//!
//! A lock of its own says that whoever moves it is alive. It ends with the connection, and nodes take the move back.

use std::time::{Duration, Instant};

use postroom_domain::{Secret, Timestamp};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::super::convert::get;
use super::super::node::recover_beside;
use super::super::open::OpenError;
use super::super::pool::{Bound, bind};
use super::{Database, said};
use crate::copy::side::Side;
use crate::copy::{Error, Role};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(50);
/// How long a lock is tried: whoever was killed may have to be noticed first.
const TRIES: Duration = Duration::from_secs(3);

/// Locks are held by a transaction that does nothing. A machine that is gone is noticed, and upkeep deletes nothing
/// meanwhile.
const BESIDE: &str = "set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; \
     begin; select pg_advisory_xact_lock_shared(129092917585264)";

/// What works on a whole installation is not begun meanwhile: "moves" in ASCII.
const TRY_BESIDE: &str = "select pg_try_advisory_xact_lock_shared(470021465459)";

/// The other side of it.
const TRY_ALONE: &str = "select pg_try_advisory_xact_lock(470021465459)";

/// "move" in ASCII. Nodes try it, too, for a moment.
const TAKE: &str = "select pg_try_advisory_xact_lock(1836021349, $1::int8::integer)";

/// By primary key. A move that was killed and not taken back goes on: nothing has changed since.
const ANNOUNCE: &str = "insert into moves as moves (org, move, stage) select $1, gen_random_uuid(), \
         case when exists (select from tenants where org_id = $1) then 'sealed' else 'announced' end \
     on conflict (org) do update set acks = case when moves.move is null then '{}' else moves.acks end, \
         move = coalesce(moves.move, excluded.move), \
         stage = case when moves.stage = 'sealed' then 'sealed' else 'announced' end \
     returning move, stage = 'sealed'";

/// The whole table of nodes.
const MISSING: &str = "select node from nodes where state <> 'recovered' \
     and not node = any (coalesce((select acks from moves where org = $1 and move = $2), '{}')) order by node";

/// By primary key.
const STAGE: &str = "update moves set stage = $3 where org = $1 and move = $2";

/// Who writes at this moment, by virtual transactions; of these, who still does.
const WRITERS: &str = "select distinct virtualtransaction from pg_locks \
     where locktype = 'relation' and granted and pid is distinct from pg_backend_pid() \
       and database = (select oid from pg_database where datname = current_database()) \
       and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
       and relation = any (array['sources', 'source_secrets', 'endpoints', 'endpoint_secrets', 'idempotency_keys', \
         'events', 'attempts', 'exceptions', 'replays', 'duplicate_guard', 'rejections', 'audit_logs']::regclass[]) \
       and ($1 or virtualtransaction = any ($2))";

/// By primary key.
const STANDS: &str = "select move::text from moves where org = $1 and move = $2 and stage = 'sealed'";

/// By primary key. What is left of it there is refused for good.
pub(super) const GONE: &str =
    "update moves set move = null, acks = '{}' where org = $1 and move = $2 and stage = 'sealed'";

/// By primary key.
pub(super) const BACK: &str = "delete from moves where org = $1 and move = $2 and stage = 'sealed'";

/// By primary key: as nodes take it back.
const TAKE_BACK: [&str; 2] = [
    "delete from moves where org = $1 and move = $2 and not exists (select from tenants where org_id = $1)",
    "update moves set move = null, acks = '{}' where org = $1 and move = $2",
];

/// The whole table of organizations, which has one row.
const CLOSE_OWN: &str = "insert into moves (org, move, stage) select org, gen_random_uuid(), 'ended' from organizations \
     on conflict (org) do update set move = excluded.move, stage = excluded.stage returning org";

const OPEN_OWN: &str = "delete from moves";

/// Takes a lock that lasts as long as the transaction. Whoever has just ended or died still has it for a moment.
async fn hold(client: &Client, sql: &str, values: &[Bound<'_>], taken: Error) -> Result<(), Error> {
    let until = Instant::now() + TRIES;
    loop {
        let rows = client.query_typed(sql, values).await.map_err(said)?;
        if get(rows.first().ok_or(Error::Interrupted)?, 0)? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(taken);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Begins a transaction that says that organizations are being moved.
pub(super) async fn beside(client: &Client) -> Result<(), Error> {
    client.batch_execute(BESIDE).await.map_err(OpenError::from)?;
    hold(client, TRY_BESIDE, &[], Error::Busy).await
}

/// That no organization is being moved, as long as the transaction lasts.
pub(super) async fn alone(client: &Client) -> Result<(), Error> {
    hold(client, TRY_ALONE, &[], Error::Busy).await
}

/// Keeps an organization from others who would move it.
pub(super) async fn take(client: &Client, org: i64) -> Result<(), Error> {
    hold(client, TAKE, bind![org], Error::UnderWay).await
}

/// Takes the database of an organization for itself, in which nothing is written any more. Nobody lives there; somebody who
/// died there is thought alive for a time.
pub(super) async fn own(way: &Secret, patience: Duration) -> Result<Box<dyn Side>, Error> {
    let until = Instant::now() + patience;
    let own = loop {
        match Database::open(way, Role::Source).await {
            Err(Error::Running { .. }) if Instant::now() < until => tokio::time::sleep(EVERY).await,
            opened => break opened?,
        }
    };
    let rows = own.work.lock().await.client.query_typed(CLOSE_OWN, &[]).await.map_err(said)?;
    take(&own.fence.client, get(rows.first().ok_or(Error::Nothing)?, 0)?).await?;
    // Whoever looked between the two has taken it back.
    own.work.lock().await.client.query_typed(CLOSE_OWN, &[]).await.map_err(said)?;
    own.outwait(until).await?;
    Ok(Box::new(own))
}

/// It is written there again.
pub(super) async fn open_own(client: &Client) -> Result<(), Error> {
    client.execute_typed(OPEN_OWN, &[]).await.map(drop).map_err(said)
}

/// Ends a move in the transaction of the registry's change, unless it was taken back.
pub(super) async fn end(transaction: &Transaction<'_>, (org, id): (i64, Uuid), how: &str) -> Result<(), Error> {
    match transaction.execute_typed(how, bind![org, id]).await.map_err(said)? {
        1 => Ok(()),
        _ => Err(Error::TakenBack),
    }
}

impl Database {
    /// The move that is under way.
    pub(super) fn moving(&self) -> Result<(i64, Uuid), Error> {
        self.moving.get().copied().ok_or(Error::TakenBack)
    }

    /// Which move it is, if it stands.
    pub(super) async fn stands(&self) -> Result<String, Error> {
        let (org, id) = self.moving()?;
        let rows = self.work.lock().await.client.query_typed(STANDS, bind![org, id]).await.map_err(said)?;
        Ok(get(rows.first().ok_or(Error::TakenBack)?, 0)?)
    }

    /// See the [module](self).
    pub(super) async fn seal(&self, org: i64, now: Timestamp) -> Result<(), Error> {
        let rows = self.work.lock().await.client.query_typed(ANNOUNCE, bind![org]).await.map_err(said)?;
        let row = rows.first().ok_or(Error::Interrupted)?;
        let (id, mut is_sealed): (Uuid, bool) = (get(row, 0)?, get(row, 1)?);
        self.moving.get_or_init(|| (org, id));
        let until = Instant::now() + self.logins()?.patience;
        self.let_go(until, now).await?;
        while !is_sealed {
            self.stage("fenced").await?;
            self.outwait(until).await?;
            is_sealed = self.missing().await?.is_empty();
            self.stage(if is_sealed { "sealed" } else { "announced" }).await?;
            if !is_sealed {
                // Somebody came who had not heard of it, and has to write down what he holds.
                self.let_go(until, now).await?;
            }
        }
        Ok(())
    }

    /// Waits until every node has let go, or is dead and recovered.
    async fn let_go(&self, until: Instant, now: Timestamp) -> Result<(), Error> {
        loop {
            recover_beside(&mut self.work.lock().await.client, now).await?;
            let nodes = self.missing().await?;
            if nodes.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::NotLetGo { nodes, seconds: self.logins()?.patience.as_secs() });
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn missing(&self) -> Result<Vec<i32>, Error> {
        let (org, id) = self.moving()?;
        let rows = self.work.lock().await.client.query_typed(MISSING, bind![org, id]).await.map_err(said)?;
        rows.iter().map(|row| Ok(get(row, 0)?)).collect()
    }

    async fn stage(&self, stage: &str) -> Result<(), Error> {
        let (org, id) = self.moving()?;
        match self.work.lock().await.client.execute_typed(STAGE, bind![org, id, stage]).await.map_err(said)? {
            1 => Ok(()),
            _ => Err(Error::TakenBack),
        }
    }

    /// Waits for whoever was writing when this began.
    async fn outwait(&self, until: Instant) -> Result<(), Error> {
        let (mut is_first, mut writing) = (true, Vec::<String>::new());
        loop {
            let values = bind![is_first, writing];
            let rows = self.work.lock().await.client.query_typed(WRITERS, values).await.map_err(said)?;
            let still: Vec<String> = rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
            if still.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(OpenError::Busy("somebody has been writing for too long".to_owned()).into());
            }
            (is_first, writing) = (false, still);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The organization goes on where it is.
    pub(super) async fn take_back(&self) -> Result<(), Error> {
        let (org, id) = self.moving()?;
        let mut work = self.work.lock().await;
        let transaction = work.client.transaction().await.map_err(said)?;
        for statement in TAKE_BACK {
            transaction.execute_typed(statement, bind![org, id]).await.map_err(said)?;
        }
        transaction.commit().await.map_err(said)
    }
}
