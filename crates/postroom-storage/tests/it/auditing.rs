//! The audit log: every act leaves one entry, entries of one organization are nobody else's, and chains are whole.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use postroom_domain::endpoint::CustomHeader;
use postroom_domain::event::EventType;
use postroom_domain::{DeliveryId, Email, Role, Secret};
use postroom_storage::api::{NewUser, PageRequest, Rotation, SourceChange, TestEvent, UserChange};
use postroom_storage::audit::{Action, AuditEntry, AuditFilter, Refusal, Refused};
use postroom_storage::platform::{Isolation, OrganizationChange, Tenant};
use postroom_storage::receiver::NewEvent;
use postroom_storage::{Error, Origin, Scope, SuperAdmin};
use serde_json::{Value, json};

use crate::support::{EXHAUSTED, Harness, Room, new_endpoint, new_key, new_rejection, new_source, page, settlement};

fn origin() -> Origin {
    Origin { address: Some([192, 0, 2, 7].into()), request: Some("req_7".into()) }
}

async fn entries<H: Harness>(room: &Room<H>, scope: &Scope, filter: AuditFilter) -> Vec<AuditEntry> {
    room.storage.api.audit_list(scope, filter, page(250)).await.unwrap().data
}

pub async fn an_endpoint_that_says_it_is_gone_is_switched_off_by_the_system<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let endpoint = room.endpoint(&acme).await;
    room.send(&acme, "a").await;
    let key = room.handed_over()[0].1;
    for _ in 0..2 {
        room.storage.worker.endpoint_disable_gone(key, room.now()).await.unwrap();
    }
    let filter = AuditFilter { actor: Some("system".into()), ..AuditFilter::default() };
    let seen = entries(&room, &acme.scope, filter).await;
    assert_eq!(seen.len(), 1, "what is off already is not switched off: {seen:?}");
    assert_eq!((seen[0].action.as_str(), &seen[0].resource_id), ("endpoint.disabled", &Some(endpoint.id.to_string())));
    assert_eq!(Value::Object(seen[0].new_values.clone().unwrap()), json!({"disabled_reason": "gone"}));
    assert_eq!((&seen[0].address, &seen[0].request_id), (&None, &None));
    let reports = room.storage.platform.audit_verify(SuperAdmin::by_operator(), None).await.unwrap();
    assert!(reports.iter().all(|report| report.broken.is_none()), "{reports:?}");
}

/// The newest entry.
async fn newest<H: Harness>(room: &Room<H>, scope: &Scope) -> AuditEntry {
    entries(room, scope, AuditFilter::default()).await.remove(0)
}

fn rotation() -> Rotation {
    Rotation { secret: Secret::from("canary-rotated"), grace_seconds: 60 }
}

async fn acts_on_a_source<H: Harness>(room: &Room<H>, scope: &Scope) {
    let (api, now) = (&room.storage.api, room.now());
    let source = api.source_create(scope, new_source("custom", "canary-first"), now).await.unwrap();
    assert_eq!(source.created_by.as_deref(), Some("operator"));
    let made = newest(room, scope).await;
    assert_eq!(made.new_values.unwrap()["secret"], "changed");
    let change =
        SourceChange { name: Some("other".into()), secret: Some("canary-second".into()), ..Default::default() };
    api.source_update(scope, source.id, change, now).await.unwrap();
    let changed = newest(room, scope).await;
    assert_eq!(Value::Object(changed.old_values.unwrap()), json!({"name": "custom"}));
    assert_eq!(Value::Object(changed.new_values.unwrap()), json!({"name": "other", "secret": "changed"}));
    api.source_rotate(scope, source.id, rotation(), now).await.unwrap();
    let rejection = new_rejection(&room.source("acme", "other").await.unwrap(), now);
    let rejected = room.storage.receiver.rejection_record(rejection).await.unwrap().unwrap();
    let event = NewEvent::sent(scope.clone(), EventType::parse("a").unwrap(), None, Bytes::from_static(b"{}"), now);
    let event = room.storage.receiver.event_record(event).await.unwrap().id;
    api.rejection_resolve(scope, rejected, event, now).await.unwrap();
    api.source_delete(scope, source.id, now).await.unwrap();
}

async fn acts_on_an_endpoint<H: Harness>(room: &Room<H>, scope: &Scope) {
    let (api, now) = (&room.storage.api, room.now());
    let mut new = new_endpoint();
    new.settings.headers = vec![CustomHeader::new("x-key", "canary-header".into()).unwrap()];
    let endpoint = api.endpoint_create(scope, new.clone(), now).await.unwrap();
    assert_eq!(endpoint.created_by.as_deref(), Some("operator"));
    assert_eq!(api.endpoint_get(scope, endpoint.id).await.unwrap().created_by.as_deref(), Some("operator"));
    new.settings.headers = vec![CustomHeader::new("x-key", "canary-header-2".into()).unwrap()];
    new.settings.timeout_ms = Some(7_000);
    api.endpoint_update(scope, endpoint.id, endpoint.version, new.settings, now).await.unwrap();
    let changed = newest(room, scope).await;
    assert_eq!((changed.resource_type.as_str(), changed.resource_id), ("endpoint", Some(endpoint.id.to_string())));
    assert_eq!(Value::Object(changed.old_values.unwrap()), json!({"timeout_ms": null}));
    assert_eq!(Value::Object(changed.new_values.unwrap()), json!({"timeout_ms": 7000, "header_values": "changed"}));
    api.endpoint_rotate(scope, endpoint.id, rotation(), now).await.unwrap();
    api.endpoint_secret_reveal(scope, endpoint.id, now).await.unwrap();
    let test = TestEvent { event_type: EventType::parse("test").unwrap(), body: Bytes::from_static(b"{}") };
    let event = api.endpoint_test(scope, endpoint.id, test, now).await.unwrap();
    acts_on_deliveries(room, scope, DeliveryId { event: event.id, endpoint_number: 1, run: 0 }).await;
    api.endpoint_set_enabled(scope, endpoint.id, false, now).await.unwrap();
    api.endpoint_set_enabled(scope, endpoint.id, true, now).await.unwrap();
    api.endpoint_delete(scope, endpoint.id, now).await.unwrap();
}

async fn acts_on_deliveries<H: Harness>(room: &Room<H>, scope: &Scope, id: DeliveryId) {
    let (api, now) = (&room.storage.api, room.now());
    let (event, endpoint) = room.handed_over().pop().unwrap();
    let key = event.delivery(endpoint);
    let die = async |number| {
        let dead = settlement(id.event, key, number, 500, EXHAUSTED, now);
        room.storage.worker.attempt_settle(dead).await.unwrap();
    };
    die(1).await;
    api.dead_letter_requeue(scope, id, now).await.unwrap();
    die(2).await;
    api.delivery_retry(scope, id, now).await.unwrap();
    die(3).await;
    api.dead_letter_discard(scope, id, now).await.unwrap();
    api.event_replay(scope, id.event, None, now).await.unwrap();
    let replayed = DeliveryId { run: 1, ..id };
    assert_eq!(newest(room, scope).await.new_values.unwrap()["deliveries"], json!([replayed.to_string()]));
}

async fn acts_on_who_is_who<H: Harness>(room: &Room<H>, tenant: &Tenant) {
    room.hands.forward(Duration::from_secs(1));
    let (scope, now) = (&tenant.scope, room.now());
    let key = room.storage.api.api_key_create(scope, new_key(), now).await.unwrap();
    assert_eq!(key.created_by.as_deref(), Some("operator"));
    for _ in 0..2 {
        room.storage.api.api_key_revoke(scope, key.id, now).await.unwrap();
    }
    let change = OrganizationChange {
        plan: Some(postroom_domain::organization::Plan::Free),
        mandrill_webhook_secret: Some(Some("canary-mandrill".into())),
        ..OrganizationChange::default()
    };
    let by = SuperAdmin::by_admin_token().from(origin());
    room.storage.platform.organization_update(by, tenant.organization.id, change, now).await.unwrap();
    let changed = newest(room, scope).await;
    assert_eq!((changed.actor.as_str(), changed.action.as_str()), ("super_admin", "organization.updated"));
    assert_eq!(changed.new_values.unwrap()["mandrill_webhook_secret"], "changed");
}

/// A person is invited twice, signs in, asks for another link, signs out, and is switched off.
async fn acts_of_people<H: Harness>(room: &Room<H>, scope: &Scope) {
    let (storage, now) = (&room.storage, room.now());
    let email = Email::parse("Ada@example.com").unwrap();
    let invited =
        storage.api.user_invite(scope, NewUser { email: email.clone(), role: Role::Member }, now).await.unwrap();
    storage.api.user_invite_again(scope, invited.id, now).await.unwrap();
    let mail = storage.platform.mail_take(now, 10).await.unwrap().pop().unwrap();
    let session = storage.authorizer.sign_in(&mail.token.hash(), &origin(), "a browser", now).await.unwrap();
    assert!(storage.authorizer.sign_in_request(&email, &origin(), now).await.unwrap());
    for _ in 0..2 {
        storage.authorizer.session_end(session.session, &origin(), now).await.unwrap();
    }
    let signed_out = newest(room, scope).await;
    assert_eq!((signed_out.actor.as_str(), signed_out.action.as_str()), (&*invited.id.to_string(), "user.signed_out"));
    let change = UserChange { role: Some(Role::Admin), is_active: Some(false) };
    storage.api.user_update(scope, invited.id, change, now).await.unwrap();
    let changed = newest(room, scope).await;
    assert_eq!(Value::Object(changed.old_values.unwrap()), json!({"role": "member", "is_active": true}));
    assert_eq!(Value::Object(changed.new_values.unwrap()), json!({"role": "admin", "is_active": false}));
    let refusal = Refusal { route: "GET /v1/users".to_owned(), code: "forbidden" };
    storage.platform.access_refused(Refused::In(scope.clone()), refusal, now).await.unwrap();
}

/// Actions that need a provider's handshake, or are of no organization.
const ELSEWHERE: [Action; 3] = [Action::SourceSecretLearned, Action::SuperAdminInvited, Action::SuperAdminUpdated];

pub async fn every_act_leaves_one_entry_and_no_secret<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    assert_eq!(acme.organization.created_by.as_deref(), Some("operator"));
    let scope = acme.scope.clone().from(origin());
    // Entries of two databases are in the order of time, and those of one moment in any.
    room.hands.forward(Duration::from_secs(1));
    acts_on_a_source(&room, &scope).await;
    acts_on_an_endpoint(&room, &scope).await;
    acts_on_who_is_who(&room, &acme).await;
    acts_of_people(&room, &scope).await;

    let all = entries(&room, &scope, AuditFilter::default()).await;
    assert!(all.is_sorted_by(|one, next| one.id > next.id), "newest first");
    let done: BTreeSet<&str> = all.iter().map(|entry| entry.action.as_str()).collect();
    let known = Action::ALL.iter().map(|(action, _)| *action).filter(|action| !ELSEWHERE.contains(action));
    assert_eq!(done, known.map(Action::as_str).collect());
    let twice = ["api_key.created", "organization.updated"];
    assert_eq!(all.len(), done.len() + 1, "one each, and the first key: {twice:?}");
    let of_requests = all.iter().filter(|entry| entry.address.as_deref() == Some("192.0.2.7"));
    assert!(of_requests.clone().all(|entry| entry.request_id.as_deref() == Some("req_7")));
    assert_eq!(of_requests.count(), all.len() - 4, "all but those of the room itself");
    let text = format!("{all:?}");
    assert!(!text.contains("canary") && !text.contains("whsec_"), "{text}");

    let reports = room.storage.platform.audit_verify(SuperAdmin::by_operator(), None).await.unwrap();
    assert!(reports.iter().all(|report| report.broken.is_none()), "{reports:?}");
    assert!(reports.iter().all(|report| report.organization == Some(acme.organization.id)));
    assert_eq!(reports.iter().map(|report| report.entries).sum::<u64>(), all.len() as u64);
    assert_eq!(reports.iter().any(|report| report.dedicated), H::ISOLATION == Isolation::Dedicated);
}

pub async fn entries_are_found_by_what_they_say_and_read_in_pages<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    let api = &room.storage.api;
    let source = api.source_create(&acme.scope, new_source("custom", "x"), room.now()).await.unwrap();
    room.hands.forward(Duration::from_secs(60));
    let later = room.now();
    for name in ["a", "b", "c"] {
        let change = SourceChange { name: Some(name.to_owned()), ..SourceChange::default() };
        api.source_update(&acme.scope, source.id, change, later).await.unwrap();
        api.api_key_create(&acme.scope, new_key(), later).await.unwrap();
    }
    let count = async |filter: AuditFilter| entries(&room, &acme.scope, filter).await.len();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(count(AuditFilter { action: text("source.updated"), ..Default::default() }).await, 3);
    assert_eq!(count(AuditFilter { resource_type: text("source"), ..Default::default() }).await, 4);
    assert_eq!(count(AuditFilter { resource_id: Some(source.id.to_string()), ..Default::default() }).await, 4);
    assert_eq!(count(AuditFilter { actor: text("operator"), ..Default::default() }).await, 9);
    assert_eq!(count(AuditFilter { actor: text("super_admin"), ..Default::default() }).await, 0);
    assert_eq!(count(AuditFilter { created_after: Some(later), ..Default::default() }).await, 6);
    assert_eq!(count(AuditFilter { created_before: Some(later), ..Default::default() }).await, 3);
    let both = AuditFilter { action: text("source.updated"), created_before: Some(later), ..Default::default() };
    assert_eq!(count(both).await, 0);

    let all: Vec<_> = entries(&room, &acme.scope, AuditFilter::default()).await.iter().map(|entry| entry.id).collect();
    for limit in [1, 2, 4, 250] {
        let (mut request, mut read) = (PageRequest { limit, after: None }, Vec::new());
        loop {
            let page = api.audit_list(&acme.scope, AuditFilter::default(), request.clone()).await.unwrap();
            assert!(page.data.len() <= limit);
            read.extend(page.data.iter().map(|entry| entry.id));
            let Some(next) = page.next else { break };
            request.after = Some(next);
        }
        assert_eq!(read, all, "in pages of {limit}");
    }
    let of_other = entries(&room, &other.scope, AuditFilter::default()).await;
    assert_eq!(of_other.len(), 2, "the organization and its key");
    assert!(of_other.iter().all(|entry| !all.contains(&entry.id)));
}

pub async fn what_is_of_no_organization_has_a_chain_of_its_own<H: Harness>() {
    let room = Room::<H>::new().await;
    room.organization("acme").await;
    let (platform, by) = (&room.storage.platform, || SuperAdmin::by_operator().from(origin()));
    let email = Email::parse("root@example.com").unwrap();
    let link = platform.super_admin_create(by(), &email, room.now()).await.unwrap();
    let session = room.storage.authorizer.sign_in(&link.token.hash(), &origin(), "", room.now()).await.unwrap();
    let refusal = Refusal { route: "GET /v1/users".to_owned(), code: "credentials_invalid" };
    platform.access_refused(Refused::Nobody(origin()), refusal.clone(), room.now()).await.unwrap();
    platform.access_refused(Refused::SuperAdmin(by()), refusal, room.now()).await.unwrap();
    let found = platform.audit_list(by(), AuditFilter::default(), page(10)).await.unwrap().data;
    let done: Vec<_> = found.iter().rev().map(|entry| (entry.actor.as_str(), entry.action.as_str())).collect();
    let user = session.user.to_string();
    let expected = [
        ("operator", "super_admin.invited"),
        (user.as_str(), "user.signed_in"),
        ("nobody", "access.refused"),
        ("operator", "access.refused"),
    ];
    assert_eq!(done, expected);
    let reports = platform.audit_verify(by(), None).await.unwrap();
    let own = reports.iter().find(|report| report.organization.is_none()).unwrap();
    assert_eq!((own.entries, &own.broken), (4, &None));
    assert!(own.head.is_some());
}

pub async fn what_is_not_done_leaves_no_entry<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let api = &room.storage.api;
    api.source_create(&acme.scope, new_source("custom", "x"), room.now()).await.unwrap();
    let before = entries(&room, &acme.scope, AuditFilter::default()).await.len();
    let again = api.source_create(&acme.scope, new_source("custom", "x"), room.now()).await;
    assert!(matches!(again, Err(Error::Taken { .. })));
    let endpoint = room.endpoint(&acme).await;
    let settings = endpoint.settings.clone();
    let stale = api.endpoint_update(&acme.scope, endpoint.id, endpoint.version + 1, settings, room.now()).await;
    assert!(matches!(stale, Err(Error::Stale)));
    assert_eq!(entries(&room, &acme.scope, AuditFilter::default()).await.len(), before + 1, "the endpoint");
}

pub async fn many_who_write_at_once_make_one_chain<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let made = (0..24).map(|_| room.storage.api.api_key_create(&acme.scope, new_key(), room.now()));
    for made in futures_util::future::join_all(made).await {
        made.unwrap();
    }
    let by = SuperAdmin::by_operator();
    let reports = room.storage.platform.audit_verify(by, Some(acme.organization.id)).await.unwrap();
    assert!(reports.iter().all(|report| report.broken.is_none()), "{reports:?}");
    assert_eq!(reports.iter().map(|report| report.entries).sum::<u64>(), 26);
}
