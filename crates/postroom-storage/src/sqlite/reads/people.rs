//! Reading for people: apart from what the engine reads for itself, and with a share for each organization, so that one
//! that searches its payloads all day takes nobody else's turn.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{PATIENCE, Readers};
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::sqlite::open::OpenError;
use crate::{Error, Result};

/// How many of people's reads run at once.
const CONNECTIONS: usize = 4;
/// How many of them may be one organization's.
const SHARE: usize = 2;

/// See the [module](self).
#[derive(Clone)]
pub(in crate::sqlite) struct People {
    readers: Readers,
    shares: Shares,
}

impl People {
    pub(in crate::sqlite) fn open(data_dir: &Path) -> Result<Self, OpenError> {
        Ok(Self { readers: Readers::open(data_dir, CONNECTIONS)?, shares: Shares::default() })
    }

    /// Runs `read` for an organization, as a part may, on one snapshot of the database. Waits for the organization's turn and then for
    /// a connection, 2 seconds each at most.
    pub(in crate::sqlite) async fn read<T, F>(&self, part: Part, org: i64, read: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let share = self.shares.take(org);
        let turn = tokio::time::timeout(PATIENCE, share.turns.clone().acquire_owned());
        let turn = turn.await.map_err(|_| Error::Overloaded)?.map_err(|closed| Error::Unavailable(closed.into()))?;
        // Both go when the read is done: also then when the caller has gone before.
        let held = (turn, share);
        self.readers
            .read(part, move |connection| {
                let _held: (OwnedSemaphorePermit, Share) = held;
                read(connection)
            })
            .await
    }

    /// No read begins any more.
    pub(in crate::sqlite) fn close(&self) {
        self.readers.close();
    }
}

/// The turns of organizations that read or wait.
#[derive(Debug, Clone, Default)]
struct Shares(Arc<Mutex<HashMap<i64, Arc<Semaphore>>>>);

impl Shares {
    fn take(&self, org: i64) -> Share {
        let turns = self.0.lock().entry(org).or_insert_with(|| Arc::new(Semaphore::new(SHARE))).clone();
        Share { shares: self.clone(), org, turns }
    }
}

/// An organization's turns, kept as long as somebody reads or waits for it.
#[derive(Debug)]
struct Share {
    shares: Shares,
    org: i64,
    turns: Arc<Semaphore>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock();
        // The map and this one: nobody else has or wants a turn.
        if Arc::strong_count(&self.turns) == 2 {
            shares.remove(&self.org);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_organization_that_reads_all_the_time_takes_nobody_elses_turn() {
        let directory = tempfile::tempdir().unwrap();
        let people = People::open(directory.path()).unwrap();
        let (begun, begins) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let slow: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (people, begun, released) = (people.clone(), begun.clone(), released.clone());
                tokio::spawn(async move {
                    let wait = move |_: &Connection| {
                        begun.send(()).unwrap();
                        released.lock().recv().unwrap();
                        Ok(())
                    };
                    people.read(Part::Api, 1, wait).await
                })
            })
            .collect();
        (0..SHARE).for_each(|_| begins.recv().unwrap());
        assert_eq!(people.read(Part::Api, 2, |_| Ok(7)).await.unwrap(), 7);
        assert!(begins.try_recv().is_err(), "more than its share runs");
        slow.iter().for_each(|_| release.send(()).unwrap());
        for read in slow {
            read.await.unwrap().unwrap();
        }
        assert!(people.shares.0.lock().is_empty());
        people.close();
        assert!(matches!(people.read(Part::Api, 1, |_| Ok(())).await, Err(Error::Unavailable(_))));
    }
}
