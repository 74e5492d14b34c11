//! Accepted means kept: what happens to an event until it is acknowledged.

use std::collections::HashSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::future::join_all;
use postroom_domain::organization::PlanLimits;
use postroom_storage::api::EventFilter;
use postroom_storage::platform::OrganizationChange;
use postroom_storage::{Error, SuperAdmin};

use crate::support::{Harness, Opening, Room, new_event, opening, pattern};

pub async fn an_event_goes_to_every_endpoint_that_wants_it<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;
    room.endpoint_of(&acme, |settings| settings.event_types = vec![pattern("order.*")]).await;
    room.endpoint_of(&acme, |settings| settings.event_types = vec![pattern("user.made")]).await;
    room.endpoint(&other).await;

    let recorded = room.send(&acme, "order.paid").await;
    assert!(!recorded.duplicate);
    assert_eq!(recorded.deliveries, 2);
    let handed_over = room.handed_over();
    assert_eq!(handed_over.len(), 2);
    for (event, _) in handed_over {
        assert_eq!(event.id, recorded.id);
        assert_eq!(event.event_type, "order.paid");
        assert_eq!(event.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    }
    assert_eq!(room.send(&other, "order.paid").await.deliveries, 1);
    assert_eq!(room.send(&acme, "nobody.cares").await.deliveries, 1);
}

pub async fn an_external_id_is_recorded_once_within_the_window<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;

    let first = room.try_send(&acme, "a", Some("id-1")).await.unwrap();
    let again = room.try_send(&acme, "b", Some("id-1")).await.unwrap();
    assert_eq!((again.id, again.duplicate, again.deliveries), (first.id, true, 1));
    assert_eq!(room.handed_over().len(), 1, "a duplicate goes nowhere");
    assert!(!room.try_send(&other, "a", Some("id-1")).await.unwrap().duplicate, "ids of organizations never meet");

    let room = room.crash().await;
    assert!(room.try_send(&acme, "a", Some("id-1")).await.unwrap().duplicate, "a restart forgets nothing");
    room.hands.forward(Duration::from_secs(7 * 24 * 3600 - 1));
    assert_eq!(room.try_send(&acme, "a", Some("id-1")).await.unwrap().id, first.id);
    room.hands.forward(Duration::from_secs(1));
    let later = room.try_send(&acme, "a", Some("id-1")).await.unwrap();
    assert!(!later.duplicate, "the window has passed");
    assert_eq!(room.try_send(&acme, "a", Some("id-1")).await.unwrap().id, later.id);
}

pub async fn one_of_many_concurrent_events_with_one_id_is_recorded<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let all = join_all((0..100).map(|n| room.try_send(&acme, "a", Some(["x", "y"][n % 2])))).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert_eq!(all.iter().filter(|recorded| !recorded.duplicate).count(), 2);
    let ids: HashSet<_> = all.iter().map(|recorded| recorded.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(room.handed_over().len(), 2);
}

pub async fn the_monthly_limit_is_exact_under_concurrency_and_duplicates_are_free<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let limit = OrganizationChange { webhook_limit: Some(Some(20)), ..OrganizationChange::default() };
    let (by, id) = (SuperAdmin::by_operator(), acme.organization.id);
    room.storage.platform.organization_update(by, id, limit, room.now()).await.unwrap();

    let ids: Vec<String> = (0..50).map(|n| format!("id-{n}")).collect();
    let all = join_all(ids.iter().map(|id| room.try_send(&acme, "a", Some(id)))).await;
    let kept: Vec<&String> = ids.iter().zip(&all).filter(|(_, answer)| answer.is_ok()).map(|(id, _)| id).collect();
    assert_eq!(kept.len(), 20);
    for refused in all.iter().filter_map(|answer| answer.as_ref().err()) {
        let Error::LimitReached { limit: 20, resets_at } = refused else { panic!("{refused:?}") };
        assert_eq!(resets_at.to_string(), "2026-12-01T00:00:00.000Z");
    }
    assert!(room.try_send(&acme, "a", Some(kept[0])).await.unwrap().duplicate, "answered above the limit too");
    let organization = room.storage.platform.organization_of(&acme.scope).await.unwrap();
    assert_eq!((organization.webhook_count, organization.webhook_limit), (20, Some(20)));

    let room = room.crash().await;
    assert!(room.try_send(&acme, "a", None).await.is_err(), "the count survives a restart");
    room.hands.forward(Duration::from_secs(10 * 24 * 3600));
    assert!(room.try_send(&acme, "a", None).await.is_ok(), "a new month begins");
}

pub async fn the_limit_of_a_plan_is_as_the_server_was_opened_and_an_organization_s_own_stands_before_it<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.try_send(&acme, "a", None).await.unwrap();
    room.storage.platform.close().await.unwrap();
    let plans = PlanLimits { premium: Some(2), ..PlanLimits::default() };
    let storage = room.harness.open(Opening { plans, ..opening(&room.hands, &room.lanes, &room.keys) }).await;
    let room = Room { storage, ..room };
    let shown = async || room.storage.platform.organization_of(&acme.scope).await.unwrap().webhook_limit;
    assert_eq!(shown().await, Some(2));
    room.try_send(&acme, "a", None).await.unwrap();
    let refused_at = async |most| {
        let refused = room.try_send(&acme, "a", None).await.unwrap_err();
        assert!(matches!(refused, Error::LimitReached { limit, .. } if limit == most), "{refused:?}");
    };
    refused_at(2).await;

    let set = async |webhook_limit| {
        let change = OrganizationChange { webhook_limit: Some(webhook_limit), ..OrganizationChange::default() };
        let (by, id) = (SuperAdmin::by_operator(), acme.organization.id);
        let changed = room.storage.platform.organization_update(by, id, change, room.now()).await.unwrap();
        assert_eq!(changed.webhook_limit, shown().await);
        changed.webhook_limit
    };
    assert_eq!(set(Some(3)).await, Some(3));
    room.try_send(&acme, "a", None).await.unwrap();
    refused_at(3).await;
    assert_eq!(set(None).await, Some(2));
    refused_at(2).await;
}

pub async fn the_events_of_one_request_are_recorded_all_or_none<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let limit = OrganizationChange { webhook_limit: Some(Some(5)), ..OrganizationChange::default() };
    let (by, id) = (SuperAdmin::by_operator(), acme.organization.id);
    room.storage.platform.organization_update(by, id, limit, room.now()).await.unwrap();
    let send = async |ids: &[&str]| {
        let events = ids.iter().map(|id| new_event(&acme, "a", Some(id), room.now())).collect();
        room.storage.receiver.event_record_all(events).await
    };
    let all = send(&["1", "2", "1", "3"]).await.unwrap();
    let duplicates: Vec<bool> = all.iter().map(|recorded| recorded.duplicate).collect();
    assert_eq!(duplicates, [false, false, true, false]);
    assert_eq!(all[2].id, all[0].id);
    assert_eq!(room.handed_over().len(), 3);
    assert_eq!(send(&[]).await.unwrap(), []);

    // Side by side, so that they share a transaction: of two sets of two only one has room, whichever comes first.
    let (one, other) = tokio::join!(send(&["4", "5"]), send(&["6", "7"]));
    let stored = [one, other].map(|set| set.map_err(|error| matches!(error, Error::LimitReached { limit: 5, .. })));
    assert_eq!(stored.iter().filter(|set| set.is_ok()).count(), 1);
    assert!(stored.contains(&Err(true)));
    let refused = send(&["1", "8"]).await;
    assert!(matches!(refused, Err(Error::LimitReached { .. })), "{refused:?}");
    assert!(send(&["1", "2"]).await.unwrap().iter().all(|recorded| recorded.duplicate), "duplicates are free");
    assert_eq!(room.handed_over().len(), 2);
    assert_eq!(room.storage.platform.organization_of(&acme.scope).await.unwrap().webhook_count, 5);

    let room = room.crash().await;
    assert_eq!(room.waiting().await.len(), 5, "and a restart finds all of each set");
}

pub async fn what_finds_no_room_in_memory_waits_in_storage<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    room.endpoint(&acme).await;
    room.lanes.room.store(1, SeqCst);
    let recorded = room.send(&acme, "a").await;
    let (in_memory, waiting) = (room.handed_over(), room.waiting().await);
    assert_eq!((recorded.deliveries, in_memory.len(), waiting.len()), (2, 1, 1));
    assert_eq!(waiting[0].event.id, recorded.id);
    assert_eq!((waiting[0].due_at, waiting[0].attempts), (room.now(), 0));
    assert_ne!(waiting[0].delivery.endpoint, in_memory[0].1);
    assert_eq!(*room.lanes.woken.lock(), [waiting[0].delivery.endpoint]);
}

pub async fn a_crash_forgets_nothing_that_was_acknowledged<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let ids: Vec<String> = (0..200).map(|n| format!("id-{n}")).collect();
    let first: Vec<_> = join_all(ids.iter().map(|id| room.try_send(&acme, "a", Some(id)))).await;
    let first: Vec<_> = first.into_iter().map(|recorded| recorded.unwrap().id).collect();

    let room = room.crash().await;
    assert_eq!(room.waiting().await.len(), 200);
    let again = join_all(ids.iter().map(|id| room.try_send(&acme, "a", Some(id)))).await;
    let again: Vec<_> = again.into_iter().map(|recorded| (recorded.as_ref().unwrap().id, recorded.unwrap())).collect();
    assert!(again.iter().zip(&first).all(|((id, recorded), first)| recorded.duplicate && id == first));
    let mut listed = HashSet::new();
    let mut request = crate::support::page(50);
    loop {
        let page = room.storage.api.event_list(&acme.scope, EventFilter::default(), request.clone()).await.unwrap();
        listed.extend(page.data.into_iter().map(|event| event.id));
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(listed, first.into_iter().collect());
    let organization = room.storage.platform.organization_of(&acme.scope).await.unwrap();
    assert_eq!(organization.webhook_count, 200);
}
