//! Tenants, organizations, sources, endpoints, keys: what is special about each.

use serde_json::{Value, json};

use crate::support::{ADMIN, Engine, Room, Tenant};

pub async fn an_event_is_accepted_and_its_repetition_recognised(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.endpoint(&tenant).await;
    let body = json!({"type": "order.paid", "data": {"order": 42}, "id": "order-42-paid"});
    let first = room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(first.status, 202, "{first:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.json(), json!({"id": id, "duplicate": false, "deliveries": 1}));
    let again = room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(again.json(), json!({"id": id, "duplicate": true, "deliveries": 1}));
}

pub async fn an_events_payload_has_the_bytes_of_data_as_they_were_sent(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = "{\"type\":\"a\",\"data\":{ \"b\" : 1.50, \"a\":\"\\u00e9\" }}";
    let sent = room.post("/v1/events").bearer(&tenant.key).header("content-type", "application/json").body(body);
    let id = sent.send().await.json()["id"].as_str().unwrap().to_owned();
    let event = room.get(&format!("/v1/events/{id}")).bearer(&tenant.key).send().await;
    let text = String::from_utf8(event.body.clone()).unwrap();
    assert!(text.contains("\"data\":{ \"b\" : 1.50, \"a\":\"\\u00e9\" }}"), "{text}");
    assert_eq!(event.json()["payload_encoding"], "json");
    assert_eq!(event.json()["headers"], json!([{"name": "content-type", "value": "application/json"}]));
}

pub async fn a_payload_can_be_had_as_its_exact_bytes(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    for body in [&b" {\"a\": 1}\r\n"[..], b"\xff\x00", b""] {
        let sent = room.post("/in/acme/none").body(body).send().await;
        let path = format!("/v1/events/{}", sent.json()["id"].as_str().unwrap());
        let event = room.get(&format!("{path}?payload_encoding=base64")).bearer(&tenant.key).send().await.json();
        let payload = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, body);
        assert_eq!((&event["payload_encoding"], &event["payload"]), (&json!("base64"), &json!(payload)));
        let other = room.get(&format!("{path}?payload_encoding=hex")).bearer(&tenant.key).send().await;
        assert_eq!(other.status, 422, "{other:?}");
    }
}

pub async fn a_provider_has_a_guide_and_an_unknown_one_is_404(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let get = async |name: &str| room.get(&format!("/v1/providers/{name}")).bearer(&tenant.key).send().await;
    let stripe = get("stripe").await.json();
    assert_eq!((&stripe["name"], &stripe["needs_secret"]), (&json!("stripe"), &json!(true)));
    assert!(stripe["guide"]["secret"].as_str().unwrap().contains("signing secret"), "{stripe}");
    assert!(
        stripe["guide"]["commands"][1].as_str().unwrap().starts_with("postroom sign --provider stripe"),
        "{stripe}"
    );
    for name in ["Stripe", "nobody", "%00", &"a".repeat(5000)] {
        assert_eq!(get(name).await.verdict(), "404 provider_not_found", "{name}");
    }
}

pub async fn a_batch_has_one_result_for_each_event_in_order(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let post = async |body: Value| room.post("/v1/events/batch").bearer(&tenant.key).json(&body).send().await;
    let good =
        post(json!({"events": [{"type": "a", "data": 1, "id": "1"}, {"type": "b", "data": null, "id": "1"}]})).await;
    assert_eq!(good.status, 202, "{good:?}");
    let data = good.json()["data"].clone();
    assert_eq!(data[0]["id"], data[1]["id"], "the same id in one batch is the same event");
    assert_eq!((&data[0]["duplicate"], &data[1]["duplicate"]), (&json!(false), &json!(true)));

    let mixed =
        post(json!({"events": [{"type": "a"}, {"type": "a", "data": 1, "x": 1}, {"type": "a", "data": 1}, 7]})).await;
    assert_eq!(mixed.status, 207);
    let data = mixed.json()["data"].as_array().unwrap().clone();
    let statuses: Vec<_> = data.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [422, 422, 202, 422]);
    assert_eq!(
        data[0]["error"]["errors"][0],
        json!({"field": "data", "code": "required", "detail": "this field has to be given"})
    );
    assert_eq!(data[1]["error"]["errors"][0]["code"], "unknown_field");

    let events = |count: usize| json!({"events": vec![json!({"type": "a", "data": 1}); count]});
    assert_eq!(post(events(500)).await.json()["data"].as_array().unwrap().len(), 500);
    for count in [0, 501] {
        assert_eq!(post(events(count)).await.fields(), ["events out_of_range"]);
    }
}

pub async fn a_tenant_is_everything_a_new_customer_needs(engine: Engine) {
    let room = Room::start(engine).await;
    let isolation = engine.isolation();
    let body = json!({"name": "Acme Corp.", "target_url": "http://127.0.0.1:9/hook", "event_types": ["order.*"], "isolation": isolation});
    let made = room.post("/v1/tenants").bearer(ADMIN).json(&body).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!((&made["organization"]["slug"], &made["organization"]["plan"]), (&json!("acme-corp"), &json!("free")));
    assert_eq!(made["endpoint"]["url"], "http://127.0.0.1:9/hook");
    assert!(made["endpoint"]["secret"].as_str().unwrap().starts_with("whsec_"));
    let key = made["api_key"]["secret"].as_str().unwrap();
    let sent = room.post("/v1/events").bearer(key).json(&json!({"type": "order.paid", "data": 1})).send().await;
    assert_eq!(sent.json()["deliveries"], 1);
    let other = room.post("/v1/events").bearer(key).json(&json!({"type": "other", "data": 1})).send().await;
    assert_eq!(other.json()["deliveries"], 0);

    let again = room.post("/v1/tenants").bearer(ADMIN).json(&body).send().await;
    assert_eq!(again.verdict(), "409 slug_taken");
    for (body, field) in [
        (json!({"name": "日本"}), "slug required"),
        (json!({"name": "x", "target_url": "http://10.0.0.1/"}), "target_url blocked_address"),
        (json!({"name": "x", "isolation": "own"}), "isolation unknown_value"),
        (json!({"name": "x", "event_types": ["a"]}), "target_url required"),
        (json!({"name": "x", "plan": "gold"}), "plan unknown_value"),
    ] {
        let reply = room.post("/v1/tenants").bearer(ADMIN).json(&body).send().await;
        assert_eq!(
            (reply.verdict().as_str(), reply.fields()),
            ("422 validation_failed", vec![field.to_owned()]),
            "{body}"
        );
    }
    let organizations = room.get("/v1/organizations").bearer(ADMIN).send().await.json();
    assert_eq!(organizations["data"].as_array().unwrap().len(), 1, "what was refused made nothing");
}

pub async fn a_mandrill_secret_belongs_to_one_organization_and_never_comes_back(engine: Engine) {
    let room = Room::start(engine).await;
    let (acme, other) = (room.tenant("Acme").await, room.tenant("Other").await);
    let set = async |tenant: &Tenant, secret: Value| {
        let body = json!({"mandrill_webhook_secret": secret});
        room.call("PATCH", &format!("/v1/organizations/{}", tenant.id)).bearer(ADMIN).json(&body).send().await
    };
    let mine = set(&acme, json!("the-secret")).await;
    assert_eq!((mine.status, &mine.json()["has_mandrill_webhook_secret"]), (200, &json!(true)));
    assert!(!String::from_utf8_lossy(&mine.body).contains("the-secret"));
    assert_eq!(set(&other, json!("the-secret")).await.verdict(), "409 webhook_secret_in_use");
    assert_eq!(set(&acme, json!(null)).await.json()["has_mandrill_webhook_secret"], false);
    assert_eq!(set(&other, json!("the-secret")).await.status, 200);
}

pub async fn an_admin_key_changes_the_name_of_its_organization_and_nothing_else(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let path = format!("/v1/organizations/{}", tenant.id);
    let patch = async |body: Value| room.call("PATCH", &path).bearer(&tenant.key).json(&body).send().await;
    assert_eq!(patch(json!({"name": "Acme & Sons"})).await.json()["name"], "Acme & Sons");
    assert_eq!(patch(json!({})).await.json()["name"], "Acme & Sons");
    for body in [json!({"plan": "free"}), json!({"name": "x", "webhook_limit": 5}), json!({"is_active": true})] {
        assert_eq!(patch(body).await.verdict(), "403 forbidden");
    }
    let seen = room.get(&path).bearer(&tenant.key).send().await.json();
    assert_eq!((&seen["name"], &seen["plan"]), (&json!("Acme & Sons"), &json!("premium")));
}

pub async fn put_replaces_an_organization_but_keeps_the_secret_that_cannot_be_read(engine: Engine) {
    let room = Room::start(engine).await;
    let made = json!({"name": "Acme", "plan": "starter", "webhook_limit": 7, "mandrill_webhook_secret": "s"});
    let made = room.post("/v1/organizations").bearer(ADMIN).json(&made).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/v1/organizations/{}", made.json()["id"].as_str().unwrap());
    let put = room.call("PUT", &path).bearer(ADMIN).json(&json!({"name": "New", "slug": "acme"})).send().await.json();
    assert_eq!((&put["name"], &put["plan"], &put["webhook_limit"]), (&json!("New"), &json!("free"), &json!(1000)));
    assert_eq!(put["has_mandrill_webhook_secret"], true);
}

pub async fn one_source_of_a_name_and_the_provider_is_the_default_name(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let post = async |body: Value| room.post("/v1/sources").bearer(&tenant.key).json(&body).send().await;
    let first = post(json!({"provider": "stripe", "secret": "whsec_x"})).await;
    assert_eq!(first.status, 201, "{first:?}");
    let view = first.json();
    assert_eq!((&view["name"], &view["active_secret_count"]), (&json!("stripe"), &json!(1)));
    assert_eq!(view["url"], "https://hooks.example/in/acme/stripe");
    assert!(!String::from_utf8_lossy(&first.body).contains("whsec_x"), "secrets never come back");
    assert_eq!(post(json!({"provider": "stripe"})).await.verdict(), "409 source_name_taken");
    assert_eq!(post(json!({"provider": "stripe", "name": "stripe-2"})).await.status, 201);
    for (body, field) in [
        (json!({"provider": "nobody"}), "provider unknown_provider"),
        (json!({"provider": "github", "name": "A b"}), "name invalid_name"),
        (json!({"provider": "github", "options": {"colour": "red"}}), "options.colour unknown_option"),
        (
            json!({"provider": "stripe", "name": "s", "options": {"tolerance_seconds": 0}}),
            "options.tolerance_seconds out_of_range",
        ),
        (json!({"provider": "standard-webhooks", "name": "s", "secret": "!"}), "secret invalid_secret"),
    ] {
        let reply = post(body.clone()).await;
        assert_eq!(reply.verdict(), "422 validation_failed", "{body} {reply:?}");
        assert_eq!(reply.fields(), [field], "{body} {reply:?}");
    }
}

pub async fn a_sources_secrets_rotate_with_grace_and_are_replaced_without(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let id = room.source(&tenant, json!({"provider": "github", "secret": "one"})).await;
    let rotate = json!({"secret": "two", "grace_seconds": 60});
    let rotated = room.post(&format!("/v1/sources/{id}/rotate-secret")).bearer(&tenant.key).json(&rotate).send().await;
    assert_eq!((rotated.status, &rotated.json()["active_secret_count"]), (200, &json!(2)), "{rotated:?}");
    let body = json!({"secret": "three"});
    let replaced = room.call("PATCH", &format!("/v1/sources/{id}")).bearer(&tenant.key).json(&body).send().await;
    assert_eq!(replaced.json()["active_secret_count"], 1);
    let gone = room.call("DELETE", &format!("/v1/sources/{id}")).bearer(&tenant.key).send().await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    let again = room.call("DELETE", &format!("/v1/sources/{id}")).bearer(&tenant.key).send().await;
    assert_eq!(again.verdict(), "404 source_not_found");
}

pub async fn an_endpoints_secret_is_shown_when_it_is_made_and_to_admin_keys_who_ask(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let made = room.post("/v1/endpoints").bearer(&tenant.key).json(&json!({"url": "http://127.0.0.1:9/"})).send().await;
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    let path = format!("/v1/endpoints/{}", made.json()["id"].as_str().unwrap());
    let seen = room.get(&path).bearer(&tenant.key).send().await;
    assert!(!String::from_utf8_lossy(&seen.body).contains("whsec_"), "{seen:?}");
    let asked = room.get(&format!("{path}/secret")).bearer(&tenant.key).send().await;
    assert_eq!(asked.json(), json!({"secret": secret}));

    let rotated = room.post(&format!("{path}/rotate-secret")).bearer(&tenant.key).json(&json!({"grace_seconds": 60}));
    let rotated = rotated.send().await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    assert_ne!(rotated.json()["secret"], secret.as_str());
    let history = rotated.json()["secret_history"].clone();
    assert_eq!((history.as_array().unwrap().len(), &history[0]["expires_at"]), (2, &json!(null)));
    assert_eq!(history[1]["expires_at"], "2026-11-22T10:01:00.000Z");
    let long = room.post(&format!("{path}/rotate-secret")).bearer(&tenant.key).json(&json!({"grace_seconds": 86401}));
    assert_eq!(long.send().await.fields(), ["grace_seconds out_of_range"]);
}

pub async fn an_ed25519_endpoint_shows_its_public_key_only(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = json!({"url": "http://127.0.0.1:9/", "signature": "ed25519"});
    let made = room.post("/v1/endpoints").bearer(&tenant.key).json(&body).send().await;
    assert!(made.json()["public_key"].as_str().unwrap().starts_with("whpk_"), "{made:?}");
    let path = format!("/v1/endpoints/{}/secret", made.json()["id"].as_str().unwrap());
    let asked = room.get(&path).bearer(&tenant.key).send().await;
    assert_eq!(asked.json(), json!({"public_key": made.json()["public_key"]}));
}

pub async fn a_change_of_an_endpoint_leaves_out_what_stays_and_takes_null_for_the_default(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = json!({
        "url": "http://127.0.0.1:9/a", "description": "first", "event_types": ["a.*"], "retry_schedule": [1, 2],
        "timeout_ms": 2000, "rate_limit": 5, "filter": {"data": 1}, "headers": {"X-Team": "a", "x-other": "b"},
    });
    let made = room.post("/v1/endpoints").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/v1/endpoints/{}", made.json()["id"].as_str().unwrap());
    let patch = async |body: Value| {
        let reply = room.call("PATCH", &path).bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let same = patch(json!({})).await;
    assert_eq!((&same["retry_schedule"], &same["filter"]), (&json!([1, 2]), &json!({"data": 1})));
    assert_eq!(same["header_names"], json!(["x-other", "x-team"]));
    let less = patch(json!({"retry_schedule": null, "filter": null, "timeout_ms": null, "event_types": null})).await;
    assert_eq!(
        (&less["retry_schedule"], &less["filter"], &less["timeout_ms"]),
        (&json!(null), &json!(null), &json!(null))
    );
    assert_eq!((&less["event_types"], &less["description"]), (&json!([]), &json!("first")));
    let headers = patch(json!({"headers": {"X-OTHER": null, "x-new": "c"}})).await;
    assert_eq!(headers["header_names"], json!(["x-new", "x-team"]));
    assert_eq!(patch(json!({"headers": null})).await["header_names"], json!([]));
    assert_eq!(patch(json!({"url": "http://127.0.0.1:9/b"})).await["url"], "http://127.0.0.1:9/b");
}

pub async fn an_endpoint_is_switched_off_and_on_and_can_be_tested(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let id = room.endpoint(&tenant).await;
    let post = async |action: &str| room.post(&format!("/v1/endpoints/{id}/{action}")).bearer(&tenant.key).send().await;
    let off = post("disable").await.json();
    assert_eq!((&off["is_enabled"], &off["disabled_reason"]), (&json!(false), &json!("disabled")));
    let send = async || room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a", "data": 1})).send().await;
    assert_eq!(send().await.json()["deliveries"], 0);
    assert_eq!(post("test").await.verdict(), "409 endpoint_disabled");
    assert_eq!(post("enable").await.json()["is_enabled"], true);
    assert_eq!(send().await.json()["deliveries"], 1);
    let tested = post("test").await;
    assert_eq!(tested.status, 202, "{tested:?}");
    assert_eq!((&tested.json()["type"], &tested.json()["delivery_count"]), (&json!("postroom.test"), &json!(1)));
}

pub async fn an_api_key_is_shown_once_and_ends_when_it_is_revoked(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = json!({"name": "reader", "scopes": ["read"]});
    let made = room.post("/v1/api-keys").bearer(&tenant.key).json(&body).send().await.json();
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert_eq!(made["last_four"].as_str().unwrap(), &secret[secret.len() - 4..]);
    let path = format!("/v1/api-keys/{id}");
    let seen = room.get(&path).bearer(&tenant.key).send().await;
    assert!(!String::from_utf8_lossy(&seen.body).contains(secret));
    assert_eq!(room.get("/v1/events").bearer(secret).send().await.status, 200);
    for _ in 0..2 {
        let revoked = room.call("DELETE", &path).bearer(&tenant.key).send().await;
        assert_eq!(revoked.status, 200);
        assert_eq!(revoked.json()["revoked_at"], "2026-11-22T10:00:00.000Z");
    }
    assert_eq!(room.get("/v1/events").bearer(secret).send().await.verdict(), "401 credentials_invalid");
}

pub async fn a_rejected_request_is_kept_and_becomes_an_event_when_the_secret_is_mended(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let source = room.source(&tenant, json!({"provider": "github", "secret": "wrong"})).await;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"right");
    let signature = format!("sha256={}", hex::encode(aws_lc_rs::hmac::sign(&key, b"{\"a\":1}")));
    let refused = room
        .post("/in/acme/github?x=1")
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", "d-1")
        .header("x-hub-signature-256", &signature)
        .body("{\"a\":1}")
        .send()
        .await;
    assert_eq!(refused.verdict(), "401 signature_invalid");
    let list = room.get(&format!("/v1/rejections?source_id={source}")).bearer(&tenant.key).send().await.json();
    let path = format!("/v1/rejections/{}", list["data"][0]["id"].as_str().unwrap());
    assert_eq!((&list["data"][0]["code"], &list["data"][0]["event_id"]), (&json!("signature_invalid"), &json!(null)));
    let kept = room.get(&path).bearer(&tenant.key).send().await.json();
    assert_eq!(
        (&kept["path"], &kept["body"], &kept["method"]),
        (&json!("/in/acme/github?x=1"), &json!({"a": 1}), &json!("POST"))
    );

    let reverify = async || room.post(&format!("{path}/reverify")).bearer(&tenant.key).send().await;
    assert_eq!(reverify().await.verdict(), "409 rejection_still_invalid");
    let mend =
        room.call("PATCH", &format!("/v1/sources/{source}")).bearer(&tenant.key).json(&json!({"secret": "right"}));
    assert_eq!(mend.send().await.status, 200);
    let event = reverify().await;
    assert_eq!((event.status, &event.json()["duplicate"]), (200, &json!(false)), "{event:?}");
    assert_eq!(reverify().await.json()["event_id"], event.json()["event_id"]);
    let path = format!("/v1/events/{}", event.json()["event_id"].as_str().unwrap());
    let event = room.get(&path).bearer(&tenant.key).send().await.json();
    assert_eq!(
        (&event["type"], &event["external_id"], &event["payload"]),
        (&json!("push"), &json!("d-1"), &json!({"a": 1}))
    );
}

pub async fn changes_of_one_endpoint_at_the_same_time_are_all_kept(engine: Engine) {
    let room = Room::start(engine).await;
    let nodes = [&room, &room.beside().await];
    let tenant = room.tenant("Acme").await;
    let path = format!("/v1/endpoints/{}", room.endpoint(&tenant).await);
    let changes = (0..20).map(|n| {
        let body = json!({"headers": {format!("x-{n}"): "v"}});
        let call = nodes[n % 2].call("PATCH", &path).bearer(&tenant.key).json(&body);
        async move { call.send().await.status }
    });
    assert!(futures_util::future::join_all(changes).await.into_iter().all(|status| status == 200));
    let endpoint = room.get(&path).bearer(&tenant.key).send().await.json();
    assert_eq!(endpoint["header_names"].as_array().unwrap().len(), 20);
}

pub async fn a_change_of_what_the_caller_has_not_seen_is_refused_if_he_says_so(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let path = format!("/v1/endpoints/{}", room.endpoint(&tenant).await);
    let seen = async || room.get(&path).bearer(&tenant.key).send().await.header("etag").unwrap().to_owned();
    let patch = async |condition: &str, description: &str| {
        let call = room.call("PATCH", &path).bearer(&tenant.key).header("if-match", condition);
        call.json(&json!({"description": description})).send().await
    };
    let first = seen().await;
    let changed = patch(&first, "a").await;
    assert_eq!((changed.status, changed.header("etag")), (200, Some(seen().await.as_str())), "{changed:?}");
    assert_ne!(first, seen().await);
    for stale in [&first, &format!("W/{}", seen().await), "nonsense", ""] {
        assert_eq!(patch(stale, "b").await.verdict(), "412 precondition_failed", "{stale}");
    }
    // What a person or the endpoint itself switches off is another version too.
    let before = seen().await;
    assert_eq!(room.post(&format!("{path}/disable")).bearer(&tenant.key).send().await.status, 200);
    assert_eq!(patch(&before, "c").await.verdict(), "412 precondition_failed");
    let shown = room.get(&path).bearer(&tenant.key).send().await.json();
    assert_eq!(shown["description"], "a", "nothing that was refused was done");
    for good in [format!("{first}, {}", seen().await), "*".to_owned()] {
        assert_eq!(patch(&good, "d").await.status, 200, "{good}");
    }
}
