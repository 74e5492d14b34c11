//! Delivery at work: real lanes, a real client, and storage in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use postroom_delivery::{Client, Drained, LaneLimits, Lanes, Lookup, Settings};
use postroom_domain::delivery::{DeadReason, RetrySchedule};
use postroom_domain::egress::Policy;
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::signing::{self, Signer};
use postroom_domain::{Clock, EndpointId, EventId, OrganizationId, Secret, Timestamp};
use postroom_storage::worker::{
    Attempt, DeliveryKey, Due, Endpoint, EndpointKey, OrganizationKey, Settlement, StoredEvent, Transition,
};
use postroom_storage::{Error, Handoff, Result, Worker};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Storage in memory: keeps the promises of [`Worker`] as far as these tests look.
#[derive(Default)]
pub struct Memory {
    pub state: Mutex<Held>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
pub struct Held {
    pub endpoints: BTreeMap<EndpointKey, Arc<Endpoint>>,
    pub events: BTreeMap<i64, Arc<StoredEvent>>,
    pub pending: BTreeMap<DeliveryKey, Row>,
    pub attempts: Vec<(DeliveryKey, Attempt, Transition)>,
    pub dead: Vec<(DeliveryKey, DeadReason)>,
    pub gone: Vec<EndpointKey>,
    /// Answers `Unavailable` to so many settlements.
    pub failures: usize,
    /// The look-up of this endpoint panics.
    pub poisoned: Option<EndpointKey>,
}

#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub due: Timestamp,
    pub attempts: u32,
    pub attempts_of_schedule: u32,
}

impl Memory {
    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let out = change(&mut self.state.lock());
        self.changed.send_replace(());
        out
    }

    fn follow(held: &mut Held, delivery: DeliveryKey, attempts: u32, attempts_of_schedule: u32, next: Transition) {
        held.pending.remove(&delivery);
        match next {
            Transition::Done => {}
            Transition::Wait(due) => {
                held.pending.insert(delivery, Row { due, attempts, attempts_of_schedule });
            }
            Transition::Dead(reason) => held.dead.push((delivery, reason)),
        }
    }
}

#[async_trait]
impl Worker for Memory {
    async fn endpoint_find(&self, endpoint: EndpointKey) -> Result<Option<Arc<Endpoint>>> {
        let held = self.state.lock();
        assert_ne!(held.poisoned, Some(endpoint), "a poisoned endpoint");
        Ok(held.endpoints.get(&endpoint).cloned())
    }

    async fn attempt_settle(&self, settlement: Settlement) -> Result<()> {
        self.change(|held| {
            if held.failures > 0 {
                held.failures -= 1;
                return Err(Error::Unavailable("the disk is full".into()));
            }
            let Settlement { delivery, attempt, attempts_of_schedule, next, .. } = settlement;
            Self::follow(held, delivery, attempt.number, attempts_of_schedule, next);
            held.attempts.push((delivery, attempt, next));
            Ok(())
        })
    }

    async fn delivery_move(&self, delivery: DeliveryKey, attempts: u32, next: Transition) -> Result<()> {
        self.change(|held| Self::follow(held, delivery, attempts, 0, next));
        Ok(())
    }

    async fn endpoint_disable_gone(&self, endpoint: EndpointKey, _: Timestamp) -> Result<()> {
        self.change(|held| held.gone.push(endpoint));
        Ok(())
    }

    async fn pending_heads(&self, after: Option<EndpointKey>, limit: usize) -> Result<Vec<(EndpointKey, Timestamp)>> {
        let mut heads = BTreeMap::new();
        for (delivery, row) in &self.state.lock().pending {
            let head = heads.entry(delivery.endpoint).or_insert(row.due);
            *head = row.due.min(*head);
        }
        Ok(heads.into_iter().filter(|(endpoint, _)| after.is_none_or(|after| *endpoint > after)).take(limit).collect())
    }

    async fn pending_due(
        &self,
        endpoint: EndpointKey,
        until: Timestamp,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Due>> {
        let held = self.state.lock();
        let of_endpoint = |(delivery, row): &(&DeliveryKey, &Row)| delivery.endpoint == endpoint && row.due <= until;
        let mut rows: Vec<_> = held.pending.iter().filter(of_endpoint).collect();
        rows.sort_by_key(|(_, row)| row.due);
        let mut bytes = 0;
        Ok(rows
            .into_iter()
            .take(limit)
            .map(|(delivery, row)| Due {
                delivery: *delivery,
                event: held.events[&delivery.event].clone(),
                due_at: row.due,
                attempts: row.attempts,
                attempts_of_schedule: row.attempts_of_schedule,
            })
            .take_while(|due| {
                let before = bytes;
                bytes += due.event.body.len();
                before < max_bytes
            })
            .collect())
    }
}

/// Everything a test needs, and what it chooses.
pub struct Room {
    pub lanes: Arc<Lanes>,
    pub memory: Arc<Memory>,
    pub settings: Settings,
    time: Arc<AtomicI64>,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<Drained>>,
    secret: Secret,
}

impl Room {
    pub fn new() -> Self {
        Self::with(LaneLimits::default())
    }

    pub fn with(limits: LaneLimits) -> Self {
        let allow = ["127.0.0.0/8".parse().unwrap()];
        let policy = Arc::new(Policy::new(allow.to_vec(), Vec::new()));
        let settings = Settings {
            client: Client::new(policy, "Postroom/1.2.3", None).unwrap(),
            retry_schedule: RetrySchedule::new(&[60, 300, 900]).unwrap(),
            timeout: Duration::from_secs(15),
            drain: Duration::from_secs(20),
        };
        let lanes = Lanes::new(limits);
        let memory = Arc::new(Memory::default());
        let secret = signing::generate(SignatureScheme::HmacSha256);
        // The reference library for signatures asks the wall clock.
        #[allow(clippy::disallowed_methods)]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let time = Arc::new(AtomicI64::new(i64::try_from(now.as_millis()).unwrap()));
        Self { lanes, memory, settings, time, stop: CancellationToken::new(), running: None, secret }
    }

    /// Names in the place of the system's resolver.
    pub fn names(&mut self, lookup: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static) {
        let lookup: Lookup = Arc::new(lookup);
        self.settings.client = self.settings.client.clone().with_lookup(lookup);
    }

    pub fn start(&mut self) {
        let time = self.time.clone();
        let clock = Clock::new(move || Timestamp::from_millis(time.load(Ordering::SeqCst)));
        let run = postroom_delivery::run(
            self.lanes.clone(),
            self.memory.clone(),
            self.settings.clone(),
            clock,
            self.stop.clone(),
        );
        self.running = Some(tokio::spawn(run));
    }

    pub fn started() -> Self {
        let mut room = Self::new();
        room.start();
        room
    }

    pub async fn stop(&mut self) -> Drained {
        self.stop_now();
        self.stopped().await
    }

    pub fn stop_now(&self) {
        self.stop.cancel();
    }

    pub async fn stopped(&mut self) -> Drained {
        crate::soon(self.running.take().unwrap()).await.unwrap()
    }

    /// A new process on the same storage.
    pub fn restart(&mut self) {
        self.lanes = Lanes::new(LaneLimits::default());
        self.stop = CancellationToken::new();
        self.start();
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.load(Ordering::SeqCst))
    }

    /// Moves the clock.
    pub fn pass(&self, time: Duration) {
        self.time.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.lanes.recheck();
    }

    /// An endpoint of organization 1.
    pub fn endpoint(&self, url: &str) -> EndpointKey {
        self.endpoint_with(url, |_| {})
    }

    pub fn endpoint_with(&self, url: &str, change: impl FnOnce(&mut Endpoint)) -> EndpointKey {
        let mut held = self.memory.state.lock();
        let number = i64::try_from(held.endpoints.len()).unwrap() + 1;
        let key = EndpointKey::new(number);
        let now = self.now();
        let settings = EndpointSettings {
            url: EndpointUrl::parse(url).unwrap(),
            description: String::new(),
            event_types: Vec::new(),
            source_ids: Vec::new(),
            filter: None,
            retry_schedule: None,
            timeout_ms: None,
            rate_limit: None,
            headers: Vec::new(),
            signature: SignatureScheme::HmacSha256,
        };
        let mut endpoint = Endpoint {
            key,
            organization: OrganizationKey::new(1),
            organization_id: OrganizationId::new(now),
            id: EndpointId::new(now),
            number: u32::try_from(number).unwrap(),
            settings,
            signer: Ok(Signer::new(std::slice::from_ref(&self.secret)).unwrap()),
            blocked: None,
        };
        change(&mut endpoint);
        held.endpoints.insert(key, Arc::new(endpoint));
        key
    }

    /// Changes an endpoint as its owner would.
    pub fn reconfigure(&self, key: EndpointKey, url: &str, change: impl FnOnce(&mut Endpoint)) {
        let old = self.memory.state.lock().endpoints.len();
        let fresh = self.endpoint_with(url, change);
        let mut held = self.memory.state.lock();
        let endpoint = held.endpoints.remove(&fresh).unwrap();
        assert_eq!(held.endpoints.len(), old);
        let mut endpoint = Arc::into_inner(endpoint).unwrap();
        endpoint.key = key;
        held.endpoints.insert(key, Arc::new(endpoint));
        drop(held);
        self.lanes.wake(key);
    }

    /// Records an event for these endpoints of organization 1, as storage's writer does.
    pub fn record(&self, endpoints: &[EndpointKey]) -> i64 {
        self.record_with(endpoints, |_| {})
    }

    pub fn record_with(&self, endpoints: &[EndpointKey], change: impl FnOnce(&mut StoredEvent)) -> i64 {
        let seq = i64::try_from(self.memory.state.lock().events.len()).unwrap() + 1;
        let mut event = StoredEvent {
            seq,
            organization: OrganizationKey::new(1),
            id: EventId::new(self.now()),
            event_type: "order.paid".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(format!("{{\"order\":{seq}}}")),
        };
        change(&mut event);
        let event = Arc::new(event);
        let reserve = |endpoint: &EndpointKey| self.lanes.reserve(*endpoint, event.body.len());
        let (fresh, overflow): (Vec<EndpointKey>, Vec<_>) = endpoints.iter().copied().partition(reserve);
        self.memory.change(|held| {
            held.events.insert(seq, event.clone());
            let row = Row { due: self.now(), attempts: 0, attempts_of_schedule: 0 };
            held.pending.extend(overflow.iter().map(|endpoint| (event.delivery(*endpoint), row)));
        });
        self.lanes.deliver(event, fresh);
        overflow.into_iter().for_each(|endpoint| self.lanes.wake(endpoint));
        seq
    }

    /// Waits until storage holds what `reached` looks for.
    pub async fn until<T>(&self, reached: impl Fn(&Held) -> Option<T>) -> T {
        let mut changed = self.memory.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = reached(&self.memory.state.lock()) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        crate::soon(wait).await
    }

    /// Waits until so many attempts are recorded; returns all that are.
    pub async fn attempts(&self, count: usize) -> Vec<(DeliveryKey, Attempt, Transition)> {
        self.until(|held| (held.attempts.len() >= count).then(|| held.attempts.clone())).await
    }

    /// The one secret that all endpoints sign with, as the reference library takes it.
    pub fn verifier(&self) -> standardwebhooks::Webhook {
        standardwebhooks::Webhook::new(self.secret.expose_str().unwrap()).unwrap()
    }
}
