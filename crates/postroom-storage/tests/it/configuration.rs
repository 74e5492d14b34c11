//! Organizations, keys, sources and endpoints: what is unique, what is found at once, what ends.

use std::time::Duration;

use postroom_domain::delivery::DeadReason;
use postroom_domain::endpoint::CustomHeader;
use postroom_domain::organization::Plan;
use postroom_domain::verify::{Outcome, Request};
use postroom_domain::{Secret, Timestamp, signing};
use postroom_storage::api::{Rotation, SourceChange};
use postroom_storage::error::Unique;
use postroom_storage::platform::OrganizationChange;
use postroom_storage::receiver::Source;
use postroom_storage::{Actor, Error, SuperAdmin};

use crate::support::{Harness, Room, is_not_found, new_key, new_organization, new_source, page};

const BY: fn() -> SuperAdmin = SuperAdmin::by_admin_token;

fn taken<T: std::fmt::Debug>(result: Result<T, Error>) -> Unique {
    match result {
        Err(Error::Taken { field }) => field,
        other => panic!("{other:?}"),
    }
}

pub async fn an_organization_is_found_by_its_slug_and_changed_as_asked<H: Harness>() {
    let room = Room::<H>::new().await;
    let (platform, authorizer) = (&room.storage.platform, &room.storage.authorizer);
    let acme = platform.organization_create(BY(), new_organization("acme"), room.now()).await.unwrap();
    assert_eq!((acme.plan, acme.webhook_limit, acme.webhook_count), (Plan::Premium, None, 0));
    let again = platform.organization_create(BY(), new_organization("acme"), room.now()).await;
    assert_eq!(taken(again), Unique::OrganizationSlug);

    room.hands.forward(Duration::from_secs(1));
    let change = OrganizationChange {
        slug: Some("acme-2".to_owned()),
        plan: Some(Plan::Free),
        is_active: Some(false),
        ..OrganizationChange::default()
    };
    let changed = platform.organization_update(BY(), acme.id, change, room.now()).await.unwrap();
    assert_eq!((changed.slug.as_str(), changed.plan, changed.webhook_limit), ("acme-2", Plan::Free, Some(1_000)));
    assert_eq!((changed.name.as_str(), changed.is_active, changed.updated_at), ("acme", false, room.now()));
    assert!(authorizer.organization_enter(BY(), "acme").await.unwrap().is_none());
    for name in ["acme-2".to_owned(), acme.id.to_string()] {
        let scope = authorizer.organization_enter(BY(), &name).await.unwrap().unwrap();
        assert_eq!((scope.organization(), scope.slug(), scope.actor()), (acme.id, "acme-2", Actor::SuperAdmin));
    }
    let free = platform.organization_create(BY(), new_organization("acme"), room.now()).await.unwrap();
    let all = platform.organization_list(BY(), page(10)).await.unwrap().data;
    assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), [free.id, acme.id], "newest first");
    let slug = OrganizationChange { slug: Some("acme".to_owned()), ..OrganizationChange::default() };
    let taken_slug = platform.organization_update(BY(), acme.id, slug, room.now()).await;
    assert_eq!(taken(taken_slug), Unique::OrganizationSlug);
}

pub async fn a_mandrill_secret_is_unique_in_the_installation_and_makes_a_source<H: Harness>() {
    let room = Room::<H>::new().await;
    let platform = &room.storage.platform;
    let with = |slug: &str, secret: &str| postroom_storage::platform::NewOrganization {
        mandrill_webhook_secret: Some(Secret::from(secret)),
        ..new_organization(slug)
    };
    let a = platform.organization_create(BY(), with("a", "one"), room.now()).await.unwrap();
    assert!(a.has_mandrill_webhook_secret);
    let same = platform.organization_create(BY(), with("b", "one"), room.now()).await;
    assert_eq!(taken(same), Unique::MandrillWebhookSecret);
    let b = platform.organization_create(BY(), with("b", "two"), room.now()).await.unwrap();
    let set = |secret: Option<&str>| OrganizationChange {
        mandrill_webhook_secret: Some(secret.map(Secret::from)),
        ..OrganizationChange::default()
    };
    let same = platform.organization_update(BY(), b.id, set(Some("one")), room.now()).await;
    assert_eq!(taken(same), Unique::MandrillWebhookSecret);

    let source = room.source("a", "mandrill").await.unwrap();
    assert_eq!((source.settings.provider.as_str(), source.is_active), ("mandrill", true));
    assert!(source.verifier.is_ok());
    platform.organization_update(BY(), a.id, set(None), room.now()).await.unwrap();
    assert!(room.source("a", "mandrill").await.is_none());
    platform.organization_update(BY(), b.id, set(Some("one")), room.now()).await.unwrap();
    platform.organization_update(BY(), a.id, set(Some("three")), room.now()).await.unwrap();
    assert_eq!(room.source("a", "mandrill").await.unwrap().id, source.id, "the same source again");
}

pub async fn a_key_lets_its_holder_in_until_it_is_revoked_or_expires<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api, authorizer) = (room.organization("acme").await, &room.storage.api, &room.storage.authorizer);
    let (forever, short) = (new_key(), new_key());
    let short = postroom_storage::api::NewApiKey { expires_at: Some(room.now() + Duration::from_secs(60)), ..short };
    let made = api.api_key_create(&acme.scope, forever.clone(), room.now()).await.unwrap();
    api.api_key_create(&acme.scope, short.clone(), room.now()).await.unwrap();
    let caller = authorizer.key_find(&forever.hash, room.now()).await.unwrap().unwrap();
    assert_eq!((caller.scope.organization(), caller.scope.actor()), (acme.organization.id, Actor::ApiKey(made.id)));
    assert_eq!((caller.scopes, caller.organization_active), (forever.scopes.clone(), true));
    assert!(authorizer.key_find(&new_key().hash, room.now()).await.unwrap().is_none());
    assert!(authorizer.key_find(&short.hash, room.now()).await.unwrap().is_some());
    room.hands.forward(Duration::from_secs(60));
    assert!(authorizer.key_find(&short.hash, room.now()).await.unwrap().is_none(), "expired");

    room.until(async || api.api_key_get(&acme.scope, made.id).await.unwrap().last_used_at.is_some()).await;
    let revoked = api.api_key_revoke(&acme.scope, made.id, room.now()).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(room.now()));
    assert!(authorizer.key_find(&forever.hash, room.now()).await.unwrap().is_none());
    room.hands.forward(Duration::from_secs(1));
    let again = api.api_key_revoke(&acme.scope, made.id, room.now()).await.unwrap();
    assert_eq!(again.revoked_at, revoked.revoked_at, "ended twice is no error");
    assert_eq!(api.api_key_list(&acme.scope, page(10)).await.unwrap().data.len(), 3, "revoked ones are listed");

    let room = room.crash().await;
    let found = room.storage.authorizer.key_find(&forever.hash, room.now()).await.unwrap();
    assert!(found.is_none(), "not after a restart either");
}

fn accepts(source: &Source, token: &str, now: Timestamp) -> bool {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-signature", token.parse().unwrap());
    let request = Request { method: "POST", url: "http://localhost/in/acme/custom", headers: &headers, body: b"{}" };
    matches!(source.verifier.as_ref().unwrap().verify(&request, now), Outcome::Verified(_))
}

pub async fn a_source_is_known_by_its_name_and_verifies_with_every_active_secret<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, &room.storage.api);
    let made = api.source_create(&acme.scope, new_source("custom", "first-secret-of-it"), room.now()).await.unwrap();
    assert_eq!((made.active_secrets, made.secret_updated_at), (1, Some(room.now())));
    let same = api.source_create(&acme.scope, new_source("custom", "x"), room.now()).await;
    assert_eq!(taken(same), Unique::SourceName);
    let (first, second) = (crate::support::sign("first-secret-of-it"), crate::support::sign("second-secret-of-it"));
    assert!(accepts(&room.source("acme", "custom").await.unwrap(), &first, room.now()));

    let rotation = Rotation { secret: Secret::from("second-secret-of-it"), grace_seconds: 60 };
    let rotated = api.source_rotate(&acme.scope, made.id, rotation, room.now()).await.unwrap();
    assert_eq!(rotated.active_secrets, 2);
    let source = room.source("acme", "custom").await.unwrap();
    assert!(accepts(&source, &first, room.now()) && accepts(&source, &second, room.now()));
    room.hands.forward(Duration::from_secs(60));
    let source = room.source("acme", "custom").await.unwrap();
    assert!(!accepts(&source, &first, room.now()) && accepts(&source, &second, room.now()), "the grace is over");

    let change = SourceChange {
        name: Some("renamed".to_owned()),
        secret: Some(Secret::from("first-secret-of-it")),
        is_active: Some(false),
        ..SourceChange::default()
    };
    api.source_update(&acme.scope, made.id, change, room.now()).await.unwrap();
    assert!(room.source("acme", "custom").await.is_none());
    let source = room.source("acme", "renamed").await.unwrap();
    assert!(!source.is_active && accepts(&source, &first, room.now()) && !accepts(&source, &second, room.now()));
    api.source_delete(&acme.scope, made.id, room.now()).await.unwrap();
    assert!(room.source("acme", "renamed").await.is_none());
    assert!(is_not_found(api.source_get(&acme.scope, made.id).await));
    api.source_create(&acme.scope, new_source("renamed", "x-secret-of-it"), room.now()).await.unwrap();
}

pub async fn an_endpoint_signs_with_both_secrets_until_the_grace_is_over<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api, worker) = (room.organization("acme").await, &room.storage.api, &room.storage.worker);
    let made = room
        .endpoint_of(&acme, |settings| {
            settings.headers = vec![CustomHeader::new("authorization", Secret::from("Bearer x")).unwrap()];
        })
        .await;
    room.send(&acme, "a").await;
    let key = room.handed_over()[0].1;
    let endpoint = worker.endpoint_find(key).await.unwrap().unwrap();
    assert_eq!((endpoint.id, endpoint.number, endpoint.blocked), (made.id, 1, None));
    assert_eq!(endpoint.settings.headers[0].value(), &Secret::from("Bearer x"));
    let same = worker.endpoint_find(key).await.unwrap().unwrap();
    assert!(std::sync::Arc::ptr_eq(&endpoint, &same), "nothing changed");
    let signatures = |header: &str| header.split(' ').count();
    let sign = async || {
        let endpoint = worker.endpoint_find(key).await.unwrap().unwrap();
        signatures(&endpoint.signer.as_ref().unwrap().signature_header("id", 1, b"body"))
    };
    assert_eq!(sign().await, 1);
    let secret = signing::generate(made.settings.signature);
    let rotation = Rotation { secret: secret.clone(), grace_seconds: 3600 };
    let rotated = api.endpoint_rotate(&acme.scope, made.id, rotation, room.now()).await.unwrap();
    assert_eq!(rotated.secrets.len(), 2);
    assert_eq!(rotated.secrets[0].expires_at, None);
    assert_eq!(rotated.secrets[1].expires_at, Some(room.now() + Duration::from_secs(3600)));
    assert_eq!(sign().await, 2);
    assert_eq!(api.endpoint_secret_reveal(&acme.scope, made.id, room.now()).await.unwrap(), secret);
    room.hands.forward(Duration::from_secs(3600));
    assert_eq!(sign().await, 1);
    room.storage.platform.upkeep(room.now()).await.unwrap();
    assert_eq!(api.endpoint_get(&acme.scope, made.id).await.unwrap().secrets.len(), 2, "the history stays");
    for _ in 0..25 {
        let rotation = Rotation { secret: signing::generate(made.settings.signature), grace_seconds: 0 };
        api.endpoint_rotate(&acme.scope, made.id, rotation, room.now()).await.unwrap();
    }
    assert_eq!(api.endpoint_get(&acme.scope, made.id).await.unwrap().secrets.len(), 20, "within bounds");
    assert_eq!(sign().await, 1, "without grace the old one ends at once");
}

pub async fn an_endpoint_that_gets_nothing_says_why<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api, worker) = (room.organization("acme").await, &room.storage.api, &room.storage.worker);
    let made = room.endpoint(&acme).await;
    room.send(&acme, "a").await;
    let key = room.handed_over()[0].1;
    let blocked = async || worker.endpoint_find(key).await.unwrap().unwrap().blocked;
    let off = |is_active| OrganizationChange { is_active: Some(is_active), ..OrganizationChange::default() };

    worker.endpoint_disable_gone(key, room.now()).await.unwrap();
    assert_eq!(blocked().await, Some(DeadReason::EndpointGone));
    let view = api.endpoint_set_enabled(&acme.scope, made.id, false, room.now()).await.unwrap();
    assert_eq!(view.disabled_reason, Some("gone"), "the first reason stays");
    api.endpoint_set_enabled(&acme.scope, made.id, true, room.now()).await.unwrap();
    assert_eq!(blocked().await, None);
    api.endpoint_set_enabled(&acme.scope, made.id, false, room.now()).await.unwrap();
    assert_eq!(blocked().await, Some(DeadReason::EndpointDisabled));
    room.storage.platform.organization_update(BY(), acme.organization.id, off(false), room.now()).await.unwrap();
    assert_eq!(blocked().await, Some(DeadReason::OrganizationInactive));
    room.storage.platform.organization_update(BY(), acme.organization.id, off(true), room.now()).await.unwrap();
    api.endpoint_delete(&acme.scope, made.id, room.now()).await.unwrap();
    assert_eq!(blocked().await, Some(DeadReason::EndpointDeleted));
    assert_eq!(room.lanes.woken.lock().last(), Some(&key), "delivery is told");
}

pub async fn the_number_of_endpoints_is_bounded<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    for _ in 0..1_000 {
        room.endpoint(&acme).await;
    }
    let new = crate::support::new_endpoint();
    let refused = room.storage.api.endpoint_create(&acme.scope, new, room.now()).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "limit_reached", .. })));
    assert_eq!(room.send(&acme, "a").await.deliveries, 1_000);
}
