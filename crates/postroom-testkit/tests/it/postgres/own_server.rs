//! Servers that a test may do anything to.

use std::time::Duration;

use postroom_testkit::postgres::{Database, Server, connect};
use tokio::time::timeout;

use super::one;

#[tokio::test]
async fn a_server_that_was_killed_still_has_what_was_committed_and_only_that() {
    let mut server = Server::start().await;
    let (url, address) = (server.admin_url(), server.address());
    let client = connect(&url).await;
    client.batch_execute("CREATE TABLE event (id int8); INSERT INTO event VALUES (7)").await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO event VALUES (8)").await.unwrap();

    server.kill_nine().await;
    assert!(client.batch_execute("COMMIT").await.is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");

    server.restart().await;
    assert_eq!(server.admin_url(), url);
    assert_eq!(one::<String>(&connect(&url).await, "SELECT string_agg(id::text, ' ') FROM event").await, "7");
    assert!(server.log().contains("automatic recovery in progress"), "it was no orderly stop");

    server.stop_fast().await;
    server.restart().await;
    assert_eq!(one::<i64>(&connect(&url).await, "SELECT count(*) FROM event").await, 1);
}

#[tokio::test]
async fn a_frozen_server_answers_nothing_until_it_is_thawed() {
    let server = Server::start().await;
    let database = Database::on(&server.admin_url()).await;
    let client = connect(&database.owner_url()).await;
    server.freeze();
    // What is waited for never comes, so the length of the wait decides nothing.
    let asked = client.query_one("SELECT 7", &[]);
    tokio::pin!(asked);
    assert!(timeout(Duration::from_millis(200), &mut asked).await.is_err());
    server.thaw();
    assert_eq!(asked.await.unwrap().get::<_, i32>(0), 7);
}

#[tokio::test]
async fn a_standby_follows_and_takes_writes_once_it_is_promoted() {
    let mut primary = Server::start_with(&[("application_name", "it's ours")]).await;
    let client = connect(&primary.admin_url()).await;
    assert_eq!(
        one::<String>(&client, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'").await,
        "it's ours"
    );
    client.batch_execute("CREATE TABLE event (id int8); INSERT INTO event VALUES (1)").await.unwrap();
    let standby = primary.standby().await;
    primary.set("synchronous_standby_names", "*").await;
    client.batch_execute("INSERT INTO event VALUES (2)").await.unwrap();
    assert_eq!(one::<String>(&client, "SELECT sync_state FROM pg_stat_replication").await, "sync");

    standby.catch_up_with(&primary).await;
    let reader = connect(&standby.admin_url()).await;
    assert_eq!(one::<i64>(&reader, "SELECT count(*) FROM event").await, 2);
    let refused = reader.batch_execute("INSERT INTO event VALUES (3)").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25006", "read-only");

    primary.kill_nine().await;
    standby.promote().await;
    let client = connect(&standby.admin_url()).await;
    client.batch_execute("INSERT INTO event VALUES (3)").await.unwrap();
    assert_eq!(one::<i64>(&client, "SELECT sum(id)::int8 FROM event").await, 6);
}
