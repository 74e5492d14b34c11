//! On a filled log, as the part that asks and with the rows of one organization only: walks use the index they are named
//! after, sort nothing, and stop in the newest partition when they have enough.

use std::fmt::Write;

use uuid::Uuid;

use super::model::Log;
use crate::engine::model::ORG;
use crate::postgres::pool::{Bound, Pool, bind};
use crate::postgres::reads::{deliveries, scan};

/// Events of the organizations 1 and 2 and of forty that nobody asks for, for four days; the day before the last one,
/// and the last one, are whole.
const FILL: &str = "create temp table filled as select n, 1 + n % 42 as org, (1 + n % 42) * 10 + 1 + n / 42 % 2 as endpoint, \
       1000 + n / 10 as tx, ((lpad(to_hex(1800000000000 + n::bigint * 30000), 12, '0') || '7000800000000000' || \
       lpad(to_hex(n), 4, '0'))::uuid) as id from generate_series(1, 12000) as n; \
     insert into events (org, id, node, tx, type, targets, counted, headers, body) \
       select org, id, 1, tx, 'type' || n % 5, decode(lpad(to_hex(endpoint), 8, '0'), 'hex'), true, '[]', '{}' from filled; \
     insert into attempts select org, endpoint, id, 0, id, tx, 1, n % 10 <> 0, 200, null, 1, now(), '' from filled; \
     insert into exceptions select org, endpoint, id, 0, case n / 84 % 5 when 0 then 'waiting' else 'dead_letter' end, now(), \
       1, 1, null, now() from filled where n / 42 % 2 = 0; \
     analyze;";

async fn plan(pool: &Pool, sql: &str, values: &[Bound<'_>]) -> String {
    let transaction = pool.begin_for(ORG).await.unwrap();
    let sql = format!("explain (analyze, costs off, timing off, summary off) {sql}");
    let mut text = String::new();
    for row in transaction.query(&sql, values).await.unwrap() {
        writeln!(text, "{}", row.get::<_, &str>(0)).unwrap();
    }
    transaction.rollback().await.unwrap();
    text
}

#[tokio::test]
async fn walks_use_their_index_sort_nothing_and_stop_in_the_newest_partition() {
    let log = Log::new().await;
    log.admin.batch_execute(FILL).await.unwrap();
    let (from, upto, most) = (Uuid::nil(), Uuid::max(), 3_i64);
    let (dead, endpoint, last) = ("dead_letter", 11_i64, i64::MAX);
    let of_api: [(&str, &[Bound<'_>], &str); 4] = [
        (scan::BY_ORG, bind![ORG, from, upto, most], "_pkey on events_"),
        (scan::BY_TYPE, bind![ORG, from, upto, most, "type3"], "_org_type_id_idx on events_"),
        (scan::BY_EXCEPTION, bind![ORG, from, upto, most, dead], "using exceptions_by_state"),
        (deliveries::EXCEPTIONS, bind![ORG, dead, from, upto, last, last, most], "using exceptions_by_state"),
    ];
    for (sql, values, index) in of_api {
        let plan = plan(&log.api, sql, values).await;
        assert!(plan.contains(index), "{plan}");
        assert!(!plan.contains("Seq Scan") && !plan.contains("Sort"), "{plan}");
        assert!(plan.contains("InitPlan 1"), "the policy is asked once: {plan}");
    }
    let newest = plan(&log.api, scan::BY_ORG, bind![ORG, from, upto, most]).await;
    let touched = |day: &str| newest.lines().any(|line| line.contains(day) && !line.contains("never executed"));
    assert!(touched("events_20270119") && !touched("events_20270118") && !touched("events_20270115"), "{newest}");

    let values = bind![ORG, dead, from, upto, endpoint, last, most];
    let dead = plan(&log.dead_letter, deliveries::EXCEPTIONS_OF_ENDPOINT, values).await;
    assert!(dead.contains("exceptions_pkey") && !dead.contains("Seq Scan"), "{dead}");
    let values = bind![ORG, from, upto, endpoint, last, most];
    let sent = plan(&log.dead_letter, deliveries::OF_ENDPOINT, values).await;
    assert!(sent.contains("_pkey on attempts_") && !sent.contains("Seq Scan"), "{sent}");
}
