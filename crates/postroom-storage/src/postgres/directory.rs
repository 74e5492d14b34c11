//! What every request and every attempt asks for, in memory, following the database.
//!
//! Three directories, each read by its own part's connections and holding what that part may see: [`callers`] (who is
//! who), [`inbound`] (what is received and where it goes), [`outbound`] (where it is delivered to). The database notes
//! in `revisions` which organization's configuration was changed by which transaction; whatever was written since the
//! last look is read again. That happens two or three times a second, at once after a change by this node (whoever
//! changed something waits for it), and when something is asked for that is not known.
//!
//! A look misses nothing: it asks for all transactions that may have been running at the look before. Where that says
//! nothing, because the server is another one or was started anew (its newest transactions may be lost, their numbers
//! given again), everything is read again.

pub(super) mod callers;
pub(super) mod inbound;
pub(super) mod outbound;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use foldhash::HashMap;
use tokio::sync::{Mutex, Notify};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::callers::Callers;
use self::inbound::Inbound;
use self::outbound::Outbound;
use super::convert::get;
use super::pool::{Pool, bind};
use super::{Options, Pools};
use crate::engine::vault::Vault;
use crate::{Error, Result};

/// How often something unknown makes somebody look: who guesses keys or names must not make work.
const CATCH_UP_EVERY: Duration = Duration::from_millis(100);
/// How long a look may take, waiting for the one before included.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many organizations are read at once.
const AT_ONCE: usize = 100;

/// The primary key; and what stands for an organization with super admins.
const ORGANIZATIONS: &str = "select 0::bigint as org union all select org from organizations order by org";

/// Index: revisions_by_tx. Below the second column nothing is running any more.
const REVISIONS: &str = "select pg_postmaster_start_time(), txid_snapshot_xmin(txid_current_snapshot()), \
     coalesce(array_agg(org), '{}'), coalesce(array_agg(tx), '{}'), exists (select from pokes) \
     from revisions where tx >= $1";

/// See the [module](self).
pub(super) struct Directories {
    /// Who is who.
    pub(super) callers: Callers,
    /// What is received and where it goes.
    pub(super) inbound: Inbound,
    /// Where it is delivered to.
    pub(super) outbound: Outbound,
    /// Told when a look has seen that some node is to look at some endpoint: no question of its own is asked for that.
    pub(super) poked: Arc<Notify>,
    authorizer: Pool,
    /// Held while anything is read and put in its place, so that nothing older replaces something newer.
    seen: Mutex<Seen>,
    /// Counted up whenever something was read again.
    revision: AtomicI64,
    /// When somebody last began to look; apart from `seen`, so that it can be asked for meanwhile.
    tried: parking_lot::Mutex<Option<Instant>>,
}

/// What the directories show.
struct Seen {
    revisions: Revisions,
    /// Organizations that are to be read. Kept over a look that fails.
    unread: BTreeSet<i64>,
    /// When the last look began that succeeded.
    looked: Option<Instant>,
}

/// What the database says of itself and of its changes.
struct Revisions {
    /// When the server was started: tells it from others, and from itself before a crash.
    server: SystemTime,
    /// Of all transactions below this one, everything is seen.
    horizon: i64,
    /// Of those at or above it (or a horizon before), that which last changed an organization.
    changes: HashMap<i64, i64>,
    /// Whether a node is to look at an endpoint.
    has_pokes: bool,
}

impl Directories {
    /// Reads everything.
    pub(super) async fn load(pools: &Pools, vault: Arc<Vault>, options: &Options) -> Result<Arc<Self>> {
        let (clock, handoff) = (options.clock.clone(), options.handoff.clone());
        let authorizer = pools.authorizer.clone();
        // First what is seen, then the reading: what is changed in between is read again.
        let revisions = revisions(&authorizer, i64::MAX).await?;
        let directories = Self {
            callers: Callers::new(authorizer.clone()),
            inbound: Inbound::new(pools.receiver.clone(), vault.clone(), clock.clone(), options.plans),
            outbound: Outbound::new(pools.worker.clone(), vault, clock, handoff),
            poked: Arc::default(),
            authorizer,
            revision: AtomicI64::new(0),
            seen: Mutex::new(Seen { revisions, unread: BTreeSet::new(), looked: None }),
            tried: parking_lot::Mutex::new(None),
        };
        for some in organizations(&directories.authorizer).await?.chunks(AT_ONCE) {
            directories.read(some).await?;
        }
        Ok(Arc::new(directories))
    }

    /// Looks for changes every so often, until `stop` or until nobody has the directories any more.
    pub(super) fn follow(self: &Arc<Self>, every: Duration, stop: CancellationToken) {
        let directories = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(directories, every) => {}
            }
        });
    }

    /// Another number after every change of configuration that was seen, those of the registry too.
    pub(super) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// After a change of configuration: resolves when the directories show it.
    pub(super) async fn look(&self) -> Result<()> {
        tokio::time::timeout(PATIENCE, self.look_since(None)).await.map_err(|late| Error::Unavailable(late.into()))?
    }

    /// For something that is not known: sees what has been written by now, if nobody has looked for a tenth of a second;
    /// otherwise waits until then.
    pub(super) async fn catch_up(&self) -> Result<()> {
        let asked = Instant::now();
        let tried = *self.tried.lock();
        let wait = tried.map_or(Duration::ZERO, |tried| CATCH_UP_EVERY.saturating_sub(tried.elapsed()));
        tokio::time::sleep(wait).await;
        let look = self.look_since(Some(asked));
        tokio::time::timeout(PATIENCE, look).await.map_err(|late| Error::Unavailable(late.into()))?
    }

    /// A secret's time is over: reads its organization again, unless somebody did while this one waited.
    pub(super) async fn refresh(&self, org: i64, is_stale: impl Fn() -> bool) -> Result<()> {
        let read = async {
            let _one_at_a_time = self.seen.lock().await;
            if is_stale() { self.read(&[org]).await } else { Ok(()) }
        };
        tokio::time::timeout(PATIENCE, read).await.map_err(|late| Error::Unavailable(late.into()))?
    }

    /// Looks, unless somebody who began since `asked` has.
    async fn look_since(&self, asked: Option<Instant>) -> Result<()> {
        let mut seen = self.seen.lock().await;
        if asked.is_some_and(|asked| seen.looked.is_some_and(|looked| looked >= asked)) {
            return Ok(());
        }
        let begun = Instant::now();
        *self.tried.lock() = Some(begun);
        let found = revisions(&self.authorizer, seen.revisions.horizon).await?;
        if found.server == seen.revisions.server && found.horizon >= seen.revisions.horizon {
            let changed = found.changes.iter().filter(|(org, tx)| seen.revisions.changes.get(org) != Some(tx));
            let changed: Vec<i64> = changed.map(|(org, _)| *org).collect();
            seen.unread.extend(changed);
        } else {
            seen.unread.extend(organizations(&self.authorizer).await?);
            seen.unread.extend(self.callers.organizations());
        }
        if found.has_pokes {
            self.poked.notify_one();
        }
        seen.revisions = found;
        if !seen.unread.is_empty() {
            self.revision.fetch_add(1, Ordering::Relaxed);
        }
        while !seen.unread.is_empty() {
            let some: Vec<i64> = seen.unread.iter().copied().take(AT_ONCE).collect();
            self.read_or_tell(&some).await?;
            some.iter().for_each(|org| _ = seen.unread.remove(org));
        }
        seen.looked = Some(begun);
        Ok(())
    }

    /// Reads some organizations again. One that cannot be read stays as it was and does not stop the others.
    async fn read_or_tell(&self, orgs: &[i64]) -> Result<()> {
        match self.read(orgs).await {
            Err(Error::Internal(_)) => {}
            other => return other,
        }
        for org in orgs {
            match self.read(&[*org]).await {
                Err(Error::Internal(error)) => {
                    warn!(org, %error, "the configuration of an organization cannot be read; it stays as it was");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Reads some organizations again, in all directories.
    async fn read(&self, orgs: &[i64]) -> Result<()> {
        tokio::try_join!(self.callers.read(orgs), self.inbound.read(orgs), self.outbound.read(orgs))?;
        Ok(())
    }
}

/// What was changed by transactions from `horizon` on.
async fn revisions(authorizer: &Pool, horizon: i64) -> Result<Revisions> {
    let row = authorizer.connection().await?.query_one(REVISIONS, bind![horizon]).await?;
    let row = row.ok_or_else(|| Error::Internal("an aggregate has no row".into()))?;
    let (orgs, transactions): (Vec<i64>, Vec<i64>) = (get(&row, 2)?, get(&row, 3)?);
    let changes = orgs.into_iter().zip(transactions).collect();
    Ok(Revisions { server: get(&row, 0)?, horizon: get(&row, 1)?, changes, has_pokes: get(&row, 4)? })
}

/// All organizations, in the order they were made, and before them what super admins have instead of one.
async fn organizations(authorizer: &Pool) -> Result<Vec<i64>> {
    let rows = authorizer.connection().await?.query(ORGANIZATIONS, &[]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

async fn follow(directories: Weak<Directories>, every: Duration) {
    let mut failing = false;
    loop {
        tokio::time::sleep(every).await;
        let Some(directories) = directories.upgrade() else { return };
        let looked = match directories.look().await {
            Ok(()) => directories.callers.note_uses().await,
            failed => failed,
        };
        match &looked {
            Ok(()) if failing => info!("changes of configuration are followed again"),
            Err(error) if !failing => {
                warn!(%error, "changes of configuration are not followed while the database does not answer");
            }
            _ => {}
        }
        failing = looked.is_err();
    }
}

/// Rows by a column that is a number, in order.
pub(super) fn grouped_by<T>(
    rows: &[Row],
    column: usize,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<HashMap<i64, Vec<T>>> {
    let mut groups: HashMap<i64, Vec<T>> = HashMap::default();
    for row in rows {
        groups.entry(get(row, column)?).or_default().push(read(row)?);
    }
    Ok(groups)
}
