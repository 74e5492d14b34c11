//! An organization moved into a database of its own, and back: it goes on as it was, and the others notice nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use postroom_domain::keyring::Keyring;
use postroom_domain::{Secret, Timestamp};
use postroom_storage::SuperAdmin;
use postroom_storage::api::EventFilter;
use postroom_storage::copy::{Doing, Error, Installation, Mode, Report, Step, dedicated, move_to};
use postroom_storage::platform::Isolation;
use postroom_storage::worker::Transition;

use super::life::{Life, all_of_it, tenant};
use super::{Side, copied, copied_until, open};
use crate::support::{
    Hands, Harness as _, Lanes, Postgres, Room, Sqlite, are_given_up, awake, opening, page, settlement,
};

pub async fn moved(
    place: &impl Side,
    slug: &str,
    to: Isolation,
    keys: &Secret,
    now: Timestamp,
) -> Result<Report, Error> {
    move_to(&place.installation(), slug, to, &Keyring::parse(keys).unwrap(), now, &mut |_| {}).await
}

/// Moves, and is killed at a step.
async fn killed_at(
    place: Installation,
    to: Isolation,
    keys: &Secret,
    now: Timestamp,
    mut at: impl FnMut(Step) -> bool + Send + 'static,
) {
    let ring = Keyring::parse(keys).unwrap();
    let embedded = match &place {
        Installation::Embedded(dir) => Some(dir.clone()),
        Installation::Postgres(_) => None,
    };
    let moving = tokio::spawn(async move {
        move_to(&place, "acme-0", to, &ring, now, &mut |step| assert!(!at(step), "killed here")).await.map(drop)
    });
    assert!(moving.await.is_err_and(|ended| ended.is_panic()), "it was killed");
    if let Some(dir) = embedded {
        are_given_up(&dir).await;
    }
}

async fn room<S: Side>(place: S, hands: &Hands, keys: &Secret) -> Room<S> {
    let (storage, lanes) = open(&place, hands, keys).await;
    awake(&storage).await;
    Room { harness: place, hands: hands.clone(), lanes, keys: keys.clone(), storage }
}

/// Everything that can be seen, but for the numbers of endpoints, which are others elsewhere.
async fn seen<S: Side>(room: &Room<S>) -> Vec<String> {
    let (waiting, mut seen): (Vec<_>, Vec<_>) =
        all_of_it(room).await.into_iter().partition(|line| line.contains(" EndpointKey("));
    let nameless = waiting.iter().map(|line| {
        let (event, rest) = line.split_once(" EndpointKey(").unwrap();
        format!("{event} {}", rest.split_once(')').unwrap().1)
    });
    let mut waiting: Vec<_> = nameless.collect();
    waiting.sort();
    seen.extend(waiting);
    // Also by time, which is found by halves.
    let now = room.now();
    for slug in ["acme-0", "acme-1", "acme-2"] {
        let acme = tenant(&room.storage, slug).await;
        for hours in [1, 20, 30, 48, 60] {
            let at = now - Duration::from_secs(hours * 3600);
            for (created_after, created_before) in [(Some(at), None), (None, Some(at))] {
                let filter = EventFilter { created_after, created_before, ..EventFilter::default() };
                let found = room.storage.api.event_list(&acme.scope, filter, page(100)).await.unwrap().data;
                seen.push(format!("{slug} {hours} {:?}", found.iter().map(|event| event.id).collect::<Vec<_>>()));
            }
        }
    }
    seen
}

async fn is_as_before<S: Side>(room: &Room<S>, before: &[String]) {
    let after = seen(room).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
}

/// Lives, moves, is killed at two steps of it, and goes on; then the same way back.
async fn goes_there_and_back<S: Side>(seed: u64) {
    let first = Room::<S>::new().await;
    let life = Life::lead(&first, seed).await;
    let Room { harness, hands, keys, storage, lanes } = first;
    let harness = harness.crashed().await;
    drop((storage, lanes));
    let mut room = self::room(harness, &hands, &keys).await;
    for to in [Isolation::Dedicated, Isolation::Shared, Isolation::Dedicated] {
        let sent = room.send(&tenant(&room.storage, "acme-0").await, "between.moves").await;
        for (event, endpoint) in room.handed_over() {
            let delivery = event.delivery(endpoint);
            let done = Transition::Done;
            let settled = settlement(event.id, delivery, 1, 200, done, room.now());
            room.storage.worker.attempt_settle(settled).await.unwrap();
        }
        room.storage.platform.close().await.unwrap();
        let Room { harness, storage, .. } = room;
        drop(storage);
        let now = hands.now();
        assert!(matches!(moved(&harness, "nobody", to, &keys, now).await, Err(Error::NoOrganization(_))));
        let place = || harness.installation();
        killed_at(place(), to, &keys, now, |step| step.table == "events" && step.rows > 0).await;
        killed_at(place(), to, &keys, now, |step| step.doing == Doing::Comparing && step.table == "attempts").await;
        let report = moved(&harness, "acme-0", to, &keys, now).await.unwrap();
        assert!(!report.was_finished && report.differences.is_empty() && report.tables.len() == 19, "{report:?}");
        let again = moved(&harness, "acme-0", to, &keys, now).await.unwrap();
        assert!(again.was_finished, "a second run changes nothing");
        let listed = dedicated(&place()).await.unwrap();
        let listed: Vec<_> = listed.iter().map(|found| (found.slug.as_str(), found.is_complete)).collect();
        assert_eq!(listed, if to == Isolation::Dedicated { vec![("acme-0", true)] } else { vec![] });
        room = self::room(harness, &hands, &keys).await;
        let acme = tenant(&room.storage, "acme-0").await;
        let kept = room.storage.api.event_get(&acme.scope, sent.id).await.unwrap();
        assert_eq!(kept.event_type, "between.moves");
        assert!(room.handed_over().is_empty(), "what was delivered is not delivered again");
    }
    let organizations = room.storage.platform.organization_list(SuperAdmin::by_operator(), page(10)).await.unwrap();
    assert_eq!(organizations.data.len(), 3);
    life.goes_on(&room).await;
}

/// The same with nothing in between: all that can be seen is as it was.
async fn looks_as_it_was<S: Side>(seed: u64) {
    let first = Room::<S>::new().await;
    let life = Life::lead(&first, seed).await;
    let Room { harness, hands, keys, storage, lanes } = first;
    let harness = harness.crashed().await;
    drop((storage, lanes));
    let mut room = self::room(harness, &hands, &keys).await;
    // Looking claims the keys of requests, once.
    seen(&room).await;
    let before = seen(&room).await;
    assert!(before.len() > 200, "there is something to compare: {}", before.len());
    for to in [Isolation::Dedicated, Isolation::Shared] {
        room.storage.platform.close().await.unwrap();
        let Room { harness, storage, .. } = room;
        drop(storage);
        moved(&harness, "acme-0", to, &keys, hands.now()).await.unwrap();
        room = self::room(harness, &hands, &keys).await;
        is_as_before(&room, &before).await;
    }
    life.goes_on(&room).await;
}

macro_rules! on_both {
    ($($name:ident($file:ident, $postgresql:ident): $seed:literal),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $file() {
            $name::<Sqlite>($seed).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $postgresql() {
            $name::<Postgres>($seed).await;
        }
    )*};
}

on_both! {
    goes_there_and_back(
        in_the_file_an_organization_moves_there_and_back_and_goes_on,
        on_postgresql_an_organization_moves_there_and_back_and_goes_on
    ): 6,
    looks_as_it_was(
        in_the_file_nothing_that_can_be_seen_changes_by_moving,
        on_postgresql_nothing_that_can_be_seen_changes_by_moving
    ): 8,
}

/// An installation in which two of three organizations have databases of their own.
async fn is_copied_into_one<S: Side, T: Side>(seed: u64) {
    let first = Room::<S>::new().await;
    let life = Life::lead(&first, seed).await;
    first.storage.platform.close().await.unwrap();
    let Room { harness, hands, keys, storage, .. } = first;
    drop(storage);
    for slug in ["acme-0", "acme-2"] {
        moved(&harness, slug, Isolation::Dedicated, &keys, hands.now()).await.unwrap();
    }
    let room = self::room(harness, &hands, &keys).await;
    for slug in ["acme-0", "acme-1", "acme-2"] {
        let acme = tenant(&room.storage, slug).await;
        let source = room.storage.api.source_list(&acme.scope, page(1)).await.unwrap().data.remove(0);
        assert!(room.source(slug, &source.settings.name).await.is_some());
        room.endpoint(&acme).await;
        room.send(&acme, "before.the_copy").await;
    }
    room.storage.platform.close().await.unwrap();
    let Room { harness: source, storage, .. } = room;
    drop(storage);
    let target = T::temporary().await;
    let (from, to) = (source.place(), target.place());
    let first_time = copied_until(&from, &to, &keys, hands.now(), Mode::Copy, |step| {
        step.doing == Doing::Copying && step.table == "attempts" && step.rows > 0
    });
    assert!(first_time.await.is_none(), "it was killed");
    let report = copied(&from, &to, &keys, hands.now(), Mode::Copy).await.unwrap();
    assert_eq!(report.differences, []);
    let same = copied(&from, &to, &keys, hands.now(), Mode::Verify).await.unwrap();
    assert_eq!((same.is_compared, same.differences), (true, Vec::new()));
    assert_eq!(dedicated(&target.installation()).await.unwrap(), []);

    let source = self::room(source, &hands, &keys).await;
    let target = self::room(target, &hands, &keys).await;
    seen(&source).await;
    seen(&target).await;
    let before = seen(&source).await;
    is_as_before(&target, &before).await;
    life.goes_on(&target).await;
}

macro_rules! directions {
    ($($name:ident: $from:ty => $to:ty),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            is_copied_into_one::<$from, $to>(11).await;
        }
    )*};
}

directions! {
    databases_of_their_own_are_copied_from_the_file_to_postgresql: Sqlite => Postgres,
    databases_of_their_own_are_copied_from_postgresql_to_the_file: Postgres => Sqlite,
    databases_of_their_own_are_copied_from_one_postgresql_to_another: Postgres => Postgres,
    databases_of_their_own_are_copied_from_one_file_to_another: Sqlite => Sqlite,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_moved_is_no_longer_where_it_was() {
    let first = Room::<Sqlite>::new().await;
    Life::lead(&first, 6).await;
    first.storage.platform.close().await.unwrap();
    let Room { harness, hands, keys, storage, .. } = first;
    drop(storage);
    moved(&harness, "acme-0", Isolation::Dedicated, &keys, hands.now()).await.unwrap();
    let cell = harness.path().join(&dedicated(&harness.installation()).await.unwrap()[0].url);
    let left = rusqlite::Connection::open(harness.path().join("postroom.db")).unwrap();
    let org: i64 = left.query_row("select org from organization where slug = 'acme-0'", [], |row| row.get(0)).unwrap();
    for table in [
        "event",
        "attempt",
        "exception",
        "endpoint",
        "source",
        "source_secret",
        "endpoint_secret",
        "idempotency",
        "rejection",
        "event_by_org",
        "event_by_type",
    ] {
        let sql = format!("select count(*) from {table} where org = ?1");
        assert_eq!(left.query_row(&sql, [org], |row| row.get::<_, i64>(0)).unwrap(), 0, "{table}");
    }
    drop(left);
    moved(&harness, "acme-0", Isolation::Shared, &keys, hands.now()).await.unwrap();
    assert!(!cell.exists(), "nor is what has come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_given_up_leaves_the_organization_where_it_goes_on() {
    for to in [Isolation::Dedicated, Isolation::Shared] {
        let first = Room::<Sqlite>::new().await;
        Life::lead(&first, 7).await;
        first.storage.platform.close().await.unwrap();
        let Room { harness, hands, keys, .. } = first;
        if to == Isolation::Shared {
            moved(&harness, "acme-0", Isolation::Dedicated, &keys, hands.now()).await.unwrap();
        }
        let place = harness.installation();
        killed_at(place, to, &keys, hands.now(), |step| step.table == "attempts" && step.rows > 0).await;
        let between = room(harness, &hands, &keys).await;
        let waiting = between.waiting().await.len();
        let acme = tenant(&between.storage, "acme-0").await;
        let sent = between.send(&acme, "sent.meanwhile").await;
        between.storage.platform.close().await.unwrap();
        let running = Arc::new(Lanes { room: AtomicI64::new(1), ..Lanes::default() });
        let Room { harness, .. } = between;
        let busy = harness.open(opening(&hands, &running, &keys)).await;
        let refused = moved(&harness, "acme-0", to, &keys, hands.now()).await;
        assert!(matches!(refused, Err(Error::Embedded(_))), "not beside a server");
        busy.platform.close().await.unwrap();
        drop(busy);
        moved(&harness, "acme-0", to, &keys, hands.now()).await.unwrap();
        let after = room(harness, &hands, &keys).await;
        let acme = tenant(&after.storage, "acme-0").await;
        assert_eq!(after.storage.api.event_get(&acme.scope, sent.id).await.unwrap().event_type, "sent.meanwhile");
        // What was sent has four endpoints or fewer, and nobody had made its deliveries.
        let more = after.waiting().await.len() - waiting;
        assert_eq!(u32::try_from(more).unwrap(), sent.deliveries, "nothing waits in two places");
    }
}
