//! Who is who: organizations by id and slug, API keys by their hash, people by their sessions. Read by the authorizer's
//! connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};
use postroom_domain::api_key::{KeyHash, KeyScope};
use postroom_domain::{ApiKeyId, OrganizationId, SessionId, Timestamp, UserId};
use tokio_postgres::Row;

use super::grouped_by;
use crate::engine::people::{Session, Sessions};
use crate::postgres::convert::{at, email, get, id, json, moment, moment_or_none, word};
use crate::postgres::pool::{Pool, bind};
use crate::postgres::rows::hash;
use crate::scope::PersonCaller;
use crate::{Actor, Origin, Result, Scope};

/// How often the use of a key is written down at most.
const NOTE_EVERY_MS: i64 = 60_000;
/// How many uses are written down at once.
const NOTES: usize = 1_000;

/// By primary key; the registry by its unique index on org_id.
const ORGANIZATIONS: &str = "select org, id, slug, is_active, exists (select from tenants where org_id = org) \
     from organizations where org = any($1)";

/// The primary key, from the organization on.
const KEYS: &str = "select org, key, id, scopes, hash, expires_at, last_used_at from api_keys \
     where org = any($1) and revoked_at is null order by org, key";

/// Index: sessions_by_user; people by primary key. Those that have expired go from the table a day later.
const SESSIONS: &str = "select sessions.org, sessions.id, users.id, email, role, expires_at \
     from sessions join users on users.org = sessions.org and users.usr = sessions.usr \
     where sessions.org = any($1) and ended_at is null and is_active";

/// By primary key. Other nodes may have noted a use of the same minute.
const NOTE_USES: &str = "update api_keys set last_used_at = used.at \
     from unnest($1, $2, $3) as used (org, key, at) \
     where api_keys.org = used.org and api_keys.key = used.key \
       and (last_used_at is null or last_used_at <= used.at - interval '1 minute')";

/// An organization as a caller may act for it.
pub(in crate::postgres) struct Caller {
    pub(in crate::postgres) org: i64,
    pub(in crate::postgres) id: OrganizationId,
    pub(in crate::postgres) slug: Arc<str>,
    pub(in crate::postgres) is_active: bool,
    is_dedicated: bool,
    keys: Vec<Arc<Key>>,
}

impl Caller {
    /// Proof that somebody may act for this organization.
    pub(in crate::postgres) fn scope(&self, actor: Actor) -> Scope {
        Scope {
            organization: self.id,
            org: self.org,
            slug: self.slug.clone(),
            actor,
            origin: Origin::default(),
            is_dedicated: self.is_dedicated,
        }
    }
}

/// An API key that is not revoked.
pub(in crate::postgres) struct Key {
    key: i64,
    org: i64,
    hash: KeyHash,
    pub(in crate::postgres) id: ApiKeyId,
    pub(in crate::postgres) scopes: Vec<KeyScope>,
    pub(in crate::postgres) expires_at: Option<Timestamp>,
    /// When its last use was last handed over to be written.
    noted_at: AtomicI64,
}

impl Key {
    fn read(row: &Row) -> Result<Self> {
        let last_used_at = moment_or_none(row, 6)?;
        Ok(Self {
            org: get(row, 0)?,
            key: get(row, 1)?,
            id: ApiKeyId::from_bytes(id(row, 2)?),
            scopes: json(row, 3)?,
            hash: hash(row, 4)?,
            expires_at: moment_or_none(row, 5)?,
            noted_at: AtomicI64::new(last_used_at.map_or(i64::MIN, Timestamp::as_millis)),
        })
    }
}

fn session(row: &Row) -> Result<Session> {
    Ok(Session {
        org: get(row, 0)?,
        id: SessionId::from_bytes(id(row, 1)?),
        user: UserId::from_bytes(id(row, 2)?),
        email: email(row, 3)?,
        role: word(row, 4)?,
        expires_at: moment(row, 5)?,
    })
}

/// See the [module](self).
pub(in crate::postgres) struct Callers {
    pool: Pool,
    known: RwLock<Known>,
    /// Uses of keys that are to be written down.
    uses: Mutex<HashMap<(i64, i64), Timestamp>>,
}

#[derive(Default)]
struct Known {
    callers: HashMap<i64, Arc<Caller>>,
    by_id: HashMap<OrganizationId, i64>,
    by_slug: HashMap<Arc<str>, i64>,
    keys: HashMap<KeyHash, Arc<Key>>,
    sessions: Sessions,
}

impl Known {
    fn put(&mut self, caller: Caller) {
        self.by_id.insert(caller.id, caller.org);
        self.by_slug.insert(caller.slug.clone(), caller.org);
        self.keys.extend(caller.keys.iter().map(|key| (key.hash, key.clone())));
        self.callers.insert(caller.org, Arc::new(caller));
    }

    fn remove(&mut self, org: i64) {
        let Some(old) = self.callers.remove(&org) else { return };
        self.by_id.remove(&old.id);
        // Another organization may have taken the slug since: only our own goes.
        if self.by_slug.get(&old.slug) == Some(&org) {
            self.by_slug.remove(&old.slug);
        }
        for key in &old.keys {
            self.keys.remove(&key.hash);
        }
    }
}

impl Callers {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, known: RwLock::default(), uses: Mutex::default() }
    }

    /// Reads these organizations again.
    pub(super) async fn read(&self, orgs: &[i64]) -> Result<()> {
        let transaction = self.pool.snapshot().await?;
        let asked = orgs.to_vec();
        // On their way at once, here and below: one round trip.
        let values = bind![asked];
        let (organizations, rows, sessions) = tokio::try_join!(
            transaction.query(ORGANIZATIONS, values),
            transaction.query(KEYS, values),
            transaction.query(SESSIONS, values)
        )?;
        transaction.commit().await?;
        let mut sessions = grouped_by(&sessions, 0, session)?;
        let mut keys: HashMap<i64, Vec<Arc<Key>>> = HashMap::default();
        for row in &rows {
            let key = Key::read(row)?;
            keys.entry(key.org).or_default().push(Arc::new(key));
        }
        let mut callers = Vec::with_capacity(organizations.len());
        for row in &organizations {
            let org = get(row, 0)?;
            callers.push(Caller {
                org,
                id: OrganizationId::from_bytes(id(row, 1)?),
                slug: get::<&str>(row, 2)?.into(),
                is_active: get(row, 3)?,
                is_dedicated: get(row, 4)?,
                keys: keys.remove(&org).unwrap_or_default(),
            });
        }
        let mut known = self.known.write();
        orgs.iter().for_each(|org| known.remove(*org));
        callers.into_iter().for_each(|caller| known.put(caller));
        orgs.iter().for_each(|org| known.sessions.put(*org, sessions.remove(org).unwrap_or_default()));
        Ok(())
    }

    /// All organizations that are known.
    pub(super) fn organizations(&self) -> Vec<i64> {
        self.known.read().callers.keys().copied().collect()
    }

    /// An organization by its slug.
    pub(in crate::postgres) fn by_slug(&self, slug: &str) -> Option<Arc<Caller>> {
        let known = self.known.read();
        known.by_slug.get(slug).and_then(|org| known.callers.get(org)).cloned()
    }

    /// An organization by its id.
    pub(in crate::postgres) fn by_id(&self, id: OrganizationId) -> Option<Arc<Caller>> {
        let known = self.known.read();
        known.by_id.get(&id).and_then(|org| known.callers.get(org)).cloned()
    }

    /// An API key that is not revoked, and its organization.
    pub(in crate::postgres) fn key(&self, hash: &KeyHash) -> Option<(Arc<Key>, Arc<Caller>)> {
        let known = self.known.read();
        let key = known.keys.get(hash)?;
        Some((key.clone(), known.callers.get(&key.org)?.clone()))
    }

    /// The person behind a session that has not ended.
    pub(in crate::postgres) fn person(&self, session: SessionId, now: Timestamp) -> Option<PersonCaller> {
        let known = self.known.read();
        let session = known.sessions.get(session).filter(|session| session.expires_at > now)?;
        session.caller(|actor| {
            let caller = known.callers.get(&session.org)?;
            Some((caller.scope(actor), caller.is_active))
        })
    }

    /// Remembers that a key was used, at most once a minute; [`Self::note_uses`] writes it down.
    pub(in crate::postgres) fn note_use(&self, key: &Key, now: Timestamp) {
        let (millis, noted) = (now.as_millis(), key.noted_at.load(Ordering::Relaxed));
        let due = millis.saturating_sub(noted) >= NOTE_EVERY_MS;
        if due && key.noted_at.compare_exchange(noted, millis, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.uses.lock().insert((key.org, key.key), now);
        }
    }

    /// Writes down the uses of keys that are not yet. What cannot be written is left out: the next use comes.
    pub(in crate::postgres) async fn note_uses(&self) -> Result<()> {
        let uses = std::mem::take(&mut *self.uses.lock());
        let mut uses: Vec<_> = uses.into_iter().collect();
        // In one order, so that two nodes do not wait for each other.
        uses.sort_unstable();
        for some in uses.chunks(NOTES) {
            let orgs: Vec<i64> = some.iter().map(|((org, _), _)| *org).collect();
            let keys: Vec<i64> = some.iter().map(|((_, key), _)| *key).collect();
            let times: Vec<_> = some.iter().map(|(_, used)| at(*used)).collect();
            self.pool.connection().await?.execute(NOTE_USES, bind![orgs, keys, times]).await?;
        }
        Ok(())
    }
}
