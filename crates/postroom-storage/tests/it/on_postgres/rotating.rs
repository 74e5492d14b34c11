//! Encryption keys rotate beside servers that agree, and whenever the rotation is killed it can be begun again.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use postroom_domain::endpoint::CustomHeader;
use postroom_domain::keyring::Keyring;
use postroom_domain::{Role, Secret};
use postroom_storage::api::{Idempotency, IdempotencyClaim, StoredAnswer};
use postroom_storage::platform::{NewOrganization, Tenant};
use postroom_storage::postgres::{self, OpenError, rotate_keys};
use postroom_storage::{Storage, SuperAdmin};

use crate::people::{email, from};
use crate::support::{Lanes, Postgres, Room, new_endpoint, new_organization, new_source, opening};

/// A Mandrill secret, 6 secrets of sources, 6 of endpoints, 6 times headers, 2 times 70 answers and one of a super admin, 3
/// mails, and 4 of the installation (2 of its audit log).
const TOTAL: usize = 1 + 6 + 6 + 6 + 140 + 1 + 3 + 4;

const BY: fn() -> SuperAdmin = SuperAdmin::by_operator;

async fn open(room: &Room<Postgres>, keys: &Secret) -> Result<Storage, OpenError> {
    postgres::open(room.harness.options(opening(&room.hands, &Arc::new(Lanes::default()), keys))).await
}

/// The keys of a list.
fn list(keys: &[&Secret]) -> Secret {
    let texts: Vec<&str> = keys.iter().map(|key| key.expose_str().unwrap()).collect();
    Secret::from(texts.join(","))
}

fn claim() -> IdempotencyClaim {
    IdempotencyClaim { key: "kept".to_owned(), request_hash: [1; 32] }
}

/// Everything that is sealed, in an organization.
async fn furnish(room: &Room<Postgres>, slug: &str) -> Tenant {
    let (acme, api, now) = (room.organization(slug).await, &room.storage.api, room.now());
    for number in 0..3 {
        let header = CustomHeader::new("authorization", Secret::from("Bearer x")).unwrap();
        room.endpoint_of(&acme, |settings| settings.headers = vec![header]).await;
        let source = new_source(&format!("s{number}"), "a-secret-of-it");
        api.source_create(&acme.scope, source, now).await.unwrap();
    }
    // More than go into one transaction, over both organizations.
    let answered = async |number: usize| {
        let key = if number == 0 { "kept".to_owned() } else { format!("n{number}") };
        let (claim, answer) = (IdempotencyClaim { key, ..claim() }, Bytes::from_static(b"once"));
        assert!(matches!(api.idempotency_begin(&acme.scope, claim.clone(), now).await.unwrap(), Idempotency::New));
        let answer = StoredAnswer { status: 201, body: answer };
        api.idempotency_finish(&acme.scope, claim, Some(answer), now).await.unwrap();
    };
    join_all((0..70).map(answered)).await;
    room.invite(&acme.scope, &format!("ada@{slug}.example.com"), Role::Admin).await;
    acme
}

/// Sees that everything can be read.
async fn check(storage: &Storage, acme: &Tenant, now: postroom_domain::Timestamp) {
    let scope = &acme.scope;
    for number in 0..3 {
        let source = storage.receiver.source_find(scope.slug(), &format!("s{number}")).await.unwrap().unwrap();
        assert!(source.verifier.is_ok());
    }
    let endpoints = storage.api.endpoint_list(scope, crate::support::page(10)).await.unwrap().data;
    assert_eq!(endpoints.len(), 3);
    for endpoint in endpoints {
        assert_eq!(endpoint.settings.headers[0].value(), &Secret::from("Bearer x"));
        let secret = storage.api.endpoint_secret_reveal(scope, endpoint.id, now).await.unwrap();
        assert_eq!(secret, new_endpoint().secret);
    }
    let known = storage.api.idempotency_begin(scope, claim(), now).await.unwrap();
    assert!(matches!(known, Idempotency::Answered(StoredAnswer { status: 201, body }) if body == "once"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_can_be_killed_and_resumed_and_ends_with_the_newest_key_alone() {
    let room = Room::<Postgres>::new().await;
    let (one, two) = (furnish(&room, "one").await, furnish(&room, "two").await);
    let (platform, now) = (&room.storage.platform, room.now());
    let mandrill = Some(Secret::from("an-own-secret"));
    let third = NewOrganization { mandrill_webhook_secret: mandrill, ..new_organization("third") };
    platform.organization_create(BY(), third, now).await.unwrap();
    assert!(matches!(platform.idempotency_begin(BY(), claim(), now).await.unwrap(), Idempotency::New));
    let answer = StoredAnswer { status: 200, body: Bytes::from_static(b"all") };
    platform.idempotency_finish(BY(), claim(), Some(answer), now).await.unwrap();
    platform.super_admin_create(BY(), &email("root@example.com"), now).await.unwrap();
    assert!(room.storage.authorizer.sign_in_request(&email("root@example.com"), &from(), now).await.unwrap());

    let (old, new) = (room.keys.clone(), Keyring::generate());
    let both = list(&[&new, &old]);
    let url = Secret::from(room.harness.database.owner_url().as_str());
    let rotate = async |until: usize| {
        let (url, ring) = (url.clone(), Keyring::parse(&both).unwrap());
        let progress = move |done, total| assert!(done <= until && total == TOTAL, "killed at {done} of {total}");
        tokio::spawn(async move { rotate_keys(&url, &url, &ring, progress).await }).await
    };
    let refused = rotate(TOTAL).await.unwrap();
    assert!(matches!(refused, Err(OpenError::ServersLackKey { servers: 1 })), "{refused:?}");
    platform.close().await.unwrap();

    // Killed in the middle: whoever is told of the progress does not come back.
    assert!(rotate(30).await.is_err());
    let half = open(&room, &new).await.err().unwrap();
    assert!(matches!(half, OpenError::WrongKey(_)), "not with the newest alone: {half}");
    let beside = open(&room, &both).await.unwrap();
    for tenant in [&one, &two] {
        check(&beside, tenant, now).await;
    }

    // Beside a server that seals with the newest key itself.
    let rest = rotate(TOTAL).await.unwrap().unwrap();
    assert!(rest > 0 && rest < TOTAL - 13, "{rest}");
    assert_eq!(rotate(TOTAL).await.unwrap().unwrap(), 0, "nothing is left to do");
    beside.platform.close().await.unwrap();
    let storage = open(&room, &new).await.unwrap();
    for tenant in [&one, &two] {
        check(&storage, tenant, now).await;
    }
    assert!(storage.receiver.source_find("third", "mandrill").await.unwrap().unwrap().verifier.is_ok());
    let known = storage.platform.idempotency_begin(BY(), claim(), now).await.unwrap();
    assert!(matches!(known, Idempotency::Answered(StoredAnswer { status: 200, .. })));
    assert_eq!(storage.platform.mail_take(now, 10).await.unwrap().len(), 3);
    assert!(open(&room, &old).await.is_err(), "the old key opens nothing any more");
}
