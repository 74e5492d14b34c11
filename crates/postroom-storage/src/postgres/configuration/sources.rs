//! Sources.

use std::time::Duration;

use postroom_domain::source::SourceSettings;
use postroom_domain::{Secret, SourceId, Timestamp};

use super::secrets::{self, Secrets};
use super::{one_by_one, room_for_one_more, taken};
use crate::api::{NewSource, Page, PageRequest, Rotation, SourceChange, SourceView};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::packed::to_json;
use crate::engine::rows::{SecretsOf, SourceRow};
use crate::engine::vault::Vault;
use crate::engine::{page, views};
use crate::postgres::Postgres;
use crate::postgres::audit::write;
use crate::postgres::convert::{at, get, uuid};
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::rows::{Read, select_source};
use crate::{Result, Scope};

/// Index sources_name decides.
const INSERT: &str = "insert into sources (org, id, name, provider, options, is_active, created_at, updated_at, \
     created_by) values ($1, $2, $3, $4, $5, true, $6, $6, $7) returning source";

/// The primary key, from the organization on, at most as many entries as the bound.
const COUNT: &str = "select count(*) from \
     (select 1 from sources where org = $1 and deleted_at is null limit $2) as bounded";

/// By the unique index on (org, id).
const BY_ID: &str = select_source!("where org = $1 and id = $2 and deleted_at is null");

/// By the unique index on (org, id); nobody else changes it meanwhile.
const TO_CHANGE: &str = select_source!("where org = $1 and id = $2 and deleted_at is null for update");

/// The primary key, from the place the page before ended.
const PAGE: &str = select_source!(
    "where org = $1 and deleted_at is null \
     and ($2 is null or source < (select source from sources where org = $1 and id = $2)) \
     order by source desc limit $3"
);

/// By primary key; index sources_name decides.
const UPDATE: &str = "update sources set name = $3, options = $4, is_active = $5, updated_at = $6 \
     where org = $1 and source = $2";

/// By primary key.
const DELETE: &str = "update sources set deleted_at = $3, updated_at = $3 where org = $1 and source = $2";

/// By primary key.
const TOUCH: &str = "update sources set updated_at = $3 where org = $1 and source = $2";

impl Postgres {
    pub(in crate::postgres) async fn source_create(
        &self,
        scope: &Scope,
        new: NewSource,
        now: Timestamp,
    ) -> Result<SourceView> {
        let desk = self.desk(scope.org).await?;
        let made = create(&desk.transaction, &self.0.vault, scope, new, now).await;
        self.shown(desk.end(made).await).await
    }

    pub(in crate::postgres) async fn source_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<SourceView>> {
        let desk = self.desk(scope.org).await?;
        let found = list(&desk.transaction, scope, &page, self.now()).await;
        desk.end(found).await
    }

    pub(in crate::postgres) async fn source_get(&self, scope: &Scope, id: SourceId) -> Result<SourceView> {
        let desk = self.desk(scope.org).await?;
        let found = get_view(&desk.transaction, scope, id, self.now()).await;
        desk.end(found).await
    }

    pub(in crate::postgres) async fn source_update(
        &self,
        scope: &Scope,
        id: SourceId,
        change: SourceChange,
        now: Timestamp,
    ) -> Result<SourceView> {
        let desk = self.desk(scope.org).await?;
        let changed = update(&desk.transaction, &self.0.vault, scope, id, change, now).await;
        self.shown(desk.end(changed).await).await
    }

    pub(in crate::postgres) async fn source_delete(&self, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()> {
        let desk = self.desk(scope.org).await?;
        let deleted = delete(&desk.transaction, &self.0.vault, scope, id, now).await;
        self.shown(desk.end(deleted).await).await
    }

    pub(in crate::postgres) async fn source_rotate(
        &self,
        scope: &Scope,
        id: SourceId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<SourceView> {
        let desk = self.desk(scope.org).await?;
        let rotated = rotate(&desk.transaction, &self.0.vault, scope, id, &rotation, now).await;
        self.shown(desk.end(rotated).await).await
    }

    pub(in crate::postgres) async fn source_first_secret(
        &self,
        scope: &Scope,
        id: SourceId,
        secret: &Secret,
        now: Timestamp,
    ) -> Result<bool> {
        let desk = self.desk(scope.org).await?;
        let learned = learn(&desk.transaction, &self.0.vault, scope, id, secret, now).await;
        self.shown(desk.end(learned).await).await
    }
}

async fn create(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    new: NewSource,
    now: Timestamp,
) -> Result<SourceView> {
    one_by_one(transaction, scope.org).await?;
    room_for_one_more(transaction, COUNT, scope.org, "sources").await?;
    let id = SourceId::new(now);
    let NewSource { settings, secret } = new;
    let options = to_json(&settings.options);
    let (name, provider) = (settings.name.as_str(), settings.provider.as_str());
    let actor = scope.actor.to_string();
    let row = transaction
        .expect("source", INSERT, bind![scope.org, uuid(id.to_bytes()), name, provider, options, at(now), actor])
        .await
        .map_err(taken)?;
    if let Some(secret) = &secret {
        secrets_of(scope, get(&row, 0)?).add(transaction, vault, secret, now).await?;
    }
    let act = Act::on(Action::SourceCreated, id)
        .to(audit::of_source(&settings, true))
        .with_secret("secret", secret.is_some());
    write(transaction, vault, scope.into(), act, now).await?;
    get_view(transaction, scope, id, now).await
}

async fn list(
    transaction: &Transaction,
    scope: &Scope,
    request: &PageRequest,
    now: Timestamp,
) -> Result<Page<SourceView>> {
    let (after, most) = page::after_id(request);
    let rows = transaction.query(PAGE, bind![scope.org, after.map(uuid), most]).await?;
    let views = views(transaction, scope, SourceRow::all(&rows)?, now).await?;
    Ok(page::cut(request, views, |view| view.id.to_bytes()))
}

async fn get_view(transaction: &Transaction, scope: &Scope, id: SourceId, now: Timestamp) -> Result<SourceView> {
    let row = find(transaction, scope, BY_ID, id).await?;
    let mut views = views(transaction, scope, vec![row], now).await?;
    views.pop().ok_or(crate::Error::NotFound { kind: "source" })
}

async fn update(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    change: SourceChange,
    now: Timestamp,
) -> Result<SourceView> {
    let row = changeable(transaction, scope, id).await?;
    let before = audit::of_source(&row.settings, row.is_active);
    let settings = SourceSettings {
        name: change.name.unwrap_or(row.settings.name),
        provider: row.settings.provider,
        options: change.options.unwrap_or(row.settings.options),
    };
    let is_active = change.is_active.unwrap_or(row.is_active);
    let (name, options) = (settings.name.as_str(), to_json(&settings.options));
    transaction
        .execute(UPDATE, bind![scope.org, row.source, name, options, is_active, at(now)])
        .await
        .map_err(taken)?;
    if let Some(secret) = &change.secret {
        let owner = secrets_of(scope, row.source);
        owner.end_all(transaction, now, now).await?;
        owner.add(transaction, vault, secret, now).await?;
    }
    let act = Act::on(Action::SourceUpdated, id)
        .from(before)
        .to(audit::of_source(&settings, is_active))
        .with_secret("secret", change.secret.is_some());
    write(transaction, vault, scope.into(), act, now).await?;
    get_view(transaction, scope, id, now).await
}

/// The row stays, because its events point to it; its secrets and its name go.
async fn delete(transaction: &Transaction, vault: &Vault, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()> {
    let row = changeable(transaction, scope, id).await?;
    secrets_of(scope, row.source).end_all(transaction, now, now).await?;
    transaction.execute(DELETE, bind![scope.org, row.source, at(now)]).await?;
    let act = Act::on(Action::SourceDeleted, id).from(audit::of_source(&row.settings, row.is_active));
    write(transaction, vault, scope.into(), act, now).await
}

async fn rotate(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<SourceView> {
    let row = changeable(transaction, scope, id).await?;
    let owner = secrets_of(scope, row.source);
    owner.end_all(transaction, now + Duration::from_secs(rotation.grace_seconds), now).await?;
    owner.add(transaction, vault, &rotation.secret, now).await?;
    transaction.execute(TOUCH, bind![scope.org, row.source, at(now)]).await?;
    let act = Act::on(Action::SourceSecretRotated, id).rotated(rotation);
    write(transaction, vault, scope.into(), act, now).await?;
    get_view(transaction, scope, id, now).await
}

/// The first secret of a source that has none; false if it has one.
async fn learn(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    secret: &Secret,
    now: Timestamp,
) -> Result<bool> {
    let row = changeable(transaction, scope, id).await?;
    let owner = secrets_of(scope, row.source);
    if owner.newest(transaction).await?.iter().any(|known| known.is_active(now)) {
        return Ok(false);
    }
    owner.add(transaction, vault, secret, now).await?;
    transaction.execute(TOUCH, bind![scope.org, row.source, at(now)]).await?;
    let act = Act::on(Action::SourceSecretLearned, id).with_secret("secret", true);
    write(transaction, vault, scope.into(), act, now).await?;
    Ok(true)
}

async fn find(transaction: &Transaction, scope: &Scope, sql: &str, id: SourceId) -> Result<SourceRow> {
    SourceRow::read(&transaction.expect("source", sql, bind![scope.org, uuid(id.to_bytes())]).await?)
}

async fn changeable(transaction: &Transaction, scope: &Scope, id: SourceId) -> Result<SourceRow> {
    views::changeable(find(transaction, scope, TO_CHANGE, id).await?)
}

fn secrets_of(scope: &Scope, source: i64) -> Secrets<'_> {
    Secrets { of: SecretsOf::Source, scope, owner: source }
}

async fn views(
    transaction: &Transaction,
    scope: &Scope,
    rows: Vec<SourceRow>,
    now: Timestamp,
) -> Result<Vec<SourceView>> {
    let numbers = rows.iter().map(|row| row.source).collect();
    let mut stored = secrets::newest(transaction, SecretsOf::Source, scope, numbers).await?;
    let view = |row: SourceRow| {
        let secrets = stored.remove(&row.source).unwrap_or_default();
        row.view(&secrets, now)
    };
    Ok(rows.into_iter().map(view).collect())
}
