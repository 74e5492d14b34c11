//! What is asked for on every request and every attempt, in memory: organizations, keys, sessions, sources, endpoints.
//!
//! One entry for each organization, replaced as a whole after each change of its configuration was committed. Whoever
//! changed something waits for that, so the next request sees it. Entries are read from the database under one lock, so
//! two reloads cannot leave the older state behind. Three parts read an entry, each what it may: who proves callers its
//! keys and sessions, who accepts events its sources and subscriptions, who delivers its endpoints.

mod load;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};
use postroom_domain::api_key::{KeyHash, KeyScope};
use postroom_domain::endpoint::Subscription;
use postroom_domain::event::EventType;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{ApiKeyId, OrganizationId, SessionId, SourceId, Timestamp};

use super::connection::Connection;
use super::grants::Part;
use crate::engine::configured::wanting;
use crate::engine::people::{PLATFORM, Sessions};
use crate::engine::vault::Vault;
use crate::receiver::Source;
use crate::scope::PersonCaller;
use crate::worker::{Endpoint, EndpointKey};
use crate::{Actor, Origin, Result, Scope};

pub(super) use load::endpoint as load_endpoint;

/// How often unknown things are looked for in what other processes wrote.
const CATCH_UP_EVERY: Duration = Duration::from_millis(100);

/// One organization with everything of it that is asked for all the time.
pub(super) struct Entry {
    pub(super) org: i64,
    pub(super) id: OrganizationId,
    pub(super) slug: Arc<str>,
    pub(super) is_active: bool,
    /// Whether its data is in a database of its own.
    is_dedicated: bool,
    /// Events a calendar month; none is unlimited.
    pub(super) limit: Option<u64>,
    keys: Vec<Arc<Key>>,
    sources: HashMap<String, Arc<Source>>,
    /// The endpoints new events may go to, in the order they were made.
    routes: Vec<(EndpointKey, Subscription)>,
    endpoints: HashMap<EndpointKey, Held>,
    /// When a secret in here ends, so that the entry is no longer right.
    valid_until: Option<Timestamp>,
}

/// An endpoint and what it was made from: as long as that is the same, so is the endpoint.
#[derive(Clone)]
struct Held {
    endpoint: Arc<Endpoint>,
    version: i64,
    organization_active: bool,
    /// When one of its secrets ends.
    valid_until: Option<Timestamp>,
}

/// An API key that is not revoked.
pub(super) struct Key {
    pub(super) key: i64,
    pub(super) id: ApiKeyId,
    pub(super) org: i64,
    pub(super) hash: KeyHash,
    pub(super) scopes: Vec<KeyScope>,
    pub(super) expires_at: Option<Timestamp>,
    /// When its last use was last handed over to be written.
    pub(super) noted_at: AtomicI64,
}

impl Entry {
    /// Proof that somebody may act for this organization.
    pub(super) fn scope(&self, actor: Actor) -> Scope {
        Scope {
            organization: self.id,
            org: self.org,
            slug: self.slug.clone(),
            actor,
            origin: Origin::default(),
            is_dedicated: self.is_dedicated,
        }
    }

    /// The source of this name.
    pub(super) fn source(&self, name: &str) -> Option<Arc<Source>> {
        self.sources.get(name).cloned()
    }

    /// The endpoints that want an event.
    pub(super) fn wanting(&self, event_type: &EventType, source: Option<SourceId>, body: &[u8]) -> Vec<EndpointKey> {
        wanting(self.routes.iter().map(|(endpoint, wanted)| (*endpoint, wanted)), event_type, source, body)
    }
}

/// See the [module](self).
pub(super) struct Directory {
    plans: PlanLimits,
    known: RwLock<Known>,
    /// Held while an entry is read and put in place.
    reload: Mutex<()>,
    /// What another process had changed when everything was last read, and when that was last asked for.
    seen: Mutex<(i64, Option<Instant>)>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<i64, Arc<Entry>>,
    by_id: HashMap<OrganizationId, i64>,
    by_slug: HashMap<Arc<str>, i64>,
    keys: HashMap<KeyHash, Arc<Key>>,
    /// Endpoints that are not deleted.
    owners: HashMap<EndpointKey, i64>,
    sessions: Sessions,
}

impl Known {
    fn put(&mut self, entry: Entry) {
        self.remove(entry.org);
        self.by_id.insert(entry.id, entry.org);
        self.by_slug.insert(entry.slug.clone(), entry.org);
        self.keys.extend(entry.keys.iter().map(|key| (key.hash, key.clone())));
        self.owners.extend(entry.endpoints.keys().map(|endpoint| (*endpoint, entry.org)));
        self.entries.insert(entry.org, Arc::new(entry));
    }

    fn remove(&mut self, org: i64) {
        let Some(old) = self.entries.remove(&org) else { return };
        self.by_id.remove(&old.id);
        // Another organization may have taken the slug since: only our own goes.
        if self.by_slug.get(&old.slug) == Some(&org) {
            self.by_slug.remove(&old.slug);
        }
        for key in &old.keys {
            self.keys.remove(&key.hash);
        }
        for endpoint in old.endpoints.keys() {
            self.owners.remove(endpoint);
        }
    }
}

impl Directory {
    /// Reads everything.
    pub(super) fn load(connection: &mut Connection, vault: &Vault, plans: PlanLimits, now: Timestamp) -> Result<Self> {
        let seen = Mutex::new((revision(connection)?, None));
        let directory = Self { plans, known: RwLock::default(), reload: Mutex::new(()), seen };
        directory.reload_all(connection, vault, now)?;
        Ok(directory)
    }

    /// Reads everything again: another process changed something.
    pub(super) fn reload_all(&self, connection: &mut Connection, vault: &Vault, now: Timestamp) -> Result<()> {
        let _one_at_a_time = self.reload.lock();
        let mut known = Known::default();
        for org in load::organizations(connection)? {
            if let Some(entry) = load::entry(connection, vault, self.plans, org, self.entry(org).as_deref(), now)? {
                known.put(entry);
            }
            known.sessions.put(org, load::sessions(connection, org, now)?);
        }
        known.sessions.put(PLATFORM, load::sessions(connection, PLATFORM, now)?);
        *self.known.write() = known;
        Ok(())
    }

    /// For something that is not known: reads everything again if another process has changed anything since. Asked at
    /// most ten times a second, so that whoever guesses keys or names does not make work.
    pub(super) fn catch_up(&self, connection: &mut Connection, vault: &Vault, now: Timestamp) -> Result<()> {
        let mut seen = self.seen.lock();
        if !left(seen.1).is_zero() {
            return Ok(());
        }
        seen.1 = Some(Instant::now());
        let found = revision(connection)?;
        if found != seen.0 {
            self.reload_all(connection, vault, now)?;
            seen.0 = found;
        }
        Ok(())
    }

    /// How long until [`Directory::catch_up`] looks again.
    pub(super) fn catches_up_in(&self) -> Duration {
        // Somebody is looking at this moment: that is as good as having looked.
        self.seen.try_lock().map_or(CATCH_UP_EVERY, |seen| left(seen.1))
    }

    /// Reads one organization again, or super admins.
    pub(super) fn reload(&self, connection: &mut Connection, vault: &Vault, org: i64, now: Timestamp) -> Result<()> {
        let _one_at_a_time = self.reload.lock();
        let entry = load::entry(connection, vault, self.plans, org, self.entry(org).as_deref(), now)?;
        let sessions = load::sessions(connection, org, now)?;
        let mut known = self.known.write();
        known.sessions.put(org, sessions);
        match entry {
            Some(entry) => known.put(entry),
            None => known.remove(org),
        }
        Ok(())
    }

    /// An organization by its key.
    pub(super) fn entry(&self, org: i64) -> Option<Arc<Entry>> {
        self.known.read().entries.get(&org).cloned()
    }

    /// An organization by its slug.
    pub(super) fn by_slug(&self, slug: &str) -> Option<Arc<Entry>> {
        let known = self.known.read();
        known.by_slug.get(slug).and_then(|org| known.entries.get(org)).cloned()
    }

    /// An organization by its id.
    pub(super) fn by_id(&self, id: OrganizationId) -> Option<Arc<Entry>> {
        let known = self.known.read();
        known.by_id.get(&id).and_then(|org| known.entries.get(org)).cloned()
    }

    /// An API key that is not revoked, and its organization.
    pub(super) fn key(&self, hash: &KeyHash) -> Option<(Arc<Key>, Arc<Entry>)> {
        let known = self.known.read();
        let key = known.keys.get(hash)?;
        Some((key.clone(), known.entries.get(&key.org)?.clone()))
    }

    /// The person behind a session that has not ended.
    pub(super) fn person(&self, session: SessionId, now: Timestamp) -> Option<PersonCaller> {
        let known = self.known.read();
        let session = known.sessions.get(session).filter(|session| session.expires_at > now)?;
        session.caller(|actor| {
            let entry = known.entries.get(&session.org)?;
            Some((entry.scope(actor), entry.is_active))
        })
    }

    /// An endpoint that is not deleted, with the entry it is from.
    pub(super) fn endpoint(&self, key: EndpointKey) -> Option<(Arc<Endpoint>, Arc<Entry>)> {
        let known = self.known.read();
        let entry = known.entries.get(known.owners.get(&key)?)?;
        Some((entry.endpoints.get(&key)?.endpoint.clone(), entry.clone()))
    }
}

/// Until the next look.
fn left(looked: Option<Instant>) -> Duration {
    looked.map_or(Duration::ZERO, |looked| CATCH_UP_EVERY.saturating_sub(looked.elapsed()))
}

/// Moved by every command that changed configuration.
fn revision(connection: &mut Connection) -> Result<i64> {
    connection.act_as(Part::Platform);
    Ok(connection.prepare_cached("select value from revision")?.query_row([], |row| row.get(0))?)
}

impl Entry {
    /// Whether a secret in here has ended since it was read.
    pub(super) fn is_stale(&self, now: impl FnOnce() -> Timestamp) -> bool {
        self.valid_until.is_some_and(|end| end <= now())
    }
}
