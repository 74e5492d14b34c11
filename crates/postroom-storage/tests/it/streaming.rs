//! The live stream.

use std::time::Duration;

use futures_util::StreamExt;
use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::{AttemptId, EventId};
use postroom_storage::api::{Activity, ActivityId, ActivityStream};
use postroom_storage::worker::Transition;

use crate::support::{Harness, Room, settlement};

/// What a test compares of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Event(EventId),
    Attempt(AttemptId, DeliveryStatus),
    Gap(Option<u64>),
}

async fn next(stream: &mut ActivityStream) -> Option<(ActivityId, Seen)> {
    let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("nothing happens");
    item.map(|(id, activity)| {
        let seen = match activity {
            Activity::Event(event) => Seen::Event(event.id),
            Activity::Attempt(delivery, attempt) => Seen::Attempt(attempt.attempt.id, delivery.status),
            Activity::Gap(missed) => Seen::Gap(missed),
        };
        (id, seen)
    })
}

/// The next so many items; the id of the last.
async fn take(stream: &mut ActivityStream, count: usize) -> (Vec<Seen>, ActivityId) {
    let (mut seen, mut last) = (Vec::new(), ActivityId([0; 16]));
    for _ in 0..count {
        let (id, item) = next(stream).await.expect("the stream ended");
        seen.push(item);
        last = id;
    }
    (seen, last)
}

pub async fn a_stream_shows_what_happens_in_its_own_organization<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;
    room.send(&acme, "before").await;
    room.handed_over();
    let mut stream = room.storage.api.activity(&acme.scope, None).await.unwrap();
    let mut others = room.storage.api.activity(&other.scope, None).await.unwrap();
    let event = room.send(&acme, "a").await.id;
    let foreign = room.send(&other, "a").await.id;
    let (stored, endpoint) = room.handed_over().pop().unwrap();
    let done = settlement(event, stored.delivery(endpoint), 1, 200, Transition::Done, room.now());
    let attempt = done.attempt.id;
    room.storage.worker.attempt_settle(done).await.unwrap();
    let (seen, _) = take(&mut stream, 2).await;
    assert_eq!(seen, [Seen::Event(event), Seen::Attempt(attempt, DeliveryStatus::Success)]);
    assert_eq!(take(&mut others, 1).await.0, [Seen::Event(foreign)]);
    room.storage.platform.close().await.unwrap();
    assert_eq!(next(&mut stream).await, None, "it ends when the database is closed");
    assert_eq!(next(&mut others).await, None);
}

pub async fn a_stream_resumes_where_it_was_without_gap_or_double<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;
    let mut first = room.storage.api.activity(&acme.scope, None).await.unwrap();
    let mut all = Vec::new();
    for n in 0..700_u32 {
        all.push(Seen::Event(room.send(&acme, "a").await.id));
        room.hands.forward(Duration::from_millis(1));
        if n % 100 == 0 {
            room.send(&other, "a").await;
            let (stored, endpoint) = room.handed_over().pop().unwrap();
            let done = settlement(stored.id, stored.delivery(endpoint), 1, 200, Transition::Done, room.now());
            all.push(Seen::Attempt(done.attempt.id, DeliveryStatus::Success));
            room.storage.worker.attempt_settle(done).await.unwrap();
            room.hands.forward(Duration::from_millis(1));
        }
    }
    let (seen, here) = take(&mut first, 10).await;
    assert_eq!(seen, all[..10]);
    for (from, after) in [(10, here), (0, ActivityId([0; 16]))] {
        let mut resumed = room.storage.api.activity(&acme.scope, Some(after)).await.unwrap();
        let (seen, _) = take(&mut resumed, 100).await;
        assert_eq!(seen, all[from..from + 100]);
        all.push(Seen::Event(room.send(&acme, "meanwhile").await.id));
        let rest = all.len() - from - 100;
        let (seen, last) = take(&mut resumed, rest).await;
        assert_eq!(seen, all[from + 100..]);
        all.push(Seen::Event(room.send(&acme, "live").await.id));
        assert_eq!(take(&mut resumed, 1).await.0, all[all.len() - 1..]);
        let mut at_the_end = room.storage.api.activity(&acme.scope, Some(last)).await.unwrap();
        assert_eq!(take(&mut at_the_end, 1).await.0, all[all.len() - 1..]);
    }
}

pub async fn a_reader_that_is_too_slow_is_told_what_it_missed_and_can_go_back_for_it<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let mut stream = room.storage.api.activity(&acme.scope, None).await.unwrap();
    let mut all = vec![Seen::Event(room.send(&acme, "a").await.id)];
    let (_, first) = take(&mut stream, 1).await;
    let mut quick = room.storage.api.activity(&acme.scope, None).await.unwrap();
    let sends = async {
        for _ in 0..1_034 {
            all.push(Seen::Event(room.send(&acme, "a").await.id));
        }
    };
    let ((seen, _), ()) = tokio::join!(take(&mut quick, 1_034), sends);
    assert_eq!(seen, all[1..], "a quick one sees everything");
    let (place, gap) = next(&mut stream).await.unwrap();
    assert_eq!((place, gap), (first, Seen::Gap(Some(10))));
    assert_eq!(take(&mut stream, 3).await.0, all[11..14]);
    let mut resumed = room.storage.api.activity(&acme.scope, Some(place)).await.unwrap();
    assert_eq!(take(&mut resumed, all.len() - 1).await.0, all[1..]);

    let from_another_database = ActivityId([0x7f; 16]);
    let mut lost = room.storage.api.activity(&acme.scope, Some(from_another_database)).await.unwrap();
    let live = Seen::Event(room.send(&acme, "a").await.id);
    assert_eq!(take(&mut lost, 2).await.0, [Seen::Gap(None), live]);
}
