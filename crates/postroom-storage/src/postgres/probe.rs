//! Whether the database can be used, asked on a connection of its own: a pool that everybody waits for must not make a
//! process that works look dead, and one that hangs must not make a dead one look alive.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::door::Login;
use crate::{Error, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A server after a failover may be a standby.
const CAN_WRITE: &str = "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";

/// See the [module](self).
pub(super) struct Probe {
    login: Login,
    client: Mutex<Option<Client>>,
}

impl Probe {
    /// Connects when it is asked first.
    pub(super) fn new(login: Login) -> Self {
        Self { login, client: Mutex::new(None) }
    }

    /// Whether the database answers within a second and can be written.
    pub(super) async fn ask(&self) -> Result<()> {
        let asked = async {
            let mut kept = self.client.lock().await;
            // Taken out as long as it is used: one that did not answer is not asked again.
            let client = match kept.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.login.connect().await?.0,
            };
            let rows = client.query_typed(CAN_WRITE, &[]).await?;
            *kept = Some(client);
            Ok::<_, Error>(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)))
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
        drop(self.client.lock().await.take());
    }
}
