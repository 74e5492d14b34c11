//! The log that the model describes, in a real database.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroom_domain::EventId;
use proptest::prelude::*;
use rusqlite::{OpenFlags, params};

use crate::engine::guard::guard_hash;
use crate::engine::model::{Flying, Spec, Stands, World, endpoint_id, event_id, one_more, source_id, world};
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::pack_targets;
use crate::sqlite::grants::Part;
use crate::sqlite::migrate;
use crate::worker::{DeliveryKey, EventKey};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Log {
    /// What the lists are read with.
    pub(super) connection: Connection,
    /// What the log is made with.
    pub(super) raw: rusqlite::Connection,
    pub(super) flying: Flying,
    pub(super) world: World,
    newest: Cell<i64>,
}

/// Logs of up to 25 events, with their marks anywhere that is right.
pub(super) fn log() -> impl Strategy<Value = Log> {
    (world(EventKey::from_seq), 0..30_i64, 0..30_i64, 0..30_i64, any::<bool>())
        .prop_map(|(world, watermark, indexed, guarded, ahead)| Log::new(world, watermark, indexed, guarded, ahead))
}

/// Two connections to one new database.
fn twice_in_memory() -> [rusqlite::Connection; 2] {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("file:log{}?mode=memory&cache=shared", NUMBER.fetch_add(1, Ordering::Relaxed));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    [(); 2].map(|()| rusqlite::Connection::open_with_flags(&name, flags).unwrap())
}

impl Log {
    fn new(world: World, watermark: i64, indexed: i64, guarded: i64, ahead: bool) -> Self {
        let [mut raw, file] = twice_in_memory();
        migrate::to_newest(&mut raw).unwrap();
        let connection = Connection::new(file, Part::Api).unwrap();
        let newest = i64::try_from(world.events.len()).unwrap();
        let log = Self { connection, raw, flying: world.flying(), world, newest: Cell::new(newest) };
        log.raw.execute_batch("begin").unwrap();
        log.configure();
        for (spec, seq) in log.world.events.iter().zip(1..) {
            log.append(spec, seq);
            for (key, stands, _) in log.world.deliveries_of(spec, seq) {
                log.deliver(key, spec.org, stands);
            }
        }
        let unsettled = log.world.unsettled().next().unwrap_or(newest + 1);
        // While a round goes on, some of what is above the mark is in the search tables already.
        for seq in (1..=newest).filter(|seq| *seq <= indexed || (ahead && seq % 2 == 0)) {
            log.enter(seq);
        }
        for seq in (1..=newest).filter(|seq| *seq <= guarded || ahead) {
            log.guard(seq);
        }
        log.raw
            .execute(
                "update progress set watermark = ?1, indexed_upto = ?2, guarded_upto = ?3",
                (watermark.min(unsettled - 1), indexed.min(newest), guarded.min(newest)),
            )
            .unwrap();
        log.raw.execute_batch("commit").unwrap();
        log
    }

    fn configure(&self) {
        for org in [1, 2] {
            self.raw
                .execute(
                    "insert into organization values (?1, ?2, ?3, '', 'free', null, 1, null, null, 2, 0, 0, null)",
                    (org, [u8::try_from(org).unwrap(); 16], format!("org-{org}")),
                )
                .unwrap();
            for number in [1, 2] {
                let (source, endpoint) = (org * 10 + number - 1, org * 10 + number);
                self.raw
                    .execute(
                        "insert into source values (?1, ?2, ?3, ?4, 'github', '{}', 1, 0, 0, 0, null, null)",
                        (source, org, source_id(source).to_bytes(), format!("s{source}")),
                    )
                    .unwrap();
                self.raw
                    .execute(
                        "insert into endpoint (endpoint, org, id, number, url, description, event_types, source_ids, \
                         signature, created_at, updated_at) values (?1, ?2, ?3, ?4, '', '', '[]', '[]', '', 0, 0)",
                        (endpoint, org, endpoint_id(endpoint).to_bytes(), number),
                    )
                    .unwrap();
            }
        }
    }

    fn append(&self, spec: &Spec, seq: i64) {
        self.raw
            .execute(
                "insert into event values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    seq,
                    event_id(seq).to_bytes(),
                    spec.org,
                    spec.source_key(),
                    spec.event_type,
                    spec.external_id,
                    pack_targets(spec.targets()),
                    b"[]",
                    spec.body.as_bytes(),
                ],
            )
            .unwrap();
    }

    fn deliver(&self, key: DeliveryKey, org: i64, stands: Stands) {
        let (endpoint, run) = (key.endpoint.0, key.run);
        if run > 0 {
            let values = (key.event.seq(), endpoint, run);
            self.raw.execute("insert into replay values (?1, ?2, ?3, 5, 'operator')", values).unwrap();
            let values = (endpoint, key.event.seq(), run);
            self.raw.execute("insert into delivery_by_endpoint values (?1, ?2, ?3)", values).unwrap();
        }
        let (state, attempts, of_schedule, succeeded) = match stands {
            Stands::InMemory { .. } => return,
            Stands::Waiting { attempts, of_schedule, .. } => (Some("waiting"), attempts, of_schedule, false),
            Stands::Success => (None, 2, 2, true),
            Stands::Dead => (Some("dead_letter"), 1, 1, false),
            Stands::Discarded => (Some("discarded"), 1, 1, false),
        };
        for number in 1..=attempts {
            self.raw
                .execute(
                    "insert into attempt values (null, ?1, ?2, ?3, ?4, ?5, ?6, ?7, 200, null, 1, 1, '', null, null)",
                    params![[9_u8; 16], org, key.event.seq(), endpoint, run, number, succeeded && number == attempts],
                )
                .unwrap();
        }
        if let Some(state) = state {
            self.raw
                .execute(
                    "insert into exception values (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, null, 1)",
                    params![endpoint, key.event.seq(), run, org, state, attempts, of_schedule],
                )
                .unwrap();
        }
    }

    /// Puts an event into the search tables.
    fn enter(&self, seq: i64) {
        let entries = [
            "insert or ignore into event_by_org select org, seq from event where seq = ?1",
            "insert or ignore into event_by_type select org, type, seq from event where seq = ?1",
        ];
        for sql in entries {
            self.raw.execute(sql, [seq]).unwrap();
        }
        if let Some(spec) = usize::try_from(seq - 1).ok().and_then(|at| self.world.events.get(at)) {
            for (key, _, _) in self.world.deliveries_of(spec, seq) {
                let values = (key.endpoint.0, seq, key.run);
                let sql = "insert or ignore into delivery_by_endpoint values (?1, ?2, ?3)";
                self.raw.execute(sql, values).unwrap();
            }
        }
    }

    fn guard(&self, seq: i64) {
        let spec = &self.world.events[usize::try_from(seq - 1).unwrap()];
        let Some(id) = spec.external_id else { return };
        let sql = "insert or replace into duplicate_guard values (?1, ?2)";
        self.raw.execute(sql, (guard_hash(spec.owner(), id), seq)).unwrap();
    }

    /// A round of indexing.
    pub(super) fn index(&self, events: i64) {
        let upto: i64 = self.raw.query_row("select indexed_upto from progress", [], |row| row.get(0)).unwrap();
        let end = (upto + events).min(self.newest.get());
        (upto + 1..=end).for_each(|seq| self.enter(seq));
        self.raw.execute("update progress set indexed_upto = ?1", [end]).unwrap();
    }

    /// An event comes in while pages are read.
    pub(super) fn append_one_more(&self) {
        self.newest.set(self.newest.get() + 1);
        self.append(&one_more(), self.newest.get());
    }

    pub(super) fn all_events(&self) -> Vec<EventId> {
        (1..=self.newest.get()).map(event_id).collect()
    }
}
