//! `postroom tenants move` beside running servers that are under load: the organization that moves gets 503 for a time
//! and then goes on, the others notice nothing, and everything that was acknowledged arrives, as it was sent.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Engine, Place, Receiver, Server, Tenant, bearer, request, stderr, stdout, wait_until};
use crate::tenants::{is_killed, moving};

/// A lease has to end, and somebody to notice it.
const LONG: Duration = Duration::from_secs(60);
/// Between two requests of one sender.
const PACE: Duration = Duration::from_millis(10);

/// What senders of one organization were answered.
#[derive(Default)]
struct Answers {
    /// Numbers of events that were acknowledged, with their ids.
    acknowledged: Mutex<HashMap<u64, String>>,
    put_off: AtomicU64,
    next: AtomicU64,
}

/// Sends events of one organization to some servers until it is stopped.
struct Senders {
    answers: Arc<Answers>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    fn start(tenant: &Tenant, servers: &[&Server], may_wait: bool) -> Self {
        let (answers, stop) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
        let send = |server: &&Server| {
            let (answers, stop) = (answers.clone(), stop.clone());
            let (url, key) = (format!("{}/v1/events", server.url), tenant.key.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    answers.send(&url, &key, may_wait);
                    std::thread::sleep(PACE);
                }
            })
        };
        let threads = servers.iter().map(send).collect();
        Self { answers, stop, threads }
    }

    /// Waits until so many more are acknowledged.
    fn goes_on(&self) {
        let before = self.answers.acknowledged.lock().unwrap().len();
        wait_until("that it goes on", || (self.answers.acknowledged.lock().unwrap().len() > before + 30).then_some(()));
    }

    fn end(self) -> Arc<Answers> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no answer was wrong"));
        self.answers
    }
}

impl Answers {
    fn send(&self, url: &str, key: &str, may_wait: bool) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let body = json!({ "type": "order.paid", "data": { "number": number } }).to_string();
        let (status, head, answer) = request("POST", url, &bearer(key), body.as_bytes());
        if status == 202 {
            let sent: Value = serde_json::from_slice(&answer).unwrap();
            let id = sent["id"].as_str().unwrap().to_owned();
            self.acknowledged.lock().unwrap().insert(number, id);
        } else {
            let answer = String::from_utf8_lossy(&answer);
            assert!(may_wait && status == 503 && head.contains("retry-after: "), "{status} {head} {answer}");
            self.put_off.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Everything that was acknowledged arrives as it was sent; nothing else does. Returns how much came twice.
fn arrives(receiver: &Receiver, answers: &Answers) -> usize {
    let acknowledged = answers.acknowledged.lock().unwrap();
    let (mut arrived, mut twice) = (HashSet::new(), 0);
    while arrived.len() < acknowledged.len() {
        let delivery = receiver.next_within(LONG);
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        let number = body["data"]["number"].as_u64().unwrap();
        let id = acknowledged.get(&number).unwrap_or_else(|| panic!("{number} was not acknowledged"));
        assert_eq!(delivery.header("webhook-id"), id);
        twice += usize::from(!arrived.insert(number));
    }
    twice
}

struct Scene {
    place: Arc<Place>,
    servers: Vec<Server>,
    tenants: [Tenant; 2],
    receivers: [Receiver; 2],
}

impl Scene {
    /// Three servers, and two organizations with an endpoint each.
    fn new() -> Self {
        let place = Arc::new(Place::new(Engine::Postgres));
        // Where everything is slow an attempt may fail, and what is tried again is not lost: it comes within LONG.
        let again = ("POSTROOM_RETRY_SCHEDULE", "1,1,1,1,1");
        let servers: Vec<Server> = (0..3).map(|_| Server::at(&place, &[again])).collect();
        let receivers = [(); 2].map(|()| Receiver::answering(&[200]));
        let tenant = |name, receiver: &Receiver| servers[0].tenant(name, Some(&receiver.url()));
        let tenants = [tenant("Acme", &receivers[0]), tenant("Other", &receivers[1])];
        for (server, tenant) in servers.iter().flat_map(|server| tenants.iter().map(move |tenant| (server, tenant))) {
            wait_until("every server knows both", || {
                (tenant.at(server).get_status("/v1/endpoints") == 200).then_some(())
            });
        }
        Self { place, servers, tenants, receivers }
    }

    fn send(&self, servers: &[&Server]) -> [Senders; 2] {
        [Senders::start(&self.tenants[0], servers, true), Senders::start(&self.tenants[1], servers, false)]
    }

    fn moves(&self, to: &str) {
        let moved = moving(&self.place, "acme", to).output().unwrap();
        assert!(moved.status.success(), "{} {}", stdout(&moved), stderr(&moved));
    }

    fn verify(&self) -> Value {
        let verified = self.place.run(&["audit", "verify", "--json"]);
        assert!(verified.status.success(), "{} {}", stdout(&verified), stderr(&verified));
        stdout(&verified).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    }
}

#[test]
fn only_the_organization_that_moves_waits_and_its_audit_log_stays_whole() {
    let scene = Scene::new();
    let servers: Vec<&Server> = scene.servers.iter().collect();
    let senders = scene.send(&servers);
    let acme = &scene.tenants[0];
    acme.source("stripe", "whsec_in_the_shared_one");
    for (to, provider) in [("dedicated", "github"), ("shared", "shopify"), ("dedicated", "linear")] {
        senders.iter().for_each(Senders::goes_on);
        scene.moves(to);
        senders.iter().for_each(Senders::goes_on);
        acme.source(provider, "whsec_of_its_own");
        let chains = scene.verify();
        assert!(chains.as_array().unwrap().len() >= 2, "{chains}");
    }
    let [acme_answers, other_answers] = senders.map(Senders::end);
    assert_eq!(other_answers.put_off.load(Ordering::SeqCst), 0);
    assert!(acme_answers.put_off.load(Ordering::SeqCst) > 0, "it was moved under load");
    for (receiver, answers) in scene.receivers.iter().zip([acme_answers, other_answers]) {
        assert_eq!(arrives(receiver, &answers), 0, "nothing comes twice by it");
    }
    let written = acme.get("/v1/audit-logs?limit=100");
    let made = written["data"].as_array().unwrap().iter().filter(|entry| entry["action"] == "source.created").count();
    assert_eq!(made, 4, "{written}");
}

#[test]
fn a_move_that_is_killed_is_taken_back_by_itself_or_gone_on_with() {
    let scene = Scene::new();
    let servers: Vec<&Server> = scene.servers[..2].iter().collect();
    let senders = scene.send(&servers);
    for to in ["dedicated", "shared"] {
        let (mut after, mut round) = (1, 0);
        while is_killed(&scene.place, "acme", to, after) {
            after += 6;
            round += 1;
            // Sometimes the next call comes at once.
            if round % 3 != 0 {
                senders[0].goes_on();
            }
        }
        assert!(after > 20, "it was killed in all its parts");
        senders.iter().for_each(Senders::goes_on);
    }
    let answers = senders.map(Senders::end);
    assert_eq!(answers[1].put_off.load(Ordering::SeqCst), 0);
    for (receiver, answers) in scene.receivers.iter().zip(answers) {
        assert_eq!(arrives(receiver, &answers), 0, "nothing comes twice by it");
    }
}

#[test]
fn servers_that_are_stopped_or_killed_do_not_hold_a_move_up_for_ever_and_lose_nothing() {
    let mut scene = Scene::new();
    let mut third = scene.servers.pop().unwrap();
    let tried = Senders::start(&scene.tenants[0], &[&third], true);
    tried.goes_on();
    let first = tried.end();
    let servers: Vec<&Server> = scene.servers.iter().collect();
    let senders = scene.send(&servers);
    senders.iter().for_each(Senders::goes_on);

    third.signal("STOP");
    let mut killed = moving(&scene.place, "acme", "dedicated").spawn().unwrap();
    wait_until("the organization waits", || (scene.tenants[0].get_status("/v1/sources") == 503).then_some(()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    senders[0].goes_on();
    let began = Instant::now();
    scene.moves("dedicated");
    assert!(began.elapsed() < LONG, "it waits until the lease of the stopped one is over");
    senders.iter().for_each(Senders::goes_on);
    third.signal("CONT");
    let later = Senders::start(&scene.tenants[0], &[&third], true);
    later.goes_on();

    scene.moves("shared");
    later.goes_on();
    let later = later.end();
    third.signal("STOP");
    let moves = moving(&scene.place, "acme", "dedicated").spawn().unwrap();
    wait_until("the organization waits", || (scene.tenants[0].get_status("/v1/sources") == 503).then_some(()));
    third.kill();
    assert!(moves.wait_with_output().unwrap().status.success());
    senders.iter().for_each(Senders::goes_on);

    let [acme, other] = senders.map(Senders::end);
    assert_eq!(other.put_off.load(Ordering::SeqCst), 0);
    arrives(&scene.receivers[1], &other);
    // Three senders have counted for themselves: what all of them were told is one.
    let ids: HashSet<String> = [first, acme, later]
        .iter()
        .flat_map(|answers| answers.acknowledged.lock().unwrap().values().cloned().collect::<Vec<_>>())
        .collect();
    let mut arrived = HashSet::new();
    while !ids.is_subset(&arrived) {
        arrived.insert(scene.receivers[0].next_within(LONG).header("webhook-id").to_owned());
    }
}

#[test]
fn a_server_that_holds_an_organization_up_says_so_once_and_the_others_say_nothing() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let servers: Vec<Server> = (0..2).map(|_| Server::at(&place, &[])).collect();
    let receiver = Receiver::answering_after(&[200], Duration::from_secs(14));
    let acme = servers[0].tenant("Acme", Some(&receiver.url()));
    assert_eq!(acme.post("/v1/events", &json!({ "type": "order.paid", "data": {} })).0, 202);
    receiver.next();
    let moves = moving(&place, "acme", "dedicated").output().unwrap();
    assert!(moves.status.success(), "{}", stderr(&moves));
    let log = std::fs::read_to_string(place.log()).unwrap();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("waits for this process")).collect();
    assert!(said.len() == 1 && said[0].contains("the move of organization org_"), "{said:#?}");
    assert!(said[0].contains("WARN"), "{said:#?}");
}
