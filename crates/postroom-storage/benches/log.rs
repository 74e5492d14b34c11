//! How many events a second the embedded engine records and settles, in one process: 50 organizations, 20 types and 10
//! endpoints each, one target for an event, 1 KiB bodies, external ids, settlements through the same writer.
//!
//! `cargo bench -p postroom-storage --bench log -- [events] [senders]...` prints a line for each number of senders: as
//! many events can wait at once, so transactions grow up to that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::event::{EventType, EventTypePattern, ExternalId};
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::{Plan, PlanLimits};
use postroom_domain::{AttemptId, Clock, DeliveryId, Timestamp, signing};
use postroom_storage::api::{NewApiKey, NewEndpoint};
use postroom_storage::platform::{Isolation, NewOrganization, NewTenant};
use postroom_storage::receiver::NewEvent;
use postroom_storage::sqlite::{Mode, Options, open};
use postroom_storage::worker::{
    Attempt, DeliveryKey, EndpointKey, OrganizationKey, Response, Settlement, StoredEvent, Transition, Worker,
};
use postroom_storage::{Handoff, Scope, Storage, SuperAdmin};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const ORGANIZATIONS: usize = 50;
const TYPES: usize = 20;
const ENDPOINTS: usize = 10;
/// Tasks that settle.
const SETTLERS: usize = 256;

type Fresh = (Arc<StoredEvent>, EndpointKey);

/// Takes every delivery and settles it at once.
struct Straight(UnboundedSender<Fresh>);

impl Handoff for Straight {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        true
    }
    fn deliver(&self, event: Arc<StoredEvent>, endpoints: Vec<EndpointKey>) {
        for endpoint in endpoints {
            let _ended = self.0.send((event.clone(), endpoint));
        }
    }
    fn release(&self, _: EndpointKey, _: usize) {}
    fn wake(&self, _: EndpointKey) {}
    fn is_processing(&self, _: DeliveryKey) -> bool {
        false
    }
    fn is_busy(&self, _: OrganizationKey) -> bool {
        false
    }
}

#[allow(clippy::disallowed_methods, reason = "a bench has no other clock")]
fn wall_clock() -> Clock {
    Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

#[allow(clippy::print_stdout, reason = "its result")]
#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let events = numbers.next().unwrap_or(200_000);
    let mut senders: Vec<usize> = numbers.collect();
    if senders.is_empty() {
        senders = vec![1, 64, 256];
    }
    for senders in senders {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (sender, fresh) = unbounded_channel();
        let clock = wall_clock();
        let storage = open(Options {
            data_dir: directory.path().to_owned(),
            keyring: Keyring::parse(&Keyring::generate()).expect("a generated key"),
            clock: clock.clone(),
            handoff: Arc::new(Straight(sender)),
            dedupe_window: Duration::from_secs(7 * 24 * 3600),
            retention: Duration::from_secs(30 * 24 * 3600),
            plans: PlanLimits::default(),
            default_attempt_timeout: Duration::from_secs(15),
            mode: Mode::Serve,
        })
        .expect("a new database");
        let scopes = Arc::new(furnish(&storage, &clock).await);
        let settled = Arc::new(AtomicUsize::new(0));
        let settling = tokio::spawn(settle(storage.worker.clone(), fresh, settled.clone(), clock.clone()));
        let (cpu, started) = (cpu_seconds(), Instant::now());
        record(&storage, &scopes, &clock, events, senders).await;
        let recorded = started.elapsed();
        while settled.load(Ordering::Relaxed) < events {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (all, cpu) = (started.elapsed(), cpu_seconds() - cpu);
        storage.platform.close().await.expect("closed");
        settling.abort();
        println!(
            "senders {senders:>4}: {:>7.0} events/s recorded, {:>7.0} recorded and settled, {:>5.1} us of CPU each",
            rate(events, recorded),
            rate(events, all),
            cpu * 1e6 / f64::from(u32::try_from(events).unwrap_or(u32::MAX)),
        );
    }
}

fn rate(events: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(events).unwrap_or(u32::MAX)) / time.as_secs_f64()
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

async fn furnish(storage: &Storage, clock: &Clock) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for number in 0..ORGANIZATIONS {
        let name = format!("organization-{number}");
        let (_, hash) = api_key::generate();
        let new = NewTenant {
            organization: NewOrganization {
                slug: name.clone(),
                name,
                plan: Plan::Premium,
                webhook_limit: None,
                is_active: true,
                mandrill_webhook_secret: None,
            },
            api_key: NewApiKey {
                name: "bench".to_owned(),
                scopes: vec![KeyScope::EventsWrite],
                expires_at: None,
                hash,
                last_four: "0000".to_owned(),
            },
            endpoint: None,
            isolation: Isolation::Shared,
        };
        let by = SuperAdmin::by_operator();
        let tenant = storage.platform.tenant_create(by, new, clock.now()).await.expect("an organization");
        for endpoint in 0..ENDPOINTS {
            let settings = EndpointSettings {
                url: EndpointUrl::parse("http://127.0.0.1:9/hook").expect("a URL"),
                description: String::new(),
                event_types: (0..TYPES)
                    .filter(|number| number % ENDPOINTS == endpoint)
                    .map(|number| EventTypePattern::parse(&type_name(number)).expect("a type"))
                    .collect(),
                source_ids: Vec::new(),
                filter: None,
                retry_schedule: None,
                timeout_ms: None,
                rate_limit: None,
                headers: Vec::new(),
                signature: SignatureScheme::HmacSha256,
            };
            let new = NewEndpoint { settings, secret: signing::generate(SignatureScheme::HmacSha256) };
            storage.api.endpoint_create(&tenant.scope, new, clock.now()).await.expect("an endpoint");
        }
        scopes.push(tenant.scope);
    }
    scopes
}

fn type_name(number: usize) -> String {
    format!("order.of_kind_{number}")
}

async fn record(storage: &Storage, scopes: &Arc<Vec<Scope>>, clock: &Clock, events: usize, senders: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let body = Bytes::from(format!(r#"{{"type":"order","data":"{}"}}"#, "x".repeat(990)));
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let (storage, scopes, clock) = (storage.clone(), scopes.clone(), clock.clone());
            let (next, body) = (next.clone(), body.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= events {
                        return;
                    }
                    let event = NewEvent::sent(
                        scopes[number % ORGANIZATIONS].clone(),
                        EventType::parse(&type_name(number / ORGANIZATIONS % TYPES)).expect("a type"),
                        Some(ExternalId::parse(&format!("order-{number}-paid")).expect("an id")),
                        body.clone(),
                        clock.now(),
                    );
                    storage.receiver.event_record(event).await.expect("recorded");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a sender");
    }
}

async fn settle(worker: Arc<dyn Worker>, fresh: UnboundedReceiver<Fresh>, settled: Arc<AtomicUsize>, clock: Clock) {
    let fresh = Arc::new(tokio::sync::Mutex::new(fresh));
    let tasks: Vec<_> = (0..SETTLERS)
        .map(|_| {
            let (worker, fresh, settled, clock) = (worker.clone(), fresh.clone(), settled.clone(), clock.clone());
            tokio::spawn(async move {
                loop {
                    let Some((event, endpoint)) = fresh.lock().await.recv().await else { return };
                    worker.attempt_settle(success(&event, endpoint, clock.now())).await.expect("settled");
                    settled.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        let _ended = task.await;
    }
}

fn success(event: &StoredEvent, endpoint: EndpointKey, now: Timestamp) -> Settlement {
    Settlement {
        delivery: event.delivery(endpoint),
        delivery_id: DeliveryId { event: event.id, endpoint_number: 1, run: 0 },
        attempt: Arc::new(Attempt {
            id: AttemptId::new(now),
            number: 1,
            url: "http://127.0.0.1:9/hook".to_owned(),
            response: Some(Response {
                status: 200,
                headers: vec![("content-length".to_owned(), "0".to_owned())],
                body: Bytes::new(),
            }),
            error: None,
            duration: Duration::from_millis(3),
        }),
        attempts_of_schedule: 1,
        next: Transition::Done,
    }
}
