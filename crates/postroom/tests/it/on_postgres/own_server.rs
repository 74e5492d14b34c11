//! Three servers under load, and what may happen to them and to their database: it stops, dies, is replaced by its
//! standby; one of them is stopped for longer than its lease. What was acknowledged arrives, as it was sent.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postroom_domain::Timestamp;
use postroom_testkit::postgres::{Mode, Proxy, Server, connect};
use serde_json::Value;

use crate::support::{Place, wait_for, wait_until};

/// How long a database stays away.
const ABSENCE: Duration = Duration::from_secs(2);
/// How long a bench may take from its start to its end.
const WHOLE: Duration = Duration::from_secs(150);

/// `postroom bench` on three servers, under way.
struct Bench {
    child: Child,
    began: Instant,
}

impl Bench {
    /// Begins, and returns when the measured load has begun.
    fn start(place: &Place, url: &str, seconds: &str) -> Self {
        let arguments = ["bench", "--nodes", "3", "--rounds", "1", "--seconds", seconds, "--json"];
        let mut child = place
            .command(&arguments)
            .args(["--organizations", "3", "--concurrency", "24"])
            .env("POSTROOM_DATABASE_URL", url)
            .env("POSTROOM_RETRY_SCHEDULE", "1,1,1,1,1,1,1,1,1,1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("rounds to come") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the bench ended before it began");
        }
        // What is said later must not find a full pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
        Self { child, began: Instant::now() }
    }

    /// Its last line, of a bench that found nothing wrong.
    fn finish(mut self) -> Value {
        let mut said = String::new();
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(self.began.elapsed() < WHOLE, "the bench does not end: a server does not accept any more");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(ended.code(), Some(0), "{said}");
        let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!((&last["lost"], &last["invented"], &last["altered"]), (&0.into(), &0.into(), &0.into()), "{last}");
        assert!(last["accepted"].as_u64().unwrap() > 0, "{last}");
        last
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until so many more events are stored.
fn until_more(admin_url: &str, more: i64) {
    let stored = || {
        wait_for(async {
            let sql = "select count(*) from events";
            connect(admin_url).await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
        })
    };
    let before = stored();
    wait_until("more events", || (stored() >= before + more).then_some(()));
}

#[expect(clippy::disallowed_methods, reason = "the bench says by the wall clock when it was answered")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// After how long each server that was kept waiting over this moment acknowledged again.
fn recoveries(last: &Value, back: Timestamp) -> Vec<Duration> {
    let over = |gap: &Value| {
        let ended: Timestamp = gap["ended_at"].as_str().unwrap().parse().unwrap();
        let began = ended - Duration::from_millis(gap["ms"].as_u64().unwrap());
        (began < back && back <= ended).then(|| ended.since(back))
    };
    last["gaps"].as_array().unwrap().iter().filter_map(over).collect()
}

#[test]
fn a_database_that_stops_or_dies_under_load_costs_the_time_it_is_away_and_nothing_else() {
    let mut server = wait_for(Server::start());
    let place = Place::on_own(&server);
    let admin_url = place.database().admin_url();
    let bench = Bench::start(&place, &place.database().app_url(), "25");
    let mut back = Vec::new();
    for dies in [false, true, false] {
        until_more(&admin_url, 200);
        if dies {
            wait_for(server.kill_nine());
        } else {
            wait_for(server.stop_fast());
        }
        std::thread::sleep(ABSENCE);
        wait_for(server.restart());
        back.push(now());
        until_more(&admin_url, 1);
    }
    let last = bench.finish();
    assert!(last["refused"].as_u64().unwrap() > 0, "503 with Retry-After meanwhile: {last}");
    // The slowest of the servers each time; the median over the three times, for the sake of a machine that has others
    // to serve.
    let mut slowest: Vec<Duration> =
        back.into_iter().filter_map(|back| recoveries(&last, back).into_iter().max()).collect();
    slowest.sort_unstable();
    assert_eq!(slowest.len(), 3, "each absence was noticed: {last}");
    assert!(slowest[1] <= Duration::from_secs(10), "{slowest:?} {last}");
}

#[test]
fn a_standby_that_is_promoted_under_load_takes_over_with_everything_acknowledged() {
    fails_over(|primary, _| wait_for(primary.kill_nine()));
}

#[test]
fn a_primary_whose_machine_is_lost_without_a_word_is_taken_over_from_as_well() {
    fails_over(|_, proxy| wait_for(proxy.set(Mode::BlackHole)));
}

/// Under load the primary is lost, and its standby promoted.
fn fails_over(lose: impl FnOnce(&mut Server, &Proxy)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut primary = wait_for(Server::start());
    let place = Place::on_own(&primary);
    let standby = wait_for(primary.standby());
    wait_for(primary.set("synchronous_standby_names", "*"));
    let proxy = runtime.block_on(Proxy::to(primary.address()));
    let (one, other) = (primary.address().to_string(), standby.address().to_string());
    let url = place.database().app_url().replace(&one, &format!("{},{other}", proxy.address()));
    let bench = Bench::start(&place, &url, "20");
    until_more(&place.database().admin_url(), 200);
    lose(&mut primary, &proxy);
    wait_for(standby.promote());
    let back = now();
    until_more(&place.database().admin_url().replace(&one, &other), 200);
    let last = bench.finish();
    let slowest = recoveries(&last, back).into_iter().max();
    assert!(slowest.is_none_or(|slowest| slowest < Duration::from_secs(20)), "{slowest:?} {last}");
}

#[test]
fn a_node_that_is_stopped_for_longer_than_its_lease_does_no_harm_when_it_goes_on() {
    let server = wait_for(Server::start());
    let place = Place::on_own(&server);
    let output = place
        .command(&["bench", "--nodes", "3", "--pause", "1", "--kill", "2", "--json"])
        // One that is stopped first: nobody else can have been taken over before it goes on.
        .args(["--organizations", "3", "--concurrency", "16", "--seed", "5"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["kills"], &last["pauses"]), (&2.into(), &1.into()));
    assert_eq!((&last["lost"], &last["invented"], &last["altered"]), (&0.into(), &0.into(), &0.into()), "{last}");
    let recovered = wait_for(async {
        let sql = "select count(*) from nodes where state = 'recovered'";
        connect(&place.database().admin_url()).await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    });
    assert!(recovered >= 1, "the stopped one was taken over");
}
