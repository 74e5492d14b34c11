//! Reads one organization's entry from its rows, and compiles verifiers and signers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use postroom_domain::Timestamp;
use rusqlite::{Connection, Row};

use super::{Entry, Held, Key};
use crate::engine::configured::{active, blocked, signer, verifier};
use crate::engine::vault::Vault;
use crate::receiver::Source;
use crate::sqlite::rows::{
    self, EndpointRow, KeyRow, OrganizationRow, SecretRow, SecretsOf, SourceRow, select_endpoint, select_key,
    select_organization, select_source,
};
use crate::worker::{Endpoint, EndpointKey, OrganizationKey};
use crate::{Actor, Result, Scope};

/// Every organization, in the order they were made. Reads the primary key.
const ORGANIZATIONS: &str = "select org from organization order by org";

/// By primary key.
const ORGANIZATION: &str = select_organization!("where org = ?1");

/// Index: api_key_by_org.
const KEYS: &str = select_key!("where org = ?1 and revoked_at is null order by key");

/// Index: the unique one on (org, source).
const SOURCES: &str = select_source!("where org = ?1 and deleted_at is null order by source");

/// Index: the unique one on (org, endpoint).
const VERSIONS: &str = "select endpoint, version, disabled_reason is null from endpoint \
     where org = ?1 and deleted_at is null order by endpoint";

/// By primary key; deleted ones too.
const ENDPOINT: &str = select_endpoint!("where endpoint = ?1");

/// By primary key.
const OWNER: &str = "select org from endpoint where endpoint = ?1";

pub(super) fn organizations(connection: &Connection) -> Result<Vec<i64>> {
    Ok(rows::all(connection, ORGANIZATIONS, &[], |row| row.get(0))?)
}

/// Everything of one organization that is asked for all the time. Endpoints that are in `before` and did not change are
/// taken from there: an organization may have many, and delivery keeps what it made of them.
pub(super) fn entry(
    connection: &Connection,
    vault: &Vault,
    org: i64,
    before: Option<&Entry>,
    now: Timestamp,
) -> Result<Option<Entry>> {
    // One snapshot: a change between two of the reads would be half seen.
    let snapshot = connection.unchecked_transaction()?;
    let Some(organization) = rows::one(&snapshot, ORGANIZATION, &[&org], OrganizationRow::read)? else {
        return Ok(None);
    };
    let slug: Arc<str> = organization.slug.as_str().into();
    let scope = Scope { organization: organization.id, org, slug: slug.clone(), actor: Actor::Operator };
    let mut ends = Vec::new();
    let keys = rows::all(&snapshot, KEYS, &[&org], KeyRow::read)?.into_iter().map(|row| key(org, row)).collect();
    let sources = sources(&snapshot, vault, &organization, &scope, now, &mut ends)?;
    let (mut endpoints, mut routes) = (HashMap::new(), Vec::new());
    let read = |row: &Row<'_>| Ok((EndpointKey(row.get(0)?), row.get(1)?, row.get::<_, bool>(2)?));
    for (key, version, is_enabled) in rows::all(&snapshot, VERSIONS, &[&org], read)? {
        let known = before.and_then(|before| before.endpoints.get(&key));
        let held = match known.filter(|held| held.is_current(version, organization.is_active, now)) {
            Some(held) => held.clone(),
            None => hold(&snapshot, vault, &organization, key, version, now)?,
        };
        ends.extend(held.valid_until);
        if is_enabled {
            routes.push(held.endpoint.clone());
        }
        endpoints.insert(key, held);
    }
    Ok(Some(Entry {
        org,
        id: organization.id,
        slug,
        is_active: organization.is_active,
        limit: organization.limit(),
        keys,
        sources,
        endpoints,
        routes,
        valid_until: ends.into_iter().min(),
    }))
}

/// One endpoint by its key, deleted or not: deliveries may still wait for a deleted one.
pub(in crate::sqlite) fn endpoint(
    connection: &Connection,
    vault: &Vault,
    key: EndpointKey,
    now: Timestamp,
) -> Result<Option<Endpoint>> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(org) = rows::one(&snapshot, OWNER, &[&key.0], |row| row.get::<_, i64>(0))? else { return Ok(None) };
    let organization = rows::expect("organization", &snapshot, ORGANIZATION, &[&org], OrganizationRow::read)?;
    build(&snapshot, vault, &organization, key, now).map(|(endpoint, _)| Some(endpoint))
}

impl Held {
    fn is_current(&self, version: i64, organization_active: bool, now: Timestamp) -> bool {
        self.version == version
            && self.organization_active == organization_active
            && self.valid_until.is_none_or(|end| end > now)
    }
}

fn hold(
    connection: &Connection,
    vault: &Vault,
    organization: &OrganizationRow,
    key: EndpointKey,
    version: i64,
    now: Timestamp,
) -> Result<Held> {
    let (endpoint, valid_until) = build(connection, vault, organization, key, now)?;
    let organization_active = organization.is_active;
    Ok(Held { endpoint: Arc::new(endpoint), version, organization_active, valid_until })
}

fn key(org: i64, row: KeyRow) -> Arc<Key> {
    Arc::new(Key {
        key: row.key,
        id: row.id,
        org,
        hash: row.hash,
        scopes: row.scopes,
        expires_at: row.expires_at,
        noted_at: AtomicI64::new(row.last_used_at.map_or(i64::MIN, Timestamp::as_millis)),
    })
}

/// Sources by name. The one implied by the organization's Mandrill secret gives way to a real one of that name.
fn sources(
    connection: &Connection,
    vault: &Vault,
    organization: &OrganizationRow,
    scope: &Scope,
    now: Timestamp,
    ends: &mut Vec<Timestamp>,
) -> Result<HashMap<String, Arc<Source>>> {
    let mut sources: HashMap<String, Arc<Source>> = HashMap::new();
    for row in rows::all(connection, SOURCES, &[&organization.org], SourceRow::read)? {
        let secrets = if row.is_implied {
            organization.open_mandrill_secret(vault).into_iter().collect()
        } else {
            let stored = SecretRow::all(connection, SecretsOf::Source, row.source)?;
            ends.extend(SecretRow::next_change(&stored, now));
            active(&stored, SecretsOf::Source, organization.id, vault, now)
        };
        if row.is_implied && sources.contains_key(&row.settings.name) {
            continue;
        }
        let source = Source {
            id: row.id,
            is_active: row.is_active && organization.is_active,
            verifier: verifier(&row.settings, secrets),
            settings: row.settings,
            scope: scope.clone(),
            key: row.source,
        };
        sources.insert(source.settings.name.clone(), Arc::new(source));
    }
    Ok(sources)
}

/// An endpoint, and when one of its secrets ends.
fn build(
    connection: &Connection,
    vault: &Vault,
    organization: &OrganizationRow,
    key: EndpointKey,
    now: Timestamp,
) -> Result<(Endpoint, Option<Timestamp>)> {
    let row = rows::expect("endpoint", connection, ENDPOINT, &[&key.0], EndpointRow::read)?;
    let stored = SecretRow::all(connection, SecretsOf::Endpoint, row.endpoint)?;
    let (settings, headers_read) = row.settings(organization.id, vault);
    let secrets = active(&stored, SecretsOf::Endpoint, organization.id, vault, now);
    let endpoint = Endpoint {
        key,
        organization: OrganizationKey(organization.org),
        organization_id: organization.id,
        id: row.id,
        number: row.number,
        signer: headers_read.and_then(|()| signer(secrets)),
        settings,
        blocked: blocked(organization, &row),
    };
    Ok((endpoint, SecretRow::next_change(&stored, now)))
}
