//! Every route of the API's document with every kind of credential. What is expected is written down here once more, from the documents and
//! not from the table that the server uses.

use std::time::Duration;

use postroom_web::permission::permission;
use serde_json::json;

use crate::support::{ADMIN, Call, Engine, Reply, Room, Tenant};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Nobody,
    Garbage,
    RevokedKey,
    ExpiredKey,
    KeyEventsWrite,
    KeyRead,
    KeyAdmin,
    AdminToken,
    AdminTokenInOrganization,
    EndedSession,
    ExpiredSession,
    Member,
    Admin,
    /// An admin of another organization, who names this one.
    OthersAdmin,
    SuperAdmin,
    SuperAdminInOrganization,
}

const EVERYBODY: [Who; 16] = [
    Who::Nobody,
    Who::Garbage,
    Who::RevokedKey,
    Who::ExpiredKey,
    Who::KeyEventsWrite,
    Who::KeyRead,
    Who::KeyAdmin,
    Who::AdminToken,
    Who::AdminTokenInOrganization,
    Who::EndedSession,
    Who::ExpiredSession,
    Who::Member,
    Who::Admin,
    Who::OthersAdmin,
    Who::SuperAdmin,
    Who::SuperAdminInOrganization,
];

const LOGOUT: &str = "/api/auth/logout";

/// What the contract says. `None`: let through, whatever comes of it.
fn expected(who: Who, method: &str, path: &str) -> Option<&'static str> {
    if path.starts_with("/api/auth/") {
        return if path == LOGOUT { logout(who) } else { None };
    }
    let platform = path == "/v1/tenants"
        || path == "/v1/organizations"
        || path == "/v1/organizations/{id}" && matches!(method, "PUT" | "DELETE");
    let without_organization = path.starts_with("/v1/organizations")
        || path.starts_with("/v1/providers")
        || path == "/v1/audit-logs"
        || platform;
    let secret = path.ends_with("/secret");
    let publish = method == "POST" && matches!(path, "/v1/events" | "/v1/events/batch");
    let admins = secret
        || platform
        || path.starts_with("/v1/api-keys")
        || path.starts_with("/v1/users")
        || path == "/v1/audit-logs";
    let again = ["/retry", "/replay", "/requeue", "/discard", "/reverify"].iter().any(|end| path.ends_with(end));
    let forbidden = Some("403 forbidden");
    match who {
        Who::Nobody => Some("401 credentials_missing"),
        Who::Garbage | Who::RevokedKey | Who::ExpiredKey | Who::EndedSession | Who::ExpiredSession => {
            Some("401 credentials_invalid")
        }
        Who::OthersAdmin => Some("404 organization_not_found"),
        Who::KeyEventsWrite if publish => None,
        Who::KeyRead if method == "GET" && !admins => None,
        Who::Member if (method == "GET" || again) && !admins => None,
        Who::KeyAdmin | Who::Admin if !platform => None,
        Who::KeyEventsWrite | Who::KeyRead | Who::Member | Who::KeyAdmin | Who::Admin => forbidden,
        Who::AdminToken | Who::AdminTokenInOrganization | Who::SuperAdmin | Who::SuperAdminInOrganization if secret => {
            forbidden
        }
        Who::AdminToken | Who::SuperAdmin if !without_organization => Some("400 organization_required"),
        Who::AdminToken | Who::AdminTokenInOrganization | Who::SuperAdmin | Who::SuperAdminInOrganization => None,
    }
}

/// Only a session can be ended, by whoever has it.
fn logout(who: Who) -> Option<&'static str> {
    match who {
        Who::Nobody => Some("401 credentials_missing"),
        Who::Member | Who::Admin | Who::OthersAdmin | Who::SuperAdmin => None,
        // The last one's session has just been ended by itself without the header.
        _ => Some("401 credentials_invalid"),
    }
}

/// The credential of everybody.
struct Credentials {
    tenant: Tenant,
    tokens: Vec<(Who, String)>,
}

impl Credentials {
    async fn make(room: &Room) -> Self {
        let (tenant, other) = (room.tenant("Acme").await, room.tenant("Other").await);
        let expired_session = room.person(&tenant, "expired@example.com", "admin").await.token;
        room.forward(Duration::from_secs(24 * 3600));
        let ended_session = room.person(&tenant, "ended@example.com", "admin").await.token;
        assert_eq!(room.post(LOGOUT).bearer(&ended_session).send().await.status, 204);
        let revoked_key = room.key(&tenant, &["admin"]).await;
        let keys = room.get("/v1/api-keys").bearer(&tenant.key).send().await.json();
        let path = format!("/v1/api-keys/{}", keys["data"][0]["id"].as_str().unwrap());
        assert_eq!(room.call("DELETE", &path).bearer(&tenant.key).send().await.status, 200);
        let body = json!({"name": "short", "scopes": ["admin"], "expires_at": "2026-11-23T10:00:01Z"});
        let expiring = room.post("/v1/api-keys").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(expiring.status, 201, "{expiring:?}");
        let expired_key = expiring.json()["secret"].as_str().unwrap().to_owned();
        room.forward(Duration::from_secs(2));
        let root = room.super_admin("root@example.com").await.token;
        let tokens = vec![
            (Who::Garbage, "prk_garbage".to_owned()),
            (Who::RevokedKey, revoked_key),
            (Who::ExpiredKey, expired_key),
            (Who::KeyEventsWrite, room.key(&tenant, &["events:write"]).await),
            (Who::KeyRead, room.key(&tenant, &["read"]).await),
            (Who::KeyAdmin, tenant.key.clone()),
            (Who::AdminToken, ADMIN.to_owned()),
            (Who::AdminTokenInOrganization, ADMIN.to_owned()),
            (Who::EndedSession, ended_session),
            (Who::ExpiredSession, expired_session),
            (Who::Member, room.person(&tenant, "member@example.com", "member").await.token),
            (Who::Admin, room.person(&tenant, "admin@example.com", "admin").await.token),
            (Who::OthersAdmin, room.person(&other, "other@example.com", "admin").await.token),
            (Who::SuperAdmin, root.clone()),
            (Who::SuperAdminInOrganization, root),
        ];
        Self { tenant, tokens }
    }

    fn on<'a>(&self, who: Who, call: Call<'a>) -> Call<'a> {
        let call = match self.tokens.iter().find(|(other, _)| *other == who) {
            Some((_, token)) => call.bearer(token),
            None => call,
        };
        let names = [Who::AdminTokenInOrganization, Who::SuperAdminInOrganization, Who::OthersAdmin].contains(&who);
        if names { call.header("postroom-organization", &self.tenant.slug) } else { call }
    }
}

/// Every route of the API's document, logging out at the end because it takes the sessions away.
fn routes() -> Vec<(String, String)> {
    let document = postroom_web::openapi::document();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        all.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    all.sort_by_key(|(_, path)| path == LOGOUT);
    all
}

pub async fn every_route_lets_through_exactly_who_may_use_it(engine: Engine) {
    let room = Room::start(engine).await;
    let credentials = Credentials::make(&room).await;
    let routes = routes();
    assert!(routes.len() > 50, "{routes:?}");
    for (method, route) in routes {
        let row = permission(&method.parse().unwrap(), &route);
        let row = row.unwrap_or_else(|| panic!("{method} {route} stands in no row of the permission table"));
        for who in EVERYBODY {
            // A stream does not end by itself: HEAD needs what GET needs.
            let method = if route == "/v1/stream" { "HEAD" } else { method.as_str() };
            let path = route.replace("{id}", "org_00000000000000000000000000000000").replace("{name}", "stripe");
            let reply = credentials.on(who, room.call(method, &path)).send().await;
            let context = format!("{who:?} {method} {path}: {reply:?}");
            match expected(who, if method == "HEAD" { "GET" } else { method }, &route) {
                Some(verdict) if method == "HEAD" => {
                    assert!(verdict.starts_with(&reply.status.to_string()), "{context}")
                }
                Some(verdict) => assert_eq!(reply.verdict(), verdict, "{context}"),
                None => assert!(![401, 403].contains(&reply.status) && reply.status < 500, "{context}"),
            }
            if who == Who::Member && reply.status == 403 && method != "HEAD" {
                assert_eq!(reply.json()["detail"], format!("this may be done by {}", row.who()), "{context}");
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
