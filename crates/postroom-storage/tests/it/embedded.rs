//! What only the embedded engine has: files that are damaged, locked, full or older; other processes; being killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use postroom_domain::keyring::Keyring;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{EventId, Role, Secret};
use postroom_storage::sqlite::{Mode, OpenError, Options, migrate, open, rotate_keys};
use postroom_storage::{Error, Storage, SuperAdmin};

use crate::people::{email, from};
use crate::support::{Hands, Harness, Lanes, Room, Sqlite, new_key, new_organization};

const DATABASE: &str = "postroom.db";

pub fn options(path: &Path, keys: &Secret, mode: Mode) -> Options {
    Options {
        data_dir: path.to_owned(),
        keyring: Keyring::parse(keys).unwrap(),
        clock: Hands::new().clock(),
        handoff: Arc::new(Lanes { room: AtomicI64::new(1_000_000), ..Lanes::default() }),
        dedupe_window: Duration::from_secs(7 * 24 * 3600),
        retention: Duration::from_secs(30 * 24 * 3600),
        plans: PlanLimits::default(),
        default_attempt_timeout: Duration::from_secs(15),
        mode,
    }
}

fn refusal(result: Result<Storage, OpenError>) -> String {
    match result {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

/// A closed database with an organization and a few hundred events.
async fn furnished() -> (Room<Sqlite>, std::path::PathBuf) {
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    futures_util::future::join_all((0..300).map(|_| room.send(&acme, "a"))).await;
    room.storage.platform.close().await.unwrap();
    let path = room.harness.path().join(DATABASE);
    (room, path)
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let room = Room::<Sqlite>::new().await;
    let text = refusal(open(options(room.harness.path(), &room.keys, Mode::Serve)));
    assert!(text.contains("another Postroom server is using"), "{text}");
    room.storage.platform.close().await.unwrap();
    open(options(room.harness.path(), &room.keys, Mode::Serve)).unwrap();
}

#[tokio::test]
async fn after_closing_everything_says_unavailable() {
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    room.storage.platform.close().await.unwrap();
    let unavailable = |result: Result<(), Error>| matches!(result, Err(Error::Unavailable(_)));
    assert!(unavailable(room.try_send(&acme, "a", None).await.map(drop)));
    assert!(unavailable(room.storage.platform.organization_of(&acme.scope).await.map(drop)));
    assert!(unavailable(room.storage.platform.health().await));
    room.storage.platform.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_sound_database_is_refused_with_what_to_do() {
    let (room, path) = furnished().await;
    let sound = std::fs::read(&path).unwrap();
    let garbage = b"this is not a database at all, whatever its name says".repeat(100);
    let mut overwritten = sound.clone();
    overwritten[8 * 4096..9 * 4096].fill(0xa5);
    let mut header = sound.clone();
    header[16..32].fill(0);
    let truncated = sound[..sound.len() / 2].to_vec();
    for (what, bytes) in [("garbage", garbage), ("a page", overwritten), ("header", header), ("truncated", truncated)] {
        std::fs::write(&path, &bytes).unwrap();
        let text = refusal(open(options(room.harness.path(), &room.keys, Mode::Serve)));
        assert!(text.contains("is damaged") && text.contains("Restore"), "{what}: {text}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: nothing was repaired");
    }
    std::fs::write(&path, &sound).unwrap();
    open(options(room.harness.path(), &room.keys, Mode::Serve)).unwrap();
}

#[tokio::test]
async fn flipped_bytes_never_make_it_panic() {
    let (room, path) = furnished().await;
    let sound = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for step in 0..60 {
        let mut bytes = sound.clone();
        let at = (step * 7919 * 64) % bytes.len();
        bytes[at] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        match open(options(room.harness.path(), &room.keys, Mode::Serve)) {
            // A flipped byte inside a payload is a payload: there is no sum over it.
            Ok(storage) => storage.platform.close().await.unwrap(),
            Err(_) => refused += 1,
        }
        let _ = std::fs::remove_file(path.with_extension("db-wal"));
    }
    assert!(refused > 0);
}

/// Every migration.
const ALL: [&str; 5] = ["0001_configuration", "0002_log", "0003_tenants", "0004_people", "0005_audit"];

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_migrations_go_back_and_forth() {
    let (room, path) = furnished().await;
    let dir = room.harness.path();
    assert!(migrate::status(dir).unwrap().iter().all(|step| step.applied));
    assert_eq!(migrate::down(dir).unwrap(), Some(ALL[4]));
    assert_eq!(
        migrate::status(dir).unwrap().iter().map(|step| step.applied).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    let storage = open(options(dir, &room.keys, Mode::Serve)).unwrap();
    assert!(storage.authorizer.organization_enter(SuperAdmin::by_operator(), "acme").await.unwrap().is_some());
    assert!(matches!(migrate::up(dir), Err(OpenError::Locked(_))), "a server is running");
    storage.platform.close().await.unwrap();
    drop(storage);
    for name in ALL.iter().rev() {
        assert_eq!(migrate::down(dir).unwrap(), Some(*name));
    }
    assert_eq!(migrate::down(dir).unwrap(), None);
    assert_eq!(migrate::up(dir).unwrap(), ALL);
    assert!(migrate::up(dir).unwrap().is_empty());
    let left: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("select count(*) from sqlite_schema where type in ('trigger', 'view')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);

    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let text = refusal(open(options(dir, &room.keys, Mode::Serve)));
    assert!(text.contains("schema version 99") && text.contains("newer"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    assert!(migrate::status(empty.path()).unwrap().iter().all(|step| !step.applied));
    assert!(!empty.path().join(DATABASE).exists(), "looking makes nothing");
}

#[tokio::test]
async fn a_command_of_a_newer_version_leaves_an_older_server_alone() {
    let room = Room::<Sqlite>::new().await;
    let raw = rusqlite::Connection::open(room.harness.path().join(DATABASE)).unwrap();
    raw.pragma_update(None, "user_version", 1).unwrap();
    let text = refusal(open(options(room.harness.path(), &room.keys, Mode::Beside)));
    assert!(text.contains("older version is running") && text.contains("stop it"), "{text}");
    raw.pragma_update(None, "user_version", ALL.len()).unwrap();
}

#[tokio::test]
async fn a_log_beside_a_database_that_it_is_not_of_loses_nothing_silently() {
    let (room, path) = furnished().await;
    let older = std::fs::read(&path).unwrap();
    let room = room.restart().await;
    let acme = room.storage.authorizer.organization_enter(SuperAdmin::by_operator(), "acme").await.unwrap().unwrap();
    let kind = || postroom_domain::event::EventType::parse("b").unwrap();
    for _ in 0..300 {
        let body = bytes::Bytes::from("x".repeat(2_000));
        let event = postroom_storage::receiver::NewEvent::sent(acme.clone(), kind(), None, body, room.now());
        room.storage.receiver.event_record(event).await.unwrap();
    }
    let crashed = room.harness.crashed().await;
    std::fs::write(crashed.path().join(DATABASE), &older).unwrap();
    match open(options(crashed.path(), &room.keys, Mode::Serve)) {
        Ok(storage) => {
            let request = crate::support::page(250);
            let page = storage.api.event_list(&acme, Default::default(), request).await.unwrap();
            assert_eq!(page.data.len(), 250);
            assert_eq!(page.data[0].event_type, "b");
        }
        Err(error) => assert!(error.to_string().contains("is damaged"), "{error}"),
    }
}

#[tokio::test]
async fn keys_of_another_installation_are_refused() {
    let (room, _) = furnished().await;
    let text = refusal(open(options(room.harness.path(), &Keyring::generate(), Mode::Serve)));
    assert!(text.contains("do not open this database") && text.contains("give the keys"), "{text}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let text = refusal(open(options(&file.join("below"), &Keyring::generate(), Mode::Serve)));
    assert!(text.contains("below") && text.contains("directory"), "{text}");
}

#[tokio::test]
async fn the_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let storage = open(options(&dir, &Keyring::generate(), Mode::Serve)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
    }
    drop(storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_beside_the_server_changes_configuration_and_the_server_sees_it() {
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    let beside = open(options(room.harness.path(), &room.keys, Mode::Beside)).unwrap();
    let scope = beside.authorizer.organization_enter(SuperAdmin::by_operator(), "acme").await.unwrap().unwrap();
    let key = new_key();
    beside.api.api_key_create(&scope, key.clone(), room.now()).await.unwrap();
    let found = async || room.storage.authorizer.key_find(&key.hash, room.now()).await.unwrap().is_some();
    room.until(found).await;
    let new = new_organization("beside");
    beside.platform.organization_create(SuperAdmin::by_operator(), new, room.now()).await.unwrap();
    let by = SuperAdmin::by_operator;
    room.until(async || room.storage.authorizer.organization_enter(by(), "beside").await.unwrap().is_some()).await;
    let event = crate::support::new_event(&acme, "a", None, room.now());
    assert!(matches!(beside.receiver.event_record(event).await, Err(Error::Unavailable(_))), "the server's alone");
    beside.platform.close().await.unwrap();
    assert!(room.try_send(&acme, "a", None).await.is_ok(), "the server goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_unavailable_and_works_again_when_it_is_free() {
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let other = rusqlite::Connection::open(room.harness.path().join(DATABASE)).unwrap();
    other.execute_batch("begin immediate").unwrap();
    assert!(matches!(room.try_send(&acme, "a", Some("id")).await, Err(Error::Unavailable(_))));
    assert!(matches!(room.storage.platform.health().await, Err(Error::Unavailable(_))));
    assert!(room.handed_over().is_empty(), "nothing that is not durable is delivered");
    assert_eq!(room.lanes.reserved.load(std::sync::atomic::Ordering::SeqCst), 0, "the place was given back");
    other.execute_batch("rollback").unwrap();
    room.until(async || room.storage.platform.health().await.is_ok()).await;
    assert!(!room.try_send(&acme, "a", Some("id")).await.unwrap().duplicate);
    assert_eq!(room.handed_over().len(), 1);
}

#[tokio::test]
async fn rotation_can_be_killed_and_resumed_and_ends_with_the_newest_key_alone() {
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    for number in 0..120 {
        room.endpoint(&acme).await;
        let source = crate::support::new_source(&format!("s{number}"), "a-secret-of-it");
        room.storage.api.source_create(&acme.scope, source, room.now()).await.unwrap();
    }
    room.invite(&acme.scope, "ada@example.com", Role::Admin).await;
    let (platform, root) = (&room.storage.platform, email("root@example.com"));
    platform.super_admin_create(SuperAdmin::by_operator(), &root, room.now()).await.unwrap();
    assert!(room.storage.authorizer.sign_in_request(&root, &from(), room.now()).await.unwrap());
    let (dir, old, new) = (room.harness.path(), room.keys.clone(), Keyring::generate());
    let text = |key: &Secret| key.expose_str().unwrap().to_owned();
    let both = Secret::from(format!("{},{}", text(&new), text(&old)));
    let ring = Keyring::parse(&both).unwrap();
    let refused = rotate_keys(dir, &ring, |_, _| {}).unwrap_err();
    assert!(matches!(refused, OpenError::ServerLacksKey), "the server encrypts with the old key: {refused}");
    room.storage.platform.close().await.unwrap();

    // Killed between two transactions: whoever is told of the progress does not come back.
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rotate_keys(dir, &ring, |done, _| assert!(done < 100, "killed"))
    }));
    assert!(killed.is_err());
    let half = refusal(open(options(dir, &new, Mode::Serve)));
    assert!(half.contains("give the keys"), "not with the newest alone: {half}");
    open(options(dir, &both, Mode::Serve)).unwrap().platform.close().await.unwrap();

    let mut last = (0, 0);
    let resealed = rotate_keys(dir, &ring, |done, total| last = (done, total)).unwrap();
    assert!(resealed > 0 && resealed < 246 && last == (246, 246), "{resealed} of {last:?}");
    assert_eq!(rotate_keys(dir, &ring, |_, _| {}).unwrap(), 0, "nothing is left to do");
    let storage = open(options(dir, &new, Mode::Serve)).unwrap();
    let source = storage.receiver.source_find("acme", "s77").await.unwrap().unwrap();
    assert!(source.verifier.is_ok());
    assert_eq!(storage.platform.mail_take(room.now(), 10).await.unwrap().len(), 2);
    storage.platform.close().await.unwrap();
    drop((storage, source));
    assert!(open(options(dir, &old, Mode::Serve)).is_err(), "the old key opens nothing any more");
}

/// Runs one test in a process of its own, with a directory to work in.
pub fn child(test: &str, dir: &Path) -> Command {
    // Writing beyond a file size limit is to be an error there, as on a full disk, and not a signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"]);
    command.arg(std::env::current_exe().unwrap()).arg(test).env("POSTROOM_TEST_DIR", dir);
    command
}

/// The directory this process was given, if it is a child.
#[allow(clippy::disallowed_methods, reason = "a test that runs itself as another process has no other way to tell it")]
pub fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os("POSTROOM_TEST_DIR").map(Into::into)
}

pub const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_being_killed_at_any_moment() {
    let keys = Secret::from(KEY);
    if let Some(dir) = child_dir() {
        let storage = open(options(&dir, &keys, Mode::Serve)).unwrap();
        let scope = storage.authorizer.organization_enter(SuperAdmin::by_operator(), "acme").await.unwrap().unwrap();
        let sending = (0..16).map(|_| async {
            loop {
                let kind = postroom_domain::event::EventType::parse("a").unwrap();
                let event = postroom_storage::receiver::NewEvent::sent(
                    scope.clone(),
                    kind,
                    None,
                    bytes::Bytes::from_static(b"{}"),
                    Hands::new().now(),
                );
                let recorded = storage.receiver.event_record(event).await.unwrap();
                writeln!(std::io::stdout(), "acked {}", recorded.id).unwrap();
            }
        });
        futures_util::future::join_all(sending).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = open(options(dir.path(), &keys, Mode::Serve)).unwrap();
    let room = Room { harness: Sqlite::temporary().await, hands: Hands::new(), lanes: Arc::default(), keys, storage };
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    room.storage.platform.close().await.unwrap();
    let mut acked: Vec<EventId> = Vec::new();
    for round in 1..=5 {
        let test = "embedded::what_was_acknowledged_survives_being_killed_at_any_moment";
        let mut running = child(test, dir.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ids = lines.filter_map(|line| line.strip_prefix("acked ")?.parse::<EventId>().ok());
        acked.extend(ids.take(round * 150));
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let storage = open(options(dir.path(), &room.keys, Mode::Serve)).unwrap();
    for id in &acked {
        let event = storage.api.event_get(&acme.scope, *id).await.unwrap();
        assert_eq!(event.deliveries, 1);
    }
    assert_eq!(acked.len(), 150 * 15);
    let head = storage.worker.pending_heads(None, 10).await.unwrap();
    let far = Hands::new().now();
    let due = storage.worker.pending_due(head[0].0, far, 1_000_000, usize::MAX).await.unwrap();
    let waiting: std::collections::HashSet<EventId> = due.iter().map(|due| due.event.id).collect();
    assert!(acked.iter().all(|id| waiting.contains(id)), "every delivery is made again");
    assert_eq!(waiting.len(), due.len(), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_unavailable_and_recovers_without_a_restart() {
    let keys = Secret::from(KEY);
    let Some(dir) = child_dir() else {
        let dir = tempfile::tempdir().unwrap();
        let test = "embedded::a_full_disk_is_unavailable_and_recovers_without_a_restart";
        let output = child(test, dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let storage = open(options(&dir, &keys, Mode::Serve)).unwrap();
    let room = Room { harness: Sqlite::temporary().await, hands: Hands::new(), lanes: Arc::default(), keys, storage };
    let acme = room.organization("acme").await;
    let limit = |bytes: Option<u64>| {
        let maximum = rustix::process::getrlimit(rustix::process::Resource::Fsize).maximum;
        let limit = rustix::process::Rlimit { current: bytes.or(maximum), maximum };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    };
    limit(Some(std::fs::metadata(dir.join("postroom.db-wal")).unwrap().len() + 64 * 1024));
    let mut kept = Vec::new();
    let full = loop {
        match room.try_send(&acme, "a", None).await {
            Ok(recorded) => kept.push(recorded.id),
            Err(error) => break error,
        }
        assert!(kept.len() < 10_000, "the disk never was full");
    };
    assert!(matches!(full, Error::Unavailable(_)), "{full:?}");
    assert!(matches!(room.storage.platform.health().await, Err(Error::Unavailable(_))));
    for id in &kept {
        room.storage.api.event_get(&acme.scope, *id).await.unwrap();
    }
    limit(None);
    room.until(async || room.storage.platform.health().await.is_ok()).await;
    kept.push(room.send(&acme, "a").await.id);
    room.storage.platform.close().await.unwrap();
    let storage = open(options(&dir, &room.keys, Mode::Serve)).unwrap();
    for id in &kept {
        storage.api.event_get(&acme.scope, *id).await.unwrap();
    }
}

/// Linux shows every lock. SQLite of another program, when it closes the database as the last one that has it open, deletes
/// the log; what tells it that it is not the last one is a lock on the file.
#[tokio::test]
async fn the_file_stays_locked_so_that_another_program_takes_nothing_away() {
    use std::os::unix::fs::MetadataExt as _;
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    room.send(&acme, "a").await;
    let file = std::fs::metadata(room.harness.path().join("postroom.db")).unwrap();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let of_file = format!(":{} ", file.ino());
    assert!(locks.lines().any(|lock| lock.contains(&of_file)), "{locks}");
}
