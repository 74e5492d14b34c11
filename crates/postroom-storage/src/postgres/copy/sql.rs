//! The statements of a copy, made of the tables' columns.

use std::sync::LazyLock;

use crate::copy::table::{Column, Kind, TABLES, Table};

/// Nobody else reads a node's row to write by it, or adds one. Looking is allowed.
pub(super) const FENCE: &str = "begin; lock table nodes in exclusive mode";

/// The whole table.
pub(super) const META: &str = "select name, value from meta";

/// The whole table.
pub(super) const CLEAR_META: &str = "delete from meta";

/// By primary key.
pub(super) const PUT_META: &str =
    "insert into meta (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value";

/// By primary key.
pub(super) const FORGET_META: &str = "delete from meta where name = $1";

/// Whether a connection lives.
pub(super) const ANSWER: &str = "select 1";

/// A server that started, and a change of configuration. By the ends of indexes.
pub(super) const STAMP: &str = "select concat_ws(' ', (select max(node) from nodes), (select max(tx) from revisions), (select count(*) from revisions))";

/// The next number of a sequence.
pub(super) const NEXT: &str = "select nextval(pg_get_serial_sequence($1, $2))";

/// The number that a sequence has given last. Not in a transaction's hands: said again it does no harm.
pub(super) const NUMBER: &str = "select setval(pg_get_serial_sequence($1, $2), $3)";

/// Makes the partitions of the days of these events.
pub(super) const PARTITIONS: &str = "select make_partition(day) from (select distinct \
     (to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) at time zone 'utc')::date as day \
     from unnest($1::uuid[]) as id) as days order by day";

/// What no node has settled or counted: see the recovery of a node. Index: events_by_tx.
const UNSETTLED: &str = "select org, endpoint, id, 0, 'waiting', {due}::timestamptz, 0, 0, null, {due}::timestamptz \
     from (select events.org, events.id, \
         get_byte(targets, at)::bigint << 24 | get_byte(targets, at + 1)::bigint << 16 \
           | get_byte(targets, at + 2)::bigint << 8 | get_byte(targets, at + 3)::bigint as endpoint \
       from nodes join events on events.node = nodes.node and events.tx >= nodes.watermark, \
         generate_series(0, length(targets) - 4, 4) as at where nodes.state <> 'recovered') as target \
     where not exists (select from attempts where attempts.org = target.org and attempts.endpoint = target.endpoint \
         and attempts.event = target.id and attempts.run = 0) \
       and not exists (select from exceptions as stored where stored.org = target.org \
         and stored.endpoint = target.endpoint and stored.event = target.id and stored.run = 0)";

/// What is counted in the table, and what no node has added to it yet.
const COUNTED: &str = "select org, month, sum(count)::int8 as count from (select org, month, count from usage \
     union all select events.org, date_trunc('month', to_timestamp( \
         ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) at time zone 'utc') at time zone 'utc', 1 \
       from nodes join events on events.node = nodes.node and events.tx >= nodes.counted \
       where nodes.state <> 'recovered' and not events.counted) as both_of_them group by org, month";

/// What is done with a table.
pub(super) struct Statements {
    table: &'static Table,
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
        let name = table.name;
        let ends = table.numbered.map(|column| format!("select min({column}), max({column}) from {name}"));
        Self { table, insert: insert(table), count: format!("select count(*) from {name}"), ends }
    }

    /// Its columns, in the order of what it is read by, which is at least `$1`, `$2`, ... and greater than all of them
    /// together; then the moment at which what nobody knows the outcome of is due; then the organization.
    pub(super) fn select(&self, is_after: bool, is_of_one: bool) -> String {
        let table = self.table;
        let columns: Vec<String> = table.columns.iter().map(|column| read(column.name, column.kind)).collect();
        let order = table.order.join(", ");
        let mut wanted = Vec::new();
        let mut next = 1;
        if is_after {
            next += table.order.len();
            let values: Vec<String> = (1..next).map(|number| format!("${number}")).collect();
            // The first one by itself leaves out partitions.
            wanted.push(format!("{} >= $1", table.order[0]));
            wanted.push(format!("({order}) > ({})", values.join(", ")));
        }
        let from = from(table, next);
        next += usize::from(self.has_due());
        if is_of_one {
            wanted.push(format!("rows.org = ${next}"));
        }
        if is_of_an_event(table) {
            wanted
                .push("exists (select from events where events.org = rows.org and events.id = rows.event)".to_owned());
        }
        let wanted = if wanted.is_empty() { String::new() } else { format!("where {}", wanted.join(" and ")) };
        format!("select {} from {from} as rows {wanted} order by {order}", columns.join(", "))
    }

    /// Whether [`Self::select`] takes the moment.
    pub(super) fn has_due(&self) -> bool {
        self.table.name == "exceptions"
    }
}

fn is_of_an_event(table: &Table) -> bool {
    table.columns.iter().any(|column| column.kind == Kind::Event)
}

/// Where rows are read from: the table, or what it will be when everything is settled and counted.
fn from(table: &Table, due: usize) -> String {
    match table.name {
        "exceptions" => {
            let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
            let unsettled = UNSETTLED.replace("{due}", &format!("${due}"));
            format!("(select {} from exceptions union all {unsettled})", columns.join(", "))
        }
        "usage" => format!("({COUNTED})"),
        name => name.to_owned(),
    }
}

fn read(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Integer | Kind::EventOrg => format!("rows.{name}::int8"),
        Kind::EventSource | Kind::EventExternalId => {
            format!("(select events.{name} from events where events.org = rows.org and events.id = rows.event)")
        }
        _ => format!("rows.{name}"),
    }
}

/// The columns that are kept in the row, with their places.
pub(super) fn kept(table: &'static Table) -> impl Iterator<Item = (usize, &'static Column)> {
    table.columns.iter().enumerate().filter(|(_, column)| !column.kind.is_of_the_event())
}

/// Adds rows, given as an array for each column that is kept. What is the database's own is made here: the transaction, no node, and
/// that every event is counted already.
fn insert(table: &'static Table) -> String {
    let (names, values): (&str, &str) = match table.name {
        "events" => (", node, tx, counted", ", 0, txid_current(), true"),
        "attempts" => (", tx", ", txid_current()"),
        _ => ("", ""),
    };
    let columns: Vec<&str> = kept(table).map(|(_, column)| column.name).collect();
    let arrays: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    let (columns, arrays) = (columns.join(", "), arrays.join(", "));
    format!(
        "insert into {} ({columns}{names}) overriding system value select {columns}{values} from unnest({arrays}) as rows \
         ({columns})",
        table.name
    )
}
