//! Days of the log: made ahead, dropped when they are old, kept as long as somebody waits.

use std::time::Duration;

use postroom_domain::Timestamp;
use uuid::Uuid;

use super::super::pool::Part;
use super::super::retention::{Upkeep, make_partitions};
use super::Room;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// 2026-11-22T10:00:00Z.
fn start() -> Timestamp {
    Timestamp::from_millis(1_795_341_600_000)
}

impl Room {
    fn upkeep(&self) -> Upkeep {
        Upkeep::new(self.pool(Part::Platform), 7 * DAY, 30 * DAY)
    }

    async fn days(&self) -> Vec<String> {
        let sql = "select relname from pg_inherits join pg_class on pg_class.oid = inhrelid \
             where inhparent = 'events'::regclass order by relname";
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Events of two organizations at a moment, each with an attempt, a dead letter, a replay and an id of the sender's.
    async fn fill(&self, at: Timestamp, events: u64) -> Vec<Uuid> {
        let mut ids = Vec::new();
        for n in 0..events {
            let low = (u128::from(n) << 32) | u128::from(Uuid::now_v7().as_u128() as u32);
            let id = Uuid::from_u128((u128::try_from(at.as_millis()).unwrap() << 80) | low);
            let org = n % 2 + 1;
            let sql = format!(
                "insert into events (org, id, node, tx, counted, type, targets, headers, body) \
                   values ({org}, '{id}', 1, txid_current(), true, 'a', '\\x0000000780000001', '', ''); \
                 insert into attempts values ({org}, 7, '{id}', 0, '{id}', 1, 1, true, 200, null, 1, now(), 'u'), \
                   ({org}, 2147483649, '{id}', 0, '{id}', 1, 1, false, 500, null, 1, now(), 'u'), \
                   ({org}, 9, '{id}', 1, '{id}', 1, 1, true, 200, null, 1, now(), 'u'); \
                 insert into exceptions values ({org}, 2147483649, '{id}', 0, 'dead_letter', now(), 1, 1, 'x', now()); \
                 insert into replays values ({org}, '{id}', 9, 1, now(), 'x'); \
                 insert into duplicate_guard values ({org}, '{id}', '{id}')"
            );
            self.run(&sql).await;
            ids.push(id);
        }
        ids
    }

    async fn rows(&self) -> [i64; 5] {
        [
            self.count("events").await,
            self.count("attempts").await,
            self.count("exceptions").await,
            self.count("replays").await,
            self.count("duplicate_guard").await,
        ]
    }
}

async fn all(upkeep: &Upkeep, now: Timestamp) -> u32 {
    let mut steps = 1;
    while upkeep.step(now).await.unwrap() {
        steps += 1;
        assert!(steps < 100, "upkeep ends");
    }
    steps
}

#[tokio::test]
async fn days_are_made_from_yesterday_to_three_days_ahead_of_the_clock() {
    let room = Room::new().await;
    let expected =
        |days: std::ops::RangeInclusive<u32>| days.map(|day| format!("events_202611{day}")).collect::<Vec<_>>();
    let pool = room.pool(Part::Platform);
    let at_once = (0..4).map(|_| make_partitions(&pool, start()));
    for made in futures_util::future::join_all(at_once).await {
        made.unwrap();
    }
    assert_eq!(room.days().await, expected(21..=25));
    let midnight = Timestamp::from_millis(start().as_millis() + 14 * 3_600_000);
    make_partitions(&pool, midnight - Duration::from_millis(1)).await.unwrap();
    assert_eq!(room.days().await, expected(21..=25));
    make_partitions(&pool, midnight).await.unwrap();
    assert_eq!(room.days().await, expected(21..=26));
    room.fill(midnight - Duration::from_millis(1), 1).await;
    room.fill(midnight, 1).await;
    assert_eq!(room.count("events_20261122").await, 1);
    assert_eq!(room.count("events_20261123").await, 1);
    assert_eq!(room.count("attempts_20261123").await, 3, "attempts go by the event's day");
}

#[tokio::test]
async fn a_day_goes_when_all_of_it_is_old_and_not_before() {
    let room = Room::new().await;
    let upkeep = room.upkeep();
    all(&upkeep, start()).await;
    room.fill(start(), 3).await;
    let last = Timestamp::from_millis(start().as_millis() + 14 * 3_600_000 - 1) + 30 * DAY;
    all(&upkeep, last).await;
    assert_eq!(room.rows().await, [3, 9, 3, 3, 0], "only the senders' ids are forgotten earlier");
    assert!(all(&upkeep, last + Duration::from_millis(1)).await > 1);
    assert_eq!(room.rows().await, [0; 5]);
    let days = room.days().await;
    assert!(!days.contains(&"events_20261122".to_owned()) && days.contains(&"events_20261123".to_owned()), "{days:?}");
    assert!(!upkeep.step(last + Duration::from_millis(1)).await.unwrap(), "nothing is left to do");
}

#[tokio::test]
async fn a_day_in_which_deliveries_wait_is_kept_for_them_alone() {
    let room = Room::new().await;
    let upkeep = room.upkeep();
    all(&upkeep, start()).await;
    all(&upkeep, start() + DAY).await;
    let mut waiting = Vec::new();
    for at in [start(), start() + DAY] {
        // More of both kinds than a page has.
        for (n, id) in room.fill(at, 450).await.into_iter().enumerate() {
            if n % 2 == 0 || n > 420 {
                waiting.push(id);
            }
        }
    }
    for id in &waiting {
        room.run(&format!("update exceptions set state = 'waiting' where event = '{id}'")).await;
    }
    let later = start() + 40 * DAY;
    all(&upkeep, later).await;
    let left = i64::try_from(waiting.len()).unwrap();
    assert_eq!(room.rows().await, [left, left * 3, left, left, 0]);
    let ended = format!("delete from exceptions where event <> '{}'", waiting[0]);
    room.run(&ended).await;
    all(&upkeep, later).await;
    assert_eq!(room.rows().await, [1, 3, 1, 1, 0]);
    assert_eq!(room.days().await.iter().filter(|day| day.as_str() < "events_20261201").count(), 1);
    room.run("delete from exceptions").await;
    all(&upkeep, later).await;
    assert_eq!(room.rows().await, [0; 5]);
}

#[tokio::test]
async fn senders_ids_are_forgotten_page_after_page_and_the_walk_begins_anew() {
    let room = Room::new().await;
    let upkeep = room.upkeep();
    // More pages than two steps take, with the old ones all over them.
    let fill = |from: u32| {
        format!(
            "insert into duplicate_guard select 1, md5(n::text)::uuid, \
               (case n % 3 when 0 then day_floor('2026-11-22') else day_floor('2026-11-01') end) \
             from generate_series({from}, {from} + 59999) as n"
        )
    };
    for round in 0..2 {
        room.run(&fill(round * 60_000)).await;
        for _ in 0..8 {
            all(&upkeep, start()).await;
        }
        assert_eq!(room.count("duplicate_guard").await, i64::from(round + 1) * 20_000);
    }
}

#[tokio::test]
async fn many_processes_that_do_it_at_once_do_it_once() {
    let room = Room::new().await;
    let upkeep: Vec<_> = (0..4).map(|_| room.upkeep()).collect();
    all(&upkeep[0], start()).await;
    room.fill(start(), 20).await;
    for result in futures_util::future::join_all(upkeep.iter().map(|one| one.step(start() + 40 * DAY))).await {
        result.unwrap();
    }
    all(&upkeep[3], start() + 40 * DAY).await;
    assert_eq!(room.rows().await, [0; 5]);
}

#[tokio::test]
async fn what_a_node_has_not_settled_stays_however_old_it_is() {
    let room = Room::new().await;
    let upkeep = room.upkeep();
    all(&upkeep, start()).await;
    room.run("insert into nodes (lease_until, watermark, counted, delivers) values (now(), txid_current(), txid_current(), true)").await;
    room.fill(start(), 1).await;
    let later = start() + 40 * DAY;
    all(&upkeep, later).await;
    assert_eq!(room.count("events").await, 1);
    room.run("update nodes set state = 'dead'").await;
    all(&upkeep, later).await;
    assert_eq!(room.count("events").await, 1, "recovery has yet to look at it");
    room.run("update nodes set state = 'recovered'").await;
    all(&upkeep, later).await;
    assert_eq!(room.count("events").await, 0);
}

#[tokio::test]
async fn whoever_reads_for_long_is_waited_for_only_shortly_and_tried_again() {
    let room = Room::new().await;
    let upkeep = room.upkeep();
    all(&upkeep, start()).await;
    room.fill(start(), 1).await;
    let later = start() + 40 * DAY;
    room.run("begin; select from events").await;
    all(&upkeep, later).await;
    assert_eq!(room.count("events").await, 1);
    room.run("commit").await;
    all(&upkeep, later).await;
    assert_eq!(room.count("events").await, 0);
}

#[tokio::test]
async fn what_is_kept_for_a_time_goes_with_it() {
    let room = Room::new().await;
    let upkeep = room.upkeep();
    let old = "timestamptz '2026-11-22T10:00:00Z'";
    room.run(&format!(
        "insert into organizations (slug, id, name, plan, is_active, created_at, updated_at) \
           values ('acme', gen_random_uuid(), 'a', 'free', true, now(), now()); \
         insert into sources (org, id, name, provider, options, is_active, created_at, updated_at) \
           values (1, gen_random_uuid(), 's', 'hmac', '{{}}', true, now(), now()); \
         insert into source_secrets (org, source, id, value, created_at, expires_at) values \
           (1, 1, gen_random_uuid(), 'gone', now(), {old}), (1, 1, gen_random_uuid(), 'kept', now(), null), \
           (1, 1, gen_random_uuid(), 'kept', now(), {old} + interval '1 day'); \
         insert into idempotency_keys (org, key, request_hash, claimed_at) \
           select org, key::text, sha256(''), {old} from generate_series(0, 1) as org, generate_series(1, 600) as key; \
         insert into rejections select 1, gen_random_uuid(), 1, 'c', 'c', 'm', 'p', '', \
           {old} - interval '28 days' * (n % 2), null, '' from generate_series(1, 4) as n"
    ))
    .await;
    all(&upkeep, start()).await;
    assert_eq!(room.count("source_secrets where value is null").await, 1);
    assert_eq!(room.count("source_secrets where value = 'kept'").await, 2);
    assert_eq!(room.count("idempotency_keys").await, 1200);
    assert_eq!(room.count("rejections").await, 4);
    assert!(all(&upkeep, start() + DAY + Duration::from_millis(1)).await >= 3);
    assert_eq!(room.count("idempotency_keys").await, 0);
    assert_eq!(room.count("rejections").await, 4);
    all(&upkeep, start() + 3 * DAY).await;
    assert_eq!(room.count("rejections").await, 2);
    assert_eq!(room.count("source_secrets where value is null").await, 2);
}
