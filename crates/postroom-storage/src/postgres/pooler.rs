//! Recognises a pooler that gives every transaction another connection (PgBouncer in transaction mode).
//!
//! There a login that has to become its part would be that part in one transaction and itself, or another part, in the
//! next. Two connections are asked which process of the server serves them: through such a pooler both are served by one, or
//! one of them by another than before. A pooler in session mode, or none, gives each its own for as long as it lives.

use std::time::Duration;

use tokio_postgres::Client;

use super::address::Address;
use super::convert::get;
use super::open::OpenError;

/// How often the two change places. A pooler gives out first what it got back last: once is enough where nobody else is.
const ROUNDS: usize = 3;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether each transaction of this connection may run on another one of the server.
pub(super) async fn pools_transactions(address: &Address, one: &Client) -> Result<bool, OpenError> {
    let (other, _task) = address.connect().await.map_err(OpenError::unreachable)?;
    let changes = tokio::time::timeout(PATIENCE, changes(one, &other)).await;
    changes.map_err(|_| OpenError::Database("the database does not answer".into()))?
}

async fn changes(one: &Client, other: &Client) -> Result<bool, OpenError> {
    let began = (server_process(one).await?, server_process(other).await?);
    if began.0 == began.1 {
        return Ok(true);
    }
    for _ in 0..ROUNDS {
        // Both at once have one each; who ends last leaves it to who asks next.
        for (client, statement) in [(one, "begin"), (other, "begin"), (one, "commit"), (other, "commit")] {
            client.batch_execute(statement).await.map_err(|error| OpenError::Database(error.into()))?;
        }
        if (server_process(one).await?, server_process(other).await?) != began {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn server_process(client: &Client) -> Result<i32, OpenError> {
    let rows = client.query_typed("select pg_backend_pid()", &[]).await;
    let rows = rows.map_err(|error| OpenError::Database(error.into()))?;
    let row = rows.first().ok_or_else(|| OpenError::Database("the server says nothing".into()))?;
    Ok(get(row, 0)?)
}
