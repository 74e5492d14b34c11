//! Reading: a few connections that cannot write, used off the asynchronous threads.

pub(super) mod activity;
pub(super) mod attempt;
pub(super) mod deliveries;
pub(super) mod delivery;
pub(super) mod event;
pub(super) mod events;
pub(super) mod gauges;
pub(super) mod idempotency;
mod people;
pub(super) mod rejection;
mod scan;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::grants::Part;
use super::open::{self, OpenError};
use crate::sqlite::connection::Connection;
use crate::{Error, Result};
pub(super) use people::People;

/// How long a read waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// `connections` reads run at once; more wait.
    pub(super) fn open(data_dir: &Path, connections: usize) -> Result<Self, OpenError> {
        let idle: Vec<Connection> =
            (0..connections).map(|_| open::connect_reader(data_dir)).collect::<Result<_, _>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), free: Arc::new(Semaphore::new(connections)) })
    }

    /// Runs `read` for a part on one snapshot of the database.
    pub(super) async fn read<T, F>(&self, part: Part, read: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let read = move |connection: &mut Connection| {
            connection.act_as(part);
            read(&*connection.snapshot()?)
        };
        self.borrow(read).await
    }

    /// Runs `read` on a connection; it says for which parts, and what is one snapshot.
    pub(super) async fn borrow<T, F>(&self, read: F) -> Result<T>
    where
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let turn = tokio::time::timeout(PATIENCE, self.free.clone().acquire_owned());
        let permit = turn.await.map_err(|_| Error::Overloaded)?.map_err(|closed| Error::Unavailable(closed.into()))?;
        let idle = self.idle.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let Some(connection) = idle.lock().pop() else { return Err(super::convert::broken("no reader is idle")) };
            let mut lent = Lent { connection: Some(connection), idle };
            let Some(connection) = &mut lent.connection else {
                return Err(super::convert::broken("no reader is idle"));
            };
            read(connection)
        });
        task.await.map_err(|ended| Error::Internal(ended.into()))?
    }

    /// No read begins any more.
    pub(super) fn close(&self) {
        self.free.close();
        self.idle.lock().clear();
    }
}

/// A connection that goes back when the read is done, also when it panics.
struct Lent {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.idle.lock().extend(self.connection.take());
    }
}
