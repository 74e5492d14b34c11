//! What belongs to another organization is answered like what never was, byte for byte, on every route of the document.

use postroom_domain::delivery::DeadReason;
use postroom_storage::worker::Transition;
use serde_json::{Value, json};

use crate::support::{Engine, Owned, Reply, Room};

/// The answer without what is different in every answer.
pub fn bare(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let id = reply.header("x-request-id").unwrap_or_default().to_owned();
    let varying = ["x-request-id", "date", "ratelimit-remaining", "ratelimit-reset"];
    let headers = reply.headers.iter().filter(|(name, _)| !varying.contains(&name.as_str())).cloned().collect();
    (reply.status, headers, String::from_utf8_lossy(&reply.body).replace(&id, "REQUEST"))
}

/// Every operation of the document with an id in its path, with a body that is good for it.
fn operations() -> Vec<(String, String, Option<Value>)> {
    let document = postroom_web::openapi::document();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|_| path.contains("{id}")) {
            let body = match (method.as_str(), path.as_str()) {
                ("patch", _) => Some(json!({})),
                ("put", _) => Some(json!({"name": "x"})),
                ("post", "/v1/sources/{id}/rotate-secret") => Some(json!({"secret": "shh"})),
                _ => None,
            };
            all.push((method.to_uppercase(), path.clone(), body));
        }
    }
    all
}

/// Every list of the document that stands alone.
fn lists() -> Vec<String> {
    let document = postroom_web::openapi::document();
    let paths = document["paths"].as_object().unwrap().keys().cloned();
    paths.filter(|path| !path.contains('{') && parameters(path).iter().any(|name| name == "cursor")).collect()
}

/// The query parameters of a path's `GET`.
fn parameters(path: &str) -> Vec<String> {
    let document = postroom_web::openapi::document();
    let all = document["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|parameter| parameter["in"] == "query").map(|p| p["name"].as_str().unwrap().to_owned()).collect()
}

fn never_was(id: &str) -> String {
    let (prefix, digits) = id.split_once('_').unwrap();
    format!("{prefix}_{}", "0".repeat(digits.len()))
}

pub async fn every_route_answers_anothers_id_like_one_that_never_was(engine: Engine) {
    let room = Room::start(engine).await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    let owned = Owned::of(&room, &theirs).await;
    let before = snapshot(&room, &theirs.key).await;
    let operations = operations();
    assert!(operations.len() > 20, "{operations:?}");
    for (method, path, body) in operations {
        let id = match path.split('/').nth(2).unwrap() {
            "organizations" => &theirs.id,
            "sources" => &owned.source,
            "endpoints" => &owned.endpoint,
            "events" => &owned.event,
            "rejections" => &owned.rejection,
            "deliveries" => &owned.delivery,
            "dead-letters" => &owned.dead_letter,
            "api-keys" => &owned.api_key,
            "users" => &owned.user,
            other => panic!("a kind of id that this test does not know: {other}"),
        };
        let ask = async |id: &str| {
            let call = room.call(&method, &path.replace("{id}", id)).bearer(&mine.key);
            let call = match &body {
                Some(body) => call.json(body),
                None => call,
            };
            call.send().await
        };
        let (foreign, missing) = (ask(id).await, ask(&never_was(id)).await);
        assert_eq!(bare(&foreign), bare(&missing), "{method} {path}");
        let only_super_admins = path == "/v1/organizations/{id}" && matches!(method.as_str(), "PUT" | "DELETE");
        assert_eq!(foreign.status, if only_super_admins { 403 } else { 404 }, "{method} {path} {foreign:?}");
        // Text that is no id, or one of another kind, is no different.
        for odd in
            ["x", "rpl_00000000000000000000000000000000", &id.to_uppercase(), &format!("{id}%00"), &"a".repeat(10_000)]
        {
            assert_eq!(bare(&ask(odd).await), bare(&missing), "{method} {path} {odd:.40}");
        }
    }
    assert_eq!(snapshot(&room, &theirs.key).await, before, "nothing of theirs was changed");
}

async fn snapshot(room: &Room, key: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for list in ["sources", "endpoints", "events", "rejections", "deliveries", "dead-letters", "users"] {
        all.push(room.get(&format!("/v1/{list}")).bearer(key).send().await.json());
    }
    all.into_iter().map(|list| list["data"].clone()).collect()
}

pub async fn anothers_ids_in_bodies_and_filters_are_like_ones_that_never_were(engine: Engine) {
    let room = Room::start(engine).await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    let owned = Owned::of(&room, &theirs).await;
    let own = Owned::of(&room, &mine).await;

    let mut filters = 0;
    for path in lists() {
        for filter in parameters(&path) {
            let foreign = match filter.as_str() {
                "source_id" => &owned.source,
                "endpoint_id" => &owned.endpoint,
                "event_id" | "q" => &owned.event,
                "external_id" => "of-theirs",
                _ => continue,
            };
            let ask = async |id: &str| room.get(&format!("{path}?{filter}={id}")).bearer(&mine.key).send().await;
            let answer = ask(foreign).await;
            assert_eq!(answer.json(), json!({"data": [], "next_cursor": null}), "{path} {filter}");
            if foreign.contains('_') {
                assert_eq!(bare(&answer), bare(&ask(&never_was(foreign)).await), "{path} {filter}");
            }
            filters += 1;
        }
    }
    assert!(filters >= 8, "the document has filters by id: {filters}");

    for (filter, foreign) in [("endpoint_id", &owned.endpoint), ("source_id", &owned.source)] {
        let watch = async |id: &str| {
            let call = room.get(&format!("/v1/stream?{filter}={id}")).bearer(&mine.key);
            let reply = Reply::parse(&room.raw_until(&call.bytes(), b"\r\n\r\n").await);
            (reply.status, bare(&reply).1)
        };
        let nobodys = watch(&never_was(foreign)).await;
        assert_eq!((watch(foreign).await, nobodys.0), (nobodys, 200), "{filter}");
    }

    let wanting = async |source: &str| {
        let body = json!({"url": "http://127.0.0.1:9/", "source_ids": [source]});
        room.post("/v1/endpoints").bearer(&mine.key).json(&body).send().await
    };
    let foreign = wanting(&owned.source).await;
    assert_eq!(bare(&foreign), bare(&wanting(&never_was(&owned.source)).await));
    assert_eq!(foreign.verdict(), "422 validation_failed");
    assert_eq!(foreign.fields(), ["source_ids[0] source_not_found"]);

    let replaying = async |endpoint: &str| {
        let path = format!("/v1/events/{}/replay", own.event);
        room.post(&path).bearer(&mine.key).json(&json!({"endpoint_ids": [endpoint]})).send().await
    };
    let foreign = replaying(&owned.endpoint).await;
    assert_eq!(bare(&foreign), bare(&replaying(&never_was(&owned.endpoint)).await));
    assert_eq!(foreign.verdict(), "404 endpoint_not_found");
}

pub async fn a_cursor_of_another_organization_is_no_cursor(engine: Engine) {
    let room = Room::start(engine).await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    Owned::of(&room, &theirs).await;
    // Two of everything, so that every list has a second page.
    room.source(&theirs, json!({"provider": "github", "name": "second", "secret": "shh"})).await;
    assert_eq!(room.post(&format!("/in/{}/second", theirs.slug)).body("{}").send().await.status, 401);
    room.settle(500, Transition::Dead(DeadReason::RetriesExhausted)).await;
    room.key(&theirs, &["read"]).await;
    room.invited(&theirs, "second@example.com", "member").await;
    room.endpoint(&theirs).await;
    let twice = room.post("/v1/events").bearer(&theirs.key).json(&json!({"type": "a.b", "data": 1})).send().await;

    let of_one_event = format!("/v1/events/{}/deliveries", twice.json()["id"].as_str().unwrap());
    for list in lists().into_iter().filter(|path| path != "/v1/organizations").chain([of_one_event]) {
        let page = room.get(&format!("{list}?limit=1")).bearer(&theirs.key).send().await.json();
        let cursor = page["next_cursor"].as_str().unwrap_or_else(|| panic!("{list} has one page only: {page}"));
        let path = format!("{list}?limit=1&cursor={cursor}");
        assert_eq!(room.get(&path).bearer(&theirs.key).send().await.status, 200, "{list}");
        let reply = room.get(&path).bearer(&mine.key).send().await;
        let fields = vec!["cursor invalid_cursor".to_owned()];
        assert_eq!((reply.verdict().as_str(), reply.fields()), ("422 invalid_cursor", fields), "{list}");
        let nonsense = room.get(&format!("{list}?limit=1&cursor=AAAA")).bearer(&mine.key).send().await;
        assert_eq!(bare(&reply), bare(&nonsense), "{list}");
    }
}

pub async fn naming_another_organization_in_a_header_is_like_naming_one_that_never_was(engine: Engine) {
    let room = Room::start(engine).await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    let owned = Owned::of(&room, &theirs).await;
    let before = snapshot(&room, &theirs.key).await;
    let document = postroom_web::openapi::document();
    let of_organizations = document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/"));
    for (path, item) in of_organizations {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", &owned.event);
            let ask = async |name: &str| {
                let call = room.call(&method.to_uppercase(), &path).bearer(&mine.key);
                call.header("postroom-organization", name).json(&json!({})).send().await
            };
            let missing = ask(&never_was(&theirs.id)).await;
            assert!([403, 404].contains(&missing.status), "{method} {path} {missing:?}");
            for name in [theirs.id.as_str(), theirs.slug.as_str(), "nobody"] {
                assert_eq!(bare(&ask(name).await), bare(&missing), "{method} {path} {name}");
            }
        }
    }
    assert_eq!(snapshot(&room, &theirs.key).await, before, "nothing of theirs was changed");
}

pub async fn a_key_of_idempotency_is_its_organizations_own(engine: Engine) {
    let room = Room::start(engine).await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    let make = async |key: &str, url: &str| {
        let call = room.post("/v1/endpoints").bearer(key).header("idempotency-key", "the-same");
        call.json(&json!({"url": url})).send().await
    };
    let theirs_first = make(&theirs.key, "http://127.0.0.1:9/theirs").await.json();
    let (same, other) = (make(&mine.key, "http://127.0.0.1:9/theirs").await, mine);
    assert_eq!(same.status, 201, "{same:?}");
    assert_ne!(same.json()["id"], theirs_first["id"]);
    assert_eq!(make(&theirs.key, "http://127.0.0.1:9/theirs").await.json()["id"], theirs_first["id"]);
    assert_eq!(make(&other.key, "http://127.0.0.1:9/mine").await.verdict(), "409 idempotency_key_reused");
}
