//! Whether the database can be used, asked on a connection of its own: a pool that everybody waits for must not make a
//! process that works look dead, and one that hangs must not make a dead one look alive. Databases of single organizations
//! are asked on a pool's: one more connection to each of them would be many that do nothing.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::convert::get;
use super::door::Login;
use super::pool::{Pool, bind};
use crate::{Error, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long an answer holds: whoever asks all the time must not keep the one who has to know waiting in line.
const FRESH: Duration = Duration::from_millis(200);

/// A server after a failover may be a standby.
const CAN_WRITE: &str = "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";

/// See the [module](self).
pub(super) struct Probe {
    login: Login,
    kept: Mutex<Kept>,
    /// Asked instead, where there is one.
    pool: Option<Pool>,
}

#[derive(Default)]
struct Kept {
    client: Option<Client>,
    /// Whether it could be written, and when.
    answer: Option<(bool, Instant)>,
}

impl Probe {
    /// Connects when it is asked first.
    pub(super) fn new(login: Login, pool: Option<Pool>) -> Self {
        Self { login, kept: Mutex::default(), pool }
    }

    /// Whether the database answers within a second and can be written.
    pub(super) async fn ask(&self) -> Result<()> {
        match timeout(PATIENCE, self.can_write()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Error::Unavailable("the database is read-only".into())),
            Ok(Err(Error::Internal(source))) => Err(Error::Unavailable(source)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Unavailable("the database does not answer within a second".into())),
        }
    }

    async fn can_write(&self) -> Result<bool> {
        if let Some(pool) = &self.pool {
            let rows = pool.connection().await?.query(CAN_WRITE, bind![]).await?;
            return rows.first().map_or(Ok(false), |row| get(row, 0));
        }
        let mut kept = self.kept.lock().await;
        if let Some((can_write, _)) = kept.answer.filter(|(_, at)| at.elapsed() < FRESH) {
            return Ok(can_write);
        }
        // Taken out as long as it is used: one that did not answer is not asked again.
        let client = match kept.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.login.connect().await?.0,
        };
        let rows = client.query_typed(CAN_WRITE, &[]).await?;
        let can_write = rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false));
        *kept = Kept { client: Some(client), answer: Some((can_write, Instant::now())) };
        Ok(can_write)
    }

    /// Ends its connection.
    pub(super) async fn close(&self) {
        drop(self.kept.lock().await.client.take());
    }
}
