//! What is copied, in a form that neither engine owns: tables with their columns in the order in which they are filled,
//! and rows of plain values. Numbers of organizations, sources and endpoints stay as they are, because targets, guards and
//! sealed values are bound to them; what an engine makes for itself (places in the log, transactions, nodes) is left out.

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// A value of a column. Never printed: it may be a payload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Value {
    Null,
    /// Numbers, truths (0 and 1), and moments in milliseconds.
    Integer(i64),
    Text(String),
    /// Bytes, and ids as 16 of them.
    Bytes(Vec<u8>),
}

/// The values of a row, in the order of the table's columns.
pub(crate) type Row = Vec<Value>;

/// How far a table was read: the values that its reader goes by, of the last row.
pub(crate) type Position = Vec<Value>;

/// Rows that are written in one transaction.
pub(crate) struct Batch {
    pub(crate) rows: Vec<Row>,
    pub(crate) position: Position,
}

/// The most rows of a batch.
pub(crate) const BATCH_ROWS: usize = 1_000;
/// The most bytes of a batch, but for one larger row.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Boolean,
    Text,
    Bytes,
    /// 16 bytes.
    Id,
    /// Milliseconds since the epoch.
    Moment,
    /// The id of an event; the embedded engine keeps the event's place in the log instead.
    Event,
    /// The organization of that event; the embedded engine does not keep it.
    EventOrg,
    /// The source of that event; kept with the event alone.
    EventSource,
    /// What its sender calls that event; kept with the event alone.
    EventExternalId,
}

impl Kind {
    /// Whether it is read with the event and not kept in the row, by either engine.
    pub(crate) fn is_of_the_event(self) -> bool {
        matches!(self, Self::EventSource | Self::EventExternalId)
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// The same in both engines.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// A table that is copied. Its first column is the organization.
#[derive(Debug)]
pub(crate) struct Table {
    /// On PostgreSQL, and in reports.
    pub(crate) name: &'static str,
    /// In the embedded engine.
    pub(crate) embedded: &'static str,
    pub(crate) columns: &'static [Column],
    /// What its rows are read by on PostgreSQL: unique together.
    pub(crate) order: &'static [&'static str],
    /// The same in the embedded engine, where the order of the log is that of time.
    pub(crate) embedded_order: &'static [&'static str],
    /// A column that holds sealed values.
    pub(crate) sealed: Option<&'static str>,
    /// On PostgreSQL the number that a sequence gives.
    pub(crate) numbered: Option<&'static str>,
}

impl Table {
    /// Where a column stands in a row.
    pub(crate) fn at(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

const fn plain(
    name: &'static str,
    embedded: &'static str,
    columns: &'static [Column],
    order: &'static [&'static str],
    embedded_order: &'static [&'static str],
) -> Table {
    Table { name, embedded, columns, order, embedded_order, sealed: None, numbered: None }
}

impl Table {
    const fn sealed(self, column: &'static str) -> Self {
        Self { sealed: Some(column), ..self }
    }

    const fn numbered(self, column: &'static str) -> Self {
        Self { numbered: Some(column), ..self }
    }
}

macro_rules! columns {
    ($($name:ident: $kind:ident),* $(,)?) => {
        &[$(Column { name: strip(stringify!($name)), kind: Kind::$kind }),*]
    };
}

/// A name that is a word of Rust is written `r#name`.
const fn strip(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// A secret of a source or of an endpoint.
macro_rules! secret_columns {
    ($owner:ident) => {
        columns![org: Integer, secret: Integer, $owner: Integer, id: Id, value: Bytes, created_at: Moment, expires_at: Moment]
    };
}

/// Who is who: stays in the database that all share.
pub(crate) const WHO_IS_WHO: [&str; 5] = ["api_keys", "users", "sign_in_tokens", "sessions", "mails"];

/// Everything, each table behind those that it refers to.
pub(crate) static TABLES: [Table; 19] = [
    plain(
        "organizations",
        "organization",
        columns![
            org: Integer, id: Id, slug: Text, name: Text, plan: Text, webhook_limit: Integer, is_active: Boolean,
            mandrill_secret: Bytes, mandrill_fingerprint: Bytes, endpoint_number: Integer, created_at: Moment,
            updated_at: Moment, created_by: Text,
        ],
        &["org"],
        &["org"],
    )
    .sealed("mandrill_secret")
    .numbered("org"),
    plain(
        "api_keys",
        "api_key",
        columns![
            org: Integer, key: Integer, id: Id, name: Text, scopes: Text, hash: Bytes, last_four: Text,
            expires_at: Moment, revoked_at: Moment, last_used_at: Moment, created_at: Moment,
            created_by: Text,
        ],
        &["org", "key"],
        &["key"],
    )
    .numbered("key"),
    plain(
        "users",
        "user",
        columns![
            org: Integer, usr: Integer, id: Id, email: Text, email_key: Text, role: Text, is_active: Boolean,
            invited_until: Moment, last_login_at: Moment, created_at: Moment, updated_at: Moment, created_by: Text,
        ],
        &["org", "usr"],
        &["usr"],
    )
    .numbered("usr"),
    plain(
        "sign_in_tokens",
        "sign_in_token",
        columns![
            org: Integer, hash: Bytes, usr: Integer, purpose: Text, created_at: Moment, expires_at: Moment,
            used_at: Moment,
        ],
        &["hash"],
        &["hash"],
    ),
    plain(
        "sessions",
        "session",
        columns![
            org: Integer, id: Id, usr: Integer, created_at: Moment, expires_at: Moment, ended_at: Moment,
            address: Text, user_agent: Text,
        ],
        &["id"],
        &["id"],
    ),
    plain(
        "mails",
        "mail",
        columns![
            org: Integer, mail: Integer, usr: Integer, id: Id, purpose: Text, token: Bytes, expires_at: Moment,
            due_at: Moment, tries: Integer, created_at: Moment,
        ],
        &["org", "mail"],
        &["mail"],
    )
    .sealed("token")
    .numbered("mail"),
    plain(
        "sources",
        "source",
        columns![
            org: Integer, source: Integer, id: Id, name: Text, provider: Text, options: Text, is_active: Boolean,
            is_implied: Boolean, created_at: Moment, updated_at: Moment, deleted_at: Moment, created_by: Text,
        ],
        &["org", "source"],
        &["source"],
    )
    .numbered("source"),
    plain("source_secrets", "source_secret", secret_columns!(source), &["org", "secret"], &["secret"])
        .sealed("value")
        .numbered("secret"),
    plain(
        "endpoints",
        "endpoint",
        columns![
            org: Integer, endpoint: Integer, id: Id, number: Integer, url: Text, description: Text, event_types: Text,
            source_ids: Text, filter: Text, retry_schedule: Text, timeout_ms: Integer, rate_limit: Integer,
            headers: Bytes, signature: Text, version: Integer, disabled_reason: Text, disabled_at: Moment,
            created_at: Moment, updated_at: Moment, deleted_at: Moment, created_by: Text,
        ],
        &["org", "endpoint"],
        &["endpoint"],
    )
    .sealed("headers")
    .numbered("endpoint"),
    plain("endpoint_secrets", "endpoint_secret", secret_columns!(endpoint), &["org", "secret"], &["secret"])
        .sealed("value")
        .numbered("secret"),
    plain(
        "audit_logs",
        "audit",
        columns![
            org: Integer, chain: Id, number: Integer, id: Id, at: Moment, actor: Text, action: Text, resource_type: Text,
            resource_id: Text, old_values: Text, new_values: Text, address: Text, request_id: Text, previous: Bytes,
            hash: Bytes,
        ],
        &["org", "chain", "number"],
        &["org", "chain", "number"],
    ),
    plain(
        "idempotency_keys",
        "idempotency",
        columns![
            org: Integer, key: Text, request_hash: Bytes, claimed_at: Moment, status: Integer, body: Bytes,
        ],
        &["org", "key"],
        &["org", "key"],
    )
    .sealed("body"),
    plain(
        "usage",
        "usage",
        columns![org: Integer, month: Moment, count: Integer],
        &["org", "month"],
        &["org", "month"],
    ),
    plain(
        "events",
        "event",
        columns![
            org: Integer, id: Id, source: Integer, r#type: Text, external_id: Text, targets: Bytes, headers: Bytes,
            body: Bytes,
        ],
        &["id", "org"],
        &["seq"],
    ),
    plain(
        "attempts",
        "attempt",
        columns![
            org: Integer, endpoint: Integer, event: Event, run: Integer, id: Id, number: Integer, succeeded: Boolean,
            status: Integer, error: Text, duration_ms: Integer, settled_at: Moment, url: Text, response_headers: Bytes,
            response_body: Bytes,
        ],
        // Partitions are in the order of events, so each is sorted by itself.
        &["event", "endpoint", "run", "id", "org"],
        &["attempt"],
    ),
    plain(
        "exceptions",
        "exception",
        columns![
            org: Integer, endpoint: Integer, event: Event, run: Integer, state: Text, due_at: Moment,
            attempts: Integer, attempts_of_schedule: Integer, reason: Text, since: Moment,
        ],
        &["org", "endpoint", "event", "run"],
        &["endpoint", "event", "run"],
    ),
    plain(
        "replays",
        "replay",
        columns![org: EventOrg, event: Event, endpoint: Integer, run: Integer, created_at: Moment, actor: Text],
        &["org", "event", "endpoint", "run"],
        &["event", "endpoint", "run"],
    ),
    plain(
        "duplicate_guard",
        "duplicate_guard",
        // What a hash is made of: it is made anew where sources have other numbers.
        columns![org: EventOrg, hash: Id, event: Event, source: EventSource, external_id: EventExternalId],
        &["org", "hash"],
        &["hash"],
    ),
    plain(
        "rejections",
        "rejection",
        columns![
            org: Integer, id: Id, source: Integer, code: Text, check_name: Text, method: Text, path: Text,
            headers: Bytes, received_at: Moment, event: Id, body: Bytes,
        ],
        &["id", "org"],
        &["seq"],
    ),
];

impl Value {
    /// Bytes it keeps in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// The number, where one has to be.
    pub(crate) fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The bytes, where they have to be.
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// What rows of one table and organization are together: how many, and the sum of their hashes. It does not depend on
/// the order in which they are read, which no two engines share, and a row that is changed, missing or there twice
/// changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest {
    pub(crate) rows: u64,
    sum: [u64; 4],
}

impl Digest {
    /// Adds a row.
    pub(crate) fn add(&mut self, row: &Row) {
        let hash = hash(row);
        let mut carry = false;
        for (sum, bytes) in self.sum.iter_mut().zip(hash.as_chunks::<8>().0) {
            let (added, first) = sum.overflowing_add(u64::from_le_bytes(*bytes));
            let (added, second) = added.overflowing_add(u64::from(carry));
            (*sum, carry) = (added, first || second);
        }
        self.rows += 1;
    }
}

/// SHA-256 of the values, each with its kind and its length, so that no two rows are written alike.
fn hash(row: &Row) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for value in row {
        let (kind, bytes): (u8, &[u8]) = match value {
            Value::Null => (0, &[]),
            Value::Integer(number) => (1, &number.to_be_bytes()),
            Value::Text(text) => (2, text.as_bytes()),
            Value::Bytes(bytes) => (3, bytes),
        };
        context.update(&[kind]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Holds the list to the schema of an engine: a column that is in neither `made_anew` nor the list would be lost, and
    /// so would a table that is not in `others`. `name` is the name of a table there.
    pub(crate) fn check(
        schema: &[(String, Vec<String>)],
        name: fn(&Table) -> &'static str,
        others: &[&str],
        made_anew: &[(&str, &[&str])],
    ) {
        for (found, columns) in schema.iter().filter(|(found, _)| !others.contains(&found.as_str())) {
            let table = TABLES.iter().find(|table| name(table) == found);
            let table = table.unwrap_or_else(|| panic!("{found} is not copied"));
            let anew = made_anew.iter().find(|(table, _)| table == found).map_or(&[][..], |(_, columns)| columns);
            for column in columns.iter().map(String::as_str).filter(|column| !anew.contains(column)) {
                assert!(table.at(column).is_some(), "{found}.{column} is not copied");
            }
        }
    }

    fn digest(rows: &[Row]) -> Digest {
        let mut digest = Digest::default();
        rows.iter().for_each(|row| digest.add(row));
        digest
    }

    #[test]
    fn a_digest_tells_every_difference_but_that_of_order() {
        let text = |text: &str| Value::Text(text.to_owned());
        let rows = vec![vec![text("a"), text("b")], vec![Value::Integer(1), Value::Null]];
        let turned: Vec<Row> = rows.iter().rev().cloned().collect();
        assert_eq!(digest(&rows), digest(&turned));
        for other in [
            vec![rows[0].clone()],
            vec![rows[0].clone(), rows[1].clone(), rows[1].clone()],
            vec![vec![text("ab"), text("")], rows[1].clone()],
            vec![vec![text("a"), Value::Bytes(b"b".to_vec())], rows[1].clone()],
            vec![rows[0].clone(), vec![Value::Integer(1), Value::Integer(0)]],
        ] {
            assert_ne!(digest(&rows), digest(&other));
        }
    }

    #[test]
    fn every_table_is_read_by_columns_that_it_has() {
        for table in &TABLES {
            assert_eq!(table.columns[0].name, "org", "{}", table.name);
            let mut named = table.order.iter().chain(table.sealed.iter()).chain(table.numbered.iter());
            assert!(named.all(|name| table.at(name).is_some()), "{}", table.name);
        }
        assert_eq!(TABLES.iter().find_map(|table| table.at("type")), Some(3));
    }
}
