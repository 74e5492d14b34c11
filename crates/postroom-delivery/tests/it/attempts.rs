//! One attempt: what is sent, and what every kind of answer is worth.

use std::time::Duration;

use postroom_domain::DeliveryId;
use postroom_domain::delivery::{AttemptError, DeadReason, DeliveryStatus, RetrySchedule};
use postroom_domain::endpoint::{CustomHeader, EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::signing::{self, Signer};
use postroom_storage::SuperAdmin;
use postroom_storage::api::{EndpointView, Rotation};
use postroom_storage::platform::OrganizationChange;
use postroom_storage::worker::Transition;

use crate::receiver::{Receiver, Reply, Request, Then};
use crate::room::{Room, verifier};
use crate::watched::Recorded;

#[tokio::test]
async fn an_event_arrives_byte_for_byte_signed_and_with_the_headers_it_needs() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room
        .endpoint_with(&receiver.url("/hook?a=b"), |settings| {
            settings.headers = vec![CustomHeader::new("Authorization", "Bearer t0ken".into()).unwrap()];
        })
        .await;
    let body = "{\"type\" : \"order.paid\", \"é\":\u{1}}\r\n";
    let event = room.record_body(&target, body).await;
    let recorded = room.attempts(1).await.remove(0);
    let request = receiver.requests().remove(0);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook?a=b"));
    assert_eq!(request.body, body.as_bytes());
    for (name, value) in [
        ("host", receiver.address.to_string()),
        ("content-type", "application/json".into()),
        ("content-length", body.len().to_string()),
        ("user-agent", "Postroom/1.2.3".into()),
        ("authorization", "Bearer t0ken".into()),
        ("webhook-id", event.to_string()),
        ("webhook-timestamp", room.now().as_seconds().to_string()),
    ] {
        assert_eq!(request.headers[name], value, "{name}");
    }
    assert_eq!(request.headers.len(), 8, "and the signature, and nothing else: {:?}", request.headers);
    room.verifier().verify(&request.body, &request.headers).unwrap();
    assert!(room.verifier().verify(b"another body", &request.headers).is_err());

    let Recorded { delivery, attempt, next } = recorded;
    assert_eq!((delivery.event, delivery.endpoint_number, next, attempt.number), (event, 1, Transition::Done, 1));
    assert_eq!(attempt.url, receiver.url("/hook?a=b"));
    let response = attempt.response.as_ref().unwrap();
    assert_eq!((response.status, &response.body[..], attempt.error), (200, &b"ok"[..], None));
    assert_eq!(response.headers, [("content-length".to_owned(), "2".to_owned())]);
    let seen = room.storage.api.delivery_get(&room.acme, delivery).await.unwrap();
    assert_eq!((seen.status, seen.attempts, seen.last_status), (DeliveryStatus::Success, 1, Some(200)));
}

#[tokio::test]
async fn while_a_secret_rotates_the_receiver_may_know_the_old_one_or_the_new_one() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let new = signing::generate(SignatureScheme::HmacSha256);
    let rotation = Rotation { secret: new.clone(), grace_seconds: 3600 };
    room.storage.api.endpoint_rotate(&room.acme, target.id, rotation, room.now()).await.unwrap();
    room.attempt_at(&target).await;
    room.pass(Duration::from_secs(3601));
    room.attempt_at(&target).await;
    let [during, after] = [0, 1].map(|n| receiver.requests()[n].clone());
    let signatures = |request: &Request| request.headers["webhook-signature"].to_str().unwrap().split(' ').count();
    assert_eq!((signatures(&during), signatures(&after)), (2, 1));
    for secret in [room.verifier(), verifier(&new)] {
        secret.verify(&during.body, &during.headers).unwrap();
    }
    // An hour later the reference library would call the time wrong, so the signature is compared by hand.
    let id = after.headers["webhook-id"].to_str().unwrap();
    let signed = Signer::new(&[new]).unwrap().signature_header(id, room.now().as_seconds(), &after.body);
    assert_eq!(after.headers["webhook-signature"], signed);
}

/// What comes back, and what is recorded: status, error, success.
type Case = (&'static str, Reply, Option<u16>, Option<AttemptError>, bool);

fn answers() -> Vec<Case> {
    use AttemptError::{Connect, Protocol, Timeout};
    let head = |status: &str, rest: &str| format!("HTTP/1.1 {status} X\r\n{rest}\r\n");
    let many = |count: usize| head("200", &format!("content-length: 0\r\n{}", "a: b\r\n".repeat(count - 1)));
    let keep = |bytes: String| Reply::raw(bytes, Then::KeepAlive);
    let ending = |bytes: String, then| Reply::raw(bytes, then);
    vec![
        ("204", keep(head("204", "")), Some(204), None, true),
        ("299", Reply::status(299), Some(299), None, true),
        ("body until close", ending(head("200", "") + "all", Then::Close), Some(200), None, true),
        ("chunks", keep(head("200", "transfer-encoding: chunked\r\n") + "2\r\nok\r\n0\r\n\r\n"), Some(200), None, true),
        (
            "early hints",
            keep(head("103", "link: x\r\n") + &head("200", "content-length: 0\r\n")),
            Some(200),
            None,
            true,
        ),
        ("gzip by name only", Reply::with(200, "content-encoding: gzip\r\n"), Some(200), None, true),
        ("100 headers", keep(many(100)), Some(200), None, true),
        ("300", Reply::status(300), Some(300), None, false),
        ("304", keep(head("304", "")), Some(304), None, false),
        ("400", Reply::status(400), Some(400), None, false),
        ("404", Reply::status(404), Some(404), None, false),
        ("500", Reply::status(500), Some(500), None, false),
        ("999", Reply::status(999), Some(999), None, false),
        ("upgrade", keep(head("101", "upgrade: websocket\r\nconnection: upgrade\r\n")), Some(101), None, false),
        // Status and headers are complete: they decide, whatever happens to the body.
        (
            "200, then cut",
            ending(head("200", "content-length: 9\r\n") + "o", Then::Close),
            Some(200),
            Some(Protocol),
            true,
        ),
        (
            "200, then reset",
            ending(head("200", "content-length: 9\r\n") + "o", Then::Reset),
            Some(200),
            Some(Protocol),
            true,
        ),
        (
            "200, then silence",
            ending(head("200", "content-length: 9\r\n") + "o", Then::Hang),
            Some(200),
            Some(Timeout),
            true,
        ),
        (
            "500, then silence",
            ending(head("500", "content-length: 9\r\n") + "o", Then::Hang),
            Some(500),
            Some(Timeout),
            false,
        ),
        (
            "200, bad chunk",
            keep(head("200", "transfer-encoding: chunked\r\n") + "zz\r\n"),
            Some(200),
            Some(Protocol),
            true,
        ),
        ("101 headers", keep(many(101)), None, Some(Protocol), false),
        ("20,000 headers", keep(many(20_000)), None, Some(Protocol), false),
        (
            "a header of 1 MiB",
            keep(head("200", &format!("a: {}\r\n", "b".repeat(1 << 20)))),
            None,
            Some(Protocol),
            false,
        ),
        ("status line without end", ending("HTTP/1.1 200 ".into(), Then::Hang), None, Some(Timeout), false),
        ("200, headers cut", ending("HTTP/1.1 200 OK\r\na: b\r\n".into(), Then::Close), None, Some(Connect), false),
        ("garbage", keep("\0\x01\u{fffd} garbage\r\n\r\n".into()), None, Some(Protocol), false),
        ("another protocol", keep("SSH-2.0-OpenSSH_9.2\r\n".into()), None, Some(Protocol), false),
        ("two lengths", keep(head("200", "content-length: 1\r\ncontent-length: 2\r\n")), None, Some(Protocol), false),
        ("silence", Reply::hang(), None, Some(Timeout), false),
        ("closed", ending(String::new(), Then::Close), None, Some(Connect), false),
        ("reset", ending(String::new(), Then::Reset), None, Some(Connect), false),
        (
            "headers drop by drop",
            ending("HTTP/1.1 200 OK\r\na: ".to_owned() + &"b".repeat(999), Then::Drip),
            None,
            Some(Timeout),
            false,
        ),
        ("hints for ever", ending(head("103", "link: x\r\n"), Then::Endless), None, Some(Timeout), false),
    ]
}

#[tokio::test]
async fn every_kind_of_answer_has_its_meaning_within_the_deadline() {
    let room = Room::started().await;
    let mut receivers = Vec::new();
    for (name, reply, status, error, success) in answers() {
        let receiver = Receiver::always(reply).await;
        // What ends by itself has all the time it needs on a busy machine.
        let timeout_ms = if error == Some(AttemptError::Timeout) { 2_000 } else { 14_000 };
        let settings = |settings: &mut EndpointSettings| settings.timeout_ms = Some(timeout_ms);
        let target = room.endpoint_with(&receiver.url("/"), settings).await;
        let event = room.record(&target).await;
        receivers.push((receiver, event, name, status, error, success));
    }
    let attempts = room.attempts(receivers.len()).await;
    for (receiver, event, name, status, error, success) in receivers {
        let Recorded { attempt, next, .. } = attempts.iter().find(|one| one.delivery.event == event).unwrap();
        let answered = attempt.response.as_ref().map(|response| response.status);
        assert_eq!((answered, attempt.error), (status, error), "{name}");
        assert_eq!(*next == Transition::Done, success, "{name}: {next:?}");
        assert!(attempt.duration < Duration::from_secs(10), "{name} took {:?}", attempt.duration);
        assert_eq!(receiver.count(), 1, "{name}: one attempt is one request");
    }
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_kept_and_the_connection_is_dropped() {
    let room = Room::started().await;
    let kib = |n: usize| "x".repeat(n << 10);
    let endless = Reply::raw(format!("HTTP/1.1 200 X\r\n\r\n{}", kib(64)), Then::Endless);
    let long =
        |n| Reply::raw(format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{}", n << 10, kib(n)), Then::KeepAlive);
    for (reply, reused) in [(endless, false), (long(1024), false), (long(17), true)] {
        let receiver = Receiver::always(reply).await;
        let target = room.endpoint(&receiver.url("/")).await;
        let Recorded { attempt, next, .. } = room.attempt_at(&target).await;
        assert_eq!((attempt.error, next), (None, Transition::Done));
        assert_eq!(attempt.response.as_ref().unwrap().body, kib(16));
        if !reused {
            receiver.all_ended().await;
        }
        room.attempt_at(&target).await;
        assert_eq!(receiver.connections(), if reused { 1 } else { 2 });
    }
}

#[tokio::test]
async fn redirects_are_failures_and_are_not_followed() {
    let room = Room::started().await;
    let elsewhere = Receiver::always(Reply::status(200)).await;
    let location = format!("location: {}\r\n", elsewhere.url("/"));
    let statuses = [301, 302, 303, 307, 308];
    let receiver = Receiver::new(move |n, _| Reply::with(statuses[n], &location)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    for status in statuses {
        let Recorded { attempt, next, .. } = room.attempt_at(&target).await;
        assert_eq!(attempt.response.as_ref().unwrap().status, status);
        assert!(matches!(next, Transition::Wait(_)), "{status}: {next:?}");
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_failed_delivery_follows_the_schedule_and_then_is_a_dead_letter() {
    let room = Room::started().await;
    let receiver = Receiver::new(|n, _| Reply::status([500, 503, 404, 500, 200][n])).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let event = room.record(&target).await;
    for (n, seconds) in [(1, 60), (2, 300), (3, 900)] {
        let attempts = room.attempts(n).await;
        let Transition::Wait(at) = attempts[n - 1].next else { panic!("{:?}", attempts[n - 1].next) };
        let wait = at.since(room.now());
        let most = Duration::from_millis(seconds * 1100);
        assert!((Duration::from_secs(seconds)..=most).contains(&wait), "{wait:?} after attempt {n}");
        room.pass(wait);
    }
    let attempts = room.attempts(4).await;
    assert_eq!(attempts[3].next, Transition::Dead(DeadReason::RetriesExhausted));
    let numbers: Vec<_> = attempts.iter().map(|one| (one.delivery.event, one.attempt.number)).collect();
    assert_eq!(numbers, [(event, 1), (event, 2), (event, 3), (event, 4)]);
    let ids: Vec<_> = receiver.requests().iter().map(|r| r.headers["webhook-id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one event, one webhook-id: {ids:?}");
    assert_eq!(receiver.count(), 4);
}

#[tokio::test]
async fn a_dead_letter_that_a_person_requeues_begins_its_schedule_again() {
    let room = Room::started().await;
    let receiver = Receiver::new(|n, _| Reply::status(if n < 2 { 500 } else { 200 })).await;
    let target = room.endpoint_with(&receiver.url("/"), |settings| settings.retry_schedule = schedule(&[])).await;
    let dead = room.attempt_at(&target).await;
    assert_eq!(dead.next, Transition::Dead(DeadReason::RetriesExhausted));
    for (number, next) in [(2, Transition::Dead(DeadReason::RetriesExhausted)), (3, Transition::Done)] {
        let view = room.storage.api.dead_letter_requeue(&room.acme, dead.delivery, room.now()).await.unwrap();
        assert_eq!(view.id, dead.delivery);
        let attempts = room.attempts(number).await;
        let last = &attempts[number - 1];
        assert_eq!((last.delivery, last.attempt.number as usize, last.next), (dead.delivery, number, next));
    }
    let seen = room.storage.api.delivery_get(&room.acme, dead.delivery).await.unwrap();
    assert_eq!((seen.status, seen.attempts), (DeliveryStatus::Success, 3));
}

#[tokio::test]
async fn a_failed_delivery_that_a_person_tries_now_is_tried_now() {
    let room = Room::started().await;
    let receiver = Receiver::new(|n, _| Reply::status([500, 200][n])).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let failed = room.attempt_at(&target).await;
    assert!(matches!(failed.next, Transition::Wait(_)));
    room.storage.api.delivery_retry(&room.acme, failed.delivery, room.now()).await.unwrap();
    assert_eq!(room.attempts(2).await[1].next, Transition::Done);
}

#[tokio::test]
async fn a_replay_is_a_delivery_of_its_own_with_the_id_of_the_event() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let original = room.attempt_at(&target).await.delivery;
    room.storage.api.event_replay(&room.acme, original.event, None, room.now()).await.unwrap();
    let replayed = room.attempts(2).await.remove(1);
    assert_eq!((replayed.delivery.event, replayed.delivery.run, replayed.next), (original.event, 1, Transition::Done));
    let ids: Vec<_> = receiver.requests().iter().map(|request| request.headers["webhook-id"].clone()).collect();
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn retry_after_is_respected_within_limits_where_it_means_something() {
    let room = Room::started().await;
    let date = |seconds: i64| {
        #[allow(clippy::disallowed_methods)]
        let at = std::time::SystemTime::now() + Duration::from_secs(seconds.unsigned_abs());
        httpdate::fmt_http_date(at)
    };
    // The first wait of the schedule is 60 s and up to 6 s of jitter; twice that is the limit.
    for (status, asked, least, most) in [
        (429, "90".to_owned(), 90, 90),
        (502, "90".to_owned(), 90, 90),
        (503, "90".to_owned(), 90, 90),
        (504, "90".to_owned(), 90, 90),
        (503, "1".to_owned(), 60, 66),
        (503, "100000000000000000000".to_owned(), 120, 120),
        (503, date(100), 95, 101),
        (503, date(10_000_000), 120, 120),
        (503, "Thu, 01 Jan 1970 00:00:00 GMT".to_owned(), 60, 66),
        (503, "soon".to_owned(), 60, 66),
        (500, "90".to_owned(), 60, 66),
        (404, "90".to_owned(), 60, 66),
        (301, "90".to_owned(), 60, 66),
    ] {
        let receiver = Receiver::always(Reply::with(status, &format!("retry-after: {asked}\r\n"))).await;
        let target = room.endpoint(&receiver.url("/")).await;
        let Transition::Wait(at) = room.attempt_at(&target).await.next else { panic!("{status}") };
        let wait = at.since(room.now());
        let range = Duration::from_secs(least)..=Duration::from_secs(most);
        assert!(range.contains(&wait), "{status} with {asked}: {wait:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled_and_the_delivery_is_a_dead_letter() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(410)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let gone = room.attempt_at(&target).await;
    assert_eq!(gone.next, Transition::Dead(DeadReason::EndpointGone));
    room.until(|seen| (seen.gone == [target.number]).then_some(())).await;
    let endpoint = room.storage.api.endpoint_get(&room.acme, target.id).await.unwrap();
    assert_eq!((endpoint.is_enabled, endpoint.disabled_reason), (false, Some("gone")));
    let seen = room.storage.api.delivery_get(&room.acme, gone.delivery).await.unwrap();
    assert_eq!((seen.status, seen.dead_reason), (DeliveryStatus::DeadLetter, Some(DeadReason::EndpointGone)));
}

#[tokio::test]
async fn nothing_is_sent_to_a_blocked_endpoint_and_its_deliveries_are_dead_letters() {
    let mut room = Room::new().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let other = room.organization("other").await;
    let disabled = room.endpoint(&receiver.url("/")).await;
    let deleted = room.endpoint(&receiver.url("/")).await;
    let inactive = room.endpoint_of(&other, &receiver.url("/"), |_| {}).await;
    for target in [&disabled, &deleted, &inactive] {
        room.record(target).await;
    }
    let (api, platform, now) = (&room.storage.api, &room.storage.platform, room.now());
    api.endpoint_set_enabled(&room.acme, disabled.id, false, now).await.unwrap();
    api.endpoint_delete(&room.acme, deleted.id, now).await.unwrap();
    let off = OrganizationChange { is_active: Some(false), ..Default::default() };
    platform.organization_update(SuperAdmin::by_operator(), other.organization(), off, now).await.unwrap();
    room.start();
    let moved = room.until(|seen| (seen.moved.len() == 3).then(|| seen.moved.clone())).await;
    for (number, reason) in [
        (disabled.number, DeadReason::EndpointDisabled),
        (deleted.number, DeadReason::EndpointDeleted),
        (inactive.number, DeadReason::OrganizationInactive),
    ] {
        assert!(moved.contains(&(number, reason)), "{reason:?} in {moved:?}");
    }
    assert_eq!((receiver.count(), room.recorded()), (0, 0));
}

#[tokio::test]
async fn an_endpoint_whose_secret_can_not_be_used_fails_without_a_request() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    room.watched.seen.lock().mute = Some(target.number);
    let Recorded { attempt, next, .. } = room.attempt_at(&target).await;
    assert_eq!(attempt.error, Some(AttemptError::Configuration));
    assert!(attempt.response.is_none() && matches!(next, Transition::Wait(_)));
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn an_attempt_uses_the_configuration_of_its_moment() {
    let room = Room::started().await;
    let [old, new] = [Receiver::always(Reply::status(500)).await, Receiver::always(Reply::status(200)).await];
    let target = room.endpoint(&old.url("/old")).await;
    room.attempt_at(&target).await;
    let EndpointView { mut settings, version, .. } =
        room.storage.api.endpoint_get(&room.acme, target.id).await.unwrap();
    settings.url = EndpointUrl::parse(&new.url("/new")).unwrap();
    room.storage.api.endpoint_update(&room.acme, target.id, version, settings, room.now()).await.unwrap();
    room.pass(Duration::from_secs(66));
    let attempts = room.attempts(2).await;
    assert_eq!(attempts[1].attempt.url, new.url("/new"));
    assert_eq!((old.count(), new.count()), (1, 1));
}

#[tokio::test]
async fn connections_are_used_again_and_one_that_died_idle_costs_nothing() {
    let room = Room::started().await;
    // Ends the connection on its third request, without a word, as a server does whose idle time is over.
    let receiver = Receiver::new(|n, _| if n == 2 { Reply::raw("", Then::Close) } else { Reply::status(200) }).await;
    let target = room.endpoint(&receiver.url("/")).await;
    for _ in 1..=4 {
        let Recorded { attempt, next, .. } = room.attempt_at(&target).await;
        assert_eq!((attempt.number, next), (1, Transition::Done));
    }
    let connections: Vec<_> = receiver.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 1]);
}

#[tokio::test]
async fn a_connection_that_the_receiver_closed_is_not_used_again() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::with(200, "connection: close\r\n")).await;
    let target = room.endpoint(&receiver.url("/")).await;
    for _ in 1..=3 {
        room.attempt_at(&target).await;
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn a_delivery_is_shown_as_processing_while_its_attempt_is_under_way() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::hang()).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let event = room.record(&target).await;
    let delivery = DeliveryId { event, endpoint_number: target.number, run: 0 };
    let status = async || room.storage.api.delivery_get(&room.acme, delivery).await.unwrap().status;
    receiver.arrived(1).await;
    assert_eq!(status().await, DeliveryStatus::Processing);
    receiver.release();
    room.attempts(1).await;
    crate::soon(async { while status().await != DeliveryStatus::Success {} }).await;
}

fn schedule(seconds: &[u64]) -> Option<RetrySchedule> {
    Some(RetrySchedule::new(seconds).unwrap())
}
