//! Databases on the server of `scripts/test`.

use std::sync::atomic::{AtomicUsize, Ordering};

use postroom_testkit::postgres::{APP_ROLE, Database, OWNER_ROLE, connect};

use super::one;

async fn exists(name: &str) -> bool {
    let elsewhere = Database::new().await;
    let admin = connect(&elsewhere.admin_url()).await;
    one(&admin, &format!("SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')")).await
}

/// A copy is independent of its template, and these templates are of no use to anybody else.
async fn forget_template(fingerprint: &str) {
    let elsewhere = Database::new().await;
    let admin = connect(&elsewhere.admin_url()).await;
    let name: String = one(&admin, &format!("SELECT 'postroom_test_template_' || md5('{fingerprint}')")).await;
    assert!(exists(&name).await);
    admin.batch_execute(&format!("DROP DATABASE {name}")).await.unwrap();
}

#[tokio::test]
async fn a_database_is_made_used_and_gone_even_while_somebody_is_connected() {
    let database = Database::new().await;
    let name = database.name().to_owned();
    let owner = connect(&database.owner_url()).await;
    owner.batch_execute("CREATE TABLE event (id int8); INSERT INTO event VALUES (7)").await.unwrap();
    assert_eq!(one::<i64>(&owner, "SELECT id FROM event").await, 7);
    assert!(exists(&name).await);

    drop(database);

    assert!(!exists(&name).await);
    assert!(owner.batch_execute("SELECT 1").await.is_err(), "the connection was closed by the server");
}

#[tokio::test]
async fn databases_that_a_database_names_go_with_it() {
    let other = format!("postroom_test_other_{}", uuid::Uuid::now_v7().simple());
    let database = Database::new().await.taking("SELECT name FROM other");
    let owner = connect(&database.owner_url()).await;
    owner
        .batch_execute(&format!("CREATE TABLE other (name text); INSERT INTO other VALUES ('{other}')"))
        .await
        .unwrap();
    owner.batch_execute(&format!("CREATE DATABASE {other}")).await.unwrap();
    assert!(exists(&other).await);

    drop(database);

    assert!(!exists(&other).await);
}

#[tokio::test]
async fn the_roles_are_what_a_deployment_would_give_us() {
    let database = Database::new().await;
    let rights = "SELECT format('%s %s %s %s', rolsuper, rolbypassrls, rolcreaterole, rolinherit) FROM pg_roles \
                  WHERE rolname = current_user";
    let (owner, app) = (connect(&database.owner_url()).await, connect(&database.app_url()).await);
    assert_eq!(one::<String>(&owner, "SELECT current_user::text").await, OWNER_ROLE);
    assert_eq!(one::<String>(&owner, rights).await, "f f t t");
    assert_eq!(one::<String>(&app, "SELECT current_user::text").await, APP_ROLE);
    assert_eq!(one::<String>(&app, rights).await, "f f f f");

    owner.batch_execute("CREATE TABLE event (id int8)").await.unwrap();
    let refused = app.batch_execute("SELECT id FROM event").await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().message(), "permission denied for table event");
    app.batch_execute("CREATE TABLE mine (id int8)").await.unwrap_err();

    let admin = connect(&database.admin_url()).await;
    assert_eq!(one::<String>(&admin, "SELECT current_setting('is_superuser')").await, "on");
    assert_eq!(one::<String>(&admin, "SELECT current_database()::text").await, database.name());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_template_is_made_once_and_each_test_gets_a_copy_with_everything_that_was_set() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let fingerprint = format!("of this run of this test: {}", uuid::Uuid::now_v7());
    let make = async |url: &str| {
        MADE.fetch_add(1, Ordering::Relaxed);
        let owner = connect(url).await;
        let name: String = one(&owner, "SELECT current_database()::text").await;
        owner
            .batch_execute(&format!(
                "CREATE TABLE event (id int8); INSERT INTO event VALUES (7); REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; \
                 ALTER DATABASE {name} SET lock_timeout = '2s'"
            ))
            .await
            .unwrap();
    };
    let copies = (0..4).map(|_| Database::from_template(&fingerprint, make));
    let copies: Vec<Database> = futures_util::future::join_all(copies).await;
    assert_eq!(MADE.load(Ordering::Relaxed), 1);
    forget_template(&fingerprint).await;

    for copy in &copies {
        let owner = connect(&copy.owner_url()).await;
        assert_eq!(one::<i64>(&owner, "SELECT count(*) FROM event").await, 1);
        assert_eq!(one::<String>(&owner, "SELECT current_setting('lock_timeout')").await, "2s");
        owner.batch_execute("INSERT INTO event VALUES (8)").await.unwrap();
        let admin = connect(&copy.admin_url()).await;
        let may = format!("SELECT has_database_privilege('{APP_ROLE}', current_database(), 'CONNECT')");
        assert!(!one::<bool>(&admin, &may).await, "the revoked grant came along");
    }
}

#[tokio::test]
async fn a_template_that_was_not_finished_is_made_anew() {
    let fingerprint = uuid::Uuid::now_v7().to_string();
    let broken = tokio::spawn({
        let fingerprint = fingerprint.clone();
        async move {
            Database::from_template(&fingerprint, async |url: &str| {
                connect(url).await.batch_execute("CREATE TABLE half (id int8)").await.unwrap();
                panic!("this migration is broken");
            })
            .await
        }
    });
    assert!(broken.await.unwrap_err().is_panic());

    let whole = Database::from_template(&fingerprint, async |url: &str| {
        connect(url).await.batch_execute("CREATE TABLE whole (id int8)").await.unwrap();
    })
    .await;
    forget_template(&fingerprint).await;
    let owner = connect(&whole.owner_url()).await;
    assert_eq!(
        one::<String>(&owner, "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'").await,
        "whole"
    );
}
