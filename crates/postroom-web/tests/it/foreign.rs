//! What belongs to another organization is answered like what never was, byte for byte, on every route of the document.

use serde_json::{Value, json};

use crate::support::{Owned, Reply, Room};

/// The answer without what is different in every answer.
fn bare(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let id = reply.header("x-request-id").unwrap_or_default().to_owned();
    let varying = ["x-request-id", "date"];
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

fn never_was(id: &str) -> String {
    let (prefix, digits) = id.split_once('_').unwrap();
    format!("{prefix}_{}", "0".repeat(digits.len()))
}

#[tokio::test]
async fn every_route_answers_anothers_id_like_one_that_never_was() {
    let room = Room::start().await;
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
            ["x", "usr_00000000000000000000000000000000", &id.to_uppercase(), &format!("{id}%00"), &"a".repeat(10_000)]
        {
            assert_eq!(bare(&ask(odd).await), bare(&missing), "{method} {path} {odd:.40}");
        }
    }
    assert_eq!(snapshot(&room, &theirs.key).await, before, "nothing of theirs was changed");
}

async fn snapshot(room: &Room, key: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for list in ["sources", "endpoints", "events", "rejections", "deliveries", "dead-letters"] {
        all.push(room.get(&format!("/v1/{list}")).bearer(key).send().await.json());
    }
    all.into_iter().map(|list| list["data"].clone()).collect()
}

#[tokio::test]
async fn anothers_ids_in_bodies_and_filters_are_like_ones_that_never_were() {
    let room = Room::start().await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    let owned = Owned::of(&room, &theirs).await;
    let own = Owned::of(&room, &mine).await;

    let filters: [(&str, &str, &str); 7] = [
        ("events", "source_id", &owned.source),
        ("deliveries", "endpoint_id", &owned.endpoint),
        ("deliveries", "event_id", &owned.event),
        ("dead-letters", "endpoint_id", &owned.endpoint),
        ("dead-letters", "event_id", &owned.event),
        ("rejections", "source_id", &owned.source),
        ("events", "external_id", "x"),
    ];
    for (list, filter, id) in filters {
        let ask = async |id: &str| room.get(&format!("/v1/{list}?{filter}={id}")).bearer(&mine.key).send().await;
        let foreign = ask(id).await;
        assert_eq!(foreign.json(), json!({"data": [], "next_cursor": null}), "{list} {filter}");
        if id.contains('_') {
            assert_eq!(bare(&foreign), bare(&ask(&never_was(id)).await), "{list} {filter}");
        }
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

#[tokio::test]
async fn a_cursor_of_another_organization_is_no_cursor() {
    let room = Room::start().await;
    let (mine, theirs) = (room.tenant("Mine").await, room.tenant("Theirs").await);
    for _ in 0..2 {
        room.endpoint(&theirs).await;
    }
    let page = room.get("/v1/endpoints?limit=1").bearer(&theirs.key).send().await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/v1/endpoints?limit=1&cursor={cursor}");
    assert_eq!(room.get(&path).bearer(&theirs.key).send().await.status, 200);
    let reply = room.get(&path).bearer(&mine.key).send().await;
    assert_eq!(
        (reply.verdict().as_str(), reply.fields()),
        ("422 invalid_cursor", vec!["cursor invalid_cursor".to_owned()])
    );
}
