//! Reads one organization's entry from its rows, part by part, and compiles verifiers and signers.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use foldhash::HashMap;
use postroom_domain::api_key::KeyHash;
use postroom_domain::endpoint::Subscription;
use postroom_domain::organization::{Plan, PlanLimits};
use postroom_domain::{ApiKeyId, OrganizationId, Secret, SessionId, Timestamp, UserId};
use rusqlite::Row;

use super::{Entry, Held, Key};
use crate::engine::configured::{active, blocked, mandrill_secret, signer, verifier};
use crate::engine::people::Session;
use crate::engine::vault::Vault;
use crate::receiver::Source;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{email, json, json_or_none, moment, moment_or_none, word};
use crate::sqlite::grants::Part;
use crate::sqlite::rows::{self, EndpointRow, SecretRow, SecretsOf, SourceRow, select_endpoint, select_source};
use crate::worker::{Endpoint, EndpointKey, OrganizationKey};
use crate::{Actor, Origin, Result, Scope};

/// Every organization, in the order they were made. Reads the primary key.
const ORGANIZATIONS: &str = "select org from organization order by org";

/// By primary key, and the unique index on org_id. What the authorizer may see.
const IDENTITY: &str = "select id, slug, is_active, exists (select 1 from tenants where org_id = org) \
     from organization where org = ?1";

/// Index: api_key_by_org.
const KEYS: &str = "select key, id, hash, scopes, expires_at, last_used_at from api_key \
     where org = ?1 and revoked_at is null order by key";

/// Index: session_by_user; people by primary key.
const SESSIONS: &str = "select session.id, user.id, email, role, expires_at \
     from session join user on user.usr = session.usr \
     where session.org = ?1 and ended_at is null and expires_at > ?2 and is_active = 1";

/// By primary key. What the receiver may see.
const INTAKE: &str = "select plan, webhook_limit, mandrill_secret from organization where org = ?1";

/// Index: the unique one on (org, source).
const SOURCES: &str = select_source!("where org = ?1 and deleted_at is null order by source");

/// Index: the unique one on (org, endpoint).
const SUBSCRIPTIONS: &str = "select endpoint, event_types, source_ids, filter from endpoint \
     where org = ?1 and deleted_at is null and disabled_reason is null order by endpoint";

/// Index: the unique one on (org, endpoint).
const VERSIONS: &str = "select endpoint, version from endpoint where org = ?1 and deleted_at is null";

/// By primary key; deleted ones too.
const ENDPOINT: &str = select_endpoint!("where endpoint = ?1");

/// By primary keys. What the worker may see of the organization.
const OWNER: &str = "select organization.org, organization.id, is_active \
     from endpoint join organization on organization.org = endpoint.org where endpoint = ?1";

pub(super) fn organizations(connection: &mut Connection) -> Result<Vec<i64>> {
    connection.act_as(Part::Authorizer);
    Ok(rows::all(connection, ORGANIZATIONS, &[], |row| row.get(0))?)
}

/// The sessions of an organization, or of super admins.
pub(super) fn sessions(connection: &mut Connection, org: i64, now: Timestamp) -> Result<Vec<Session>> {
    connection.act_as(Part::Authorizer);
    let read = |row: &Row<'_>| {
        Ok(Session {
            org,
            id: SessionId::from_bytes(row.get(0)?),
            user: UserId::from_bytes(row.get(1)?),
            email: email(row, 2)?,
            role: word(row, 3)?,
            expires_at: moment(row, 4)?,
        })
    };
    Ok(rows::all(connection, SESSIONS, &[&org, &now.as_millis()], read)?)
}

/// Everything of one organization that is asked for all the time. Endpoints that are in `before` and did not change are
/// taken from there: an organization may have many, and delivery keeps what it made of them.
pub(super) fn entry(
    connection: &mut Connection,
    vault: &Vault,
    plans: PlanLimits,
    org: i64,
    before: Option<&Entry>,
    now: Timestamp,
) -> Result<Option<Entry>> {
    // One snapshot: a change between two of the reads would be half seen.
    let mut snapshot = connection.snapshot()?;
    snapshot.act_as(Part::Authorizer);
    let Some((owner, slug, is_dedicated)) = rows::one(&snapshot, IDENTITY, &[&org], |row| Owner::identity(org, row))?
    else {
        return Ok(None);
    };
    let keys = rows::all(&snapshot, KEYS, &[&org], |row| key(org, row))?;
    snapshot.act_as(Part::Receiver);
    let (limit, mandrill) = rows::expect("organization", &snapshot, INTAKE, &[&org], |row| {
        let (plan, limit): (Plan, Option<u64>) = (word(row, 0)?, row.get(1)?);
        Ok((plans.of(plan, limit), row.get::<_, Option<Vec<u8>>>(2)?))
    })?;
    let mandrill = mandrill.map(|sealed| mandrill_secret(owner.id, vault, &sealed));
    let scope = Scope {
        organization: owner.id,
        org,
        slug: slug.clone(),
        actor: Actor::Sender,
        origin: Origin::default(),
        is_dedicated,
    };
    let mut ends = Vec::new();
    let sources = sources(&snapshot, vault, owner, mandrill, &scope, now, &mut ends)?;
    let routes = rows::all(&snapshot, SUBSCRIPTIONS, &[&org], subscription)?;
    snapshot.act_as(Part::Worker);
    let endpoints = endpoints(&snapshot, vault, owner, before, now)?;
    Ok(Some(Entry {
        org,
        id: owner.id,
        slug,
        is_active: owner.is_active,
        is_dedicated,
        limit,
        keys,
        sources,
        routes,
        valid_until: endpoints.values().filter_map(|held| held.valid_until).chain(ends).min(),
        endpoints,
    }))
}

/// One endpoint by its key, deleted or not: deliveries may still wait for a deleted one.
pub(in crate::sqlite) fn endpoint(
    connection: &mut Connection,
    vault: &Vault,
    key: EndpointKey,
    now: Timestamp,
) -> Result<Option<Endpoint>> {
    connection.act_as(Part::Worker);
    let snapshot = connection.snapshot()?;
    let read = |row: &Row<'_>| {
        Ok(Owner { org: row.get(0)?, id: OrganizationId::from_bytes(row.get(1)?), is_active: row.get(2)? })
    };
    let Some(owner) = rows::one(&snapshot, OWNER, &[&key.0], read)? else { return Ok(None) };
    build(&snapshot, vault, owner, key, now).map(|(endpoint, _)| Some(endpoint))
}

/// An organization, as far as all parts know it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    org: i64,
    id: OrganizationId,
    is_active: bool,
}

impl Owner {
    /// With the slug, and whether it has a database of its own.
    fn identity(org: i64, row: &Row<'_>) -> rusqlite::Result<(Self, Arc<str>, bool)> {
        let slug: String = row.get(1)?;
        let owner = Self { org, id: OrganizationId::from_bytes(row.get(0)?), is_active: row.get(2)? };
        Ok((owner, slug.into(), row.get(3)?))
    }
}

impl Held {
    fn is_current(&self, version: i64, organization_active: bool, now: Timestamp) -> bool {
        self.version == version
            && self.organization_active == organization_active
            && self.valid_until.is_none_or(|end| end > now)
    }
}

fn key(org: i64, row: &Row<'_>) -> rusqlite::Result<Arc<Key>> {
    Ok(Arc::new(Key {
        key: row.get(0)?,
        id: ApiKeyId::from_bytes(row.get(1)?),
        org,
        hash: KeyHash::from_bytes(row.get(2)?),
        scopes: json(row, 3)?,
        expires_at: moment_or_none(row, 4)?,
        noted_at: AtomicI64::new(row.get::<_, Option<i64>>(5)?.unwrap_or(i64::MIN)),
    }))
}

fn subscription(row: &Row<'_>) -> rusqlite::Result<(EndpointKey, Subscription)> {
    let wanted = Subscription { event_types: json(row, 1)?, source_ids: json(row, 2)?, filter: json_or_none(row, 3)? };
    Ok((EndpointKey(row.get(0)?), wanted))
}

/// Sources by name; when one of their secrets ends goes to `ends`. The source implied by the organization's Mandrill
/// secret gives way to a real one of that name.
fn sources(
    connection: &Connection,
    vault: &Vault,
    owner: Owner,
    mandrill: Option<Result<Secret, String>>,
    scope: &Scope,
    now: Timestamp,
    ends: &mut Vec<Timestamp>,
) -> Result<HashMap<String, Arc<Source>>> {
    let mut sources: HashMap<String, Arc<Source>> = HashMap::default();
    for row in rows::all(connection, SOURCES, &[&owner.org], SourceRow::read)? {
        let secrets = if row.is_implied {
            mandrill.clone().into_iter().collect()
        } else {
            let stored = SecretRow::all(connection, SecretsOf::Source, row.source)?;
            ends.extend(SecretRow::next_change(&stored, now));
            active(&stored, SecretsOf::Source, owner.id, vault, now)
        };
        if row.is_implied && sources.contains_key(&row.settings.name) {
            continue;
        }
        let source = Source {
            id: row.id,
            is_active: row.is_active && owner.is_active,
            verifier: verifier(&row.settings, secrets),
            settings: row.settings,
            scope: scope.clone(),
            key: row.source,
        };
        sources.insert(source.settings.name.clone(), Arc::new(source));
    }
    Ok(sources)
}

fn endpoints(
    connection: &Connection,
    vault: &Vault,
    owner: Owner,
    before: Option<&Entry>,
    now: Timestamp,
) -> Result<HashMap<EndpointKey, Held>> {
    let mut endpoints = HashMap::default();
    let read = |row: &Row<'_>| Ok((EndpointKey(row.get(0)?), row.get(1)?));
    for (key, version) in rows::all(connection, VERSIONS, &[&owner.org], read)? {
        let known = before.and_then(|before| before.endpoints.get(&key));
        let held = match known.filter(|held| held.is_current(version, owner.is_active, now)) {
            Some(held) => held.clone(),
            None => {
                let (endpoint, valid_until) = build(connection, vault, owner, key, now)?;
                Held { endpoint: Arc::new(endpoint), version, organization_active: owner.is_active, valid_until }
            }
        };
        endpoints.insert(key, held);
    }
    Ok(endpoints)
}

/// An endpoint, and when one of its secrets ends.
fn build(
    connection: &Connection,
    vault: &Vault,
    owner: Owner,
    key: EndpointKey,
    now: Timestamp,
) -> Result<(Endpoint, Option<Timestamp>)> {
    let row = rows::expect("endpoint", connection, ENDPOINT, &[&key.0], EndpointRow::read)?;
    let stored = SecretRow::all(connection, SecretsOf::Endpoint, row.endpoint)?;
    let (settings, headers_read) = row.settings(owner.id, vault);
    let secrets = active(&stored, SecretsOf::Endpoint, owner.id, vault, now);
    let endpoint = Endpoint {
        organization: OrganizationKey(owner.org),
        organization_id: owner.id,
        id: row.id,
        number: row.number,
        signer: headers_read.and_then(|()| signer(secrets)),
        settings,
        blocked: blocked(owner.is_active, &row),
    };
    Ok((endpoint, SecretRow::next_change(&stored, now)))
}
