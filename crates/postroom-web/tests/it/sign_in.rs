//! Signing in, and what was tried against it: links, sessions, cookies, other sites.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use postroom_domain::keyring::Keyring;
use postroom_domain::{SessionId, UserId};
use postroom_web::Limits;
use serde_json::{Value, json};

use crate::foreign::bare;
use crate::people::Person;
use crate::support::{ADMIN, Call, Engine, Reply, Room, Tenant, eventually};

const ADA: &str = "ada@example.com";
const OWN: &str = "https://hooks.example";
/// A token of the right form that nobody was given.
const NOBODYS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// An organization with one admin who has a session.
async fn ada_of_acme(engine: Engine) -> (Room, Tenant, Person) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let ada = room.person(&tenant, ADA, "admin").await;
    (room, tenant, ada)
}

/// Whether a session still counts.
async fn counts(room: &Room, token: &str) -> bool {
    let reply = room.get("/v1/events").bearer(token).send().await;
    if reply.status == 200 {
        return true;
    }
    assert_eq!(reply.verdict(), "401 credentials_invalid");
    false
}

pub async fn opening_a_link_uses_nothing_up_and_sets_no_cookie(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.invited(&tenant, ADA, "admin").await;
    let token = room.mailed(ADA).await;
    for _ in 0..3 {
        for method in ["GET", "HEAD"] {
            for path in ["/sign-in".to_owned(), format!("/sign-in?token={token}")] {
                let page = room.call(method, &path).send().await;
                assert_eq!((page.status, page.header("set-cookie")), (200, None), "{page:?}");
            }
            let verify = room.call(method, &format!("/api/auth/verify-magic-link?token={token}")).send().await;
            assert_eq!((verify.status, verify.header("set-cookie")), (405, None), "{verify:?}");
        }
        // The token counts in one place of the body.
        let elsewhere = room.post(&format!("/api/auth/verify-magic-link?token={token}")).json(&json!({})).send().await;
        assert_eq!(elsewhere.verdict(), "422 validation_failed");
    }
    assert_eq!(room.signed_in(&token).await.email, ADA);
}

pub async fn of_twenty_who_use_a_link_at_once_one_gets_a_session(engine: Engine) {
    let (room, _, _) = ada_of_acme(engine).await;
    assert_eq!(room.ask_link(ADA).send().await.status, 202);
    let token = room.mailed(ADA).await;
    let other = room.beside().await;
    let calls: Vec<Call<'_>> =
        (0..20).map(|at| if at % 2 == 0 { room.verify(&token) } else { other.verify(&token) }).collect();
    let replies = futures_util::future::join_all(calls.iter().map(Call::send)).await;
    let winners: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(winners.len(), 1, "{replies:?}");
    for loser in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((loser.verdict().as_str(), loser.header("set-cookie")), ("401 sign_in_link_invalid", None));
    }
    assert_eq!(room.verify(&token).send().await.verdict(), "401 sign_in_link_invalid", "once more");
}

pub async fn a_link_is_good_for_fifteen_minutes_and_every_bad_one_is_answered_alike(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let link = async || {
        assert_eq!(room.ask_link(ADA).send().await.status, 202);
        room.mailed(ADA).await
    };
    let in_time = link().await;
    room.forward(Duration::from_secs(15 * 60 - 1));
    assert_eq!(room.signed_in(&in_time).await.email, ADA);
    let late = link().await;
    room.forward(Duration::from_secs(15 * 60));
    let voided = link().await;
    let path = format!("/v1/users/{}", ada.id);
    room.person(&tenant, "eve@example.com", "admin").await;
    let off = room.call("PATCH", &path).bearer(&tenant.key).json(&json!({"is_active": false})).send().await;
    assert_eq!(off.status, 200, "{off:?}");
    let nobodys = bare(&room.verify(NOBODYS).send().await);
    assert_eq!(nobodys.0, 401);
    let long = "A".repeat(10_000);
    for bad in
        [&in_time, &late, &voided, &tenant.key, &ada.token, "", "x", " ", &late[1..], &late.replace('A', "+"), &long]
    {
        let reply = room.verify(bad).send().await;
        assert_eq!(bare(&reply), nobodys, "{bad}");
        assert_eq!(reply.verdict(), "401 sign_in_link_invalid");
    }
}

pub async fn known_and_unknown_addresses_get_one_answer_that_waits_for_nothing(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    room.person(&tenant, "off@example.com", "member").await;
    let users = room.get("/v1/users").bearer(&ada.token).send().await.json();
    let off = format!("/v1/users/{}", users["data"][0]["id"].as_str().unwrap());
    room.call("PATCH", &off).bearer(&ada.token).json(&json!({"is_active": false})).send().await;
    let ask = async |email: &str| bare(&room.ask_link(email).send().await);
    let known = ask(ADA).await;
    assert_eq!(known.0, 202);
    for other in ["nobody@example.com", "off@example.com", "ADA@example.com", "ada@elsewhere.example"] {
        assert_eq!(ask(other).await, known, "{other}");
    }
    room.mailed(ADA).await;
    // The work is apart from the request: without a database the answer is the same.
    room.storage.platform.close().await.unwrap();
    for email in [ADA, "nobody@example.com"] {
        assert_eq!(ask(email).await, known, "{email}");
    }
}

pub async fn who_may_not_sign_in_is_sent_nothing(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let bob = room.person(&tenant, "bob@example.com", "member").await;
    let path = format!("/v1/users/{}", bob.id);
    room.call("PATCH", &path).bearer(&ada.token).json(&json!({"is_active": false})).send().await;
    for email in ["bob@example.com", "nobody@example.com"] {
        assert_eq!(room.ask_link(email).send().await.status, 202);
    }
    room.worked_off().await;
    for email in ["bob@example.com", "nobody@example.com"] {
        assert_eq!(room.mailed_already(email).await, None, "{email}");
    }
}

pub async fn one_address_is_sent_five_links_an_hour_and_the_rest_look_the_same(engine: Engine) {
    let (room, _, _) = ada_of_acme(engine).await;
    // The invitation was one of them.
    room.forward(Duration::from_secs(3600));
    let first = bare(&room.ask_link(ADA).send().await);
    for _ in 1..12 {
        assert_eq!(bare(&room.ask_link(ADA).send().await), first);
    }
    room.worked_off().await;
    let mails = room.storage.platform.mail_take(room.now(), 100).await.unwrap();
    assert_eq!(mails.iter().filter(|mail| mail.to.as_str() == ADA).count(), 5);
    for mail in mails {
        room.storage.platform.mail_done(mail.id).await.unwrap();
    }
    room.forward(Duration::from_secs(3600));
    room.ask_link(ADA).send().await;
    assert_eq!(room.signed_in(&room.mailed(ADA).await).await.email, ADA);
}

pub async fn one_client_has_twenty_requests_an_hour_and_the_rest_look_the_same(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.sign_ins = Limits::default().sign_ins).await;
    let tenant = room.tenant("Acme").await;
    room.person(&tenant, ADA, "admin").await;
    let first = bare(&room.ask_link("nobody@example.com").send().await);
    for at in 1..20 {
        assert_eq!(bare(&room.ask_link(&format!("nobody-{at}@example.com")).send().await), first);
    }
    assert_eq!(bare(&room.ask_link(ADA).header("x-forwarded-for", "192.0.2.7").send().await), first, "the 21st");
    room.worked_off().await;
    assert_eq!(room.mailed_already(ADA).await, None);
    room.forward(Duration::from_secs(3600));
    room.ask_link(ADA).send().await;
    room.mailed(ADA).await;
}

pub async fn headers_of_the_caller_decide_no_name_of_this_server(engine: Engine) {
    let room = Room::start(engine).await;
    let plain = bare(&room.get("/sign-in").send().await);
    assert!(plain.2.contains("<strong>https://hooks.example</strong>"));
    for header in ["x-forwarded-host", "x-forwarded-proto", "x-original-host", "forwarded", "referer"] {
        let page = room.get("/sign-in").header(header, "evil.example").send().await;
        assert_eq!(bare(&page), plain, "{header}");
    }
    let lying = b"GET /sign-in HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(bare(&Reply::parse(&room.raw(lying).await)), plain);
}

pub async fn what_is_not_one_address_is_refused_and_sent_nothing(engine: Engine) {
    let room = Room::start(engine).await;
    for bad in [
        "",
        "ada",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\n",
        "ada@example.com\0",
        "ada@example.com,eve@example.com",
        "ada@example.com eve@example.com",
        "Ada <ada@example.com>",
        "\"ada\"@example.com",
        "ada(x)@example.com",
        " ada@example.com",
        "ada@[127.0.0.1]",
    ] {
        let reply = room.ask_link(bad).send().await;
        assert_eq!(
            (reply.verdict().as_str(), reply.fields()),
            ("422 validation_failed", vec!["email invalid_email".to_owned()]),
            "{bad:?}"
        );
    }
    let long = format!("{}@example.com", "a".repeat(250));
    assert_eq!(room.ask_link(&long).send().await.fields(), ["email too_long"]);
    for body in [json!({}), json!({"email": ["ada@example.com"]}), json!({"email": ADA, "next": "/"}), json!([ADA])] {
        let reply = room.post("/api/auth/request-magic-link").json(&body).send().await;
        assert_eq!(reply.verdict(), "422 validation_failed", "{body}");
    }
    assert!(room.storage.platform.mail_take(room.now(), 100).await.unwrap().is_empty());
}

pub async fn a_session_goes_to_who_pressed_the_button_and_no_other_site_presses_it(engine: Engine) {
    let (room, _, _) = ada_of_acme(engine).await;
    assert_eq!(room.ask_link(ADA).send().await.status, 202);
    let token = room.mailed(ADA).await;
    // A page of somebody else would sign its visitor in as somebody else.
    for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let lured = room.verify(&token).header(name, value).send().await;
        assert_eq!((lured.verdict().as_str(), lured.header("set-cookie")), ("403 cross_site_request", None), "{value}");
        assert_eq!(room.ask_link(ADA).header(name, value).send().await.verdict(), "403 cross_site_request");
    }
    let form = room.post("/api/auth/verify-magic-link").header("content-type", "text/plain");
    assert_eq!(form.body(format!("{{\"token\":\"{token}\"}}")).send().await.verdict(), "415 unsupported_media_type");
    let page = String::from_utf8(room.get("/sign-in").send().await.body).unwrap();
    assert!(
        page.contains("in this browser?") && page.contains("<button id=\"confirm\"") && !page.contains('@'),
        "{page}"
    );
    let pressed = room.verify(&token).header("origin", OWN).header("sec-fetch-site", "same-origin").send().await;
    assert_eq!(pressed.status, 200, "{pressed:?}");
    assert!(pressed.header("set-cookie").is_some());
}

pub async fn signing_in_leads_nowhere_else(engine: Engine) {
    let (room, _, _) = ada_of_acme(engine).await;
    let plain = bare(&room.get("/sign-in").send().await);
    for next in ["//evil.example", "/%5Cevil.example", "javascript:alert(1)", "https://evil.example"] {
        for name in ["next", "redirect", "return_to"] {
            let page = room.get(&format!("/sign-in?{name}={next}")).send().await;
            assert_eq!(bare(&page), plain, "{name}={next}");
        }
    }
    assert_eq!(room.ask_link(ADA).send().await.status, 202);
    let done = room.verify(&room.mailed(ADA).await).header("referer", "https://evil.example").send().await;
    assert_eq!((done.status, done.header("location")), (200, None));
    let script = String::from_utf8(room.get("/sign-in.js").send().await.body).unwrap();
    for away in ["location.href", "location.assign", "location.replace", "location =", "innerHTML", "eval", "search"] {
        assert!(!script.contains(away), "{away}");
    }
}

pub async fn a_link_and_a_session_stand_in_no_log_no_referrer_and_no_cache(engine: Engine) {
    let (room, _, ada) = ada_of_acme(engine).await;
    assert_eq!(room.ask_link(ADA).send().await.status, 202);
    let token = room.mailed(ADA).await;
    let page = room.get(&format!("/sign-in?token={token}")).send().await;
    for (name, value) in
        [("referrer-policy", "no-referrer"), ("cache-control", "no-store"), ("x-content-type-options", "nosniff")]
    {
        assert_eq!(page.header(name), Some(value), "{page:?}");
    }
    let policy = page.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    let html = String::from_utf8(page.body).unwrap();
    assert!(!html.contains(&token) && !html.contains("onclick") && html.matches("<script").count() == 1, "{html}");
    assert!(html.contains("<script src=\"sign-in.js\" defer></script>"));
    let script = room.get("/sign-in.js").send().await;
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    let session = room.verify(&token).send().await;
    assert_eq!((session.status, session.header("cache-control")), (200, Some("no-store")));
    room.verify(&token).send().await;
    room.get("/v1/events").header("cookie", &ada.cookie).send().await;
    let text = crate::logs::kept().text();
    let secret = session.json()["token"].as_str().unwrap().to_owned();
    for hidden in [&token, &secret, &ada.token, &secret.split('.').nth(2).unwrap().to_owned()] {
        assert_eq!(text.lines().find(|line| line.contains(hidden.as_str())), None);
    }
}

/// A session token with any header and claims, signed with the installation's own key.
fn forged(room: &Room, header: &Value, claims: &Value) -> String {
    let secret = &Keyring::parse(room.keys()).unwrap().derived("session token")[0].1;
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()), message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag))
}

fn parts(token: &str) -> (Value, Value) {
    let part = |at: usize| serde_json::from_slice(&BASE64.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap();
    (part(0), part(1))
}

pub async fn a_token_of_any_other_make_is_401(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let (header, claims) = parts(&ada.token);
    assert!(counts(&room, &forged(&room, &header, &claims)).await, "the forger is able");
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        forged(&room, &header, &claims)
    };
    let (message, signature) = ada.token.rsplit_once('.').unwrap();
    let unsigned = with("alg", json!("none"));
    let other_payload = format!(
        "{}.{}.{signature}",
        message.split('.').next().unwrap(),
        BASE64.encode(claims.to_string().replace(&ada.id, &UserId::new(room.now()).to_string()))
    );
    let weak = {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), message.as_bytes());
        format!("{message}.{}", BASE64.encode(tag))
    };
    for bad in [
        unsigned.rsplit_once('.').unwrap().0.to_owned() + ".",
        unsigned.clone(),
        with("alg", json!("HS512")),
        with("alg", json!("RS256")),
        with("kid", json!("../../etc/passwd")),
        with("kid", json!("x' or '1'='1")),
        with("jku", json!("https://evil.example/jwks.json")),
        with("x5u", json!("https://evil.example/cert.pem")),
        with("jwk", json!({"kty": "oct", "k": "c2VjcmV0"})),
        with("crit", json!(["exp"])),
        with("b64", json!(false)),
        with("typ", json!("JWT")),
        other_payload,
        weak,
        message.to_owned() + ".",
        format!("{message}.{}", &signature[..20]),
        ada.token.replace('.', ".."),
    ] {
        assert!(!counts(&room, &bad).await, "{bad}");
        let cookie = format!("__Host-postroom_session={bad}");
        assert_eq!(room.get("/v1/events").header("cookie", cookie).send().await.verdict(), "401 credentials_invalid");
    }
    assert!(counts(&room, &tenant.key).await && counts(&room, &ada.token).await);
}

pub async fn a_good_signature_over_wrong_claims_is_401_and_nothing_is_believed_from_a_claim(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let bob = room.person(&tenant, "bob@example.com", "member").await;
    let (header, claims) = parts(&ada.token);
    let now = room.now().as_seconds();
    let with = |changes: &[(&str, Value)]| {
        let mut claims = claims.clone();
        for (name, value) in changes {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(*name)),
                value => claims[*name] = value.clone(),
            }
        }
        forged(&room, &header, &claims)
    };
    for bad in [
        with(&[("exp", json!(now))]),
        with(&[("exp", Value::Null)]),
        with(&[("nbf", json!(now + 3600))]),
        with(&[("iat", json!(now + 3600))]),
        with(&[("aud", json!("another-service"))]),
        with(&[("aud", Value::Null)]),
        with(&[("iss", json!("https://evil.example"))]),
        with(&[("iss", Value::Null)]),
        with(&[("jti", Value::Null)]),
        with(&[("jti", json!(SessionId::new(room.now()).to_string()))]),
        with(&[("sub", json!(bob.id))]),
        with(&[("sub", Value::Null)]),
        with(&[("org", json!("org_00000000000000000000000000000000"))]),
        with(&[("role", json!("super_admin"))]),
    ] {
        assert!(!counts(&room, &bad).await, "{:?}", parts(&bad).1);
    }
    // A token that says it lasts for ever lasts as long as its session.
    let eternal = with(&[("exp", json!(now + 1_000_000_000))]);
    assert!(counts(&room, &eternal).await);
    room.forward(Duration::from_secs(24 * 3600 + 1));
    assert!(!counts(&room, &eternal).await && !counts(&room, &ada.token).await);
}

/// Waits until a session is dead on another node, for as long as the document says.
async fn dies_on(room: &Room, token: &str) {
    let began = std::time::Instant::now();
    eventually("the session is dead", || async { (!counts(room, token).await).then_some(()) }).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "within a second, and some time for a busy machine: {took:?}");
}

pub async fn a_session_ends_everywhere_with_logout_another_role_and_removal(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let other = room.beside().await;
    assert!(counts(&other, &ada.token).await);
    let logout = room.post("/api/auth/logout").bearer(&ada.token).send().await;
    assert_eq!((logout.status, logout.body.len()), (204, 0));
    assert!(logout.header("set-cookie").unwrap().starts_with("__Host-postroom_session=; Path=/; Max-Age=0;"));
    assert!(!counts(&room, &ada.token).await, "at once where it was done");
    assert_eq!(room.post("/api/auth/logout").bearer(&ada.token).send().await.verdict(), "401 credentials_invalid");
    dies_on(&other, &ada.token).await;

    for (email, change) in
        [("promoted@example.com", json!({"role": "admin"})), ("removed@example.com", json!({"is_active": false}))]
    {
        let person = room.person(&tenant, email, "member").await;
        assert!(counts(&other, &person.token).await, "{email}");
        let path = format!("/v1/users/{}", person.id);
        let changed = room.call("PATCH", &path).bearer(&tenant.key).json(&change).send().await;
        assert_eq!(changed.status, 200, "{changed:?}");
        assert!(!counts(&room, &person.token).await, "{email}");
        dies_on(&other, &person.token).await;
    }
}

pub async fn a_logout_ends_one_session_and_takes_no_other_credential(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    room.ask_link(ADA).send().await;
    let elsewhere = room.signed_in(&room.mailed(ADA).await).await;
    assert_eq!(room.post("/api/auth/logout").send().await.verdict(), "401 credentials_missing");
    for no_session in [tenant.key.as_str(), ADMIN, "x"] {
        let reply = room.post("/api/auth/logout").bearer(no_session).send().await;
        assert_eq!(reply.verdict(), "401 credentials_invalid");
    }
    let cookie = room.post("/api/auth/logout").header("cookie", &elsewhere.cookie);
    assert_eq!(cookie.send().await.verdict(), "403 cross_site_request");
    let cookie = room.post("/api/auth/logout").header("cookie", &elsewhere.cookie).header("origin", OWN);
    assert_eq!(cookie.send().await.status, 204);
    assert!(!counts(&room, &elsewhere.token).await && counts(&room, &ada.token).await);
}

pub async fn the_cookie_is_kept_from_scripts_from_plain_http_and_from_neighbours(engine: Engine) {
    let (room, _, ada) = ada_of_acme(engine).await;
    room.ask_link(ADA).send().await;
    let signed_in = room.verify(&room.mailed(ADA).await).send().await;
    let cookie = signed_in.header("set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-postroom_session=") && !attributes.to_lowercase().contains("domain"), "{cookie}");
    assert_eq!(attributes, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax; Secure");
    let value = pair.split_once('=').unwrap().1;
    assert_eq!(signed_in.json()["token"], value);
    let read = async |cookie: &str| room.get("/v1/events").header("cookie", cookie).send().await.verdict();
    assert_eq!(read(pair).await, "200");
    assert_eq!(read(&format!("theme=dark; {pair}")).await, "200");
    // A neighbour can plant a cookie without the prefix; it is none of ours.
    assert_eq!(read(&format!("postroom_session={value}")).await, "401 credentials_missing");
    assert_eq!(read(&format!("{pair}; {}", ada.cookie)).await, "401 credentials_invalid");
}

pub async fn a_cookie_changes_something_only_from_a_page_of_this_server(engine: Engine) {
    let (room, _, ada) = ada_of_acme(engine).await;
    let body = json!({"provider": "none"});
    let write = || room.post("/v1/sources").header("cookie", &ada.cookie).json(&body);
    for origin in [
        "null",
        "",
        "http://hooks.example",
        "https://hooks.example:444",
        "https://hooks.example.evil.example",
        "https://evil-hooks.example",
        "https://hooks.example@evil.example",
        "https://hooks.example/",
    ] {
        assert_eq!(write().header("origin", origin).send().await.verdict(), "403 cross_site_request", "{origin}");
    }
    assert_eq!(write().send().await.verdict(), "403 cross_site_request", "no origin");
    for site in ["cross-site", "same-site", "none"] {
        let reply = write().header("origin", OWN).header("sec-fetch-site", site).send().await;
        assert_eq!(reply.verdict(), "403 cross_site_request", "{site}");
    }
    let twice = write().header("origin", OWN).header("origin", "https://evil.example").send().await;
    assert_eq!(twice.verdict(), "403 cross_site_request");
    // What a form can send without asking first.
    let form = room.post("/v1/sources").header("cookie", &ada.cookie).header("content-type", "text/plain");
    assert_eq!(form.header("origin", "https://evil.example").body(body.to_string()).send().await.status, 403);
    for method in ["PATCH", "DELETE"] {
        let reply = room.call(method, &format!("/v1/users/{}", ada.id)).header("cookie", &ada.cookie).json(&json!({}));
        let expected = if method == "PATCH" { "403 cross_site_request" } else { "405 method_not_allowed" };
        assert_eq!(reply.send().await.verdict(), expected);
    }
    assert_eq!(room.get("/v1/sources").header("cookie", &ada.cookie).send().await.json()["data"], json!([]));
    let own = write().header("origin", OWN).header("sec-fetch-site", "same-origin").send().await;
    assert_eq!(own.status, 201, "{own:?}");
    // A bearer token is nobody's but its sender's: it counts before the cookie, and from everywhere.
    let bearer = room.post("/v1/sources").bearer(&ada.token).header("cookie", "__Host-postroom_session=x");
    assert_eq!(bearer.json(&json!({"provider": "none", "name": "two"})).send().await.status, 201);
    let wrong = room.get("/v1/sources").bearer("x").header("cookie", &ada.cookie).send().await;
    assert_eq!(wrong.verdict(), "401 credentials_invalid");
}

pub async fn no_answer_lets_another_site_read_it(engine: Engine) {
    let (room, _, ada) = ada_of_acme(engine).await;
    for (method, path) in [
        ("GET", "/v1/events"),
        ("OPTIONS", "/v1/events"),
        ("OPTIONS", "/api/auth/verify-magic-link"),
        ("POST", "/api/auth/request-magic-link"),
        ("GET", "/sign-in"),
        ("GET", "/v1/nothing"),
    ] {
        let call = room.call(method, path).header("cookie", &ada.cookie).header("origin", "https://evil.example");
        let reply = call.header("access-control-request-method", "POST").send().await;
        let allowed = reply.headers.iter().find(|(name, _)| name.starts_with("access-control"));
        assert_eq!(allowed, None, "{method} {path}");
    }
}

pub async fn people_of_an_organization_that_is_switched_off_are_answered_like_its_keys(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let switch = async |on: bool| {
        let path = format!("/v1/organizations/{}", tenant.id);
        let reply = room.call("PATCH", &path).bearer(ADMIN).json(&json!({"is_active": on})).send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    switch(false).await;
    let person = room.get("/v1/events").bearer(&ada.token).send().await;
    assert_eq!(person.verdict(), "403 organization_inactive");
    assert_eq!(bare(&person), bare(&room.get("/v1/events").bearer(&tenant.key).send().await));
    assert_eq!(room.post("/api/auth/logout").bearer(&ada.token).send().await.status, 204, "leaving is always possible");
    assert_eq!(room.ask_link(ADA).send().await.status, 202);
    room.worked_off().await;
    assert_eq!(room.mailed_already(ADA).await, None);
}

pub async fn a_super_admin_enters_an_organization_by_naming_it_and_sees_no_secret(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    let root = room.super_admin("root@example.com").await;
    let source = json!({"provider": "none"});
    let bare_call = room.post("/v1/sources").bearer(&root.token).json(&source).send().await;
    assert_eq!(bare_call.verdict(), "400 organization_required");
    let named = |name: &str| room.post("/v1/sources").bearer(&root.token).header("postroom-organization", name);
    assert_eq!(named("nobody").json(&source).send().await.verdict(), "404 organization_not_found");
    assert_eq!(named(&tenant.slug).json(&source).send().await.status, 201);
    let endpoint = room.endpoint(&tenant).await;
    let secret = room.get(&format!("/v1/endpoints/{endpoint}/secret"));
    assert_eq!(
        secret.bearer(&root.token).header("postroom-organization", &tenant.slug).send().await.verdict(),
        "403 forbidden"
    );
    // A person of an organization enters no other, however it is named.
    let other = room.tenant("Other").await;
    for name in [other.slug.as_str(), other.id.as_str(), "nobody"] {
        let reply = room.get("/v1/events").bearer(&ada.token).header("postroom-organization", name).send().await;
        assert_eq!(reply.verdict(), "404 organization_not_found", "{name}");
    }
    for name in [tenant.slug.as_str(), tenant.id.as_str()] {
        let reply = room.get("/v1/events").bearer(&ada.token).header("postroom-organization", name).send().await;
        assert_eq!(reply.status, 200, "{name}");
    }
    assert_eq!(
        room.get(&format!("/v1/users/{}", root.id)).bearer(&ada.token).send().await.verdict(),
        "404 user_not_found"
    );
}

pub async fn a_database_holds_no_link_and_no_session_in_the_clear(engine: Engine) {
    let (room, tenant, ada) = ada_of_acme(engine).await;
    room.ask_link(ADA).send().await;
    let used = room.mailed(ADA).await;
    room.signed_in(&used).await;
    room.invited(&tenant, "eve@example.com", "admin").await;
    let waiting = room.storage.platform.mail_take(room.now(), 10).await.unwrap();
    let signature = ada.token.rsplit_once('.').unwrap().1;
    let stored = room.stored().await;
    let holds = |needle: &[u8]| {
        // PostgreSQL shows bytes as hexadecimal digits.
        let shown = hex::encode_upper(needle);
        [needle, shown.as_bytes()].iter().any(|text| stored.windows(text.len()).any(|window| window == *text))
    };
    assert!(holds(ADA.as_bytes()) && holds(&waiting[0].token.hash().to_bytes()), "what is stored was read");
    for hidden in [used.as_str(), waiting[0].token.expose_str(), signature] {
        assert!(!holds(hidden.as_bytes()) && !holds(&BASE64.decode(hidden).unwrap()));
    }
}
