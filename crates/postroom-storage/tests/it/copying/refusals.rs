//! What is refused before anything is written, and what is found to be different at the end.

use std::time::Duration;

use postroom_domain::Secret;
use postroom_domain::keyring::Keyring;
use postroom_storage::copy::{Error, Mode, Place};

use super::life::{Life, tenant};
use super::{Side, copied, copied_until, copied_when_dead, open};
use crate::support::{Postgres, Room, Sqlite};

/// A closed installation.
async fn closed<S: Side>() -> (S, crate::support::Hands, Secret) {
    let room = Room::<S>::new().await;
    Life::lead(&room, 5).await;
    room.storage.platform.close().await.unwrap();
    let Room { harness, hands, keys, .. } = room;
    (harness, hands, keys)
}

async fn is_refused<S: Side, T: Side>() {
    let room = Room::<S>::new().await;
    Life::lead(&room, 4).await;
    let (target, now) = (T::temporary().await, room.now());
    let (from, to) = (room.harness.place(), target.place());
    let try_it = async |from: &Place, to: &Place, keys: &Secret| {
        copied(from, to, keys, now, Mode::Copy).await.err().unwrap().to_string()
    };
    let running = try_it(&from, &to, &room.keys).await;
    assert!(running.contains("stop"), "{running}");
    room.storage.platform.close().await.unwrap();
    let Room { harness: source, hands, keys, .. } = room;

    let same = try_it(&from, &from, &keys).await;
    assert!(same.contains("are the same"), "{same}");
    let others = try_it(&from, &to, &Keyring::generate()).await;
    assert!(others.contains("give the keys that its servers use"), "{others}");
    let unused = T::temporary().await;
    let unfinished = copied(&from, &unused.place(), &keys, now, Mode::Verify).await.err().unwrap().to_string();
    assert!(unfinished.contains("Postroom database in") || unfinished.contains("without --verify"), "{unfinished}");

    // Of an installation that is another one, whole or in the middle.
    let other = Room::<T>::new().await;
    other.organization("acme").await;
    other.storage.platform.close().await.unwrap();
    let full = try_it(&from, &other.harness.place(), &keys).await;
    assert!(full.contains("not empty: it has rows in organizations"), "{full}");
    let half = copied_until(&from, &to, &keys, now, Mode::Copy, |step| step.table == "attempts").await;
    assert!(half.is_none());
    let another = try_it(&other.harness.place(), &to, &other.keys).await;
    assert!(another.contains("a copy of another installation"), "{another}");
    let other = try_it(&to, &T::temporary().await.place(), &keys).await;
    assert!(other.contains("a copy that is not finished"), "{other}");

    // The source goes on, and has not what it had.
    let (storage, _) = open(&source, &hands, &keys).await;
    let acme = tenant(&storage, "acme-1").await;
    storage.api.api_key_create(&acme.scope, crate::support::new_key(), hands.now()).await.unwrap();
    storage.platform.close().await.unwrap();
    let changed = try_it(&from, &to, &keys).await;
    assert!(changed.contains("the source was written to after the copy was begun"), "{changed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_postgresql_each_refusal_says_what_to_do() {
    is_refused::<Sqlite, Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_the_file_each_refusal_says_what_to_do() {
    is_refused::<Postgres, Sqlite>().await;
}

/// No server starts on half a copy.
async fn is_not_opened_before_its_end<T: Side + Refusal>() {
    let (source, hands, keys) = closed::<Sqlite>().await;
    let target = T::temporary().await;
    let killed = copied_until(&source.place(), &target.place(), &keys, hands.now(), Mode::Copy, |step| {
        step.table == "events" && step.rows > 0
    })
    .await;
    assert!(killed.is_none());
    let opening = crate::support::opening(&hands, &std::sync::Arc::default(), &keys);
    let refused = target.refusal(opening).await;
    assert!(refused.contains("run the `postroom copy` command again"), "{refused}");
    copied(&source.place(), &target.place(), &keys, hands.now(), Mode::Copy).await.unwrap();
    open(&target, &hands, &keys).await.0.platform.close().await.unwrap();
}

/// Why a server does not start.
trait Refusal {
    async fn refusal(&self, opening: crate::support::Opening) -> String;
}

impl Refusal for Sqlite {
    async fn refusal(&self, opening: crate::support::Opening) -> String {
        use postroom_storage::sqlite::{Mode, Options, open};
        let options = Options {
            data_dir: self.path().to_owned(),
            keyring: opening.keyring,
            clock: opening.clock,
            handoff: opening.handoff,
            dedupe_window: opening.dedupe_window,
            retention: opening.retention,
            plans: opening.plans,
            default_attempt_timeout: Duration::from_secs(15),
            mode: Mode::Serve,
        };
        open(options).err().unwrap().to_string()
    }
}

impl Refusal for Postgres {
    async fn refusal(&self, opening: crate::support::Opening) -> String {
        postroom_storage::postgres::open(self.options(opening)).await.err().unwrap().to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_starts_on_a_copy_that_is_not_finished() {
    is_not_opened_before_its_end::<Sqlite>().await;
    is_not_opened_before_its_end::<Postgres>().await;
}

/// Any one value that is not what it was is found, and named.
async fn is_found<T: Side>() {
    let (source, hands, keys) = closed::<Sqlite>().await;
    let target = T::temporary().await;
    copied_when_dead(&source, &target.place(), &keys, hands.now()).await;
    let flips = [
        ("events", "event", "body = x'78'", "body = 'x'"),
        ("attempts", "attempt", "duration_ms = duration_ms + 1", "duration_ms = duration_ms + 1"),
        ("exceptions", "exception", "due_at = due_at + 1", "due_at = due_at + interval '1 ms'"),
        ("endpoint_secrets", "endpoint_secret", "expires_at = 7", "expires_at = to_timestamp(7)"),
        ("usage", "usage", "count = count + 1", "count = count + 1"),
        ("audit_logs", "audit", "actor = 'me'", "actor = 'me'"),
    ];
    let mut expected = Vec::new();
    for (table, embedded, sqlite, postgres) in flips {
        let of = "where org = (select min(org) from";
        target
            .run(
                &format!("update {embedded} set {sqlite} {of} {embedded})"),
                &format!("update {table} set {postgres} {of} {table})"),
            )
            .await;
        expected.push(table);
        let report = copied(&source.place(), &target.place(), &keys, hands.now(), Mode::Verify).await.unwrap();
        let mut found: Vec<_> = report.differences.iter().map(|difference| difference.table).collect();
        let mut tables = expected.clone();
        found.sort_unstable();
        tables.sort_unstable();
        assert_eq!(found, tables);
        assert!(report.differences.iter().all(|one| one.organization.is_some() && one.source_rows == one.target_rows));
    }
    target.run("delete from rejection", "delete from rejections").await;
    let report = copied(&source.place(), &target.place(), &keys, hands.now(), Mode::Verify).await.unwrap();
    let missing = report.differences.iter().find(|difference| difference.table == "rejections").unwrap();
    assert!(missing.source_rows > 0 && missing.target_rows == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_changed_in_the_copy_is_found() {
    is_found::<Sqlite>().await;
    is_found::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_without_a_database_is_not_copied() {
    let empty = tempfile::tempdir().unwrap();
    let (keys, now) = (Keyring::generate(), postroom_domain::Timestamp::from_millis(0));
    let from = Place::Embedded(empty.path().to_owned());
    let to = Place::Embedded(empty.path().join("new"));
    let refused = copied(&from, &to, &keys, now, Mode::Copy).await;
    assert!(matches!(refused, Err(Error::NoDatabase(_))));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "nothing was made");
}
