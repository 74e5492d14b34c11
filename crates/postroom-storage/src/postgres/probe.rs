//! Whether the database can be used, asked on a connection of its own: a pool that everybody waits for must not make a
//! process that works look dead, and one that hangs must not make a dead one look alive.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::door::Login;
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
}

#[derive(Default)]
struct Kept {
    client: Option<Client>,
    /// Whether it could be written, and when.
    answer: Option<(bool, Instant)>,
}

impl Probe {
    /// Connects when it is asked first.
    pub(super) fn new(login: Login) -> Self {
        Self { login, kept: Mutex::default() }
    }

    /// Whether the database answers within a second and can be written.
    pub(super) async fn ask(&self) -> Result<()> {
        let asked = async {
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
            Ok::<_, Error>(can_write)
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Error::Unavailable("the database is read-only".into())),
            Ok(Err(Error::Internal(source))) => Err(Error::Unavailable(source)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Unavailable("the database does not answer within a second".into())),
        }
    }

    /// Ends its connection.
    pub(super) async fn close(&self) {
        drop(self.kept.lock().await.client.take());
    }
}
