//! Reading for people: apart from what the engine reads for itself, and with a share for each organization, so that one
//! that searches its payloads all day takes nobody else's turn.

use std::path::Path;

use super::Readers;
use crate::Result;
use crate::engine::shares::{Shares, Turn};
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::sqlite::open::OpenError;

/// See the [module](self).
#[derive(Clone)]
pub(in crate::sqlite) struct People {
    readers: Readers,
    shares: Shares,
}

impl People {
    /// `connections` of people's reads run at once.
    pub(in crate::sqlite) fn open(data_dir: &Path, connections: usize) -> Result<Self, OpenError> {
        Ok(Self { readers: Readers::open(data_dir, connections)?, shares: Shares::default() })
    }

    /// Runs `read` for an organization, as a part may, on one snapshot of the database. Waits for the organization's turn and then for
    /// a connection, 2 seconds each at most.
    pub(in crate::sqlite) async fn read<T, F>(&self, part: Part, org: i64, read: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        // It goes when the read is done: also then when the caller has gone before.
        let turn = self.shares.turn(org).await?;
        self.readers
            .read(part, move |connection| {
                let _turn: Turn = turn;
                read(connection)
            })
            .await
    }

    /// No read begins any more.
    pub(in crate::sqlite) fn close(&self) {
        self.readers.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use parking_lot::Mutex;

    use super::*;
    use crate::Error;
    use crate::engine::shares::SHARE;

    const CONNECTIONS: usize = 4;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_organization_that_reads_all_the_time_takes_nobody_elses_turn() {
        let directory = tempfile::tempdir().unwrap();
        let people = People::open(directory.path(), CONNECTIONS).unwrap();
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
        assert!(people.shares.is_idle());
        people.close();
        assert!(matches!(people.read(Part::Api, 1, |_| Ok(())).await, Err(Error::Unavailable(_))));
    }
}
