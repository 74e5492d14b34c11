//! The statements of a copy, made of the tables' columns.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::copy::table::{Kind, TABLES, Table};

/// The whole table.
pub(super) const META: &str = "select name, value from meta";

/// The whole table.
pub(super) const CLEAR_META: &str = "delete from meta";

/// By primary key.
pub(super) const PUT_META: &str =
    "insert into meta (name, value) values (?1, ?2) on conflict (name) do update set value = excluded.value";

/// By primary key.
pub(super) const FORGET_META: &str = "delete from meta where name = ?1";

/// What moves with whatever a server or a command writes: places of the log, of the audit, of what was refused, and
/// what is counted. By the ends of primary keys, and tables that are small.
pub(super) const STAMP: &str = "select concat_ws(' ', (select max(seq) from event), (select max(attempt) from attempt), \
     (select max(rowid) from audit), (select max(key) from api_key), (select max(seq) from rejection), \
     (select value from revision), (select watermark from progress), (select count(*) from exception), \
     (select sum(count) from usage), (select max(updated_at) from organization), (select max(updated_at) from source), \
     (select max(updated_at) from endpoint), (select max(updated_at) from user), (select max(created_at) from session), \
     (select max(created_at) from sign_in_token))";

/// Everything that was copied is settled, and is found by the search tables and the guard.
pub(super) const COMPLETE: &str = "update progress set watermark = newest, indexed_upto = newest, guarded_upto = newest \
     from (select coalesce(max(seq), 0) as newest from event) where one = 1";

/// By primary key.
pub(super) const PROGRESS: &str = "select watermark, guarded_upto from progress";

/// By primary key, from the watermark on.
pub(super) const UNSETTLED: &str = "select seq, id, org, targets from event where seq > ?1 order by seq";

/// Index: attempt_by_event.
pub(super) const ATTEMPTED: &str = "select 1 from attempt indexed by attempt_by_event \
     where event = ?1 and endpoint = ?2 and run = 0 limit 1";

/// By primary key.
pub(super) const EXCEPTED: &str = "select 1 from exception where event = ?1 and endpoint = ?2 and run = 0";

/// By primary key, from where the guard ends.
pub(super) const UNGUARDED: &str = "select seq, org, type, targets, source, external_id, id from event \
     where seq > ?1 and external_id is not null order by seq";

/// By primary key.
pub(super) const BY_ORG: &str = "insert into event_by_org (org, seq) values (?1, ?2)";

/// By primary key.
pub(super) const BY_TYPE: &str = "insert into event_by_type (org, type, seq) values (?1, ?2, ?3)";

/// By primary key.
pub(super) const BY_ENDPOINT: &str = "insert into delivery_by_endpoint (endpoint, event, run) values (?1, ?2, ?3)";

/// By the unique index of ids.
pub(super) const SEQ: &str = "select seq from event where id = ?1";

/// What is done with a table.
pub(super) struct Statements {
    /// Its columns, then those it is read by, from the beginning.
    pub(super) first: String,
    /// The same, behind values of the latter.
    pub(super) after: String,
    pub(super) insert: String,
    pub(super) count: String,
    /// The first and the last of the numbers it gives.
    pub(super) ends: Option<String>,
}

/// The statements of a table.
pub(super) fn of(table: &'static Table) -> &'static Statements {
    static ALL: LazyLock<Vec<Statements>> = LazyLock::new(|| TABLES.iter().map(Statements::new).collect());
    let at = TABLES.iter().position(|known| known.name == table.name).unwrap_or(0);
    &ALL[at]
}

impl Statements {
    fn new(table: &'static Table) -> Self {
        let (name, order) = (table.embedded, table.embedded_order.join(", "));
        let read: Vec<String> = table.columns.iter().map(|column| read(name, column.name, column.kind)).collect();
        let first = format!("select {}, {order} from {name} order by {order}", read.join(", "));
        let values = numbered(1, table.embedded_order.len());
        let after =
            format!("select {}, {order} from {name} where ({order}) > ({values}) order by {order}", read.join(", "));
        let ends = table.numbered.map(|column| format!("select min({column}), max({column}) from {name}"));
        Self { first, after, insert: insert(table), count: format!("select count(*) from {name}"), ends }
    }
}

fn numbered(from: usize, count: usize) -> String {
    let values: Vec<String> = (from..from + count).map(|number| format!("?{number}")).collect();
    values.join(", ")
}

/// A column as it is read.
fn read(table: &str, column: &str, kind: Kind) -> String {
    match kind {
        Kind::Event => format!("(select e.id from event as e where e.seq = {table}.event)"),
        Kind::EventOrg => format!("(select e.org from event as e where e.seq = {table}.event)"),
        Kind::EventSource | Kind::EventExternalId => {
            format!("(select e.{column} from event as e where e.seq = {table}.event)")
        }
        _ => column.to_owned(),
    }
}

/// Whether the engine keeps a column in the row.
pub(super) fn is_kept(kind: Kind) -> bool {
    kind != Kind::EventOrg && !kind.is_of_the_event()
}

/// Adds a row of the columns that the engine keeps.
fn insert(table: &'static Table) -> String {
    let (mut names, mut values) = (String::new(), String::new());
    let kept = table.columns.iter().filter(|column| is_kept(column.kind));
    for (number, column) in (1..).zip(kept) {
        let comma = if names.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(names, "{comma}{}", column.name);
        let _ = match column.kind {
            Kind::Event => write!(values, "{comma}(select seq from event where id = ?{number})"),
            _ => write!(values, "{comma}?{number}"),
        };
    }
    format!("insert into {} ({names}) values ({values})", table.embedded)
}
