//! Secrets of sources and endpoints: added, ended, trimmed, read. Erased ones stay for a while as history.

use foldhash::HashMap;
use postroom_domain::{Secret, Timestamp};

use crate::engine::rows::{SecretRow, SecretsOf};
use crate::engine::vault::Vault;
use crate::postgres::convert::{at, uuid};
use crate::postgres::directory::grouped_by;
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::rows::Read;
use crate::{Result, Scope};

/// Appends.
const ADD_OF_SOURCE: &str =
    "insert into source_secrets (org, source, id, value, created_at) values ($1, $2, $3, $4, $5)";

/// Appends.
const ADD_OF_ENDPOINT: &str =
    "insert into endpoint_secrets (org, endpoint, id, value, created_at) values ($1, $2, $3, $4, $5)";

/// Index: source_secrets_by_source.
const END_OF_SOURCE: &str = "update source_secrets set expires_at = least(coalesce(expires_at, $3), $3), \
     value = case when $3 <= $4 then null else value end where org = $1 and source = $2 and value is not null";

/// Index: endpoint_secrets_by_endpoint.
const END_OF_ENDPOINT: &str = "update endpoint_secrets set expires_at = least(coalesce(expires_at, $3), $3), \
     value = case when $3 <= $4 then null else value end where org = $1 and endpoint = $2 and value is not null";

/// Index: source_secrets_by_source.
const TRIM_OF_SOURCE: &str = "delete from source_secrets where org = $1 and source = $2 and secret <= \
     (select secret from source_secrets where org = $1 and source = $2 order by secret desc limit 1 offset 20)";

/// Index: endpoint_secrets_by_endpoint.
const TRIM_OF_ENDPOINT: &str = "delete from endpoint_secrets where org = $1 and endpoint = $2 and secret <= \
     (select secret from endpoint_secrets where org = $1 and endpoint = $2 order by secret desc limit 1 offset 20)";

/// Index: source_secrets_by_source, at most 20 entries for each.
const NEWEST_OF_SOURCES: &str = "select newest.* from unnest($2) as owner (number) cross join lateral ( \
         select org, source, id, value, created_at, expires_at from source_secrets \
         where org = $1 and source = owner.number order by secret desc limit 20 \
     ) as newest";

/// Index: endpoint_secrets_by_endpoint, at most 20 entries for each.
const NEWEST_OF_ENDPOINTS: &str = "select newest.* from unnest($2) as owner (number) cross join lateral ( \
         select org, endpoint, id, value, created_at, expires_at from endpoint_secrets \
         where org = $1 and endpoint = owner.number order by secret desc limit 20 \
     ) as newest";

/// The secrets of one source or endpoint.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'a> {
    pub(super) of: SecretsOf,
    pub(super) scope: &'a Scope,
    pub(super) owner: i64,
}

impl Secrets<'_> {
    /// Adds the newest secret.
    pub(super) async fn add(
        self,
        transaction: &Transaction,
        vault: &Vault,
        secret: &Secret,
        now: Timestamp,
    ) -> Result<()> {
        let sql = match self.of {
            SecretsOf::Source => ADD_OF_SOURCE,
            SecretsOf::Endpoint => ADD_OF_ENDPOINT,
        };
        let (id, sealed) = vault.seal_new(self.of, self.scope.organization, secret, now);
        transaction.execute(sql, bind![self.scope.org, self.owner, uuid(id), sealed, at(now)]).await?;
        Ok(())
    }

    /// Ends the secrets in force at `end` (erases them when that is now) and keeps the newest 20 rows as history.
    pub(super) async fn end_all(self, transaction: &Transaction, end: Timestamp, now: Timestamp) -> Result<()> {
        let (end_sql, trim_sql) = match self.of {
            SecretsOf::Source => (END_OF_SOURCE, TRIM_OF_SOURCE),
            SecretsOf::Endpoint => (END_OF_ENDPOINT, TRIM_OF_ENDPOINT),
        };
        transaction.execute(end_sql, bind![self.scope.org, self.owner, at(end), at(now)]).await?;
        transaction.execute(trim_sql, bind![self.scope.org, self.owner]).await?;
        Ok(())
    }

    /// The newest 20, newest first, erased ones too.
    pub(super) async fn newest(self, transaction: &Transaction) -> Result<Vec<SecretRow>> {
        let found = newest(transaction, self.of, self.scope, vec![self.owner]).await?;
        Ok(found.into_values().next().unwrap_or_default())
    }
}

/// The newest 20 secrets of each of these sources or endpoints, newest first, erased ones too.
pub(super) async fn newest(
    transaction: &Transaction,
    of: SecretsOf,
    scope: &Scope,
    owners: Vec<i64>,
) -> Result<HashMap<i64, Vec<SecretRow>>> {
    let sql = match of {
        SecretsOf::Source => NEWEST_OF_SOURCES,
        SecretsOf::Endpoint => NEWEST_OF_ENDPOINTS,
    };
    let rows = transaction.query(sql, bind![scope.org, owners]).await?;
    grouped_by(&rows, 1, SecretRow::read)
}
