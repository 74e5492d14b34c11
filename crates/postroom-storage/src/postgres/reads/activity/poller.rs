//! Reads what all nodes wrote, for all streams of this process, while there are any: four times a second, and never more
//! than a tenth of the time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{Happened, Item, placed};
use crate::Result;
use crate::engine::packed::broken;
use crate::postgres::Engine;
use crate::postgres::convert::{get, small};
use crate::postgres::pool::{Connection, Pool, bind};
use crate::worker::{DeliveryKey, EndpointKey, EventKey};

/// How many items a stream may be behind.
const BEHIND: usize = 1_024;
/// How many rows of each kind are read at once.
const AT_ONCE: i64 = 4_096;
/// How long the poller rests at least.
const REST: Duration = Duration::from_millis(250);
/// How many times as long as it worked it rests.
const SHARE: u32 = 9;

const SNAPSHOT: &str = "select txid_current_snapshot()::text";

/// Index: events_by_tx.
const EVENTS: &str = "select tx, org, id from events where tx >= $1 and tx < $2 order by tx limit $3";

/// Index: attempts_by_tx.
const ATTEMPTS: &str =
    "select tx, org, id, event, endpoint, run from attempts where tx >= $1 and tx < $2 order by tx limit $3";

/// Which transactions were over at a moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// All before it were over.
    pub(super) horizon: i64,
    /// This one and all behind it were not.
    next: i64,
    /// Those between that were not.
    running: Vec<i64>,
}

impl Snapshot {
    pub(super) async fn take(pool: &Pool) -> Result<Self> {
        Self::read(&pool.connection().await?).await
    }

    async fn read(connection: &Connection) -> Result<Self> {
        let row = connection.query_one(SNAPSHOT, bind![]).await?;
        let text: String = row.map(|row| get(&row, 0)).transpose()?.unwrap_or_default();
        Self::parse(&text).ok_or_else(|| broken("a snapshot cannot be read"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (horizon, next) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = parts.next()?.split(',').filter(|number| !number.is_empty());
        Some(Self { horizon, next, running: running.map(str::parse).collect::<Result<_, _>>().ok()? })
    }

    /// Whether what a transaction wrote could be seen.
    pub(super) fn sees(&self, tx: i64) -> bool {
        tx < self.next && !self.running.contains(&tx)
    }
}

/// Gives each stream what is its organization's.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Everything before this transaction was published.
    upto: i64,
    is_polled: bool,
    is_closed: bool,
    listeners: HashMap<i64, broadcast::Sender<Item>>,
}

impl Hub {
    /// What is published from now on, of one organization.
    pub(super) fn listen(&self, org: i64) -> broadcast::Receiver<Item> {
        let mut state = self.0.lock();
        if state.is_closed {
            return broadcast::channel(1).1;
        }
        state.listeners.entry(org).or_insert_with(|| broadcast::channel(BEHIND).0).subscribe()
    }

    /// Somebody listens who needs everything from a transaction on. Whether a poller has to be started for it.
    pub(super) fn begin(&self, from: i64) -> bool {
        let mut state = self.0.lock();
        // What is published twice is shown once: streams know how far they have come.
        state.upto = if state.is_polled { state.upto.min(from) } else { from };
        !std::mem::replace(&mut state.is_polled, true)
    }

    /// From where on to poll; nothing when nobody listens any more, and the poller has to end.
    fn wanted(&self) -> Option<i64> {
        let mut state = self.0.lock();
        state.listeners.retain(|_, listener| listener.receiver_count() > 0);
        state.is_polled = !state.listeners.is_empty();
        state.is_polled.then_some(state.upto)
    }

    fn publish(&self, from: i64, polled: Polled) {
        let mut of_each: HashMap<i64, Vec<(i64, Happened)>> = HashMap::new();
        let mut state = self.0.lock();
        for (tx, org, row) in polled.rows {
            if state.listeners.contains_key(&org) {
                of_each.entry(org).or_default().push((tx, row));
            }
        }
        for (org, listener) in &state.listeners {
            let flood = polled.flood.map(|tx| (tx, Happened::Flood));
            let rows = of_each.remove(org).unwrap_or_default().into_iter().chain(flood).collect();
            for item in placed(rows) {
                // The last one may just have gone.
                let _nobody = listener.send(item);
            }
        }
        // Unless somebody came meanwhile who needs more.
        if state.upto == from {
            state.upto = polled.upto;
        }
    }

    /// Streams end when they have shown what was published.
    pub(in crate::postgres) fn close(&self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        state.listeners.clear();
    }
}

/// Polls as long as anybody listens.
pub(super) fn start(hub: Arc<Hub>, engine: Weak<Engine>, stop: CancellationToken) {
    tokio::spawn(async move {
        let work = async {
            let mut was_well = true;
            while let Some(from) = hub.wanted() {
                let Some(engine) = engine.upgrade() else { return };
                let began = Instant::now();
                let polled = poll(&engine.pools.worker, from).await;
                drop(engine);
                let is_well = polled.is_ok();
                let rest = match polled {
                    Ok(polled) if polled.is_cut => {
                        hub.publish(from, polled);
                        Duration::ZERO
                    }
                    Ok(polled) => {
                        hub.publish(from, polled);
                        REST.max(began.elapsed() * SHARE)
                    }
                    Err(error) => {
                        if was_well {
                            warn!(%error, "live streams wait because the database cannot be read");
                        }
                        REST.max(began.elapsed())
                    }
                };
                was_well = is_well;
                tokio::time::sleep(rest).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

/// A row with its transaction and its organization.
pub(super) type Written = (i64, i64, Happened);

/// Whole transactions of the log.
pub(super) struct Polled {
    pub(super) rows: Vec<Written>,
    /// The transaction before which everything is here.
    pub(super) upto: i64,
    /// Whether there may be more before the horizon.
    pub(super) is_cut: bool,
    /// The last transaction, when it wrote more than is read at once.
    pub(super) flood: Option<i64>,
}

impl Polled {
    /// From rows in the order of their transactions. Where a kind was cut off at the bound, its last transaction may not
    /// be whole: it waits for the next time, with all behind it.
    pub(super) fn whole(events: Vec<Written>, attempts: Vec<Written>, most: i64, upto: i64) -> Self {
        let is_full = |rows: &&Vec<Written>| i64::try_from(rows.len()).is_ok_and(|rows| rows >= most);
        let end = [&events, &attempts].into_iter().filter(is_full).filter_map(|rows| Some(rows.last()?.0)).min();
        let mut rows: Vec<Written> = events.into_iter().chain(attempts).collect();
        let Some(end) = end else { return Self { rows, upto, is_cut: false, flood: None } };
        rows.retain(|(tx, _, _)| *tx < end);
        if rows.is_empty() {
            return Self { rows, upto: end + 1, is_cut: true, flood: Some(end) };
        }
        Self { rows, upto: end, is_cut: true, flood: None }
    }
}

async fn poll(pool: &Pool, from: i64) -> Result<Polled> {
    let connection = pool.connection().await?;
    // The horizon is older than what the next statements see: all before it is there.
    let upto = Snapshot::read(&connection).await?.horizon.max(from);
    let events = connection.query(EVENTS, bind![from, upto, AT_ONCE]).await?;
    let attempts = connection.query(ATTEMPTS, bind![from, upto, AT_ONCE]).await?;
    let event = |row: &Row| Ok((get(row, 0)?, get(row, 1)?, event(row, 2)?));
    let attempt = |row: &Row| Ok((get(row, 0)?, get(row, 1)?, attempt(row, 2)?));
    let events = events.iter().map(event).collect::<Result<_>>()?;
    let attempts = attempts.iter().map(attempt).collect::<Result<_>>()?;
    Ok(Polled::whole(events, attempts, AT_ONCE, upto))
}

/// From the column `id`.
pub(super) fn event(row: &Row, at: usize) -> Result<Happened> {
    Ok(Happened::Event(EventKey::from_uuid(get(row, at)?)))
}

/// From the columns `id, event, endpoint, run`.
pub(super) fn attempt(row: &Row, at: usize) -> Result<Happened> {
    let (id, event): (Uuid, Uuid) = (get(row, at)?, get(row, at + 1)?);
    let endpoint = EndpointKey(get(row, at + 2)?);
    Ok(Happened::Attempt(id, DeliveryKey { event: EventKey::from_uuid(event), endpoint, run: small(row, at + 3)? }))
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn a_snapshot_sees_what_was_over_and_nothing_that_ran_or_was_yet_to_begin() {
        let snapshot = Snapshot::parse("10:14:10,12").unwrap();
        assert_eq!([9, 10, 11, 12, 13, 14].map(|tx| snapshot.sees(tx)), [true, false, true, false, true, false]);
        assert!(Snapshot::parse("7:7:").unwrap().running.is_empty());
        assert!(Snapshot::parse("7").is_none() && Snapshot::parse("7:8:x").is_none());
    }

    fn event(tx: i64, id: u128) -> Written {
        (tx, 1, Happened::Event(EventKey(id)))
    }

    fn attempt(tx: i64, id: u128) -> Written {
        let delivery = DeliveryKey { event: EventKey(1), endpoint: EndpointKey(1), run: 0 };
        (tx, 1, Happened::Attempt(Uuid::from_u128(id), delivery))
    }

    #[test]
    fn a_transaction_that_may_be_cut_off_waits_with_all_behind_it() {
        let all = Polled::whole(vec![event(1, 1), event(2, 2)], vec![attempt(3, 3)], 3, 9);
        assert_eq!((all.rows.len(), all.upto, all.is_cut, all.flood), (3, 9, false, None));
        let cut = Polled::whole(vec![event(1, 1), event(2, 2)], vec![attempt(1, 3), attempt(2, 4)], 2, 9);
        assert_eq!((cut.rows, cut.upto, cut.is_cut), (vec![event(1, 1), attempt(1, 3)], 2, true));
        let flood = Polled::whole(vec![event(1, 1), event(1, 2)], vec![attempt(2, 3)], 2, 9);
        assert_eq!((flood.rows.len(), flood.upto, flood.is_cut, flood.flood), (0, 2, true, Some(1)));
    }

    #[test]
    fn a_listener_hears_its_own_organization_in_order_and_the_last_to_leave_ends_the_poll() {
        let hub = Hub::default();
        let mut one = hub.listen(1);
        assert!(hub.begin(5));
        assert!(!hub.begin(7), "it is polled already");
        assert_eq!(hub.wanted(), Some(5));
        let rows = vec![attempt(6, 1), event(6, 9), (6, 2, Happened::Event(EventKey(3))), event(5, 8)];
        hub.publish(5, Polled { rows, upto: 7, is_cut: false, flood: None });
        let (first, events) = (one.try_recv().unwrap(), one.try_recv().unwrap());
        assert_eq!(first, (Mark { tx: 5, number: 1 }, Happened::Event(EventKey(8))));
        assert_eq!(events, (Mark { tx: 6, number: 1 }, Happened::Event(EventKey(9))));
        assert!(matches!(one.try_recv(), Ok((Mark { tx: 6, .. }, Happened::Attempt(..)))));
        assert!(one.try_recv().is_err());
        assert_eq!(hub.wanted(), Some(7));
        assert!(!hub.begin(6));
        assert_eq!(hub.wanted(), Some(6), "somebody needs more than was to come");
        drop(one);
        assert_eq!(hub.wanted(), None);
        assert!(hub.begin(9), "a new poller");
    }

    #[test]
    fn a_closed_hub_ends_its_streams() {
        let hub = Hub::default();
        let mut before = hub.listen(1);
        hub.close();
        assert_eq!(before.try_recv(), Err(broadcast::error::TryRecvError::Closed));
        assert_eq!(hub.listen(1).try_recv(), Err(broadcast::error::TryRecvError::Closed));
    }
}
