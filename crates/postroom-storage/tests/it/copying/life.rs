//! What happens in an installation before it is copied, and all that can be seen of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use postroom_domain::endpoint::CustomHeader;
use postroom_domain::verify::{Outcome, Request};
use postroom_domain::{EventId, Role, Secret, SessionId};
use postroom_storage::api::{
    DeliveryFilter, EventFilter, Idempotency, IdempotencyClaim, NewApiKey, Page, PageRequest, Rotation, StoredAnswer,
};
use postroom_storage::platform::{Isolation, NewOrganization, NewTenant, Tenant};
use postroom_storage::receiver::NewEvent;
use postroom_storage::worker::Transition;
use postroom_storage::{Result, Storage, SuperAdmin};

use crate::support::{
    EXHAUSTED, Harness, Room, new_key, new_organization, new_rejection, new_source, settlement, sign,
};

const BY: fn() -> SuperAdmin = SuperAdmin::by_operator;

/// What is remembered of it beside the database.
pub struct Life {
    keys: Vec<NewApiKey>,
    events: BTreeMap<String, EventId>,
    session: Option<SessionId>,
}

/// Chance, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// An organization, as a super admin enters it.
pub async fn tenant(storage: &Storage, slug: &str) -> Tenant {
    let scope = storage.authorizer.organization_enter(BY(), slug).await.unwrap().unwrap();
    let organization = storage.platform.organization_get(BY(), scope.organization()).await.unwrap();
    let api_key = storage.api.api_key_list(&scope, all()).await.unwrap().data.remove(0);
    Tenant { organization, scope, api_key, endpoint: None }
}

fn all() -> PageRequest {
    PageRequest { limit: 100, after: None }
}

fn claim(key: &str) -> IdempotencyClaim {
    IdempotencyClaim { key: key.to_owned(), request_hash: [7; 32] }
}

impl Life {
    /// Three organizations with all that there is, and deliveries that stand in every way. What is in memory at the end
    /// has no known outcome.
    pub async fn lead<H: Harness>(room: &Room<H>, seed: u64) -> Self {
        let mut life = Self { keys: Vec::new(), events: BTreeMap::new(), session: None };
        let mut dice = Dice(seed);
        for number in 0..3 {
            life.furnish(room, number).await;
        }
        for day in 0..3 {
            for turn in 0..40 {
                life.accept(room, &mut dice, day * 100 + turn).await;
                life.deliver(room, &mut dice).await;
                room.hands.forward(Duration::from_millis(dice.roll(5_000)));
            }
            life.meddle(room, &mut dice).await;
            room.hands.forward(Duration::from_secs(24 * 3600));
        }
        for turn in 0..20 {
            life.accept(room, &mut dice, 1_000 + turn).await;
        }
        let acme = tenant(&room.storage, "acme-0").await;
        life.session = Some(room.joined(&acme.scope, "ada@example.com", Role::Admin).await.session);
        room.invite(&acme.scope, "bob@example.com", Role::Member).await;
        life
    }

    async fn furnish<H: Harness>(&mut self, room: &Room<H>, number: usize) {
        let key = new_key();
        let organization = NewOrganization {
            mandrill_webhook_secret: Some(Secret::from(format!("of-organization-{number}"))),
            webhook_limit: Some(100_000),
            ..new_organization(&format!("acme-{number}"))
        };
        let isolation = Isolation::Shared;
        let new = NewTenant { organization, api_key: key.clone(), endpoint: None, isolation };
        let made = room.storage.platform.tenant_create(BY(), new, room.now()).await.unwrap();
        let (api, scope, now) = (&room.storage.api, &made.scope, room.now());
        let short = NewApiKey { expires_at: Some(now + Duration::from_secs(3600)), ..new_key() };
        let revoked = api.api_key_create(scope, new_key(), now).await.unwrap();
        api.api_key_create(scope, short, now).await.unwrap();
        api.api_key_revoke(scope, revoked.id, now).await.unwrap();
        self.keys.push(key);
        for name in ["one", "two", "gone"] {
            let source = api.source_create(scope, new_source(name, "a-secret-of-it"), now).await.unwrap();
            let rotation = Rotation { secret: Secret::from("a-newer-one"), grace_seconds: 3600 };
            api.source_rotate(scope, source.id, rotation, now).await.unwrap();
        }
        let header = CustomHeader::new("authorization", Secret::from("Bearer x")).unwrap();
        for at in 0..4 {
            let endpoint = room.endpoint_of(&made, |settings| settings.headers = vec![header.clone()]).await;
            // Which is written down.
            api.endpoint_secret_reveal(scope, endpoint.id, now).await.unwrap();
            if at == 1 {
                let secret = Secret::from("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
                api.endpoint_rotate(scope, endpoint.id, Rotation { secret, grace_seconds: 3600 }, now).await.unwrap();
            }
        }
        for key in ["answered", "open"] {
            assert!(matches!(api.idempotency_begin(scope, claim(key), now).await.unwrap(), Idempotency::New));
        }
        let answer = StoredAnswer { status: 201, body: Bytes::from_static(b"once") };
        api.idempotency_finish(scope, claim("answered"), Some(answer), now).await.unwrap();
    }

    /// Some events of any of the organizations, of its own or received.
    async fn accept<H: Harness>(&mut self, room: &Room<H>, dice: &mut Dice, turn: u64) {
        let slug = format!("acme-{}", dice.roll(3));
        let acme = tenant(&room.storage, &slug).await;
        let kind = ["order.paid", "order.lost", "user"][usize::try_from(dice.roll(3)).unwrap()];
        let id = format!("{slug}-{turn}");
        let recorded = match dice.roll(4) {
            0 => room.try_send(&acme, kind, None).await.unwrap(),
            1 => {
                let source = room.source(&slug, "one").await.unwrap();
                let mut headers = http::HeaderMap::new();
                headers.insert("x-signature", sign("a-newer-one").parse().unwrap());
                let request =
                    Request { method: "POST", url: "http://localhost/in/a/one", headers: &headers, body: b"{}" };
                let Outcome::Verified(verified) = source.verifier.as_ref().unwrap().verify(&request, room.now()) else {
                    panic!("it does not verify");
                };
                let passed = vec![("x-signature".to_owned(), "00".to_owned())];
                let event = NewEvent::received(source, verified, passed, Bytes::from_static(b"{}"), room.now());
                room.storage.receiver.event_record(event).await.unwrap()
            }
            _ => {
                let recorded = room.try_send(&acme, kind, Some(&id)).await.unwrap();
                self.events.insert(id, recorded.id);
                recorded
            }
        };
        assert!(recorded.deliveries >= 1);
        if dice.roll(6) == 0 {
            let source = room.source(&slug, "two").await.unwrap();
            // Of one millisecond each engine has an order of its own.
            room.hands.forward(Duration::from_millis(1));
            room.storage.receiver.rejection_record(new_rejection(&source, room.now())).await.unwrap();
        }
    }

    /// Most of what was handed over is settled, in one way or the other.
    async fn deliver<H: Harness>(&mut self, room: &Room<H>, dice: &mut Dice) {
        for (event, endpoint) in room.handed_over() {
            let (delivery, now) = (event.delivery(endpoint), room.now());
            let (status, next) = match dice.roll(12) {
                0 => (500, EXHAUSTED),
                1 | 2 => (503, Transition::Wait(now + Duration::from_secs(600))),
                _ => (200, Transition::Done),
            };
            let settled = settlement(event.id, delivery, 1, status, next, now);
            room.storage.worker.attempt_settle(settled).await.unwrap();
        }
    }

    /// What people do.
    async fn meddle<H: Harness>(&mut self, room: &Room<H>, dice: &mut Dice) {
        let (api, now) = (&room.storage.api, room.now());
        for number in 0..3 {
            let acme = tenant(&room.storage, &format!("acme-{number}")).await;
            let scope = &acme.scope;
            let dead = api.dead_letter_list(scope, DeliveryFilter::default(), all()).await.unwrap().data;
            for dead in dead {
                match dice.roll(3) {
                    // Not to an endpoint that was deleted.
                    0 => drop(api.dead_letter_requeue(scope, dead.id, now).await),
                    1 => drop(api.dead_letter_discard(scope, dead.id, now).await.unwrap()),
                    _ => {}
                }
            }
            let events = api.event_list(scope, EventFilter::default(), all()).await.unwrap().data;
            for event in events.iter().take(2) {
                api.event_replay(scope, event.id, None, now).await.unwrap();
            }
            let endpoints = api.endpoint_list(scope, all()).await.unwrap().data;
            if endpoints.len() > 2 {
                api.endpoint_delete(scope, endpoints[0].id, now).await.unwrap();
            }
            let sources = api.source_list(scope, all()).await.unwrap().data;
            if let Some(gone) = sources.iter().find(|source| source.settings.name == "gone") {
                api.source_delete(scope, gone.id, now).await.unwrap();
            }
        }
    }

    /// Everything that was made still does what it did, and new things can be made.
    pub async fn goes_on<H: Harness>(&self, room: &Room<H>) {
        let (storage, now) = (&room.storage, room.now());
        for key in &self.keys {
            assert!(storage.authorizer.key_find(&key.hash, now).await.unwrap().is_some(), "a key lets its holder in");
        }
        assert!(room.person(self.session.unwrap()).await.is_some(), "a session lets its person in");
        room.enter(&room.token().await).await.expect("a mail that waited is sent, and its link is good");
        for (id, event) in &self.events {
            let acme = tenant(storage, id.rsplit_once('-').unwrap().0).await;
            let again = room.try_send(&acme, "order.paid", Some(id)).await.unwrap();
            assert_eq!((again.duplicate, again.id), (true, *event), "{id} is recognised");
        }
        let acme = tenant(storage, "acme-0").await;
        let known = storage.api.idempotency_begin(&acme.scope, claim("kept"), now).await.unwrap();
        assert!(matches!(known, Idempotency::New));
        let source = storage.api.source_create(&acme.scope, new_source("new", "a-secret-of-it"), now).await.unwrap();
        assert!(room.source("acme-0", "new").await.is_some_and(|found| found.id == source.id));
        let endpoint = room.endpoint(&acme).await;
        let sent = room.send(&acme, "order.paid").await;
        let handed = room.handed_over();
        for (event, to) in handed {
            let settled = settlement(event.id, event.delivery(to), 1, 200, Transition::Done, now);
            storage.worker.attempt_settle(settled).await.unwrap();
        }
        let filter = DeliveryFilter { endpoint: Some(endpoint.id), ..DeliveryFilter::default() };
        let delivered = storage.api.delivery_list(&acme.scope, filter, all()).await.unwrap().data;
        let delivered: Vec<_> = delivered.iter().map(|delivery| (delivery.event, delivery.last_status)).collect();
        assert_eq!(delivered, [(sent.id, Some(200))]);
        room.organization("another").await;
    }
}

/// All pages of a list, a line each.
async fn lines<T: std::fmt::Debug, F>(seen: &mut Vec<String>, mut list: impl FnMut(PageRequest) -> F) -> Vec<T>
where
    F: Future<Output = Result<Page<T>>>,
{
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = list(PageRequest { limit: 50, after }).await.unwrap();
        rows.extend(page.data);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    seen.extend(rows.iter().map(|row| format!("{row:?}")));
    rows
}

/// All that can be seen of an installation, a line for each thing, in the order of lists.
pub async fn all_of_it<H: Harness>(room: &Room<H>) -> Vec<String> {
    let (api, platform, mut seen) = (&room.storage.api, &room.storage.platform, Vec::new());
    let organizations = lines(&mut seen, |page| platform.organization_list(BY(), page)).await;
    for organization in organizations {
        let acme = tenant(&room.storage, &organization.slug).await;
        let scope = &acme.scope;
        seen.push(format!("{:?}", platform.organization_get(BY(), organization.id).await.unwrap()));
        lines(&mut seen, |page| api.api_key_list(scope, page)).await;
        lines(&mut seen, |page| api.user_list(scope, page)).await;
        for source in lines(&mut seen, |page| api.source_list(scope, page)).await {
            let found = room.source(scope.slug(), &source.settings.name).await.unwrap();
            seen.push(format!("{:?}", found.verifier.is_ok()));
        }
        for endpoint in lines(&mut seen, |page| api.endpoint_list(scope, page)).await {
            let secret = api.endpoint_secret_reveal(scope, endpoint.id, room.now()).await.unwrap();
            seen.push(secret.expose_str().unwrap().to_owned());
            let headers = endpoint.settings.headers.iter().map(|header| header.value().expose_str().unwrap());
            seen.extend(headers.map(str::to_owned));
        }
        for event in lines(&mut seen, |page| api.event_list(scope, EventFilter::default(), page)).await {
            seen.push(format!("{:?}", api.event_payload(scope, event.id).await.unwrap()));
        }
        let deliveries = lines(&mut seen, |page| api.delivery_list(scope, DeliveryFilter::default(), page)).await;
        for delivery in deliveries {
            seen.push(format!("{:?}", api.attempt_list(scope, delivery.id).await.unwrap()));
        }
        lines(&mut seen, |page| api.dead_letter_list(scope, DeliveryFilter::default(), page)).await;
        for rejection in lines(&mut seen, |page| api.rejection_list(scope, None, page)).await {
            seen.push(format!("{:?}", api.rejection_get(scope, rejection.id).await.unwrap()));
        }
        for key in ["answered", "open"] {
            seen.push(format!("{:?}", api.idempotency_begin(scope, claim(key), room.now()).await.unwrap()));
        }
    }
    let mut waiting: Vec<String> = Vec::new();
    for due in room.waiting().await {
        waiting.push(format!("{} {:?} {} {:?}", due.event.id, due.delivery.endpoint, due.delivery.run, due.due_at));
    }
    waiting.sort();
    seen.extend(waiting);
    seen
}
