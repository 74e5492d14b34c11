//! Configuration on many nodes: what one changes the others show, and what is bounded is bounded for all together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use postroom_domain::api_key::KeyHash;
use postroom_domain::delivery::DeadReason;
use postroom_domain::{Role, Secret, SourceId};
use postroom_storage::api::{Idempotency, IdempotencyClaim, NewApiKey, Rotation, SourceChange, UserChange};
use postroom_storage::platform::{Isolation, NewTenant, OrganizationChange, Tenant};
use postroom_storage::scope::PersonIs;
use postroom_storage::worker::EndpointKey;
use postroom_storage::{Error, Origin, Storage, SuperAdmin};
use postroom_testkit::postgres::connect;

use crate::people::{email, from};
use crate::support::{
    Harness, Lanes, Postgres, Room, new_endpoint, new_key, new_organization, new_source, opening, until,
};

/// Another node on the same database, and what its delivery side is told.
async fn neighbour(room: &Room<Postgres>) -> (Storage, Arc<Lanes>) {
    let lanes = Arc::new(Lanes::default());
    (room.harness.open(opening(&room.hands, &lanes, &room.keys)).await, lanes)
}

/// A second, and what a busy machine adds: what nobody looks after by itself would not come at all.
const A_SECOND: Duration = Duration::from_secs(5);

/// The number that the database keeps an endpoint under.
async fn number_of(room: &Room<Postgres>, id: postroom_domain::EndpointId) -> EndpointKey {
    let admin = connect(&room.harness.database.admin_url()).await;
    let id = uuid::Uuid::from_bytes(id.to_bytes());
    let row = admin.query_one("select endpoint from endpoints where id = $1", &[&id]).await.unwrap();
    EndpointKey::new(row.get(0))
}

async fn tenant(room: &Room<Postgres>, slug: &str, api_key: NewApiKey) -> Tenant {
    let new = NewTenant {
        organization: new_organization(slug),
        api_key,
        endpoint: Some(new_endpoint()),
        isolation: Isolation::Shared,
    };
    room.storage.platform.tenant_create(SuperAdmin::by_operator(), new, room.now()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_makes_another_finds_at_once() {
    let room = Room::<Postgres>::new().await;
    let (there, _) = neighbour(&room).await;
    let key = new_key();
    let acme = tenant(&room, "acme", key.clone()).await;
    let caller = there.authorizer.key_find(&key.hash, room.now()).await.unwrap().unwrap();
    assert_eq!(caller.scope.organization(), acme.organization.id);
    room.storage.api.source_create(&acme.scope, new_source("custom", "a-secret-of-it"), room.now()).await.unwrap();
    let source = there.receiver.source_find("acme", "custom").await.unwrap().unwrap();
    assert!(source.is_active && source.verifier.is_ok());
    let other = tenant(&room, "other", new_key()).await;
    let id = other.organization.id.to_string();
    let scope = there.authorizer.organization_enter(SuperAdmin::by_operator(), &id).await.unwrap().unwrap();
    assert_eq!(scope.slug(), "other");
    let endpoint = number_of(&room, other.endpoint.unwrap().id).await;
    assert!(there.worker.endpoint_find(endpoint).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_changes_another_shows_within_a_second() {
    let room = Room::<Postgres>::new().await;
    let (there, lanes) = neighbour(&room).await;
    let key = new_key();
    let acme = tenant(&room, "acme", key.clone()).await;
    let (api, endpoint) = (&room.storage.api, acme.endpoint.as_ref().unwrap());
    let number = number_of(&room, endpoint.id).await;
    let source = api.source_create(&acme.scope, new_source("custom", "a-secret-of-it"), room.now()).await.unwrap();
    let known = async |hash: &KeyHash| there.authorizer.key_find(hash, room.now()).await.unwrap().is_some();
    assert!(known(&key.hash).await && there.receiver.source_find("acme", "custom").await.unwrap().is_some());
    until(async || there.worker.endpoint_find(number).await.unwrap().is_some()).await;
    let within_a_second = |took: Duration| assert!(took < A_SECOND, "{took:?}");

    api.api_key_revoke(&acme.scope, acme.api_key.id, room.now()).await.unwrap();
    within_a_second(until(async || !known(&key.hash).await).await);

    let off = SourceChange { is_active: Some(false), ..SourceChange::default() };
    api.source_update(&acme.scope, source.id, off, room.now()).await.unwrap();
    let is_active = async || there.receiver.source_find("acme", "custom").await.unwrap().unwrap().is_active;
    within_a_second(until(async || !is_active().await).await);

    let before = there.worker.endpoint_find(number).await.unwrap().unwrap();
    let rotation = Rotation { secret: new_endpoint().secret, grace_seconds: 60 };
    api.endpoint_rotate(&acme.scope, endpoint.id, rotation, room.now()).await.unwrap();
    let find = async || there.worker.endpoint_find(number).await.unwrap().unwrap();
    within_a_second(until(async || !Arc::ptr_eq(&find().await, &before)).await);
    assert_eq!(lanes.woken.lock().last(), Some(&number), "delivery is told there, too");

    lanes.woken.lock().clear();
    room.storage.worker.endpoint_disable_gone(number, room.now()).await.unwrap();
    within_a_second(until(async || find().await.blocked.is_some()).await);
    assert_eq!(*lanes.woken.lock(), [number]);

    let off = OrganizationChange { is_active: Some(false), ..OrganizationChange::default() };
    let by = SuperAdmin::by_operator();
    room.storage.platform.organization_update(by, acme.organization.id, off, room.now()).await.unwrap();
    api.endpoint_delete(&acme.scope, endpoint.id, room.now()).await.unwrap();
    let reason = || async { find().await.blocked.unwrap() };
    within_a_second(until(async || reason().await == DeadReason::EndpointDeleted).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_change_stays_the_same_while_others_change() {
    let room = Room::<Postgres>::new().await;
    let (acme, other) = (tenant(&room, "acme", new_key()).await, tenant(&room, "other", new_key()).await);
    let mine = number_of(&room, acme.endpoint.unwrap().id).await;
    let find = async || room.storage.worker.endpoint_find(mine).await.unwrap().unwrap();
    let before = find().await;
    let (api, changed) = (&room.storage.api, other.endpoint.unwrap());
    api.endpoint_update(&other.scope, changed.id, changed.version, changed.settings, room.now()).await.unwrap();
    api.source_create(&acme.scope, new_source("custom", "a-secret-of-it"), room.now()).await.unwrap();
    room.endpoint(&Tenant { endpoint: None, ..tenant(&room, "third", new_key()).await }).await;
    assert!(Arc::ptr_eq(&before, &find().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_is_one_for_all_nodes_together() {
    let room = Room::<Postgres>::new().await;
    let (there, _) = neighbour(&room).await;
    let acme = tenant(&room, "acme", new_key()).await;
    let admin = connect(&room.harness.database.admin_url()).await;
    let most = "insert into sources (org, id, name, provider, options, is_active, created_at, updated_at) \
                select org, gen_random_uuid(), 'n' || number, 'hmac', '{}', true, now(), now() \
                from organizations, generate_series(1, 997) as number";
    admin.batch_execute(most).await.unwrap();
    let make = |number: usize| {
        let api = if number.is_multiple_of(2) { &room.storage.api } else { &there.api };
        api.source_create(&acme.scope, new_source(&format!("s{number}"), "a-secret-of-it"), room.now())
    };
    let made = join_all((0..8).map(make)).await;
    let refused = |made: &&Result<_, Error>| matches!(made, Err(Error::Conflict { code: "limit_reached", .. }));
    assert_eq!(made.iter().filter(refused).count(), 5, "{made:?}");
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3, "{made:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_source_at_once_all_hold() {
    let room = Room::<Postgres>::new().await;
    let (there, _) = neighbour(&room).await;
    let acme = tenant(&room, "acme", new_key()).await;
    let source = new_source("custom", "a-secret-of-it");
    let id: SourceId = room.storage.api.source_create(&acme.scope, source, room.now()).await.unwrap().id;
    for round in 0..5 {
        let name = format!("round-{round}");
        let renamed = SourceChange { name: Some(name.clone()), ..SourceChange::default() };
        let switched = SourceChange { is_active: Some(round % 2 == 0), ..SourceChange::default() };
        let (one, two) = tokio::join!(
            room.storage.api.source_update(&acme.scope, id, renamed, room.now()),
            there.api.source_update(&acme.scope, id, switched, room.now()),
        );
        assert!(one.is_ok() && two.is_ok());
        let now = room.storage.api.source_get(&acme.scope, id).await.unwrap();
        assert_eq!((now.settings.name, now.is_active), (name, round % 2 == 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_is_claimed_once_whichever_node_is_asked() {
    let room = Room::<Postgres>::new().await;
    let (there, _) = neighbour(&room).await;
    let acme = tenant(&room, "acme", new_key()).await;
    let claim = IdempotencyClaim { key: "one".to_owned(), request_hash: [7; 32] };
    let begin = |number: usize| {
        let api = if number.is_multiple_of(2) { &room.storage.api } else { &there.api };
        api.idempotency_begin(&acme.scope, claim.clone(), room.now())
    };
    let begun = join_all((0..12).map(begin)).await;
    assert_eq!(begun.iter().filter(|begun| matches!(begun, Ok(Idempotency::New))).count(), 1, "{begun:?}");
    assert_eq!(begun.iter().filter(|begun| matches!(begun, Ok(Idempotency::InProgress))).count(), 11, "{begun:?}");
    // Given back and claimed at once by many, again by one of them.
    let give_back = there.api.idempotency_finish(&acme.scope, claim.clone(), None, room.now());
    let (given, begun) = tokio::join!(give_back, join_all((0..12).map(begin)));
    given.unwrap();
    let new = begun.iter().filter(|begun| matches!(begun, Ok(Idempotency::New))).count();
    assert!(new <= 1 && begun.iter().all(Result::is_ok), "{begun:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_use_of_a_key_is_noted_once_a_minute_by_all_nodes_together() {
    let room = Room::<Postgres>::new().await;
    let (key, mark) = (new_key(), new_key());
    let acme = tenant(&room, "acme", key.clone()).await;
    let (there, _) = neighbour(&room).await;
    let api = &room.storage.api;
    let marked = api.api_key_create(&acme.scope, mark.clone(), room.now()).await.unwrap();
    let used = async |id| api.api_key_get(&acme.scope, id).await.unwrap().last_used_at;
    let first = room.now();
    room.storage.authorizer.key_find(&key.hash, first).await.unwrap().unwrap();
    until(async || used(acme.api_key.id).await == Some(first)).await;
    room.hands.forward(Duration::from_secs(30));
    // The other node has not noted any use of this one yet. It writes both down together.
    for hash in [&key.hash, &mark.hash] {
        there.authorizer.key_find(hash, room.now()).await.unwrap().unwrap();
    }
    until(async || used(marked.id).await.is_some()).await;
    assert_eq!(used(acme.api_key.id).await, Some(first));
    room.hands.forward(Duration::from_secs(31));
    room.storage.authorizer.key_find(&key.hash, room.now()).await.unwrap().unwrap();
    until(async || used(acme.api_key.id).await == Some(room.now())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_shown_and_noted_together() {
    let room = Room::<Postgres>::new().await;
    let acme = tenant(&room, "acme", new_key()).await;
    let id = acme.endpoint.unwrap().id;
    let secret = room.storage.api.endpoint_secret_reveal(&acme.scope, id, room.now()).await.unwrap();
    assert_eq!(secret, new_endpoint().secret);
    let admin = connect(&room.harness.database.admin_url()).await;
    let read = "select actor, action, resource_id from audit_logs order by number desc limit 1";
    let rows = admin.query(read, &[]).await.unwrap();
    let row: Vec<(String, String, String)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(row, [("operator".to_owned(), "endpoint.secret_viewed".to_owned(), id.to_string())]);
    // Where it cannot be noted it is not shown.
    admin.batch_execute("revoke insert on audit_logs from postroom_api").await.unwrap();
    let refused: Result<Secret, Error> = room.storage.api.endpoint_secret_reveal(&acme.scope, id, room.now()).await;
    assert!(matches!(refused, Err(Error::Internal(_))));
    room.storage.api.endpoint_get(&acme.scope, id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_that_cannot_be_read_stays_as_it_was_and_stops_nobody() {
    let room = Room::<Postgres>::new().await;
    let (acme, other) = (tenant(&room, "acme", new_key()).await, tenant(&room, "other", new_key()).await);
    let source = new_source("custom", "a-secret-of-it");
    room.storage.api.source_create(&acme.scope, source.clone(), room.now()).await.unwrap();
    let admin = connect(&room.harness.database.admin_url()).await;
    let set = |plan: &str| format!("update organizations set plan = '{plan}', is_active = false where slug = 'acme'");
    admin.batch_execute(&set("no plan")).await.unwrap();
    room.storage.api.source_create(&other.scope, source, room.now()).await.unwrap();
    assert!(room.source("other", "custom").await.is_some());
    assert!(room.source("acme", "custom").await.unwrap().is_active);
    admin.batch_execute(&set("premium")).await.unwrap();
    room.until(async || !room.source("acme", "custom").await.unwrap().is_active).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_endpoint_is_found_as_long_as_deliveries_may_wait_for_it() {
    let room = Room::<Postgres>::new().await;
    let acme = tenant(&room, "acme", new_key()).await;
    let endpoint = acme.endpoint.unwrap();
    let number = number_of(&room, endpoint.id).await;
    room.storage.api.endpoint_delete(&acme.scope, endpoint.id, room.now()).await.unwrap();
    let find = async || room.storage.worker.endpoint_find(number).await.unwrap().unwrap();
    let first = find().await;
    assert_eq!((first.id, first.blocked), (endpoint.id, Some(DeadReason::EndpointDeleted)));
    assert!(first.signer.is_err(), "its secrets are erased");
    assert!(Arc::ptr_eq(&first, &find().await), "nobody asks the database for each delivery");
    assert!(room.storage.worker.endpoint_find(EndpointKey::new(4_000_000)).await.unwrap().is_none());
}

mod own_server {
    use postroom_storage::postgres::{migrate, open};
    use postroom_testkit::postgres::{Database, Server};

    use super::*;
    use crate::on_postgres::{app, owner};
    use crate::support::{Hands, options_at};

    /// As after the loss of its newest transactions, whose numbers are then given again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_server_says_after_it_was_away_counts() {
        let mut server = Server::start().await;
        let database = Database::on(&server.admin_url()).await;
        migrate::up(&owner(&database), &app()).await.unwrap();
        let (hands, key) = (Hands::new(), new_key());
        let opening = opening(&hands, &Arc::new(Lanes::default()), &postroom_domain::keyring::Keyring::generate());
        let storage = open(options_at(&database.app_url(), opening)).await.unwrap();
        let new = NewTenant {
            organization: new_organization("acme"),
            api_key: key.clone(),
            endpoint: None,
            isolation: Isolation::Shared,
        };
        let acme = storage.platform.tenant_create(SuperAdmin::by_operator(), new, hands.now()).await.unwrap();
        let source = |name| storage.api.source_create(&acme.scope, new_source(name, "a-secret-of-it"), hands.now());
        source("custom").await.unwrap();
        let other = NewTenant {
            organization: new_organization("other"),
            api_key: new_key(),
            endpoint: None,
            isolation: Isolation::Shared,
        };
        let unnoticed = "set session_replication_role = replica; update sources set is_active = false";
        connect(&database.admin_url()).await.batch_execute(unnoticed).await.unwrap();
        storage.platform.tenant_create(SuperAdmin::by_operator(), other, hands.now()).await.unwrap();
        let is_active = async || storage.receiver.source_find("acme", "custom").await.unwrap().unwrap().is_active;
        assert!(is_active().await, "only what was changed is read");

        server.stop_fast().await;
        assert!(storage.authorizer.key_find(&key.hash, hands.now()).await.unwrap().is_some(), "known all the same");
        let hashes: Vec<KeyHash> = (0..4).map(|_| new_key().hash).collect();
        let unknown = hashes.iter().map(|hash| storage.authorizer.key_find(hash, hands.now()));
        for answer in join_all(unknown).await {
            assert!(matches!(answer, Err(Error::Unavailable(_))), "nobody says that there is no such key: {answer:?}");
        }
        server.restart().await;
        until(async || !is_active().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_a_dump_brought_from_another_server_do_not_look_new_for_ever() {
    let room = Room::<Postgres>::new().await;
    tenant(&room, "acme", new_key()).await;
    let admin = connect(&room.harness.database.admin_url()).await;
    admin.batch_execute("update revisions set tx = tx + 1000000000").await.unwrap();
    let (there, _) = neighbour(&room).await;
    let row = admin.query_one("select max(tx) <= txid_current() from revisions", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
    tenant(&room, "other", new_key()).await;
    assert!(there.authorizer.organization_enter(SuperAdmin::by_operator(), "other").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_one_node_ends_lets_nobody_in_on_another_within_a_second() {
    let room = Room::<Postgres>::new().await;
    let (there, _) = neighbour(&room).await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "root@example.com", Role::Admin).await;
    let known = async |session| there.authorizer.session_find(session, room.now()).await.unwrap();
    let address = email("ada@example.com");
    let again = async || {
        assert!(room.storage.authorizer.sign_in_request(&address, &from(), room.now()).await.unwrap());
        room.enter(&room.token().await).await.unwrap().session
    };
    let ada = room.joined(&acme.scope, "ada@example.com", Role::Member).await;
    assert!(known(ada.session).await.is_some(), "it is found at once");
    room.storage.authorizer.session_end(ada.session, &Origin::default(), room.now()).await.unwrap();
    let ended = until(async || known(ada.session).await.is_none()).await;

    let session = again().await;
    assert!(known(session).await.is_some());
    let change = UserChange { role: Some(Role::Admin), is_active: None };
    room.storage.api.user_update(&acme.scope, ada.user, change, room.now()).await.unwrap();
    let promoted = until(async || known(session).await.is_none()).await;

    let session = again().await;
    assert!(known(session).await.is_some());
    let change = UserChange { role: None, is_active: Some(false) };
    room.storage.api.user_update(&acme.scope, ada.user, change, room.now()).await.unwrap();
    let switched_off = until(async || known(session).await.is_none()).await;
    room.storage
        .api
        .user_update(&acme.scope, ada.user, UserChange { is_active: Some(true), ..change }, room.now())
        .await
        .unwrap();

    let session = again().await;
    let off = OrganizationChange { is_active: Some(false), ..OrganizationChange::default() };
    let (by, id) = (SuperAdmin::by_operator(), acme.organization.id);
    assert!(known(session).await.is_some());
    room.storage.platform.organization_update(by, id, off, room.now()).await.unwrap();
    let is_off = async || {
        let person = known(session).await.unwrap();
        matches!(person.who, PersonIs::Of { organization_active: false, .. })
    };
    let closed = until(is_off).await;

    let boss = email("boss@example.com");
    let root = room.storage.platform.super_admin_create(SuperAdmin::by_operator(), &boss, room.now());
    let session = room.enter(&root.await.unwrap().token).await.unwrap().session;
    assert!(known(session).await.is_some());
    room.storage.authorizer.session_end(session, &Origin::default(), room.now()).await.unwrap();
    let super_ended = until(async || known(session).await.is_none()).await;

    let root = room.storage.platform.super_admin_create(SuperAdmin::by_operator(), &boss, room.now());
    let session = room.enter(&root.await.unwrap().token).await.unwrap().session;
    assert!(known(session).await.is_some());
    let off = room.storage.platform.super_admin_set_active(SuperAdmin::by_operator(), &boss, false, room.now());
    off.await.unwrap();
    let super_off = until(async || known(session).await.is_none()).await;
    for took in [ended, promoted, switched_off, closed, super_ended, super_off] {
        assert!(took < A_SECOND, "{took:?}");
    }
}
