//! What a load costs the database's server, for a bench. It asks the server about itself and reads no table.

use postroom_domain::Secret;

use super::address::Address;
use super::open::OpenError;

/// A connection that asks for figures; see the [module](self).
pub struct Meter(tokio_postgres::Client);

impl Meter {
    /// Connects; the login needs no rights.
    ///
    /// # Errors
    /// When the database does not let it in.
    pub async fn connect(url: &Secret) -> Result<Self, OpenError> {
        let (client, _) = Address::parse(url)?.connect().await.map_err(OpenError::unreachable)?;
        Ok(Self(client))
    }

    /// Bytes of write-ahead log that the server has written in its life, for all its databases. `None` when this login
    /// may not know.
    pub async fn wal_bytes(&self) -> Option<u64> {
        const WRITTEN: &str = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
        let row = self.0.query_typed(WRITTEN, &[]).await.ok()?.pop()?;
        u64::try_from(row.try_get::<_, i64>(0).ok()?).ok()
    }

    /// The process on the server's machine that serves this connection.
    pub async fn process(&self) -> Option<u32> {
        let row = self.0.query_typed("select pg_backend_pid()", &[]).await.ok()?.pop()?;
        u32::try_from(row.try_get::<_, i32>(0).ok()?).ok()
    }
}
