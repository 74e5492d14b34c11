//! One organization at a time: what a transaction of one sees, and that nothing of it stays on a connection.

use super::super::convert::get;
use super::super::pool::{Part, bind};
use super::Room;
use crate::Error;

impl Room {
    /// Two organizations with a source, an event and an endpoint each.
    async fn two() -> Self {
        let room = Self::new().await;
        room.run(
            "insert into organizations (slug, id, name, plan, is_active, created_at, updated_at) \
               select 'org-' || n, gen_random_uuid(), 'o', 'free', true, now(), now() from generate_series(1, 2) as n; \
             select make_partition(current_date); \
             insert into events (org, id, node, tx, counted, type, targets, headers, body) \
               select org, (substr(day_floor(current_date)::text, 1, 24) || lpad(org::text, 12, '0'))::uuid, 1, 1, true, 'a', '', '', '' \
               from organizations; \
             insert into sources (org, id, name, provider, options, is_active, created_at, updated_at) \
               select org, gen_random_uuid(), 's' || org, 'hmac', '{}', true, now(), now() from organizations",
        )
        .await;
        room
    }
}

#[tokio::test]
async fn statements_without_a_where_see_only_their_own_organization() {
    let room = Room::two().await;
    for part in [Part::Api, Part::DeadLetter] {
        let pool = room.pool(part);
        let transaction = pool.begin_for(1).await.unwrap();
        for sql in ["select org from events", "select org, id, targets from events"] {
            let orgs: Vec<i64> = transaction.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
            assert_eq!(orgs, [1], "{part:?}");
        }
        transaction.commit().await.unwrap();
        let transaction = pool.begin_unscoped().await.unwrap();
        assert!(transaction.query("select org from events", &[]).await.unwrap().is_empty(), "nobody's is nothing");
        transaction.rollback().await.unwrap();
    }
    let api = room.pool(Part::Api);
    let transaction = api.begin_for(1).await.unwrap();
    assert_eq!(transaction.execute("update sources set name = 'taken'", &[]).await.unwrap(), 1);
    assert_eq!(transaction.execute("update sources set name = 'stolen' where org = 2", &[]).await.unwrap(), 0);
    transaction.commit().await.unwrap();
    assert_eq!(room.count("sources where org = 2 and name = 's2'").await, 1);
    let transaction = api.begin_for(1).await.unwrap();
    let theirs = "insert into sources (org, id, name, provider, options, is_active, created_at, updated_at) \
         values (2, gen_random_uuid(), 'planted', 'hmac', '{}', true, now(), now())";
    let error = transaction.execute(theirs, &[]).await.unwrap_err();
    assert!(format!("{error:?}").contains("violates row-level security policy"), "{error:?}");
    drop(transaction);
    let transaction = api.begin_for(1).await.unwrap();
    let error = transaction.execute("update sources set org = 2", &[]).await.unwrap_err();
    assert!(format!("{error:?}").contains("permission denied"), "an owner is never changed: {error:?}");
}

#[tokio::test]
async fn one_connection_that_goes_between_organizations_ten_thousand_times_never_mixes_them() {
    let room = Room::two().await;
    let pool = room.pool(Part::Api);
    pool.resize(1);
    let mut backends = std::collections::HashSet::new();
    for round in 0..10_000_i64 {
        let org = round % 2 + 1;
        let transaction = pool.begin_for(org).await.unwrap();
        let rows = transaction.query("select org, pg_backend_pid() from events", bind![]).await.unwrap();
        assert_eq!(rows.len(), 1, "round {round}");
        assert_eq!(get::<i64>(&rows[0], 0).unwrap(), org, "round {round}");
        backends.insert(get::<i32>(&rows[0], 1).unwrap());
        if round % 3 == 0 { transaction.rollback().await } else { transaction.commit().await }.unwrap();
        if round % 500 == 0 {
            let connection = pool.connection().await.unwrap();
            let sql = "select coalesce(current_setting('app.current_organization_id', true), ''), current_user::text";
            let row = connection.query_one(sql, &[]).await.unwrap().unwrap();
            assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("", "postroom_api"), "nothing is left");
            assert!(connection.query("select from events", &[]).await.unwrap().is_empty());
        }
    }
    assert_eq!(backends.len(), 1, "it was one connection");
}

#[tokio::test]
async fn a_transaction_that_is_not_ended_in_order_takes_its_connection_with_it() {
    let room = Room::two().await;
    let pool = room.pool(Part::Api);
    pool.resize(1);
    let pid = async |org: i64| -> i32 {
        let transaction = pool.begin_for(org).await.unwrap();
        let row = transaction.query_one("select pg_backend_pid()", &[]).await.unwrap().unwrap();
        transaction.execute("update sources set name = 'dropped'", &[]).await.unwrap();
        row.get(0)
    };
    let (first, second) = (pid(1).await, pid(2).await);
    assert_ne!(first, second);
    assert_eq!(room.count("sources where name = 'dropped'").await, 0);

    let transaction = pool.begin_for(1).await.unwrap();
    let failed = transaction.query("select 1 / 0", &[]).await;
    assert!(matches!(failed, Err(Error::Internal(_))));
    drop(transaction);
    let cancelled = async {
        let transaction = pool.begin_for(1).await.unwrap();
        transaction.query("select pg_sleep(60)", &[]).await
    };
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), cancelled).await.is_err());
    let transaction = pool.begin_for(2).await.unwrap();
    let rows = transaction.query("select org from events", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [2]);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn the_organization_is_a_value_and_never_text_of_a_statement() {
    let room = Room::two().await;
    let pool = room.pool(Part::Api);
    let connection = pool.connection().await.unwrap();
    for hostile in ["1'; select set_config('app.current_organization_id', '2', false); --", "2 or true", "", "x"] {
        let sql = "select count(*) from events, (select set_config('app.current_organization_id', $1, true)) as s";
        // Either nothing is seen or the statement fails; what is set ends with it.
        let seen = connection.query_one(sql, bind![hostile]).await;
        assert!(seen.is_err() || seen.unwrap().unwrap().get::<_, i64>(0) == 0, "{hostile}");
    }
}
