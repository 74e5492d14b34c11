//! Every route with every kind of credential. What is expected is written down here once more, from the documents and
//! not from the table that the server uses.

use std::time::Duration;

use postroom_web::permission::PERMISSIONS;
use serde_json::json;

use crate::support::{ADMIN, Call, Engine, Reply, Room};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Nobody,
    Garbage,
    Revoked,
    Expired,
    EventsWrite,
    Read,
    Admin,
    SuperAdmin,
    SuperAdminInOrganization,
}

const EVERYBODY: [Who; 9] = [
    Who::Nobody,
    Who::Garbage,
    Who::Revoked,
    Who::Expired,
    Who::EventsWrite,
    Who::Read,
    Who::Admin,
    Who::SuperAdmin,
    Who::SuperAdminInOrganization,
];

/// What the contract says. `None`: let through, whatever comes of it.
fn expected(who: Who, method: &str, path: &str) -> Option<&'static str> {
    let platform = path == "/v1/tenants"
        || path == "/v1/organizations"
        || path == "/v1/organizations/{id}" && matches!(method, "PUT" | "DELETE");
    let without_organization = path.starts_with("/v1/organizations") || path.starts_with("/v1/providers") || platform;
    let secret = path.ends_with("/secret");
    let publish = method == "POST" && matches!(path, "/v1/events" | "/v1/events/batch");
    let forbidden = Some("403 forbidden");
    match who {
        Who::Nobody => Some("401 credentials_missing"),
        Who::Garbage | Who::Revoked | Who::Expired => Some("401 credentials_invalid"),
        Who::EventsWrite if publish => None,
        Who::EventsWrite => forbidden,
        Who::Read if method == "GET" && !secret && !platform && !path.starts_with("/v1/api-keys") => None,
        Who::Read => forbidden,
        Who::Admin if !platform => None,
        Who::Admin => forbidden,
        Who::SuperAdmin | Who::SuperAdminInOrganization if secret => forbidden,
        Who::SuperAdmin if !without_organization => Some("400 organization_required"),
        Who::SuperAdmin | Who::SuperAdminInOrganization => None,
    }
}

pub async fn every_route_lets_through_exactly_who_may_use_it(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let events = room.key(&tenant, &["events:write"]).await;
    let read = room.key(&tenant, &["read"]).await;
    let revoked = room.key(&tenant, &["admin"]).await;
    let keys = room.get("/v1/api-keys").bearer(&tenant.key).send().await.json();
    let id = keys["data"][0]["id"].as_str().unwrap();
    assert_eq!(room.call("DELETE", &format!("/v1/api-keys/{id}")).bearer(&tenant.key).send().await.status, 200);
    let body = json!({"name": "short", "scopes": ["admin"], "expires_at": "2026-11-22T10:00:01Z"});
    let expiring = room.post("/v1/api-keys").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(expiring.status, 201, "{expiring:?}");
    let expired = expiring.json()["secret"].as_str().unwrap().to_owned();
    room.forward(Duration::from_secs(2));

    for row in PERMISSIONS {
        for who in EVERYBODY {
            // A stream does not end by itself: HEAD needs what GET needs.
            let method = if row.path == "/v1/stream" { "HEAD" } else { row.method.as_str() };
            let path = row.path.replace("{id}", "org_00000000000000000000000000000000").replace("{name}", "stripe");
            let call = room.call(method, &path);
            let call = match who {
                Who::Nobody => call,
                Who::Garbage => call.bearer("prk_garbage"),
                Who::Revoked => call.bearer(&revoked),
                Who::Expired => call.bearer(&expired),
                Who::EventsWrite => call.bearer(&events),
                Who::Read => call.bearer(&read),
                Who::Admin => call.bearer(&tenant.key),
                Who::SuperAdmin => call.bearer(ADMIN),
                Who::SuperAdminInOrganization => call.bearer(ADMIN).header("postroom-organization", &tenant.slug),
            };
            let reply = call.send().await;
            let context = format!("{who:?} {method} {path}: {reply:?}");
            match expected(who, row.method.as_str(), row.path) {
                Some(verdict) if method == "HEAD" => {
                    assert!(verdict.starts_with(&reply.status.to_string()), "{context}")
                }
                Some(verdict) => assert_eq!(reply.verdict(), verdict, "{context}"),
                None => assert!(![401, 403].contains(&reply.status) && reply.status < 500, "{context}"),
            }
        }
    }
}

pub async fn a_401_says_how_to_prove_oneself(engine: Engine) {
    let room = Room::start(engine).await;
    let missing = room.get("/v1/events").send().await;
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"postroom\""));
    let invalid = room.get("/v1/events").bearer("prk_x").send().await;
    assert_eq!(invalid.header("www-authenticate"), Some("Bearer realm=\"postroom\", error=\"invalid_token\""));
}

pub async fn a_credential_counts_only_in_its_one_place(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let key = tenant.key.as_str();
    let get = || room.get("/v1/events");
    let verdicts: Vec<Reply> = vec![
        room.get(&format!("/v1/events?api_key={key}")).send().await,
        room.get(&format!("/v1/events?access_token={key}")).send().await,
        get().header("x-api-key", key).send().await,
        get().header("authorization", format!("Basic {key}")).send().await,
        get().header("authorization", format!("Bearer  {key}")).send().await,
        get().header("authorization", format!("Bearer\t{key}")).send().await,
        get().bearer(key).bearer(key).send().await,
        get().header("authorization", key).send().await,
    ];
    for reply in verdicts {
        assert_eq!(reply.status, 401, "{reply:?}");
        assert!(!String::from_utf8_lossy(&reply.body).contains(key));
    }
    assert_eq!(get().header("authorization", format!("bearer {key}")).send().await.status, 200);
}

pub async fn only_a_super_admin_names_another_organization(engine: Engine) {
    let room = Room::start(engine).await;
    let (acme, other) = (room.tenant("Acme").await, room.tenant("Other").await);
    let as_acme =
        |named: &str| -> Call<'_> { room.get("/v1/events").bearer(&acme.key).header("postroom-organization", named) };
    for own in [acme.slug.as_str(), acme.id.as_str()] {
        assert_eq!(as_acme(own).send().await.status, 200);
    }
    for foreign in
        [other.slug.as_str(), other.id.as_str(), "never-was", "org_00000000000000000000000000000000", "", "é"]
    {
        assert_eq!(as_acme(foreign).send().await.verdict(), "404 organization_not_found", "{foreign}");
    }
    let admin = |named: &str| room.get("/v1/events").bearer(ADMIN).header("postroom-organization", named);
    assert_eq!(admin(&other.slug).send().await.status, 200);
    assert_eq!(admin(&other.id).send().await.status, 200);
    assert_eq!(admin("never-was").send().await.verdict(), "404 organization_not_found");
    for ignored in ["x-org-id", "x-tenant", "x-original-url", "x-http-method-override"] {
        let reply = room.get("/v1/organizations").bearer(&acme.key).header(ignored, &other.id).send().await;
        assert_eq!(reply.verdict(), "403 forbidden");
    }
}

pub async fn keys_of_an_organization_that_is_switched_off_are_refused_at_once(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let path = format!("/v1/organizations/{}", tenant.id);
    assert_eq!(room.call("DELETE", &path).bearer(ADMIN).send().await.status, 200);
    let reply = room.get("/v1/events").bearer(&tenant.key).send().await;
    assert_eq!(reply.verdict(), "403 organization_inactive");
    let entered = room.get("/v1/events").bearer(ADMIN).header("postroom-organization", &tenant.slug).send().await;
    assert_eq!(entered.status, 200, "a super admin still sees it");
}
