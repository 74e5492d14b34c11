//! An organization moved into a database of its own: it goes on as it was, and the others notice nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use postroom_domain::keyring::Keyring;
use postroom_domain::{Secret, Timestamp};
use postroom_storage::copy::{Doing, Error, Report, Step, dedicated, to_dedicated};

use super::life::{Life, all_of_it};
use super::open;
use crate::support::{Hands, Harness, Lanes, Room, Sqlite};

async fn moved(place: &Sqlite, slug: &str, keys: &Secret, now: Timestamp) -> Result<Report, Error> {
    to_dedicated(place.path(), slug, &Keyring::parse(keys).unwrap(), now, &mut |_| {}).await
}

/// Moves, and is killed at a step.
async fn killed_at(place: &Sqlite, keys: &Secret, now: Timestamp, mut at: impl FnMut(Step) -> bool + Send + 'static) {
    let (path, ring) = (place.path().to_owned(), Keyring::parse(keys).unwrap());
    let moving = tokio::spawn(async move {
        to_dedicated(&path, "acme-0", &ring, now, &mut |step| assert!(!at(step), "killed here")).await.map(drop)
    });
    assert!(moving.await.is_err(), "it was killed");
}

async fn room(place: Sqlite, hands: &Hands, keys: &Secret) -> Room<Sqlite> {
    let (storage, lanes) = open(&place, hands, keys).await;
    Room { harness: place, hands: hands.clone(), lanes, keys: keys.clone(), storage }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_that_is_moved_goes_on_as_it_was_and_so_do_the_others() {
    let before = Room::<Sqlite>::new().await;
    let life = Life::lead(&before, 6).await;
    let Room { harness, hands, keys, storage, lanes } = before;
    let (stays, moves) = (harness.crashed().await, harness.crashed().await);
    drop((storage, lanes, harness));
    let now = hands.now();
    assert!(matches!(moved(&moves, "nobody", &keys, now).await, Err(Error::NoOrganization(_))));
    killed_at(&moves, &keys, now, |step| step.table == "events" && step.rows > 0).await;
    killed_at(&moves, &keys, now, |step| step.doing == Doing::Comparing).await;
    let report = moved(&moves, "acme-0", &keys, now).await.unwrap();
    assert!(!report.was_finished && report.differences.is_empty() && report.tables.len() == 19);
    let again = moved(&moves, "acme-0", &keys, now).await.unwrap();
    assert!(again.was_finished, "a second run changes nothing");
    let listed = dedicated(moves.path()).await.unwrap();
    assert_eq!((listed.len(), listed[0].slug.as_str(), listed[0].is_complete), (1, "acme-0", true));

    let left = rusqlite::Connection::open(moves.path().join("postroom.db")).unwrap();
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
    let (stays, moves) = (room(stays, &hands, &keys).await, room(moves, &hands, &keys).await);
    let (before, after) = (all_of_it(&stays).await, all_of_it(&moves).await);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(without_keys(before), without_keys(after));
    }
    assert_eq!(before.len(), after.len());
    life.goes_on(&moves).await;
}

/// The numbers of endpoints are other ones in the order of databases.
fn without_keys(line: &str) -> &str {
    line.split(" EndpointKey(").next().unwrap_or(line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_given_up_leaves_the_organization_where_it_goes_on() {
    let first = Room::<Sqlite>::new().await;
    Life::lead(&first, 7).await;
    first.storage.platform.close().await.unwrap();
    let Room { harness, hands, keys, .. } = first;
    killed_at(&harness, &keys, hands.now(), |step| step.table == "attempts" && step.rows > 0).await;
    let between = room(harness, &hands, &keys).await;
    let acme = super::life::tenant(&between.storage, "acme-0").await;
    let sent = between.send(&acme, "sent.meanwhile").await;
    between.storage.platform.close().await.unwrap();
    let running = Arc::new(Lanes { room: AtomicI64::new(1), ..Lanes::default() });
    let Room { harness, .. } = between;
    let busy = harness.open(crate::support::opening(&hands, &running, &keys)).await;
    assert!(
        matches!(moved(&harness, "acme-0", &keys, hands.now()).await, Err(Error::Embedded(_))),
        "not beside a server"
    );
    busy.platform.close().await.unwrap();
    drop(busy);
    moved(&harness, "acme-0", &keys, hands.now()).await.unwrap();
    let after = room(harness, &hands, &keys).await;
    let acme = super::life::tenant(&after.storage, "acme-0").await;
    assert_eq!(after.storage.api.event_get(&acme.scope, sent.id).await.unwrap().event_type, "sent.meanwhile");
}
