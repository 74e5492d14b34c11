//! Endpoints.

use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::{EndpointId, Secret, Timestamp};

use super::room_for_one_more;
use super::secrets::{self, Secrets};
use crate::api::{EndpointView, NewEndpoint, Page, PageRequest, Rotation, SecretPeriod};
use crate::audit::Action;
use crate::engine::audit::{self, Act, By};
use crate::engine::packed::{broken, to_json};
use crate::engine::rows::{Disabled, EndpointRow, SecretsOf};
use crate::engine::vault::Vault;
use crate::engine::{page, views};
use crate::postgres::Postgres;
use crate::postgres::audit::write;
use crate::postgres::convert::{at, get, id, uuid};
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::rows::{Read, integer, select_endpoint};
use crate::worker::EndpointKey;
use crate::{Error, Origin, Result, Scope};

/// What the column of the version begins with.
const VERSION_OF_NEW: i64 = 0;

/// By primary key: the next number of an endpoint in its organization.
const NUMBER: &str =
    "update organizations set endpoint_number = endpoint_number + 1 where org = $1 returning endpoint_number";

/// Appends.
const INSERT: &str = "insert into endpoints (org, id, number, url, description, event_types, source_ids, filter, \
     retry_schedule, timeout_ms, rate_limit, headers, signature, created_at, updated_at, created_by) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $15) returning endpoint";

/// The primary key, from the organization on, at most as many entries as the bound.
const COUNT: &str = "select count(*) from \
     (select 1 from endpoints where org = $1 and deleted_at is null limit $2) as bounded";

/// By the unique index on (org, id).
const BY_ID: &str = select_endpoint!("where org = $1 and id = $2 and deleted_at is null");

/// By the unique index on (org, id); nobody else changes it meanwhile.
const TO_CHANGE: &str = select_endpoint!("where org = $1 and id = $2 and deleted_at is null for update");

/// The primary key, from the place the page before ended.
const PAGE: &str = select_endpoint!(
    "where org = $1 and deleted_at is null \
     and ($2 is null or endpoint < (select endpoint from endpoints where org = $1 and id = $2)) \
     order by endpoint desc limit $3"
);

/// By primary key.
const UPDATE: &str = "update endpoints set url = $3, description = $4, event_types = $5, source_ids = $6, \
     filter = $7, retry_schedule = $8, timeout_ms = $9, rate_limit = $10, headers = $11, signature = $12, \
     updated_at = $13, version = version + 1 \
     where org = $1 and endpoint = $2";

/// By primary key.
const DELETE: &str =
    "update endpoints set deleted_at = $3, updated_at = $3, headers = null where org = $1 and endpoint = $2";

/// By primary key.
const DISABLE: &str = "update endpoints set disabled_reason = $3, disabled_at = $4, updated_at = $4, \
     version = version + 1 \
     where org = $1 and endpoint = $2 and disabled_reason is null and deleted_at is null returning id";

/// By primary key.
const ENABLE: &str = "update endpoints set disabled_reason = null, disabled_at = null, updated_at = $3, \
     version = version + 1 \
     where org = $1 and endpoint = $2";

/// By primary key.
const TOUCH: &str = "update endpoints set updated_at = $3, version = version + 1 where org = $1 and endpoint = $2";

impl Postgres {
    pub(in crate::postgres) async fn endpoint_create(
        &self,
        scope: &Scope,
        new: NewEndpoint,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let desk = self.desk(scope.org).await?;
        let made = create(&desk.transaction, &self.0.vault, scope, new, now).await;
        self.shown(desk.end(made).await).await
    }

    pub(in crate::postgres) async fn endpoint_list(
        &self,
        scope: &Scope,
        page: PageRequest,
    ) -> Result<Page<EndpointView>> {
        let desk = self.desk(scope.org).await?;
        let found = list(&desk.transaction, &self.0.vault, scope, &page).await;
        desk.end(found).await
    }

    pub(in crate::postgres) async fn endpoint_get(&self, scope: &Scope, id: EndpointId) -> Result<EndpointView> {
        let desk = self.desk(scope.org).await?;
        let found = get_view(&desk.transaction, &self.0.vault, scope, id).await;
        desk.end(found).await
    }

    pub(in crate::postgres) async fn endpoint_update(
        &self,
        scope: &Scope,
        id: EndpointId,
        version: i64,
        settings: EndpointSettings,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let desk = self.desk(scope.org).await?;
        let changed = update(&desk.transaction, &self.0.vault, scope, (id, version), &settings, now).await;
        self.shown(desk.end(changed).await).await
    }

    pub(in crate::postgres) async fn endpoint_delete(
        &self,
        scope: &Scope,
        id: EndpointId,
        now: Timestamp,
    ) -> Result<()> {
        let desk = self.desk(scope.org).await?;
        let deleted = delete(&desk.transaction, &self.0.vault, scope, id, now).await;
        self.shown(desk.end(deleted).await).await
    }

    pub(in crate::postgres) async fn endpoint_set_enabled(
        &self,
        scope: &Scope,
        id: EndpointId,
        enabled: bool,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let desk = self.desk(scope.org).await?;
        let set = set_enabled(&desk.transaction, &self.0.vault, scope, id, enabled, now).await;
        self.shown(desk.end(set).await).await
    }

    /// Disables an endpoint that answered 410. Configuration, and its entry in the audit log: neither is the worker's to
    /// change.
    pub(in crate::postgres) async fn disable_gone(
        &self,
        org: i64,
        endpoint: EndpointKey,
        now: Timestamp,
    ) -> Result<()> {
        let desk = self.desk(org).await?;
        let disabled = disable_gone(&desk.transaction, &self.0.vault, org, endpoint, now).await;
        self.shown(desk.end(disabled).await).await
    }

    pub(in crate::postgres) async fn endpoint_rotate(
        &self,
        scope: &Scope,
        id: EndpointId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let desk = self.desk(scope.org).await?;
        let rotated = rotate(&desk.transaction, &self.0.vault, scope, id, &rotation, now).await;
        self.shown(desk.end(rotated).await).await
    }

    pub(in crate::postgres) async fn endpoint_secret_reveal(
        &self,
        scope: &Scope,
        id: EndpointId,
        now: Timestamp,
    ) -> Result<Secret> {
        let desk = self.desk(scope.org).await?;
        let revealed = reveal(&desk.transaction, &self.0.vault, scope, id, now).await;
        desk.end(revealed).await
    }
}

/// Makes an endpoint. What it looks like is said without reading its secret again: whoever makes one need not be
/// allowed to.
pub(super) async fn create(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    new: NewEndpoint,
    now: Timestamp,
) -> Result<EndpointView> {
    let NewEndpoint { settings, secret } = new;
    let id = EndpointId::new(now);
    // This makes others wait who are about to make one: they count it too.
    let number: i32 = get(&transaction.expect("organization", NUMBER, bind![scope.org]).await?, 0)?;
    room_for_one_more(transaction, COUNT, scope.org, "endpoints").await?;
    let values = Columns::of(&settings, vault, scope, id)?;
    let row = transaction
        .expect(
            "endpoint",
            INSERT,
            bind![
                scope.org,
                uuid(id.to_bytes()),
                number,
                settings.url.as_str(),
                settings.description,
                values.event_types,
                values.source_ids,
                values.filter,
                values.retry_schedule,
                values.timeout_ms,
                values.rate_limit,
                values.headers,
                settings.signature.as_str(),
                at(now),
                scope.actor.to_string(),
            ],
        )
        .await?;
    secrets_of(scope, get(&row, 0)?).add(transaction, vault, &secret, now).await?;
    let act = Act::on(Action::EndpointCreated, id).to(audit::of_endpoint(&settings));
    write(transaction, vault, scope.into(), act, now).await?;
    Ok(EndpointView {
        id,
        settings,
        version: VERSION_OF_NEW,
        is_enabled: true,
        disabled_reason: None,
        disabled_at: None,
        secrets: vec![SecretPeriod { created_at: now, expires_at: None }],
        created_at: now,
        updated_at: now,
        created_by: Some(scope.actor.to_string()),
    })
}

/// Settings that are a column in another form.
struct Columns {
    event_types: String,
    source_ids: String,
    filter: Option<String>,
    retry_schedule: Option<String>,
    timeout_ms: Option<i32>,
    rate_limit: Option<i32>,
    headers: Option<Vec<u8>>,
}

impl Columns {
    fn of(settings: &EndpointSettings, vault: &Vault, scope: &Scope, id: EndpointId) -> Result<Self> {
        Ok(Self {
            event_types: to_json(&settings.event_types),
            source_ids: to_json(&settings.source_ids),
            filter: settings.filter.as_ref().map(to_json),
            retry_schedule: settings.retry_schedule.as_ref().map(to_json),
            timeout_ms: settings.timeout_ms.map(integer),
            rate_limit: settings.rate_limit.map(integer),
            headers: vault.seal_headers(scope.organization, id, &settings.headers)?,
        })
    }
}

async fn list(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    request: &PageRequest,
) -> Result<Page<EndpointView>> {
    let (after, most) = page::after_id(request);
    let rows = EndpointRow::all(&transaction.query(PAGE, bind![scope.org, after.map(uuid), most]).await?)?;
    let numbers = rows.iter().map(|row| row.endpoint).collect();
    let mut stored = secrets::newest(transaction, SecretsOf::Endpoint, scope, numbers).await?;
    let view = |row: EndpointRow| {
        let secrets = stored.remove(&row.endpoint).unwrap_or_default();
        row.view(scope.organization, vault, secrets)
    };
    let views = rows.into_iter().map(view).collect::<Result<_>>()?;
    Ok(page::cut(request, views, |view: &EndpointView| view.id.to_bytes()))
}

async fn get_view(transaction: &Transaction, vault: &Vault, scope: &Scope, id: EndpointId) -> Result<EndpointView> {
    let row = find(transaction, scope, BY_ID, id).await?;
    let stored = secrets_of(scope, row.endpoint).newest(transaction).await?;
    row.view(scope.organization, vault, stored)
}

/// Only if the endpoint still has the version that was read.
async fn update(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    (id, version): (EndpointId, i64),
    settings: &EndpointSettings,
    now: Timestamp,
) -> Result<EndpointView> {
    let row = find(transaction, scope, TO_CHANGE, id).await?.at_version(version)?;
    // Headers that cannot be read are no reason not to replace them.
    let (before, _) = row.settings(scope.organization, vault);
    let values = Columns::of(settings, vault, scope, id)?;
    transaction
        .execute(
            UPDATE,
            bind![
                scope.org,
                row.endpoint,
                settings.url.as_str(),
                settings.description,
                values.event_types,
                values.source_ids,
                values.filter,
                values.retry_schedule,
                values.timeout_ms,
                values.rate_limit,
                values.headers,
                settings.signature.as_str(),
                at(now),
            ],
        )
        .await?;
    write(transaction, vault, scope.into(), audit::endpoint_updated(id, &before, settings), now).await?;
    get_view(transaction, vault, scope, id).await
}

/// The row stays, because deliveries point to it; its secrets and headers go.
async fn delete(transaction: &Transaction, vault: &Vault, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<()> {
    let row = find(transaction, scope, TO_CHANGE, id).await?;
    secrets_of(scope, row.endpoint).end_all(transaction, now, now).await?;
    transaction.execute(DELETE, bind![scope.org, row.endpoint, at(now)]).await?;
    let (before, _) = row.settings(scope.organization, vault);
    let act = Act::on(Action::EndpointDeleted, id).from(audit::of_endpoint(&before));
    write(transaction, vault, scope.into(), act, now).await
}

async fn set_enabled(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    enabled: bool,
    now: Timestamp,
) -> Result<EndpointView> {
    let row = find(transaction, scope, TO_CHANGE, id).await?;
    if enabled && row.disabled.is_some() {
        transaction.execute(ENABLE, bind![scope.org, row.endpoint, at(now)]).await?;
    } else if !enabled {
        transaction.execute(DISABLE, bind![scope.org, row.endpoint, Disabled::ByPerson.as_str(), at(now)]).await?;
    }
    let action = if enabled { Action::EndpointEnabled } else { Action::EndpointDisabled };
    write(transaction, vault, scope.into(), Act::on(action, id), now).await?;
    get_view(transaction, vault, scope, id).await
}

async fn disable_gone(
    transaction: &Transaction,
    vault: &Vault,
    org: i64,
    endpoint: EndpointKey,
    now: Timestamp,
) -> Result<()> {
    let (reason, moment) = (Disabled::Gone.as_str(), at(now));
    let disabled = transaction.query_one(DISABLE, bind![org, endpoint.0, reason, moment]).await?;
    let Some(row) = disabled else { return Ok(()) };
    let id = EndpointId::from_bytes(id(&row, 0)?);
    let act = Act::on(Action::EndpointDisabled, id).with("disabled_reason", reason);
    write(transaction, vault, By::system(org, &Origin::default()), act, now).await
}

async fn rotate(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<EndpointView> {
    let row = find(transaction, scope, TO_CHANGE, id).await?;
    let secrets = secrets_of(scope, row.endpoint);
    secrets.end_all(transaction, views::grace_of_endpoint(rotation, now), now).await?;
    secrets.add(transaction, vault, &rotation.secret, now).await?;
    transaction.execute(TOUCH, bind![scope.org, row.endpoint, at(now)]).await?;
    let act = Act::on(Action::EndpointSecretRotated, id).rotated(rotation);
    write(transaction, vault, scope.into(), act, now).await?;
    get_view(transaction, vault, scope, id).await
}

/// The newest secret, and the entry in the audit log that says who saw it.
async fn reveal(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    now: Timestamp,
) -> Result<Secret> {
    let row = find(transaction, scope, BY_ID, id).await?;
    let stored = secrets_of(scope, row.endpoint).newest(transaction).await?;
    let newest = stored.first().ok_or(Error::NotFound { kind: "endpoint secret" })?;
    let secret = newest.open(SecretsOf::Endpoint, scope.organization, vault).map_err(broken)?;
    write(transaction, vault, scope.into(), Act::on(Action::EndpointSecretViewed, id), now).await?;
    Ok(secret)
}

async fn find(transaction: &Transaction, scope: &Scope, sql: &str, id: EndpointId) -> Result<EndpointRow> {
    EndpointRow::read(&transaction.expect("endpoint", sql, bind![scope.org, uuid(id.to_bytes())]).await?)
}

fn secrets_of(scope: &Scope, endpoint: i64) -> Secrets<'_> {
    Secrets { of: SecretsOf::Endpoint, scope, owner: endpoint }
}
