//! Migrations forward and back: at once, killed in the middle, beside programs of other versions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use postroom_domain::Secret;
use postroom_storage::postgres::migrate::{self, AppLogin};
use postroom_storage::postgres::{OpenError, Part};
use postroom_testkit::postgres::{APP_ROLE, Database, OWNER_ROLE, connect};
use tokio_postgres::Client;

use super::{Role, app, migrated, owner};

const ALL: [&str; NEWEST] = [
    "0001_configuration",
    "0002_log",
    "0003_parts",
    "0004_pokes",
    "0005_copy",
    "0006_people",
    "0007_audit",
    "0008_moving",
    "0009_guard",
    "0010_moves",
    "0011_worker",
];
/// How many there are.
pub(super) const NEWEST: usize = 11;
/// The schema of a program to come.
pub(super) const NEWER: i32 = NEWEST as i32 + 1;
/// How many there are before that which makes the parts.
const BEFORE_PARTS: usize = 2;

/// What can be told of a schema without its owner: every column, constraint, index, policy and grant.
async fn shape(database: &Database) -> Vec<String> {
    let admin = connect(&database.admin_url()).await;
    let sql = "select 'column ' || attrelid::regclass || ' ' || attname || ' ' || atttypid::regtype || ' ' \
                 || coalesce(attacl::text, '') from pg_attribute join pg_class on pg_class.oid = attrelid \
                 where relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped \
               union all select 'relation ' || relname || ' ' || coalesce(relacl::text, '') || relrowsecurity || \
                 relforcerowsecurity from pg_class where relnamespace = 'public'::regnamespace \
               union all select 'constraint ' || conname || pg_get_constraintdef(oid) from pg_constraint \
                 where connamespace = 'public'::regnamespace \
               union all select 'index ' || indexdef from pg_indexes where schemaname = 'public' \
               union all select concat_ws(' ', 'policy', policyname, tablename, roles, qual, with_check) from pg_policies \
               union all select 'function ' || proname || prosrc || coalesce(proacl::text, '') from pg_proc \
                 where pronamespace = 'public'::regnamespace order by 1";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn applied(database: &Database) -> Vec<bool> {
    let steps = migrate::status(&owner(database)).await.unwrap();
    assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), ALL);
    steps.iter().map(|step| step.applied).collect()
}

/// That the first so many are applied.
fn only(count: usize) -> [bool; NEWEST] {
    std::array::from_fn(|at| at < count)
}

/// A database as it is before the migration that makes the parts.
async fn before_parts() -> Database {
    let database = Database::new().await;
    migrate::up(&owner(&database), &app()).await.unwrap();
    while applied(&database).await != only(BEFORE_PARTS) {
        migrate::down(&owner(&database)).await.unwrap();
    }
    database
}

#[tokio::test]
async fn migrations_go_forward_and_back_and_forward_to_the_same_schema() {
    let database = Database::new().await;
    assert_eq!(applied(&database).await, [false; NEWEST]);
    let done = migrate::up(&owner(&database), &app()).await.unwrap();
    assert_eq!((done.applied.as_slice(), done.advice.len()), (ALL.as_slice(), 0), "{:?}", done.advice);
    assert!(migrate::up(&owner(&database), &app()).await.unwrap().applied.is_empty());
    assert_eq!(applied(&database).await, [true; NEWEST]);
    let first = shape(&database).await;

    for left in (0..NEWEST).rev() {
        assert_eq!(migrate::down(&owner(&database)).await.unwrap(), Some(ALL[left]));
        assert_eq!(applied(&database).await, only(left));
    }
    assert_eq!(migrate::down(&owner(&database)).await.unwrap(), None);
    let left = shape(&database).await;
    assert!(left.iter().all(|line| line.contains("migrations")), "{left:#?}");

    assert_eq!(migrate::up(&owner(&database), &app()).await.unwrap().applied, ALL);
    assert_eq!(shape(&database).await, first);
}

#[tokio::test]
async fn of_many_that_migrate_at_once_one_does_it_and_the_others_find_it_done() {
    let databases = futures_util::future::join_all((0..3).map(|_| Database::new())).await;
    let owners: Vec<Secret> = databases.iter().flat_map(|database| vec![owner(database); 4]).collect();
    let logins = app();
    let done = futures_util::future::join_all(owners.iter().map(|owner| migrate::up(owner, &logins))).await;
    for database in done.chunks(4) {
        let mut names: Vec<&str> = database.iter().flat_map(|done| done.as_ref().unwrap().applied.clone()).collect();
        names.sort_unstable();
        assert_eq!(names, ALL, "each step once, by one of them");
        assert_eq!(database.iter().filter(|done| !done.as_ref().unwrap().applied.is_empty()).count(), 1);
    }
}

#[tokio::test]
async fn a_migration_killed_at_any_moment_is_finished_by_the_next() {
    let whole = shape(&migrated().await).await;
    for round in 0..8_u32 {
        let database = Database::new().await;
        let admin = connect(&database.admin_url()).await;
        let (url, logins) = (owner(&database), app());
        let killed = tokio::spawn(async move { migrate::up(&url, &logins).await });
        let started = Instant::now();
        while !killed.is_finished() && started.elapsed() < Duration::from_millis(15) * round {
            tokio::task::yield_now().await;
        }
        kill(&admin).await;
        let _either = killed.await.unwrap();
        let before = applied(&database).await;
        assert!(before.is_sorted_by(|a, b| a >= b), "{before:?}");
        migrate::up(&owner(&database), &app()).await.unwrap();
        assert_eq!(shape(&database).await, whole, "killed in round {round}, with {before:?}");
    }
}

async fn kill(admin: &Client) {
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and usename = $1 and application_name = 'postroom'";
    admin.query(kill, &[&OWNER_ROLE]).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let database = before_parts().await;
    let before = shape(&database).await;
    let admin = connect(&database.admin_url()).await;
    admin.batch_execute("create policy of_one_organization on rejections using (true)").await.unwrap();
    let error = migrate::up(&owner(&database), &app()).await.unwrap_err().to_string();
    assert!(error.contains("of_one_organization"), "{error}");
    admin.batch_execute("drop policy of_one_organization on rejections").await.unwrap();
    assert_eq!(shape(&database).await, before);
    assert_eq!(applied(&database).await, only(BEFORE_PARTS));
}

#[tokio::test]
async fn a_busy_table_stops_a_migration_instead_of_everybody() {
    let database = before_parts().await;
    let reader = connect(&database.admin_url()).await;
    reader.batch_execute("begin; lock table organizations in access share mode").await.unwrap();
    let error = migrate::up(&owner(&database), &app()).await.unwrap_err();
    assert!(matches!(error, OpenError::Busy(_)), "{error}");
    assert!(error.to_string().ends_with("run the command again"), "{error}");
    reader.batch_execute("commit").await.unwrap();
    assert_eq!(migrate::up(&owner(&database), &app()).await.unwrap().applied, ALL[BEFORE_PARTS..]);
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let database = migrated().await;
    let admin = connect(&database.admin_url()).await;
    admin.batch_execute(&format!("insert into migrations values ({NEWER}, 'newer', 3)")).await.unwrap();
    let url = owner(&database);
    for error in [
        migrate::status(&url).await.map(drop).unwrap_err(),
        migrate::up(&url, &app()).await.map(drop).unwrap_err(),
        migrate::down(&url).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::Newer { found: NEWER, known: NEWEST, .. }), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_taken_back_under_a_running_server() {
    let database = migrated().await;
    let admin = connect(&database.admin_url()).await;
    let live = "insert into nodes (lease_until, watermark, counted, delivers) \
         values (now() + interval '1 minute', 0, 0, true)";
    admin.batch_execute(live).await.unwrap();
    let error = migrate::down(&owner(&database)).await.unwrap_err();
    assert!(matches!(error, OpenError::Running { servers: 1 }), "{error}");
    admin.batch_execute("update nodes set lease_until = now() - interval '1 second'").await.unwrap();
    assert_eq!(migrate::down(&owner(&database)).await.unwrap(), Some(ALL[NEWEST - 1]));
}

#[tokio::test]
async fn a_login_gets_its_parts_and_only_it_may_connect() {
    let database = Database::new().await;
    let inheriting = Role::new(&database, "login inherit").await;
    let worker = Role::new(&database, "login noinherit").await;
    let stranger = Role::new(&database, "login in role postroom_worker").await;
    let own = HashMap::from([(Part::Worker, Secret::from(database.url_as(&worker.name).as_str()))]);
    let common = Secret::from(database.url_as(&inheriting.name).as_str());
    let logins = AppLogin::of_urls(&common, &own).unwrap();
    let done = migrate::up(&owner(&database), &logins).await.unwrap();
    assert!(done.advice.is_empty(), "{:?}", done.advice);

    let client = connect(&database.url_as(&inheriting.name)).await;
    assert!(client.query("select 1 from events", &[]).await.is_err(), "it has become nobody yet");
    client.batch_execute("set role postroom_api; select from events").await.unwrap();
    assert!(client.batch_execute("set role postroom_worker").await.is_err(), "that part has a login of its own");
    let client = connect(&database.url_as(&worker.name)).await;
    client.batch_execute("select from events").await.unwrap();
    assert!(client.batch_execute("create table mine (a int)").await.is_err());
    assert!(client.batch_execute("create temporary table mine (a int)").await.is_err());
    let refused = tokio_postgres::connect(&database.url_as(&stranger.name), tokio_postgres::NoTls).await.err().unwrap();
    assert!(refused.as_db_error().unwrap().message().contains("permission denied for database"), "{refused:?}");

    for role in [inheriting, worker, stranger] {
        role.give_back().await;
    }
}

#[tokio::test]
async fn what_the_owner_may_not_do_is_said_with_the_statement_that_does_it() {
    let database = Database::new().await;
    let helpless = Role::new(&database, "login nocreaterole").await;
    helpless.run(&format!("alter database {} owner to {}", database.name(), helpless.name)).await;
    let login = Role::new(&database, "login inherit").await;
    let url = Secret::from(database.url_as(&helpless.name).as_str());
    migrate::up(&owner(&migrated_elsewhere().await), &app()).await.unwrap();

    let missing = migrate::up(&url, &[AppLogin::of_all_parts("postroom_test_nobody")]).await.unwrap_err();
    assert!(missing.to_string().contains("create role \"postroom_test_nobody\" login noinherit"), "{missing}");
    let done = migrate::up(&url, &[AppLogin::of_all_parts(&login.name)]).await.unwrap();
    assert_eq!(done.applied, ALL);
    let said = done.advice.join("\n");
    assert!(said.contains(&format!("grant postroom_worker to \"{}\"", login.name)), "{said}");
    assert!(said.contains(&format!("alter role \"{}\" noinherit", login.name)), "{said}");
    let own = migrate::up(&url, &[AppLogin::of_all_parts(&helpless.name)]).await.unwrap();
    assert!(own.advice.concat().contains("POSTROOM_MIGRATE_DATABASE_URL"), "{:?}", own.advice);

    let nobody = Secret::from(database.url_as(APP_ROLE).as_str());
    let error = migrate::up(&nobody, &app()).await.unwrap_err();
    assert!(!error.to_string().contains(database.password().unwrap_or("no password")), "{error}");
    login.give_back().await;
    helpless.run(&format!("reassign owned by {} to {OWNER_ROLE}", helpless.name)).await;
    helpless.run(&format!("alter database {} owner to {OWNER_ROLE}", database.name())).await;
    helpless.give_back().await;
}

/// Another database of the server, in which the parts' roles were made.
async fn migrated_elsewhere() -> Database {
    migrated().await
}
