//! An installation copied to another engine, or the same: everything that can be seen of it is as it was, and goes on.

pub mod life;
pub mod moving;
mod refusals;

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use postroom_domain::keyring::Keyring;
use postroom_domain::{Secret, Timestamp};
use postroom_storage::Storage;
use postroom_storage::copy::{self, Doing, Error, Installation, Logins, Mode, PATIENCE, Place, Report, Step};
use postroom_testkit::postgres::connect;

use self::life::{Life, all_of_it};
use crate::support::{Hands, Harness, Lanes, Postgres, Room, Sqlite, are_given_up, opening};

/// A harness whose database can be one side of a copy.
pub trait Side: Harness {
    /// As a copy is told of it.
    fn place(&self) -> Place;
    /// As a move is told of it.
    fn installation(&self) -> Installation;
    /// A process that was killed is thought dead at once.
    fn bury(&self) -> impl Future<Output = ()> + Send;
    /// Does something as somebody whom nothing binds.
    fn run(&self, embedded: &str, postgres: &str) -> impl Future<Output = ()> + Send;
}

impl Side for Sqlite {
    fn place(&self) -> Place {
        Place::Embedded(self.path().to_owned())
    }

    fn installation(&self) -> Installation {
        Installation::Embedded(self.path().to_owned())
    }

    async fn bury(&self) {}

    async fn run(&self, embedded: &str, _: &str) {
        let file = rusqlite::Connection::open(self.path().join("postroom.db")).unwrap();
        file.execute_batch(embedded).unwrap();
    }
}

impl Side for Postgres {
    fn place(&self) -> Place {
        Place::Postgres(Secret::from(self.database.owner_url().as_str()))
    }

    fn installation(&self) -> Installation {
        let (owner, url) = (self.database.owner_url(), self.database.app_url());
        let (owner, url) = (Secret::from(owner.as_str()), Secret::from(url.as_str()));
        Installation::Postgres(Logins { owner, url, part_urls: HashMap::new(), patience: PATIENCE })
    }

    async fn bury(&self) {
        self.run("", "update nodes set lease_until = '-infinity'").await;
    }

    async fn run(&self, _: &str, postgres: &str) {
        connect(&self.database.admin_url()).await.batch_execute(postgres).await.unwrap();
    }
}

/// Copies, as the command does.
async fn copied(from: &Place, to: &Place, keys: &Secret, now: Timestamp, mode: Mode) -> Result<Report, Error> {
    copied_until(from, to, keys, now, mode, |_| false).await.expect("it was not killed")
}

/// The same, until it is killed at a step.
async fn copied_until(
    from: &Place,
    to: &Place,
    keys: &Secret,
    now: Timestamp,
    mode: Mode,
    mut is_end: impl FnMut(Step) -> bool + Send,
) -> Option<Result<Report, Error>> {
    let keyring = Keyring::parse(keys).unwrap();
    let is_killed = AtomicBool::new(false);
    let mut told = |step: Step| {
        if is_end(step) {
            is_killed.store(true, Ordering::SeqCst);
        }
    };
    let ended = {
        let mut copying = std::pin::pin!(copy::copy(from, to, &keyring, now, mode, &mut told));
        poll_fn(|context| match copying.as_mut().poll(context) {
            _ if is_killed.load(Ordering::SeqCst) => Poll::Ready(None),
            polled => polled.map(Some),
        })
        .await
    };
    if ended.is_none() {
        for place in [from, to] {
            if let Place::Embedded(dir) = place {
                are_given_up(dir).await;
            }
        }
    }
    ended
}

/// Copies as soon as nobody is thought to be at the source any more.
async fn copied_when_dead<S: Side>(source: &S, to: &Place, keys: &Secret, now: Timestamp) -> Report {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        source.bury().await;
        match copied(&source.place(), to, keys, now, Mode::Copy).await {
            Err(Error::Running { .. }) if Instant::now() < deadline => {}
            copied => return copied.unwrap(),
        }
    }
}

async fn open<H: Harness>(harness: &H, hands: &Hands, keys: &Secret) -> (Storage, Arc<Lanes>) {
    let lanes = Arc::new(Lanes { room: AtomicI64::new(1_000_000), ..Lanes::default() });
    (harness.open(opening(hands, &lanes, keys)).await, lanes)
}

/// A process that was killed in the middle of everything, copied, and both started: the one that was copied from and the
/// one that was copied to.
async fn goes_on_as_it_was<S: Side, T: Side>(seed: u64) {
    let room = Room::<S>::new().await;
    let life = Life::lead(&room, seed).await;
    let Room { harness, hands, lanes, keys, storage } = room;
    let source = harness.crashed().await;
    drop((storage, lanes));
    let target = T::temporary().await;
    let report = copied_when_dead(&source, &target.place(), &keys, hands.now()).await;
    assert_eq!((report.was_finished, &report.differences[..]), (false, &[][..]));
    let again = copied(&source.place(), &target.place(), &keys, hands.now(), Mode::Copy).await.unwrap();
    assert!(again.was_finished && !again.is_compared, "a second run changes nothing");
    let same = copied(&source.place(), &target.place(), &keys, hands.now(), Mode::Verify).await.unwrap();
    assert_eq!((same.is_compared, same.differences, same.tables), (true, Vec::new(), report.tables));

    let (there, lanes) = open(&target, &hands, &keys).await;
    let target = Room { harness: target, hands: hands.clone(), lanes, keys: keys.clone(), storage: there };
    let (here, lanes) = open(&source, &hands, &keys).await;
    let source = Room { harness: source, hands, lanes, keys, storage: here };
    let (before, after) = (all_of_it(&source).await, all_of_it(&target).await);
    assert!(before.len() > 200, "there is something to compare: {}", before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    life.goes_on(&target).await;
}

macro_rules! directions {
    ($($name:ident: $from:ty => $to:ty),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for seed in [1, 2] {
                goes_on_as_it_was::<$from, $to>(seed).await;
            }
        }
    )*};
}

directions! {
    from_the_file_to_postgresql_everything_goes_on_as_it_was: Sqlite => Postgres,
    from_postgresql_to_the_file_everything_goes_on_as_it_was: Postgres => Sqlite,
    from_one_postgresql_to_another_everything_goes_on_as_it_was: Postgres => Postgres,
    from_one_file_to_another_everything_goes_on_as_it_was: Sqlite => Sqlite,
}

/// Killed at every step that it tells of, and begun again each time.
async fn is_resumed_wherever_it_is_killed<S: Side, T: Side>() {
    let room = Room::<S>::new().await;
    Life::lead(&room, 3).await;
    // More than one batch.
    let acme = life::tenant(&room.storage, "acme-0").await;
    for number in 0..1_100 {
        room.try_send(&acme, "many.of.them", Some(&format!("many-{number}"))).await.unwrap();
    }
    let Room { harness, hands, lanes, keys, storage } = room;
    let source = harness.crashed().await;
    drop((storage, lanes));
    let (target, whole) = (T::temporary().await, T::temporary().await);
    let expected = copied_when_dead(&source, &whole.place(), &keys, hands.now()).await;
    let (from, to) = (source.place(), target.place());
    let mut kills = 0;
    let report = loop {
        // Behind the first batch that this run wrote.
        let mut last = None;
        let killed = copied_until(&from, &to, &keys, hands.now(), Mode::Copy, |step| {
            let before = last.replace(step);
            step.doing == Doing::Copying
                && before.is_some_and(|before| before.table == step.table && before.rows < step.rows)
        })
        .await;
        match killed {
            None => kills += 1,
            Some(ended) => break ended.unwrap(),
        }
        assert!(kills < 100, "it does not come to its end");
    };
    assert!(kills >= 15, "{kills}");
    assert_eq!(report, expected);
    let (storage, lanes) = open(&target, &hands, &keys).await;
    let target = Room { harness: target, hands: hands.clone(), lanes, keys: keys.clone(), storage };
    let (storage, lanes) = open(&whole, &hands, &keys).await;
    let whole = Room { harness: whole, hands, lanes, keys, storage };
    assert_eq!(all_of_it(&target).await, all_of_it(&whole).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_to_postgresql_is_resumed_wherever_it_is_killed() {
    is_resumed_wherever_it_is_killed::<Sqlite, Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_to_the_file_is_resumed_wherever_it_is_killed() {
    is_resumed_wherever_it_is_killed::<Postgres, Sqlite>().await;
}
