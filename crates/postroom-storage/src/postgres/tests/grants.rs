//! The list of grants against the catalogue of a real server, and against really trying.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::grants::{FUNCTIONS, GRANTS, OF_ONE_ORGANIZATION, OF_THE_INSTALLATION};
use super::Room;
use crate::engine::grants::Part;
use crate::engine::grants::tests::{Schema, check, document, has};

fn role(part: Part) -> String {
    format!("postroom_{}", part.as_str())
}

/// Tables of which partitions are part, and those that are partitions.
const TABLES: &str = "relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition";

impl Room {
    async fn schema(&self) -> Schema {
        let sql = format!(
            "select relname::text, array_agg(attname::text order by attnum) from pg_class \
             join pg_attribute on attrelid = pg_class.oid where {TABLES} and attnum > 0 and not attisdropped \
             group by pg_class.oid, relname order by pg_class.oid"
        );
        self.admin.query(&sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn lines(&self, sql: &str) -> BTreeSet<String> {
        self.admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// A connection that has become a part.
    async fn part(&self, part: Part) -> Client {
        let client = postroom_testkit::postgres::connect(&self.database.admin_url()).await;
        client.batch_execute(&format!("set session authorization {}", role(part))).await.unwrap();
        client
    }
}

/// Every right that the list gives, a line each.
fn listed(schema: &Schema) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for grant in GRANTS {
        let (role, table) = (role(grant.part), grant.table);
        let (_, columns) = schema.iter().find(|(name, _)| name == table).unwrap();
        for column in columns {
            for (may, right) in
                [(has(grant.read, column), "SELECT"), (grant.insert, "INSERT"), (has(grant.update, column), "UPDATE")]
            {
                if may {
                    lines.insert(format!("{role} {table}.{column} {right}"));
                }
            }
        }
        if grant.delete {
            lines.insert(format!("{role} {table} DELETE"));
        }
    }
    lines
}

#[tokio::test]
async fn the_catalogue_grants_what_is_on_the_list_and_nothing_else() {
    let room = Room::new().await;
    room.run("select make_partition('2026-11-22')").await;
    let schema = room.schema().await;
    check(GRANTS, &schema);
    // All that is in our schema, partitions and sequences too; whoever granted it, to the role or to everybody.
    let roles = "pg_roles where rolname ~ '^postroom_(authorizer|receiver|worker|api|dead_letter|platform|keys|copy)$'";
    let relations = "pg_class where relnamespace = 'public'::regnamespace";
    let granted = room
        .lines(&format!(
            "select rolname || ' ' || relname || '.' || attname || ' ' || kind from (select oid, rolname from {roles}) as r, \
               (select oid, relname from {relations} and relkind in ('r', 'p', 'v', 'm', 'f')) as c \
               join pg_attribute on attrelid = c.oid, unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as kind \
             where attnum > 0 and not attisdropped and has_column_privilege(r.oid, c.oid, attnum, kind) \
             union all select rolname || ' ' || relname || ' ' || kind from (select oid, rolname from {roles}) as r, \
               (select oid, relname from {relations} and relkind in ('r', 'p', 'v', 'm', 'f')) as c, \
               unnest(array['DELETE', 'TRUNCATE', 'TRIGGER']) as kind \
             where has_table_privilege(r.oid, c.oid, kind) \
             union all select rolname || ' ' || relname || ' ' || kind from (select oid, rolname from {roles}) as r, \
               (select oid, relname from {relations} and relkind = 'S') as c, \
               unnest(array['SELECT', 'USAGE', 'UPDATE']) as kind where has_sequence_privilege(r.oid, c.oid, kind)"
        ))
        .await;
    let listed = listed(&schema);
    let too_much: Vec<_> = granted.difference(&listed).collect();
    let missing: Vec<_> = listed.difference(&granted).collect();
    assert!(too_much.is_empty() && missing.is_empty(), "not on the list: {too_much:#?}\nnot granted: {missing:#?}");
}

#[tokio::test]
async fn every_part_is_really_refused_what_is_not_on_the_list() {
    let room = Room::new().await;
    room.run("select make_partition('2026-11-22')").await;
    let schema = room.schema().await;
    let listed = listed(&schema);
    let generated =
        room.lines("select attrelid::regclass || '.' || attname from pg_attribute where attgenerated <> ''").await;
    for part in Part::ALL {
        let client = room.part(part).await;
        let (role, gets) = (role(part), async |sql: &str| match client.batch_execute(sql).await {
            Ok(()) => true,
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => false,
            Err(error) => panic!("{}: {sql}: {error:?}", part.as_str()),
        });
        for (table, columns) in &schema {
            let may = |what: &str| listed.contains(&format!("{role} {table}{what}"));
            for column in columns {
                let reads = may(&format!(".{column} SELECT"));
                assert_eq!(
                    gets(&format!("select {column} from {table}")).await,
                    reads,
                    "{role} reads {table}.{column}"
                );
                let guess = format!("select from {table} where {column} is null");
                assert_eq!(gets(&guess).await, reads, "{role} guesses {table}.{column}");
                let update = format!("update {table} set {column} = default where false");
                assert_eq!(gets(&update).await, may(&format!(".{column} UPDATE")), "{role}: {update}");
                if !generated.contains(&format!("{table}.{column}")) {
                    let insert =
                        format!("insert into {table} ({column}) overriding system value select null where false");
                    let insert = insert.replace("select null", &format!("select (null::{table}).{column}"));
                    assert_eq!(gets(&insert).await, may(&format!(".{column} INSERT")), "{role}: {insert}");
                }
            }
            let all = columns.iter().all(|column| may(&format!(".{column} SELECT")));
            assert_eq!(gets(&format!("select * from {table}")).await, all, "{role} reads all of {table}");
            assert_eq!(gets(&format!("select {table} from {table}")).await, all, "{role} reads rows of {table}");
            assert_eq!(gets(&format!("delete from {table} where false")).await, may(" DELETE"), "{role}: {table}");
            for sql in ["truncate", "lock table", "copy", "drop table", "alter table"] {
                let sql = match sql {
                    "copy" => format!("copy {table} to program 'cat'"),
                    "lock table" => format!("begin; lock table {table} in access exclusive mode"),
                    "alter table" => format!("alter table {table} disable row level security"),
                    other => format!("{other} {table}"),
                };
                let writes = may(" DELETE") || columns.iter().any(|column| may(&format!(".{column} UPDATE")));
                // Whoever may change all of a table may lock it.
                if !(sql.starts_with("begin") && writes) {
                    assert!(!gets(&sql).await, "{role}: {sql}");
                }
                client.batch_execute("rollback").await.unwrap();
            }
        }
        for sql in [
            "select from events_20261122",
            "insert into events_20261122 default values",
            "delete from attempts_20261122",
            "truncate events_20261122",
            "create table mine (a int)",
            "create temporary table mine (a int)",
            "create schema mine",
            "create function mine() returns int language sql as 'select 1'",
            "select pg_read_file('postgresql.conf')",
            "select lo_import('/etc/passwd')",
            "set session_replication_role = replica",
            "alter role postroom_api bypassrls",
            "grant postroom_api to postroom_worker",
            "select passwd from pg_shadow",
        ] {
            assert!(!gets(sql).await, "{role}: {sql}");
        }
    }
}

/// What is worth stealing, and who needs it: written down apart from the list, so that it is not given away with one
/// line there.
const PRECIOUS: [(&str, &str, &[Part]); 15] = [
    ("api_keys", "hash", &[Part::Authorizer, Part::Copier]),
    ("organizations", "mandrill_secret", &[Part::Receiver, Part::Keys, Part::Copier]),
    ("source_secrets", "value", &[Part::Receiver, Part::Api, Part::Keys, Part::Copier]),
    ("endpoint_secrets", "value", &[Part::Worker, Part::Api, Part::Keys, Part::Copier]),
    ("endpoints", "headers", &[Part::Worker, Part::Api, Part::Keys, Part::Copier]),
    ("events", "headers", &[Part::Worker, Part::Api, Part::Copier]),
    ("events", "body", &[Part::Worker, Part::Api, Part::Copier]),
    ("rejections", "headers", &[Part::Api, Part::Copier]),
    ("rejections", "body", &[Part::Receiver, Part::Api, Part::Copier]),
    ("idempotency_keys", "body", &[Part::Api, Part::Keys, Part::Copier]),
    ("meta", "value", &[Part::Platform, Part::Keys, Part::Copier]),
    ("users", "email", &[Part::Authorizer, Part::Api, Part::Platform, Part::Copier]),
    ("sign_in_tokens", "hash", &[Part::Authorizer, Part::Platform, Part::Copier]),
    ("sessions", "user_agent", &[Part::Copier]),
    ("mails", "token", &[Part::Platform, Part::Keys, Part::Copier]),
];

#[tokio::test]
async fn what_is_precious_is_seen_by_those_only_that_need_it() {
    let room = Room::new().await;
    for part in Part::ALL {
        let client = room.part(part).await;
        for (table, column, needed) in PRECIOUS {
            for sql in [
                format!("select {column} from {table}"),
                format!("select max(length({column})) from {table}"),
                format!("with all_of_it as (select * from {table}) select {column} from all_of_it"),
                format!("select 1 order by (select {column} from {table} limit 1)"),
                format!("update {table} set {column} = {column} returning {column}"),
            ] {
                let is_read = sql.starts_with("select ") && !sql.contains("max(");
                match client.simple_query(&sql).await {
                    Ok(_) => assert!(needed.contains(&part), "{}: {sql}", part.as_str()),
                    Err(error) => {
                        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
                        assert!(!(is_read && needed.contains(&part)), "{}: {sql}", part.as_str());
                    }
                }
            }
        }
    }
}

/// What an organization takes along that moves, and so is written nowhere else meanwhile.
const FENCED: [&str; 11] = [
    "sources",
    "source_secrets",
    "endpoints",
    "endpoint_secrets",
    "idempotency_keys",
    "events",
    "attempts",
    "exceptions",
    "replays",
    "duplicate_guard",
    "rejections",
];

/// Whoever writes there.
const WRITERS: [Part; 4] = [Part::Api, Part::DeadLetter, Part::Receiver, Part::Worker];

fn roles_of(parts: &[Part]) -> String {
    parts.iter().map(|part| role(*part)).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn every_table_of_organizations_has_forced_row_level_security_with_the_policies_that_are_known() {
    let room = Room::new().await;
    room.run("select make_partition('2026-11-22')").await;
    let open = room
        .lines(
            "select relname::text from pg_class where relnamespace = 'public'::regnamespace \
             and (relkind in ('v', 'm', 'f') or relkind in ('r', 'p') and not (relrowsecurity and relforcerowsecurity))",
        )
        .await;
    assert_eq!(open, OF_THE_INSTALLATION.map(str::to_owned).into(), "a table, view or partition without it");

    let policies = room
        .lines(
            "select regexp_replace(concat_ws(' | ', tablename, policyname, permissive, cmd, array_to_string(roles, ','), qual, \
             with_check), '\\s+', ' ', 'g') from pg_policies where schemaname = 'public'",
        )
        .await;
    let mine = "(org = ( SELECT (NULLIF(current_setting('app.current_organization_id'::text, true), ''::text))::bigint AS \"nullif\"))";
    let one: Vec<String> = OF_ONE_ORGANIZATION.iter().map(|part| role(*part)).collect();
    let mut expected = BTreeSet::new();
    for (table, _) in room.schema().await.iter().filter(|(table, _)| !OF_THE_INSTALLATION.contains(&table.as_str())) {
        let roles = one.join(",");
        // The registry's column has another name.
        let mine = if table == "tenants" { mine.replace("(org =", "(org_id =") } else { mine.to_owned() };
        expected.insert(format!("{table} | of_one_organization | PERMISSIVE | ALL | {roles} | {mine} | {mine}"));
        let own = |part: &Part| !OF_ONE_ORGANIZATION.contains(part);
        let granted = |part: &Part| GRANTS.iter().any(|grant| grant.part == *part && grant.table == table);
        for role in Part::ALL.iter().filter(|part| own(part) && granted(part)).map(|part| role(*part)) {
            expected.insert(format!("{table} | of_all_for_{role} | PERMISSIVE | ALL | {role} | true | true"));
        }
    }
    let here =
        |stages| format!("(org <> ALL (ARRAY( SELECT moves.org FROM moves WHERE (moves.stage {stages}::text))))");
    let or_refused = |here: String| format!("CASE WHEN {here} THEN true ELSE refuse_moved() END");
    for table in FENCED {
        let (roles, here) = (roles_of(&WRITERS), here("<> 'announced'"));
        let written = or_refused(here.clone());
        expected.insert(format!("{table} | insert_here | RESTRICTIVE | INSERT | {roles} | {written}"));
        expected.insert(format!("{table} | update_here | RESTRICTIVE | UPDATE | {roles} | true | {written}"));
        expected.insert(format!("{table} | delete_here | RESTRICTIVE | DELETE | {roles} | {here}"));
    }
    let (roles, written) = (roles_of(&[Part::Api, Part::DeadLetter, Part::Platform]), or_refused(here("= 'ended'")));
    expected.insert(format!("audit_logs | insert_here | RESTRICTIVE | INSERT | {roles} | {written}"));
    let unknown: Vec<_> = policies.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&policies).collect();
    assert!(unknown.is_empty() && missing.is_empty(), "unknown: {unknown:#?}\nmissing: {missing:#?}");
}

#[tokio::test]
async fn functions_are_those_that_are_known_with_a_fixed_search_path() {
    let room = Room::new().await;
    let found = room
        .lines(
            "select concat_ws(' ', proname, prosecdef, (select string_agg(rolname, ',' order by rolname) from pg_roles \
               where rolname ~ '^postroom_' and rolname !~ '^postroom_test' and has_function_privilege(oid, pg_proc.oid, 'execute'))) \
             from pg_proc where pronamespace = 'public'::regnamespace",
        )
        .await;
    let expected = FUNCTIONS.map(|(name, is_owners, callers)| {
        let mut callers: Vec<String> = callers.iter().map(|part| role(*part)).collect();
        callers.sort();
        format!("{name} {} {}", if is_owners { "t" } else { "f" }, callers.join(",")).trim().to_owned()
    });
    assert_eq!(found, expected.into());
    let loose = room
        .lines(
            "select proname::text from pg_proc where pronamespace = 'public'::regnamespace \
             and not coalesce(proconfig, '{}') @> '{search_path=pg_catalog}'",
        )
        .await;
    assert!(loose.is_empty(), "{loose:?}");
    let to_all = room
        .lines(
            "select proname::text from pg_proc where pronamespace = 'public'::regnamespace \
             and (proacl is null or proacl::text ~ '[{,]=')",
        )
        .await;
    assert!(to_all.is_empty(), "everybody may call {to_all:?}");
}

#[tokio::test]
async fn roles_of_parts_are_bare_and_everybody_has_nothing() {
    let room = Room::new().await;
    let bare = room
        .lines(
            "select rolname::text from pg_roles where rolname in ('postroom_authorizer', 'postroom_receiver', \
               'postroom_worker', 'postroom_api', 'postroom_dead_letter', 'postroom_platform', 'postroom_keys', 'postroom_copy') \
             and not (rolsuper or rolinherit or rolcreaterole or rolcreatedb or rolcanlogin or rolreplication or rolbypassrls) \
             and not exists (select from pg_auth_members where member = pg_roles.oid)",
        )
        .await;
    assert_eq!(bare, Part::ALL.iter().map(|part| role(*part)).collect());
    let everybodys = room
        .lines(
            "select relname || coalesce(relacl::text, '') from pg_class where relnamespace = 'public'::regnamespace \
               and relacl::text ~ '[{,]=' \
             union all select attrelid::regclass || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid \
               where relnamespace = 'public'::regnamespace and attacl::text ~ '[{,]=' \
             union all select 'schema' where has_schema_privilege('public', 'public', 'create') \
             union all select 'connect' where has_database_privilege('public', current_database(), 'connect') \
             union all select 'temporary' where has_database_privilege('public', current_database(), 'temporary')",
        )
        .await;
    assert!(everybodys.is_empty(), "{everybodys:?}");
}

#[tokio::test]
async fn architecture_shows_what_each_part_may_do() {
    document("postgres/grants.rs", GRANTS, &Room::new().await.schema().await);
}

#[tokio::test]
async fn every_table_and_column_is_copied_or_made_anew() {
    let schema = Room::new().await.schema().await;
    let others: Vec<&str> = OF_THE_INSTALLATION.into_iter().chain(["revisions", "tenants", "moves"]).collect();
    let made_anew: &[(&str, &[&str])] = &[
        ("events", &["node", "tx", "counted"]),
        ("attempts", &["tx"]),
        ("source_secrets", &["is_erased"]),
        ("endpoint_secrets", &["is_erased"]),
    ];
    crate::copy::table::tests::check(&schema, |table| table.name, &others, made_anew);
}
