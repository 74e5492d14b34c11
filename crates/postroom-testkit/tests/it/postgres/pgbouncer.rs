//! PgBouncer in front of the server of `scripts/test`.

use postroom_testkit::postgres::{APP_ROLE, Database, OWNER_ROLE, PgBouncer, connect};

use super::one;

#[tokio::test]
async fn transactions_of_all_roles_go_through_and_clients_share_one_session() {
    let database = Database::new().await;
    let pooler = PgBouncer::start_with_pool(&database.admin_url(), 1).await;
    let session = "SELECT pg_backend_pid()";
    let (first, second) = (pooler.url(&database.owner_url()), pooler.url(&database.owner_url()));
    let (first, second) = (connect(&first).await, connect(&second).await);

    first.batch_execute("BEGIN; CREATE TABLE event (id int8); INSERT INTO event VALUES (7)").await.unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    let seen = second.simple_query("SELECT id, current_user FROM event").await.unwrap();
    let tokio_postgres::SimpleQueryMessage::Row(row) = &seen[1] else { panic!("a row: {seen:?}") };
    assert_eq!((row.get(0), row.get(1)), (Some("7"), Some(OWNER_ROLE)));

    let of_first = first.query_typed(session, &[]).await.unwrap()[0].get::<_, i32>(0);
    let of_second = second.query_typed(session, &[]).await.unwrap()[0].get::<_, i32>(0);
    assert_eq!(of_first, of_second, "one connection to the server for this role and database");
    first.batch_execute("SET lock_timeout = '77s'").await.unwrap();
    let left_behind = second.query_typed("SHOW lock_timeout", &[]).await.unwrap();
    assert_eq!(left_behind[0].get::<_, String>(0), "77s", "what one leaves behind, the next finds");

    let app = connect(&pooler.url(&database.app_url())).await;
    let user = app.query_typed("SELECT current_user::text", &[]).await.unwrap();
    assert_eq!(user[0].get::<_, String>(0), APP_ROLE);

    let admin = connect(&database.admin_url()).await;
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = '{OWNER_ROLE}'"
    );
    assert_eq!(one::<i64>(&admin, &sessions).await, 1);
}
