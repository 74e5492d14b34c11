//! The audit log from outside: every route that writes leaves an entry that says who did what to which thing, from where.

use http::Method;
use postroom_domain::delivery::DeadReason;
use postroom_storage::worker::Transition;
use postroom_web::permission::PERMISSIONS;
use serde_json::{Value, json};

use crate::support::{ADMIN, Call, Engine, Reply, Room, Tenant, eventually};

/// Accepting events is what the gateway is for: they are listed as events.
const NO_ACTS: [&str; 2] = ["/v1/events", "/v1/events/batch"];

/// What the routes are tried on.
struct Things {
    tenant: Tenant,
    source: String,
    endpoint: String,
    event: String,
    dead: Vec<String>,
    rejections: Vec<String>,
    key: String,
    user: String,
    mail: String,
    session: String,
}

const SIGNED: &str = "x-telegram-bot-api-secret-token";

impl Things {
    async fn of(room: &Room) -> Self {
        let tenant = room.tenant("Acme").await;
        let ids = async |path: &str| -> Vec<String> {
            let listed = room.get(path).bearer(&tenant.key).send().await.json();
            listed["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
        };
        let source = room.source(&tenant, json!({"provider": "telegram", "secret": "wrong"})).await;
        for update in 0..2 {
            let body = json!({"update_id": update, "message": {"message_id": update, "text": "hi"}}).to_string();
            let refused = room.post("/in/acme/telegram").header(SIGNED, "right").body(body).send().await;
            assert_eq!(refused.status, 401, "{refused:?}");
        }
        let right = json!({"secret": "right"});
        let changed =
            room.call("PATCH", &format!("/v1/sources/{source}")).bearer(&tenant.key).json(&right).send().await;
        assert_eq!(changed.status, 200, "{changed:?}");
        let endpoint = room.endpoint(&tenant).await;
        for _ in 0..3 {
            let sent =
                room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a.b", "data": 1})).send().await;
            assert_eq!(sent.status, 202, "{sent:?}");
        }
        room.settle(500, Transition::Dead(DeadReason::RetriesExhausted)).await;
        let (dead, rejections) = (ids("/v1/dead-letters").await, ids("/v1/rejections").await);
        let event = ids("/v1/events").await.remove(0);
        room.key(&tenant, &["read"]).await;
        let key = ids("/v1/api-keys").await.remove(0);
        let user = room.invited(&tenant, "somebody@example.com", "member").await;
        room.invited(&tenant, "ada@example.com", "member").await;
        let mail = room.mailed("ada@example.com").await;
        let session = room.person(&tenant, "bob@example.com", "member").await.token;
        Self { tenant, source, endpoint, event, dead, rejections, key, user, mail, session }
    }

    /// What a route is asked, and the action and the thing that its entry names; none where the thing is new.
    fn question(&self, method: &Method, path: &str) -> (String, Value, &'static str, Option<String>) {
        let (none, organization) = (json!({}), self.tenant.id.clone());
        let rotation = json!({"grace_seconds": 60});
        let (id, body, action): (&str, Value, &'static str) = match (method.as_str(), path) {
            ("POST", "/v1/tenants") => ("", json!({"name": "New"}), "organization.created"),
            ("POST", "/v1/organizations") => ("", json!({"name": "Newer"}), "organization.created"),
            ("PUT", "/v1/organizations/{id}") => {
                let whole = json!({"name": "Acme", "slug": "acme", "plan": "premium", "is_active": true});
                (&organization, whole, "organization.updated")
            }
            ("PATCH", "/v1/organizations/{id}") => (&organization, json!({"name": "Acme!"}), "organization.updated"),
            ("DELETE", "/v1/organizations/{id}") => (&organization, Value::Null, "organization.updated"),
            ("POST", "/v1/sources") => ("", json!({"provider": "github", "secret": "shh"}), "source.created"),
            ("PATCH", "/v1/sources/{id}") => (&self.source, json!({"name": "bot"}), "source.updated"),
            ("POST", "/v1/sources/{id}/rotate-secret") => {
                (&self.source, json!({"secret": "newer", "grace_seconds": 60}), "source.secret_rotated")
            }
            ("DELETE", "/v1/sources/{id}") => (&self.source, Value::Null, "source.deleted"),
            ("POST", "/v1/endpoints") => ("", json!({"url": "http://127.0.0.1:9/other"}), "endpoint.created"),
            ("PATCH", "/v1/endpoints/{id}") => (&self.endpoint, json!({"timeout_ms": 7000}), "endpoint.updated"),
            ("POST", "/v1/endpoints/{id}/rotate-secret") => (&self.endpoint, rotation, "endpoint.secret_rotated"),
            ("POST", "/v1/endpoints/{id}/test") => (&self.endpoint, none, "endpoint.tested"),
            ("POST", "/v1/endpoints/{id}/enable") => (&self.endpoint, none, "endpoint.enabled"),
            ("POST", "/v1/endpoints/{id}/disable") => (&self.endpoint, none, "endpoint.disabled"),
            ("DELETE", "/v1/endpoints/{id}") => (&self.endpoint, Value::Null, "endpoint.deleted"),
            ("POST", "/v1/events/{id}/replay") => (&self.event, none, "event.replayed"),
            ("POST", "/v1/rejections/{id}/reverify") => (&self.rejections[0], none, "rejection.reverified"),
            ("POST", "/v1/rejections/reverify") => {
                return (path.to_owned(), none, "rejection.reverified", None);
            }
            ("POST", "/v1/deliveries/{id}/retry") => (&self.dead[0], none, "delivery.retried"),
            ("POST", "/v1/dead-letters/{id}/requeue") => (&self.dead[1], none, "dead_letter.requeued"),
            ("POST", "/v1/dead-letters/{id}/discard") => (&self.dead[2], none, "dead_letter.discarded"),
            ("POST", "/v1/api-keys") => ("", json!({"name": "new", "scopes": ["read"]}), "api_key.created"),
            ("DELETE", "/v1/api-keys/{id}") => (&self.key, Value::Null, "api_key.revoked"),
            ("POST", "/v1/users") => ("", json!({"email": "eve@example.com", "role": "admin"}), "user.invited"),
            ("PATCH", "/v1/users/{id}") => (&self.user, json!({"role": "admin"}), "user.updated"),
            ("POST", "/v1/users/{id}/invite") => (&self.user, none, "user.invited_again"),
            ("POST", "/api/auth/request-magic-link") => ("", json!({"email": "bob@example.com"}), "user.link_sent"),
            ("POST", "/api/auth/verify-magic-link") => ("", json!({"token": self.mail}), "user.signed_in"),
            ("POST", "/api/auth/logout") => ("", Value::Null, "user.signed_out"),
            (method, path) => panic!("{method} {path} writes: say here what entry it leaves"),
        };
        let thing = Some(id.to_owned()).filter(|id| !id.is_empty());
        (path.replace("{id}", id), body, action, thing)
    }
}

fn ask<'a>(room: &'a Room, things: &Things, method: &Method, path: &str, body: &Value) -> Call<'a> {
    let super_admins = path == "/v1/tenants" || path.starts_with("/v1/organizations");
    let token = match path {
        "/api/auth/logout" => &things.session,
        _ if super_admins => ADMIN,
        _ => things.tenant.key.as_str(),
    };
    let call = room.call(method.as_str(), path).bearer(token);
    if *body == Value::Null { call } else { call.json(body) }
}

/// Entries of the organization that a request was about.
async fn entries(room: &Room, organization: &str, query: &str) -> Vec<Value> {
    let call = room.get(&format!("/v1/audit-logs?limit=250{query}")).bearer(ADMIN);
    let listed = call.header("postroom-organization", organization).send().await;
    assert_eq!(listed.status, 200, "{listed:?}");
    listed.json()["data"].as_array().unwrap().clone()
}

/// The organization that was made, or the one that was there.
fn about(reply: &Reply, path: &str, things: &Things) -> String {
    let made = match path {
        "/v1/tenants" => reply.json()["organization"]["id"].clone(),
        "/v1/organizations" => reply.json()["id"].clone(),
        _ => Value::Null,
    };
    made.as_str().unwrap_or(&things.tenant.id).to_owned()
}

pub async fn every_route_that_writes_leaves_an_entry(engine: Engine) {
    let room = Room::start(engine).await;
    let things = Things::of(&room).await;
    let writes = PERMISSIONS.iter().filter(|row| row.method != Method::GET && !NO_ACTS.contains(&row.path));
    let mut rows: Vec<_> = writes.collect();
    // What ends a thing comes after what needs it.
    let all_of_them = "/v1/rejections/reverify";
    let ends = |path: &str| (path.starts_with("/v1/organizations"), path.ends_with("/disable") || path == all_of_them);
    rows.sort_by_key(|row| (row.method == Method::DELETE, ends(row.path)));
    for (number, row) in rows.into_iter().enumerate() {
        let (path, body, action, thing) = things.question(&row.method, row.path);
        let request = format!("request-{number}");
        let reply = ask(&room, &things, &row.method, &path, &body).header("x-request-id", &request).send().await;
        assert!(reply.status < 300, "{} {path}: {reply:?}", row.method);
        let organization = about(&reply, &path, &things);
        let query = format!("&action={action}");
        let found = eventually(row.path, async || {
            let found = entries(&room, &organization, &query).await;
            found.into_iter().find(|entry| entry["request_id"] == request)
        })
        .await;
        assert_eq!(found["address"], "127.0.0.1", "{} {path}", row.method);
        assert!(!found["actor"].as_str().unwrap().is_empty() && found["created_at"].is_string());
        assert_eq!(found["resource_type"], action.split('.').next().unwrap());
        match thing {
            Some(thing) => assert_eq!(found["resource_id"], thing, "{} {path}", row.method),
            None => assert!(found["resource_id"].is_string(), "{} {path}", row.method),
        }
    }
}

pub async fn a_view_of_a_secret_and_refusals_are_in_the_log(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let endpoint = room.endpoint(&tenant).await;
    let path = format!("/v1/endpoints/{endpoint}/secret");
    assert_eq!(room.get(&path).bearer(&tenant.key).send().await.status, 200);
    let seen = entries(&room, &tenant.id, "&action=endpoint.secret_viewed").await;
    assert_eq!((seen.len(), &seen[0]["resource_id"]), (1, &json!(endpoint)));
    assert_eq!((&seen[0]["old_values"], &seen[0]["new_values"]), (&Value::Null, &Value::Null));

    let reader = room.key(&tenant, &["read"]).await;
    for _ in 0..3 {
        assert_eq!(room.get(&path).bearer(&reader).send().await.verdict(), "403 forbidden");
        assert_eq!(room.get(&path).bearer("prk_guessed").send().await.verdict(), "401 credentials_invalid");
    }
    let refused = entries(&room, &tenant.id, "&action=access.refused").await;
    assert_eq!(refused.len(), 1, "once a minute");
    let said = json!({"route": "GET /v1/endpoints/{id}/secret", "code": "forbidden"});
    assert_eq!(refused[0]["new_values"], said);
    assert!(refused[0]["actor"].as_str().unwrap().starts_with("key_"));
    let nobodys = room.get("/v1/audit-logs?actor=nobody").bearer(ADMIN).send().await.json();
    assert_eq!(nobodys["data"][0]["new_values"]["code"], "credentials_invalid");
    assert_eq!(nobodys["data"].as_array().unwrap().len(), 1);
    room.forward(std::time::Duration::from_secs(60));
    room.get(&path).bearer(&reader).send().await;
    assert_eq!(entries(&room, &tenant.id, "&action=access.refused").await.len(), 2);

    // A key that tries another organization is known, and its own organization sees it.
    let strange = room.get("/v1/events").bearer(&reader).header("postroom-organization", "other").send().await;
    assert_eq!(strange.verdict(), "404 organization_not_found");
    let refused = entries(&room, &tenant.id, "&action=access.refused").await;
    assert_eq!((refused.len(), &refused[0]["new_values"]["code"]), (3, &json!("organization_not_found")));
    assert!(refused[0]["actor"].as_str().unwrap().starts_with("key_") && refused[0]["address"] == "127.0.0.1");
}

pub async fn a_super_admin_who_names_no_organization_that_exists_is_known_in_the_log(engine: Engine) {
    let room = Room::start(engine).await;
    let root = room.super_admin("root@example.com").await;
    for (token, actor) in [(ADMIN, "super_admin"), (root.token.as_str(), root.id.as_str())] {
        for name in [&b"nowhere"[..], b"\xff"] {
            let strange = room.get("/v1/events").bearer(token).header("postroom-organization", name).send().await;
            assert_eq!(strange.verdict(), "404 organization_not_found");
        }
        assert_eq!(room.get("/v1/events").bearer(token).send().await.verdict(), "400 organization_required");
        let query = format!("/v1/audit-logs?action=access.refused&actor={actor}");
        let noted = room.get(&query).bearer(ADMIN).send().await.json();
        let said = json!({"route": "GET /v1/events", "code": "organization_not_found"});
        assert_eq!((noted["data"].as_array().unwrap().len(), &noted["data"][0]["new_values"]), (1, &said));
        assert_eq!(noted["data"][0]["address"], "127.0.0.1");
    }
    let nobodys = room.get("/v1/audit-logs?actor=nobody").bearer(ADMIN).send().await.json();
    assert_eq!(nobodys["data"], json!([]));
}

pub async fn the_log_is_read_by_admins_of_its_organization_in_pages(engine: Engine) {
    let room = Room::start(engine).await;
    let (acme, other) = (room.tenant("Acme").await, room.tenant("Other").await);
    for _ in 0..4 {
        room.endpoint(&acme).await;
    }
    let all: Vec<Value> = entries(&room, &acme.id, "").await.iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(all.len(), 6, "the organization, its key and its endpoints");
    let (mut read, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = room.get(&format!("/v1/audit-logs?limit=4{cursor}")).bearer(&acme.key).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        read.extend(page["data"].as_array().unwrap().iter().map(|entry| entry["id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(read, all);
    let others = room.get("/v1/audit-logs").bearer(&other.key).send().await.json();
    assert!(others["data"].as_array().unwrap().iter().all(|entry| !all.contains(&entry["id"])));
    let member = room.person(&acme, "ada@example.com", "member").await;
    assert_eq!(room.get("/v1/audit-logs").bearer(&member.token).send().await.verdict(), "403 forbidden");
    for bad in [
        "created_after=yesterday",
        "created_after=2026-11-22T10:00:00Z&created_before=2026-11-21T10:00:00Z",
        "user=1",
        "actor=a&actor=b",
        "actor=",
        &format!("actor={}", "x".repeat(101)),
        "action=endpoint.exploded",
        "resource_type=endpoints",
    ] {
        let refused = room.get(&format!("/v1/audit-logs?{bad}")).bearer(&acme.key).send().await;
        assert_eq!(refused.verdict(), "422 validation_failed", "{bad}");
    }
    let made = room.get("/v1/endpoints").bearer(&acme.key).send().await.json();
    assert!(made["data"][0]["created_by"].as_str().unwrap().starts_with("key_"));
}
