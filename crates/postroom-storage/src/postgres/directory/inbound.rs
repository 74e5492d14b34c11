//! What is received and where it goes: sources with their verifiers, and which endpoint wants what. Read by the
//! receiver's connections.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::RwLock;
use postroom_domain::endpoint::Subscription;
use postroom_domain::event::EventType;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{Clock, OrganizationId, SourceId, Timestamp};
use tokio_postgres::Row;

use super::grouped_by;
use crate::engine::configured::{active, mandrill_secret, verifier, wanting};
use crate::engine::rows::{SecretRow, SecretsOf, SourceRow};
use crate::engine::vault::Vault;
use crate::postgres::convert::{at, get, id, json, json_or_none, word};
use crate::postgres::pool::{Pool, Transaction, bind};
use crate::postgres::rows::{Read, select_source};
use crate::receiver::Source;
use crate::worker::EndpointKey;
use crate::{Actor, Origin, Result, Scope};

/// How many endpoints are read at once.
const AT_ONCE: usize = 1_000;

/// By primary key.
const ORGANIZATIONS: &str = "select org, id, slug, plan, webhook_limit, is_active, mandrill_secret from organizations \
     where org = any($1)";

/// The primary key, from the organization on.
const SOURCES: &str = select_source!("where org = any($1) and deleted_at is null order by org, source");

/// Index: source_secrets_by_source.
const SECRETS: &str = "select org, source, id, value, created_at, expires_at from source_secrets \
     where org = any($1) and value is not null and (expires_at is null or expires_at > $2) \
     order by org, source, secret desc";

/// The primary key, from the organization on.
const VERSIONS: &str = "select org, endpoint, version from endpoints \
     where org = any($1) and deleted_at is null and disabled_reason is null order by org, endpoint";

/// Index: endpoints_by_number.
const ROUTES: &str = "select endpoint, event_types, source_ids, filter from endpoints where endpoint = any($1)";

/// One organization as whoever accepts events sees it.
pub(in crate::postgres) struct Entry {
    pub(in crate::postgres) org: i64,
    pub(in crate::postgres) slug: Arc<str>,
    /// Events a calendar month; none is unlimited.
    pub(in crate::postgres) limit: Option<u64>,
    sources: HashMap<String, Arc<Source>>,
    /// The endpoints new events may go to, in the order they were made.
    routes: Vec<Arc<Route>>,
    /// When a secret in here ends, so that the entry is no longer right.
    valid_until: Option<Timestamp>,
}

/// An endpoint that new events may go to.
struct Route {
    endpoint: EndpointKey,
    version: i64,
    wanted: Subscription,
}

impl Route {
    fn read(row: &Row, version: i64) -> Result<Self> {
        Ok(Self {
            endpoint: EndpointKey(get(row, 0)?),
            version,
            wanted: Subscription {
                event_types: json(row, 1)?,
                source_ids: json(row, 2)?,
                filter: json_or_none(row, 3)?,
            },
        })
    }
}

impl Entry {
    /// The source of this name.
    pub(in crate::postgres) fn source(&self, name: &str) -> Option<Arc<Source>> {
        self.sources.get(name).cloned()
    }

    /// The endpoints that want an event.
    pub(in crate::postgres) fn wanting(
        &self,
        event_type: &EventType,
        source: Option<SourceId>,
        body: &[u8],
    ) -> Vec<EndpointKey> {
        let routes = self.routes.iter().map(|route| (route.endpoint, &route.wanted));
        wanting(routes, event_type, source, body)
    }

    /// Whether a secret in here has ended since it was read. The clock is asked only if one will end.
    pub(in crate::postgres) fn is_stale(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.valid_until.is_some_and(|end| end <= now())
    }
}

/// See the [module](self).
pub(in crate::postgres) struct Inbound {
    pool: Pool,
    vault: Arc<Vault>,
    clock: Clock,
    plans: PlanLimits,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<i64, Arc<Entry>>,
    by_slug: HashMap<Arc<str>, i64>,
}

impl Known {
    fn put(&mut self, entry: Entry) {
        self.by_slug.insert(entry.slug.clone(), entry.org);
        self.entries.insert(entry.org, Arc::new(entry));
    }

    fn remove(&mut self, org: i64) {
        let Some(old) = self.entries.remove(&org) else { return };
        // Another organization may have taken the slug since: only our own goes.
        if self.by_slug.get(&old.slug) == Some(&org) {
            self.by_slug.remove(&old.slug);
        }
    }
}

impl Inbound {
    pub(super) fn new(pool: Pool, vault: Arc<Vault>, clock: Clock, plans: PlanLimits) -> Self {
        Self { pool, vault, clock, plans, known: RwLock::default() }
    }

    /// An organization by its number.
    pub(in crate::postgres) fn entry(&self, org: i64) -> Option<Arc<Entry>> {
        self.known.read().entries.get(&org).cloned()
    }

    /// An organization by its slug.
    pub(in crate::postgres) fn by_slug(&self, slug: &str) -> Option<Arc<Entry>> {
        let known = self.known.read();
        known.by_slug.get(slug).and_then(|org| known.entries.get(org)).cloned()
    }

    /// Reads these organizations again.
    pub(super) async fn read(&self, orgs: &[i64]) -> Result<()> {
        let now = self.clock.now();
        let asked = orgs.to_vec();
        let transaction = self.pool.snapshot().await?;
        let moment = at(now);
        let (values, secret_values) = (bind![asked], bind![asked, moment]);
        let (organizations, sources, secrets, versions) = tokio::try_join!(
            transaction.query(ORGANIZATIONS, values),
            transaction.query(SOURCES, values),
            transaction.query(SECRETS, secret_values),
            transaction.query(VERSIONS, values),
        )?;
        let mut routes = self.routes(&transaction, orgs, &versions).await?;
        transaction.commit().await?;
        let mut sources = grouped_by(&sources, 0, SourceRow::read)?;
        let mut secrets = grouped_by(&secrets, 1, SecretRow::read)?;
        let mut entries = Vec::with_capacity(organizations.len());
        for row in &organizations {
            let organization = Organization::read(row, self.plans)?;
            let sources = sources.remove(&organization.org).unwrap_or_default();
            let routes = routes.remove(&organization.org).unwrap_or_default();
            entries.push(self.entry_of(&organization, sources, &mut secrets, routes, now));
        }
        let mut known = self.known.write();
        orgs.iter().for_each(|org| known.remove(*org));
        entries.into_iter().for_each(|entry| known.put(entry));
        Ok(())
    }

    /// The routes of these organizations. Those that did not change are taken from what is known.
    async fn routes(
        &self,
        transaction: &Transaction,
        orgs: &[i64],
        versions: &[Row],
    ) -> Result<HashMap<i64, Vec<Arc<Route>>>> {
        let before: Vec<Arc<Entry>> = orgs.iter().filter_map(|org| self.entry(*org)).collect();
        let mut known: HashMap<EndpointKey, &Arc<Route>> =
            before.iter().flat_map(|entry| &entry.routes).map(|route| (route.endpoint, route)).collect();
        let mut all = Vec::with_capacity(versions.len());
        for row in versions {
            all.push((get::<i64>(row, 0)?, EndpointKey(get(row, 1)?), get::<i64>(row, 2)?));
        }
        let changed: Vec<(i64, i64)> = all
            .iter()
            .filter(|(_, endpoint, version)| known.get(endpoint).is_none_or(|route| route.version != *version))
            .map(|(_, endpoint, version)| (endpoint.0, *version))
            .collect();
        let mut fresh = HashMap::default();
        for some in changed.chunks(AT_ONCE) {
            let versions: HashMap<i64, i64> = some.iter().copied().collect();
            let endpoints: Vec<i64> = some.iter().map(|(endpoint, _)| *endpoint).collect();
            for row in transaction.query(ROUTES, bind![endpoints]).await? {
                let endpoint: i64 = get(&row, 0)?;
                let version = versions.get(&endpoint).copied().unwrap_or(-1);
                fresh.insert(EndpointKey(endpoint), Arc::new(Route::read(&row, version)?));
            }
        }
        let mut routes: HashMap<i64, Vec<Arc<Route>>> = HashMap::default();
        for (org, endpoint, _) in all {
            let route = fresh.remove(&endpoint).or_else(|| known.remove(&endpoint).cloned());
            routes.entry(org).or_default().extend(route);
        }
        Ok(routes)
    }

    /// Sources by name. The one implied by the organization's Mandrill secret gives way to a real one of that name.
    fn entry_of(
        &self,
        organization: &Organization,
        rows: Vec<SourceRow>,
        secrets: &mut HashMap<i64, Vec<SecretRow>>,
        routes: Vec<Arc<Route>>,
        now: Timestamp,
    ) -> Entry {
        let mut sources: HashMap<String, Arc<Source>> = HashMap::default();
        let mut ends = Vec::new();
        for row in rows {
            let opened = if row.is_implied {
                let sealed = organization.mandrill_secret.as_deref();
                sealed.map(|sealed| mandrill_secret(organization.id, &self.vault, sealed)).into_iter().collect()
            } else {
                let stored = secrets.remove(&row.source).unwrap_or_default();
                ends.extend(SecretRow::next_change(&stored, now));
                active(&stored, SecretsOf::Source, organization.id, &self.vault, now)
            };
            if row.is_implied && sources.contains_key(&row.settings.name) {
                continue;
            }
            let source = Source {
                id: row.id,
                is_active: row.is_active && organization.is_active,
                verifier: verifier(&row.settings, opened),
                settings: row.settings,
                scope: organization.scope(),
                key: row.source,
            };
            sources.insert(source.settings.name.clone(), Arc::new(source));
        }
        let (org, slug, limit) = (organization.org, organization.slug.clone(), organization.limit);
        Entry { org, slug, limit, sources, routes, valid_until: ends.into_iter().min() }
    }
}

/// What the receiver may see of an organization.
struct Organization {
    org: i64,
    id: OrganizationId,
    slug: Arc<str>,
    limit: Option<u64>,
    is_active: bool,
    mandrill_secret: Option<Vec<u8>>,
}

impl Organization {
    fn read(row: &Row, plans: PlanLimits) -> Result<Self> {
        let own: Option<i64> = get(row, 4)?;
        Ok(Self {
            org: get(row, 0)?,
            id: OrganizationId::from_bytes(id(row, 1)?),
            slug: get::<&str>(row, 2)?.into(),
            limit: plans.of(word(row, 3)?, own.map(i64::cast_unsigned)),
            is_active: get(row, 5)?,
            mandrill_secret: get(row, 6)?,
        })
    }

    fn scope(&self) -> Scope {
        Scope {
            organization: self.id,
            org: self.org,
            slug: self.slug.clone(),
            actor: Actor::Sender,
            origin: Origin::default(),
            is_dedicated: false,
        }
    }
}
