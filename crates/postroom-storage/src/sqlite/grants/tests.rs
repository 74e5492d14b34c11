//! Each part really tries everything, and the document says what the list says.

use rusqlite::ErrorCode;

use super::*;
use crate::Error;
use crate::engine::grants::tests::{Schema, check, document, has};
use crate::sqlite::connection::Connection;
use crate::sqlite::migrate;

fn database() -> (Connection, Schema) {
    let mut raw = rusqlite::Connection::open_in_memory().unwrap();
    migrate::to_newest(&mut raw).unwrap();
    raw.pragma_update(None, "foreign_keys", "on").unwrap();
    let tables = "select name from sqlite_schema where type = 'table' order by rowid";
    let columns = "select name from pragma_table_info(?1) order by cid";
    let list = |sql, value: &[&dyn rusqlite::ToSql]| -> Vec<String> {
        raw.prepare(sql).unwrap().query_map(value, |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let schema = list(tables, &[]).into_iter().map(|table| (list(columns, &[&table]), table)).map(|(c, t)| (t, c));
    let schema = schema.collect();
    (Connection::new(raw, Platform).unwrap(), schema)
}

/// Whether a part gets to do something. Anything but a refusal for want of a right is a mistake in the test.
fn gets(connection: &mut Connection, part: Part, sql: String) -> bool {
    connection.act_as(part);
    match connection.prepare(sql.clone().leak()) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::AuthorizationForStatementDenied), "{sql}: {error}");
            let Error::Internal(logged) = Error::from(error) else { panic!("{sql}: not a mistake of ours") };
            assert!(!logged.to_string().contains(&sql), "statements are not logged: {logged}");
            false
        }
    }
}

#[test]
fn each_part_gets_what_is_on_the_list_and_is_refused_all_else() {
    let (mut connection, schema) = database();
    for part in Part::ALL {
        for (table, columns) in &schema {
            let grants: Vec<&Grant> =
                GRANTS.iter().filter(|grant| grant.part == part && grant.table == table).collect();
            let mut tries = |sql: String, granted: bool| {
                assert_eq!(gets(&mut connection, part, sql.clone()), granted, "{}: {sql}", part.as_str());
            };
            for column in columns {
                let read = grants.iter().any(|grant| has(grant.read, column));
                tries(format!("select {column} from {table}"), read);
                let update = grants.iter().any(|grant| has(grant.update, column));
                tries(format!("update {table} set {column} = null"), update);
            }
            tries(format!("select count(*) from {table}"), grants.iter().any(|grant| !grant.read.is_empty()));
            tries(format!("insert into {table} default values"), grants.iter().any(|grant| grant.insert));
            tries(format!("delete from {table}"), grants.iter().any(|grant| grant.delete));
        }
    }
}

/// What is worth stealing, and who needs it: written down apart from the list, so that it is not given away with one
/// line there.
const PRECIOUS: [(&str, &str, &[Part]); 22] = [
    ("api_key", "hash", &[Authorizer, Copier]),
    ("api_key", "id", &[Authorizer, Api, Copier]),
    ("organization", "mandrill_secret", &[Receiver, Keys, Copier]),
    ("source_secret", "value", &[Receiver, Api, Keys, Copier]),
    ("endpoint_secret", "value", &[Worker, Api, Keys, Copier]),
    ("endpoint_secret", "id", &[Worker, Api, Keys, Copier]),
    ("endpoint", "url", &[Worker, Api, Copier]),
    ("endpoint", "headers", &[Worker, Api, Keys, Copier]),
    ("event", "headers", &[Worker, Api, Copier]),
    ("event", "body", &[Worker, Api, Copier]),
    ("attempt", "response_headers", &[Api, Copier]),
    ("attempt", "response_body", &[Api, Copier]),
    ("rejection", "headers", &[Api, Copier]),
    ("rejection", "body", &[Receiver, Api, Copier]),
    ("idempotency", "body", &[Api, Platform, Keys, Copier]),
    ("meta", "value", &[Keys, Copier]),
    ("user", "email", &[Authorizer, Api, Platform, Copier]),
    ("user", "last_login_at", &[Api, Platform, Copier]),
    ("sign_in_token", "hash", &[Authorizer, Platform, Copier]),
    ("session", "id", &[Authorizer, Platform, Copier]),
    ("session", "address", &[Copier]),
    ("mail", "token", &[Platform, Keys, Copier]),
];

#[test]
fn what_is_precious_is_seen_by_those_only_that_need_it() {
    let (mut connection, _) = database();
    for (table, column, needed) in PRECIOUS {
        let ways = [
            format!("select {column} from {table}"),
            format!("select 1 from {table} where {column} > x'00'"),
            format!("select max(length({column})) from {table}"),
            format!("select * from {table}"),
            format!("with all_of_it as (select * from {table}) select {column} from all_of_it"),
            format!("select (select {column} from {table} limit 1)"),
            format!("select 1 order by (select {column} from {table})"),
            format!("update {table} set {column} = {column} returning {column}"),
        ];
        for part in Part::ALL.into_iter().filter(|part| !needed.contains(part)) {
            for sql in &ways {
                assert!(!gets(&mut connection, part, sql.clone()), "{}: {sql}", part.as_str());
            }
        }
        for part in needed {
            assert!(gets(&mut connection, *part, ways[0].clone()), "{}: {}", part.as_str(), ways[0]);
        }
    }
}

#[test]
fn no_part_changes_the_schema_or_the_connection_or_reaches_another_file() {
    let (mut connection, _) = database();
    let tries = [
        "select sql from sqlite_schema",
        "update sqlite_schema set sql = ''",
        "create table mine (value)",
        "create temp table mine (value)",
        "create view mine as select 1",
        "create trigger mine after insert on event begin select 1; end",
        "alter table event add column mine",
        "drop table event",
        "create index mine on event (body)",
        "drop index attempt_by_event",
        "reindex",
        "analyze",
        "vacuum into '/dev/null'",
        "attach 'other.db' as other",
        "detach main",
        "pragma query_only = off",
        "pragma writable_schema = on",
        "pragma foreign_keys = off",
        "pragma synchronous = off",
        "pragma user_version = 99",
        "pragma table_info(event)",
        "select * from pragma_table_info('event')",
    ];
    for part in Part::ALL {
        for sql in tries {
            connection.act_as(part);
            let refused = connection.prepare(sql).and_then(|mut statement| statement.query([])?.next().map(drop));
            assert!(refused.is_err(), "{}: {sql}", part.as_str());
        }
        let copies = gets(&mut connection, part, "pragma wal_checkpoint(passive)".to_owned());
        assert_eq!(copies, part == Platform, "{}", part.as_str());
    }
}

#[test]
fn the_list_names_what_exists_and_each_thing_once() {
    let (_, schema) = database();
    check(GRANTS, &schema);
}

#[test]
fn architecture_shows_what_each_part_may_do() {
    document("sqlite/grants.rs", GRANTS, &database().1);
}

#[test]
fn every_table_and_column_is_copied_or_made_anew() {
    let (_, schema) = database();
    let searched = ["event_by_org", "event_by_type", "delivery_by_endpoint"];
    let others: Vec<&str> = ["meta", "revision", "progress", "tenants"].into_iter().chain(searched).collect();
    let made_anew: &[(&str, &[&str])] = &[("event", &["seq"]), ("attempt", &["attempt"]), ("rejection", &["seq"])];
    crate::copy::table::tests::check(&schema, |table| table.embedded, &others, made_anew);
}
