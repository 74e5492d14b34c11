//! Where events are delivered to: endpoints with their signers. Read by the worker's connections.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};
use postroom_domain::delivery::DeadReason;
use postroom_domain::{Clock, OrganizationId, Timestamp};

use super::grouped_by;
use crate::engine::configured::{active, blocked, signer};
use crate::engine::rows::{EndpointRow, SecretRow, SecretsOf};
use crate::engine::vault::Vault;
use crate::postgres::convert::{at, get, id};
use crate::postgres::pool::{Pool, Transaction, bind};
use crate::postgres::rows::{Read, select_endpoint};
use crate::worker::{Endpoint, EndpointKey, OrganizationKey};
use crate::{Error, Handoff, Result};

/// How many endpoints are read at once.
const AT_ONCE: usize = 1_000;
/// How many deleted endpoints are remembered.
const GONE: usize = 1_000;

/// By primary key.
const ORGANIZATIONS: &str = "select org, id, is_active from organizations where org = any($1)";

/// The primary key, from the organization on.
const VERSIONS: &str = "select org, endpoint, version from endpoints \
     where org = any($1) and deleted_at is null order by org, endpoint";

/// Index: endpoints_by_number; deleted ones too.
const ENDPOINTS: &str = select_endpoint!("where endpoint = any($1)");

/// Index: endpoint_secrets_by_endpoint.
const SECRETS: &str = "select org, endpoint, id, value, created_at, expires_at from endpoint_secrets \
     where org = any($1) and endpoint = any($2) and value is not null and (expires_at is null or expires_at > $3) \
     order by org, endpoint, secret desc";

/// Index: endpoints_by_number.
const OWNER: &str = "select org, version from endpoints where endpoint = $1";

/// What an endpoint was made from: as long as that is the same, so is the endpoint.
#[derive(Clone)]
struct Held {
    key: EndpointKey,
    endpoint: Arc<Endpoint>,
    version: i64,
    organization_active: bool,
    /// When one of its secrets ends.
    valid_until: Option<Timestamp>,
}

impl Held {
    fn is_current(&self, version: i64, organization_active: bool, now: Timestamp) -> bool {
        self.version == version && self.organization_active == organization_active && !self.is_over(now)
    }

    /// Whether one of its secrets has ended.
    fn is_over(&self, now: Timestamp) -> bool {
        self.valid_until.is_some_and(|end| end <= now)
    }
}

/// See the [module](self).
pub(in crate::postgres) struct Outbound {
    pool: Pool,
    vault: Arc<Vault>,
    clock: Clock,
    handoff: Arc<dyn Handoff>,
    known: RwLock<Known>,
    /// Deleted endpoints for which deliveries still wait: they never change.
    gone: Mutex<HashMap<EndpointKey, Arc<Endpoint>>>,
}

#[derive(Default)]
struct Known {
    /// Endpoints that are not deleted.
    endpoints: HashMap<EndpointKey, Held>,
    of: HashMap<i64, Vec<EndpointKey>>,
}

/// An endpoint that is not deleted, as the database has it now.
struct Now {
    org: i64,
    endpoint: EndpointKey,
    version: i64,
}

impl Outbound {
    pub(super) fn new(pool: Pool, vault: Arc<Vault>, clock: Clock, handoff: Arc<dyn Handoff>) -> Self {
        Self { pool, vault, clock, handoff, known: RwLock::default(), gone: Mutex::default() }
    }

    /// An endpoint that is not deleted.
    pub(in crate::postgres) fn endpoint(&self, key: EndpointKey) -> Option<Arc<Endpoint>> {
        self.known.read().endpoints.get(&key).map(|held| held.endpoint.clone())
    }

    /// An endpoint that is not deleted, if none of its secrets has ended since it was read.
    pub(in crate::postgres) fn current(&self, key: EndpointKey, now: impl Fn() -> Timestamp) -> Option<Arc<Endpoint>> {
        let known = self.known.read();
        let held = known.endpoints.get(&key).filter(|held| held.valid_until.is_none_or(|end| end > now()))?;
        Some(held.endpoint.clone())
    }

    /// The organization of an endpoint that is not deleted.
    pub(in crate::postgres) fn owner(&self, key: EndpointKey) -> Option<i64> {
        self.known.read().endpoints.get(&key).map(|held| held.endpoint.organization.0)
    }

    /// Whether a secret of an endpoint has ended since it was read.
    pub(in crate::postgres) fn is_stale(&self, key: EndpointKey, now: Timestamp) -> bool {
        let known = self.known.read();
        known.endpoints.get(&key).is_some_and(|held| held.is_over(now))
    }

    /// An endpoint as the database has it, deleted or not: deliveries may still wait for a deleted one.
    pub(in crate::postgres) async fn find(&self, key: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        if let Some(gone) = self.gone.lock().get(&key) {
            return Ok(Some(gone.clone()));
        }
        let transaction = self.pool.snapshot().await?;
        let found = self.find_in(&transaction, key).await;
        let Some(found) = transaction.finish(found).await? else { return Ok(None) };
        if found.blocked == Some(DeadReason::EndpointDeleted) {
            let mut gone = self.gone.lock();
            if gone.len() >= GONE {
                gone.clear();
            }
            gone.insert(key, found.clone());
        }
        Ok(Some(found))
    }

    async fn find_in(&self, transaction: &Transaction, key: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        let Some(row) = transaction.query_one(OWNER, bind![key.0]).await? else { return Ok(None) };
        let now = Now { org: get(&row, 0)?, endpoint: key, version: get(&row, 1)? };
        let organizations = organizations(transaction, &[now.org]).await?;
        let found = self.build(transaction, &organizations, &[&now]).await?.pop();
        Ok(found.map(|held| held.endpoint))
    }

    /// Reads these organizations again, and tells delivery which endpoints to look at.
    pub(super) async fn read(&self, orgs: &[i64]) -> Result<()> {
        let transaction = self.pool.snapshot().await?;
        let asked = orgs.to_vec();
        let values = bind![asked];
        let (organizations, versions) =
            tokio::try_join!(organizations(&transaction, orgs), transaction.query(VERSIONS, values))?;
        let mut all = Vec::with_capacity(versions.len());
        for row in versions {
            all.push(Now { org: get(&row, 0)?, endpoint: EndpointKey(get(&row, 1)?), version: get(&row, 2)? });
        }
        let changed = self.not_current(&all, &organizations);
        let mut fresh = HashMap::default();
        for some in changed.chunks(AT_ONCE) {
            for held in self.build(&transaction, &organizations, some).await? {
                fresh.insert(held.key, held);
            }
        }
        transaction.commit().await?;
        let changed = self.known.write().replace(orgs, &all, fresh);
        changed.into_iter().for_each(|endpoint| self.handoff.wake(endpoint));
        Ok(())
    }

    /// Endpoints that are not known as the database has them now. Those that are stay the same in memory, too: delivery
    /// keeps what it made of them.
    fn not_current<'a>(&self, all: &'a [Now], organizations: &Organizations) -> Vec<&'a Now> {
        let (known, now) = (self.known.read(), self.clock.now());
        let is_current = |one: &Now| {
            let active = organizations.get(&one.org).is_some_and(|organization| organization.is_active);
            known.endpoints.get(&one.endpoint).is_some_and(|held| held.is_current(one.version, active, now))
        };
        all.iter().filter(|one| !is_current(one)).collect()
    }

    async fn build(
        &self,
        transaction: &Transaction,
        organizations: &Organizations,
        some: &[&Now],
    ) -> Result<Vec<Held>> {
        let now = self.clock.now();
        let endpoints: Vec<i64> = some.iter().map(|one| one.endpoint.0).collect();
        let versions: HashMap<i64, i64> = some.iter().map(|one| (one.endpoint.0, one.version)).collect();
        let orgs: Vec<i64> = organizations.keys().copied().collect();
        let moment = at(now);
        let (values, secret_values) = (bind![endpoints], bind![orgs, endpoints, moment]);
        let (rows, secrets) =
            tokio::try_join!(transaction.query(ENDPOINTS, values), transaction.query(SECRETS, secret_values),)?;
        let mut secrets = grouped_by(&secrets, 1, SecretRow::read)?;
        let mut built = Vec::with_capacity(rows.len());
        for row in &rows {
            let org: i64 = get(row, 0)?;
            let organization = organizations.get(&org).ok_or(Error::NotFound { kind: "organization" })?;
            let row = EndpointRow::read(row)?;
            let stored = secrets.remove(&row.endpoint).unwrap_or_default();
            let version = versions.get(&row.endpoint).copied().unwrap_or(-1);
            built.push(self.hold(org, organization, row, &stored, version, now));
        }
        Ok(built)
    }

    fn hold(
        &self,
        org: i64,
        organization: &Organization,
        row: EndpointRow,
        stored: &[SecretRow],
        version: i64,
        now: Timestamp,
    ) -> Held {
        let (settings, headers_read) = row.settings(organization.id, &self.vault);
        let secrets = active(stored, SecretsOf::Endpoint, organization.id, &self.vault, now);
        let endpoint = Endpoint {
            organization: OrganizationKey(org),
            organization_id: organization.id,
            id: row.id,
            number: row.number,
            signer: headers_read.and_then(|()| signer(secrets)),
            settings,
            blocked: blocked(organization.is_active, &row),
        };
        let (key, valid_until) = (EndpointKey(row.endpoint), SecretRow::next_change(stored, now));
        Held { key, endpoint: Arc::new(endpoint), version, organization_active: organization.is_active, valid_until }
    }
}

impl Known {
    /// Puts the endpoints of these organizations in place. Answers with those whose settings changed or that are gone:
    /// delivery has to look at what waits for them.
    fn replace(&mut self, orgs: &[i64], all: &[Now], mut fresh: HashMap<EndpointKey, Held>) -> Vec<EndpointKey> {
        let mut changed = Vec::new();
        let mut before: HashMap<EndpointKey, Held> = HashMap::default();
        for endpoint in orgs.iter().filter_map(|org| self.of.remove(org)).flatten() {
            before.extend(self.endpoints.remove(&endpoint).map(|held| (endpoint, held)));
        }
        for now in all {
            let old = before.remove(&now.endpoint);
            let differs = old.as_ref().is_some_and(|old| old.version != now.version);
            let Some(held) = fresh.remove(&now.endpoint).or(old) else { continue };
            changed.extend(differs.then_some(now.endpoint));
            self.endpoints.insert(now.endpoint, held);
            self.of.entry(now.org).or_default().push(now.endpoint);
        }
        changed.extend(before.into_keys());
        changed
    }
}

/// What the worker may see of an organization.
struct Organization {
    id: OrganizationId,
    is_active: bool,
}

type Organizations = HashMap<i64, Organization>;

async fn organizations(transaction: &Transaction, orgs: &[i64]) -> Result<Organizations> {
    let mut organizations = HashMap::default();
    for row in transaction.query(ORGANIZATIONS, bind![orgs.to_vec()]).await? {
        let organization = Organization { id: OrganizationId::from_bytes(id(&row, 1)?), is_active: get(&row, 2)? };
        organizations.insert(get(&row, 0)?, organization);
    }
    Ok(organizations)
}
