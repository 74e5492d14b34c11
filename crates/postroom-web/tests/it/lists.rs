//! Lists: pages, cursors, limits, filters.

use serde_json::json;

use crate::support::{ADMIN, Engine, Room};

pub async fn pages_are_newest_first_without_gaps_and_end_with_null(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let mut sent = Vec::new();
    for n in 0..7 {
        let reply = room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a.b", "data": n})).send().await;
        sent.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    sent.reverse();
    let mut found = Vec::new();
    let mut path = "/v1/events?limit=3&type=a.*".to_owned();
    loop {
        let page = room.get(&path).bearer(&tenant.key).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let ids = page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned());
        found.extend(ids);
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/events?limit=3&type=a.*&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, sent);
}

pub async fn a_limit_outside_of_1_to_250_is_refused(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for list in ["events", "sources", "endpoints", "deliveries", "dead-letters", "rejections", "api-keys"] {
        for bad in ["0", "-1", "251", "1000000000", "1e3", "", "x", "1.0", "%2B1"] {
            let reply = room.get(&format!("/v1/{list}?limit={bad}")).bearer(&tenant.key).send().await;
            assert_eq!(reply.verdict(), "422 validation_failed", "{list} {bad}");
            assert_eq!(reply.fields(), ["limit out_of_range"]);
        }
        for good in ["1", "250"] {
            assert_eq!(room.get(&format!("/v1/{list}?limit={good}")).bearer(&tenant.key).send().await.status, 200);
        }
    }
}

pub async fn a_cursor_is_good_only_where_it_came_from(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for n in 0..3 {
        room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a", "data": n})).send().await;
        room.endpoint(&tenant).await;
    }
    let page = room.get("/v1/events?limit=1&type=a").bearer(&tenant.key).send().await.json();
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let get = async |path: String| room.get(&path).bearer(&tenant.key).send().await;
    assert_eq!(get(format!("/v1/events?cursor={cursor}&limit=2&type=a")).await.status, 200, "in any order, any limit");
    let flipped = cursor.replace(&cursor[10..11], if &cursor[10..11] == "A" { "B" } else { "A" });
    for path in [
        format!("/v1/events?cursor={cursor}"),
        format!("/v1/events?cursor={cursor}&type=b"),
        format!("/v1/events?cursor={cursor}&type=a&q=x"),
        format!("/v1/endpoints?cursor={cursor}"),
        format!("/v1/deliveries?cursor={cursor}"),
        format!("/v1/events?type=a&cursor={flipped}"),
        format!("/v1/events?type=a&cursor={}", &cursor[..cursor.len() - 1]),
        "/v1/events?type=a&cursor=".to_owned(),
        "/v1/events?type=a&cursor=MTIz".to_owned(),
        format!("/v1/events?type=a&cursor={}", "A".repeat(5000)),
    ] {
        assert_eq!(get(path.clone()).await.verdict(), "422 invalid_cursor", "{path}");
    }
}

pub async fn unknown_repeated_and_meaningless_parameters_are_refused(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for (query, field) in [
        ("typ=a", "typ unknown_field"),
        ("sort=name;drop", "sort unknown_field"),
        ("limit=1&limit=2", "limit duplicate_field"),
        ("type=a&type=b", "type duplicate_field"),
        ("type=a..b", "type invalid_event_type"),
        ("type=", "type required"),
        ("source_id=ep_00000000000000000000000000000000", "source_id invalid_id"),
        ("status=done", "status unknown_value"),
        ("direction=in", "direction unknown_value"),
        ("created_after=yesterday", "created_after invalid_time"),
        ("created_after=2026-11-22T10:00:00", "created_after invalid_time"),
        ("created_after=2026-11-22T10:00:00%2B24:00", "created_after invalid_time"),
        ("created_after=99999-01-01T00:00:00Z", "created_after invalid_time"),
        ("created_after=2026-01-02T00:00:00Z&created_before=2026-01-01T00:00:00Z", "created_before out_of_range"),
        ("external_id=", "external_id required"),
        ("q=", "q required"),
    ] {
        let reply = room.get(&format!("/v1/events?{query}")).bearer(&tenant.key).send().await;
        assert_eq!(reply.verdict(), "422 validation_failed", "{query} {reply:?}");
        assert_eq!(reply.fields(), [field], "{query}");
    }
    let many = room.get("/v1/events?type=.&status=x&q=").bearer(&tenant.key).send().await;
    assert_eq!(many.fields().len(), 3, "everything that is wrong is told at once: {many:?}");
    let bytes = room.get("/v1/events?type=%ff").bearer(&tenant.key).send().await;
    assert_eq!(bytes.verdict(), "400 invalid_request");
    for good in ["created_after=0000-01-01T00:00:00Z", "created_after=2016-12-31T23:59:60Z", "type=a&status=failed"] {
        let reply = room.get(&format!("/v1/events?{good}")).bearer(&tenant.key).send().await;
        assert_eq!(reply.status, 200, "{good} {reply:?}");
    }
}

pub async fn organizations_are_listed_for_super_admins(engine: Engine) {
    let room = Room::start(engine).await;
    for name in ["One", "Two", "Three"] {
        room.tenant(name).await;
    }
    let page = room.get("/v1/organizations?limit=2").bearer(ADMIN).send().await.json();
    let slugs: Vec<_> = page["data"].as_array().unwrap().iter().map(|row| row["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["three", "two"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = room.get(&format!("/v1/organizations?limit=2&cursor={cursor}")).bearer(ADMIN).send().await.json();
    assert_eq!((rest["data"][0]["slug"].as_str(), &rest["next_cursor"]), (Some("one"), &json!(null)));
}
