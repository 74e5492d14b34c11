//! The log that the model describes, in a real database.

use std::collections::HashMap;
use std::fmt::Write;

use postroom_domain::{EventId, Secret};
use postroom_testkit::postgres::{APP_ROLE, Database, connect};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::engine::guard::guard_hash;
use crate::engine::model::{Spec, Stands, World, endpoint_id, event_id, moment, one_more, source_id};
use crate::engine::packed::pack_targets;
use crate::postgres::footprint::Footprint;
use crate::postgres::migrate::{self, AppLogin};
use crate::postgres::pool::{Part, Pool};
use crate::postgres::{door, reads};
use crate::worker::{DeliveryKey, EventKey};

/// How this engine names the event of a place.
pub(super) fn key(seq: i64) -> EventKey {
    reads::log::key(event_id(seq))
}

/// See the [module](self).
pub(super) struct Log {
    pub(super) api: Pool,
    pub(super) dead_letter: Pool,
    pub(super) world: World,
    newest: i64,
    pub(super) admin: Client,
    _database: Database,
}

/// The transaction that wrote an event: nodes write at the same time, so ids do not quite ascend with it.
fn tx(seq: i64) -> i64 {
    100 + (seq ^ 1)
}

fn bytea(bytes: &[u8]) -> String {
    format!("'\\x{}'", hex::encode(bytes))
}

fn id(bytes: [u8; 16]) -> String {
    format!("'{}'", Uuid::from_bytes(bytes))
}

fn or_null(value: Option<impl std::fmt::Display>) -> String {
    value.map_or("null".to_owned(), |value| format!("'{value}'"))
}

impl Log {
    pub(super) async fn new() -> Self {
        let make = async |url: &str| {
            migrate::up(&Secret::from(url), &[AppLogin::of_all_parts(APP_ROLE)]).await.unwrap();
        };
        let database = Database::from_template(&migrate::schema(), make).await;
        let logins = door::admit(&Secret::from(&*database.app_url()), &HashMap::new(), None).await.unwrap();
        let admin = connect(&database.admin_url()).await;
        let log = Self {
            api: Pool::new(&logins[&Part::Api], Footprint::Shared).unwrap(),
            dead_letter: Pool::new(&logins[&Part::DeadLetter], Footprint::Shared).unwrap(),
            world: World { events: Vec::new(), key },
            newest: 0,
            admin,
            _database: database,
        };
        log.configure().await;
        log
    }

    async fn configure(&self) {
        let mut sql = String::new();
        for seq in (0..80).step_by(4) {
            let at = moment(seq).as_seconds();
            writeln!(sql, "select make_partition((to_timestamp({at}) at time zone 'utc')::date);").unwrap();
        }
        for org in [1, 2] {
            let of = id([u8::try_from(org).unwrap(); 16]);
            writeln!(
                sql,
                "insert into organizations (org, id, slug, name, plan, is_active, created_at, updated_at) \
                 overriding system value values ({org}, {of}, 'org-{org}', '', 'free', true, now(), now());"
            )
            .unwrap();
            for number in [1, 2] {
                let (source, endpoint) = (org * 10 + number - 1, org * 10 + number);
                let (source_id, endpoint_id) = (id(source_id(source).to_bytes()), id(endpoint_id(endpoint).to_bytes()));
                writeln!(
                    sql,
                    "insert into sources (org, source, id, name, provider, options, is_active, created_at, updated_at) \
                     overriding system value \
                     values ({org}, {source}, {source_id}, 's{source}', 'github', '{{}}', true, now(), now()); \
                     insert into endpoints (org, endpoint, id, number, url, description, event_types, source_ids, \
                     signature, created_at, updated_at) overriding system value \
                     values ({org}, {endpoint}, {endpoint_id}, {number}, '', '', '[]', '[]', '', now(), now());"
                )
                .unwrap();
            }
        }
        self.admin.batch_execute(&sql).await.unwrap();
    }

    /// Writes another log. The watermark is anywhere that is right.
    pub(super) async fn write(&mut self, world: World, watermark: i64) {
        self.newest = i64::try_from(world.events.len()).unwrap();
        self.world = world;
        let tables = ["events", "attempts", "exceptions", "replays", "duplicate_guard", "nodes"];
        let mut sql: String = tables.iter().map(|table| format!("delete from {table};")).collect();
        for (spec, seq) in self.world.events.iter().zip(1..) {
            append(&mut sql, spec, seq);
            for (delivery, stands, _) in self.world.deliveries_of(spec, seq) {
                deliver(&mut sql, spec.org, delivery, seq, stands);
            }
        }
        let unsettled = self.world.unsettled().map(tx).min();
        if let Some(watermark) = unsettled.map_or(Some(tx(watermark)), |unsettled| Some(unsettled.min(tx(watermark)))) {
            writeln!(
                sql,
                "insert into nodes (lease_until, watermark, counted, delivers) values (now(), {watermark}, 0, true); \
                 insert into nodes (lease_until, watermark, counted, delivers, state) values (now(), 0, 0, true, 'recovered');"
            )
            .unwrap();
        }
        self.admin.batch_execute(&sql).await.unwrap();
    }

    /// An event comes in while pages are read.
    pub(super) async fn append_one_more(&mut self) {
        self.newest += 1;
        let mut sql = String::new();
        append(&mut sql, &one_more(), self.newest);
        self.admin.batch_execute(&sql).await.unwrap();
    }

    pub(super) fn all_events(&self) -> Vec<EventId> {
        (1..=self.newest).map(event_id).collect()
    }
}

fn append(sql: &mut String, spec: &Spec, seq: i64) {
    let (org, event) = (spec.org, id(event_id(seq).to_bytes()));
    writeln!(
        sql,
        "insert into events (org, id, node, tx, source, type, external_id, targets, headers, body, counted) \
         values ({org}, {event}, 1, {}, {}, '{}', {}, {}, {}, {}, true);",
        tx(seq),
        or_null(spec.source_key()),
        spec.event_type,
        or_null(spec.external_id),
        bytea(&pack_targets(spec.targets())),
        bytea(b"[]"),
        bytea(spec.body.as_bytes()),
    )
    .unwrap();
    if let Some(external_id) = spec.external_id {
        let hash = id(guard_hash(spec.owner(), external_id));
        writeln!(
            sql,
            "insert into duplicate_guard values ({org}, {hash}, {event}) \
             on conflict (org, hash) do update set event = excluded.event;"
        )
        .unwrap();
    }
}

fn deliver(sql: &mut String, org: i64, key: DeliveryKey, seq: i64, stands: Stands) {
    let (event, endpoint, run) = (id(event_id(seq).to_bytes()), key.endpoint.0, key.run);
    if run > 0 {
        writeln!(sql, "insert into replays values ({org}, {event}, {endpoint}, {run}, to_timestamp(5), 'operator');")
            .unwrap();
    }
    let (state, attempts, of_schedule, succeeded) = match stands {
        Stands::InMemory { .. } => return,
        Stands::Waiting { attempts, of_schedule, .. } => (Some("waiting"), attempts, of_schedule, false),
        Stands::Success => (None, 2, 2, true),
        Stands::Dead => (Some("dead_letter"), 1, 1, false),
        Stands::Discarded => (Some("discarded"), 1, 1, false),
    };
    for number in 1..=attempts {
        let succeeded = succeeded && number == attempts;
        let tx = tx(seq) + i64::from(number);
        writeln!(
            sql,
            "insert into attempts values \
             ({org}, {endpoint}, {event}, {run}, gen_random_uuid(), {tx}, {number}, {succeeded}, 200, null, 1, now(), '');"
        )
        .unwrap();
    }
    if let Some(state) = state {
        writeln!(
            sql,
            "insert into exceptions values ({org}, {endpoint}, {event}, {run}, '{state}', now(), {attempts}, \
             {of_schedule}, null, now());"
        )
        .unwrap();
    }
}
