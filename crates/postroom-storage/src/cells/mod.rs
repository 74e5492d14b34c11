//! Databases of their own: an organization's data plane in a *cell*, and the router that finds it.
//!
//! The shared database holds who is who for all, the registry of cells, and the data of every organization without a
//! cell. A cell is a complete database of the same engine with the same migrations, and a copy of its organization's
//! row under the same number, so that a [`Scope`] of the shared database works there, too. Engines know
//! nothing of this: [`Router`] stands above them, implements the five traits, and sends each call where its organization
//! is. Nothing is ever done in two databases at once; a cell that is down is a 503 of its organization alone.
//!
//! A cell is opened by its first use and sleeps again after five minutes in which nothing was asked of it and nothing
//! waits in it. The registry remembers which are awake: those are opened at the next start, so that what waits there is
//! delivered though nobody calls.

mod follow;
mod keys;
mod leaving;
mod making;
mod map;
mod place;
pub(crate) mod registry;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::{Mutex, RwLock};
use postroom_domain::{Clock, OrganizationId};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::leaving::{Calls, Held};
use self::map::Map;
use self::place::{Open, Place};
use self::registry::{Registry, Tenants};
use crate::{Handoff, Result, Scope, Storage, SuperAdmin};

/// How many cells are opened at the same time, and closed.
const AT_ONCE: usize = 8;

/// How many more than necessary are looked at when cells are to sleep so that others can be open.
const ROOM_TRIES: usize = 4;
/// How long the opening of a cell waits for another one to sleep.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// What a router is made of.
pub(crate) struct Settings {
    pub(crate) shared: Storage,
    pub(crate) registry: Arc<dyn Registry>,
    /// The registry as the engine read it when it was opened.
    pub(crate) tenants: Tenants,
    pub(crate) handoff: Arc<dyn Handoff>,
    pub(crate) clock: Clock,
    /// Whether this process makes deliveries: then it opens every cell in which something may wait.
    pub(crate) delivers: bool,
}

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Router {
    shared: Storage,
    cells: Arc<Cells>,
}

/// The cells as this process knows them.
struct Cells {
    registry: Arc<dyn Registry>,
    handoff: Arc<dyn Handoff>,
    clock: Clock,
    delivers: bool,
    map: RwLock<Arc<Map>>,
    refreshing: tokio::sync::Mutex<()>,
    calls: Mutex<Calls>,
    leaving: tokio::sync::Mutex<()>,
    held: Mutex<Held>,
    openings: Semaphore,
    /// Slugs of which a cell is being made in this process.
    making: Mutex<std::collections::HashSet<String>>,
    /// Where an engine is at home, whoever asked for it first: it was opened for others, too.
    home: Handle,
    stop: CancellationToken,
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Puts a router above an engine. Inside a Tokio runtime: it opens cells and follows the registry in the background.
pub(crate) fn open(settings: Settings) -> Storage {
    let Settings { shared, registry, tenants, handoff, clock, delivers } = settings;
    let cells = Arc::new(Cells {
        registry,
        handoff,
        clock,
        delivers,
        map: RwLock::new(Arc::new(Map::default().next(tenants))),
        refreshing: tokio::sync::Mutex::default(),
        calls: Mutex::default(),
        leaving: tokio::sync::Mutex::default(),
        held: Mutex::default(),
        openings: Semaphore::new(AT_ONCE),
        making: Mutex::default(),
        home: Handle::current(),
        stop: CancellationToken::new(),
    });
    follow::start(&cells);
    let router = Arc::new(Router { shared, cells });
    Storage {
        authorizer: router.clone(),
        receiver: router.clone(),
        worker: router.clone(),
        api: router.clone(),
        platform: router,
    }
}

/// Where an organization's data is; held as long as it is used.
struct Engine<'r> {
    at: At<'r>,
    /// See [`Calls`].
    _call: Arc<()>,
}

enum At<'r> {
    Shared(&'r Storage),
    Cell(Arc<Open>),
}

impl std::ops::Deref for Engine<'_> {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        match &self.at {
            At::Shared(storage) => storage,
            At::Cell(open) => open,
        }
    }
}

impl Router {
    /// The engine of an organization.
    async fn of(&self, scope: &Scope) -> Result<Engine<'_>> {
        let call = self.cells.calls.lock().token();
        let place = self.place_of(scope).await?;
        self.stays(scope.organization)?;
        let at = match place {
            None => At::Shared(&self.shared),
            Some(place) => At::Cell(place.enter(&self.cells).await?),
        };
        Ok(Engine { at, _call: call })
    }

    /// Refuses what comes for an organization that is being moved.
    fn stays(&self, organization: OrganizationId) -> Result<()> {
        self.cells.map().move_of(organization).map_or(Ok(()), |moving| Err(leaving::unavailable(moving)))
    }

    /// The cell of an organization, if it has one.
    async fn place_of(&self, scope: &Scope) -> Result<Option<Arc<Place>>> {
        let known = self.cells.map().of(scope.organization);
        if known.is_some() || !scope.is_dedicated {
            return Ok(known);
        }
        // The engine has seen a row of the registry that is too new for the map.
        self.cells.refresh().await?;
        // Or it has moved back since the engine saw it.
        Ok(self.cells.map().of(scope.organization))
    }
}

impl Cells {
    fn map(&self) -> Arc<Map> {
        self.map.read().clone()
    }

    fn of(&self, organization: OrganizationId) -> Option<Arc<Place>> {
        self.map().of(organization)
    }

    /// Reads the registry again, if it has changed. Returns whether it has.
    async fn refresh(&self) -> Result<bool> {
        let _one_at_a_time = self.refreshing.lock().await;
        let before = self.map();
        let Some(tenants) = self.registry.tenants(Some(before.revision)).await? else { return Ok(false) };
        let next = before.next(tenants);
        let is_known = |id| before.moving().iter().any(|known| known.id == id);
        let begins = next.moving().iter().any(|moving| !is_known(moving.id));
        *self.map.write() = Arc::new(next);
        if begins {
            self.calls.lock().turn();
        }
        Ok(true)
    }

    /// Where no more cells can be open at once, those that nobody has used for longest sleep first: not where something is
    /// under way or waits, so there may be some more for a while.
    async fn make_room(self: &Arc<Self>) {
        let map = self.map();
        let mut open: Vec<_> = map.all().filter_map(|place| Some((place.used()?, place.clone()))).collect();
        let mut too_many = (open.len() + 1).saturating_sub(self.registry.awake_at_most());
        open.sort_unstable_by_key(|(used, _)| *used);
        for (used, place) in open.into_iter().take(if too_many > 0 { too_many + ROOM_TRIES } else { 0 }) {
            let (sleeper, cells) = (place.clone(), self.clone());
            // In a task of its own: it is not left half closed when this one is not waited for.
            let slept = tokio::spawn(async move { sleeper.sleep(&cells, used).await });
            let _it_goes_on = tokio::time::timeout(ROOM_PATIENCE, slept).await;
            too_many -= usize::from(place.used().is_none());
            if too_many == 0 {
                return;
            }
        }
    }

    /// Gives a cell the copy of its organization as it is now.
    async fn copy_organization(&self, open: &Open, org: i64) -> Result<()> {
        let copy = self.registry.organization_copy(org).await?;
        open.upkeep.organization_put(&copy).await?;
        *open.copied.lock() = copy.updated_at;
        Ok(())
    }

    /// Tells the shared database how many events an organization had accepted, if that is news. What cannot be told now
    /// is told the next time.
    async fn count(&self, place: &Place, open: &Open) {
        let now = self.clock.now();
        let by = SuperAdmin::by_operator();
        let Ok(organization) = open.platform.organization_get(by, place.organization).await else { return };
        let count = Some(organization.webhook_count);
        if *open.counted.lock() != count
            && self.registry.usage_put(place.org, organization.webhook_count, now).await.is_ok()
        {
            *open.counted.lock() = count;
        }
    }

    /// Closes all that is open, and opens nothing any more.
    async fn end(self: &Arc<Self>) -> Result<()> {
        self.stop.cancel();
        let places = self.map().all().cloned().collect::<Vec<_>>();
        let ended = futures_util::stream::iter(places).map(async |place| place.end(self).await);
        let ended: Vec<Result<()>> = ended.buffer_unordered(AT_ONCE).collect().await;
        ended.into_iter().collect()
    }
}
