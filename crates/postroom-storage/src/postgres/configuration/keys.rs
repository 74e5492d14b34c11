//! API keys: only their hashes.

use postroom_domain::{ApiKeyId, Timestamp};

use super::{one_by_one, room_for_one_more};
use crate::api::{ApiKeyView, NewApiKey, Page, PageRequest};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::packed::to_json;
use crate::engine::page;
use crate::engine::rows::KeyRow;
use crate::engine::vault::Vault;
use crate::postgres::Postgres;
use crate::postgres::audit::write;
use crate::postgres::convert::{at, uuid};
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::rows::{Read, select_key};
use crate::{Result, Scope};

/// Unique indexes on (org, id) and hash decide.
const INSERT: &str = "insert into api_keys (org, id, name, scopes, hash, last_four, expires_at, created_at, created_by) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// The primary key, from the organization on, at most as many entries as the bound.
const COUNT: &str = "select count(*) from \
     (select 1 from api_keys where org = $1 and revoked_at is null limit $2) as bounded";

/// By the unique index on (org, id).
const BY_ID: &str = select_key!("where org = $1 and id = $2");

/// The primary key, from the place the page before ended.
const PAGE: &str = select_key!(
    "where org = $1 and ($2 is null or key < (select key from api_keys where org = $1 and id = $2)) \
     order by key desc limit $3"
);

/// By the unique index on (org, id).
const REVOKE: &str = "update api_keys set revoked_at = $3 where org = $1 and id = $2 and revoked_at is null";

impl Postgres {
    pub(in crate::postgres) async fn api_key_create(
        &self,
        scope: &Scope,
        new: NewApiKey,
        now: Timestamp,
    ) -> Result<ApiKeyView> {
        let desk = self.desk(scope.org).await?;
        let made = create(&desk.transaction, &self.0.vault, scope, new, now).await;
        self.shown(desk.end(made).await).await
    }

    pub(in crate::postgres) async fn api_key_list(
        &self,
        scope: &Scope,
        request: PageRequest,
    ) -> Result<Page<ApiKeyView>> {
        let (after, most) = page::after_id(&request);
        let desk = self.desk(scope.org).await?;
        let rows = desk.transaction.query(PAGE, bind![scope.org, after.map(uuid), most]).await;
        let views = KeyRow::all(&desk.end(rows).await?)?.into_iter().map(KeyRow::view).collect();
        Ok(page::cut(&request, views, |view: &ApiKeyView| view.id.to_bytes()))
    }

    pub(in crate::postgres) async fn api_key_get(&self, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView> {
        let desk = self.desk(scope.org).await?;
        let found = get_view(&desk.transaction, scope, id).await;
        desk.end(found).await
    }

    pub(in crate::postgres) async fn api_key_revoke(
        &self,
        scope: &Scope,
        id: ApiKeyId,
        now: Timestamp,
    ) -> Result<ApiKeyView> {
        let desk = self.desk(scope.org).await?;
        let revoked = revoke(&desk.transaction, &self.0.vault, scope, id, now).await;
        self.shown(desk.end(revoked).await).await
    }
}

pub(in crate::postgres) async fn create(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    new: NewApiKey,
    now: Timestamp,
) -> Result<ApiKeyView> {
    one_by_one(transaction, scope.org).await?;
    room_for_one_more(transaction, COUNT, scope.org, "API keys that are not revoked").await?;
    let id = ApiKeyId::new(now);
    let scopes = to_json(&new.scopes);
    let hash = new.hash.to_bytes().to_vec();
    let (expires_at, actor) = (new.expires_at.map(at), scope.actor.to_string());
    transaction
        .execute(
            INSERT,
            bind![scope.org, uuid(id.to_bytes()), new.name, scopes, hash, new.last_four, expires_at, at(now), actor],
        )
        .await?;
    let act = Act::on(Action::ApiKeyCreated, id).to(audit::of_key(&new));
    write(transaction, vault, scope.into(), act, now).await?;
    get_view(transaction, scope, id).await
}

/// Ends a key; one that has ended stays as it is, and so does the log.
async fn revoke(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: ApiKeyId,
    now: Timestamp,
) -> Result<ApiKeyView> {
    if transaction.execute(REVOKE, bind![scope.org, uuid(id.to_bytes()), at(now)]).await? > 0 {
        write(transaction, vault, scope.into(), Act::on(Action::ApiKeyRevoked, id), now).await?;
    }
    get_view(transaction, scope, id).await
}

async fn get_view(transaction: &Transaction, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView> {
    let row = transaction.expect("API key", BY_ID, bind![scope.org, uuid(id.to_bytes())]).await?;
    Ok(KeyRow::read(&row)?.view())
}
