//! The walks over the log use the index they are named after and sort nothing.

use super::model;
use crate::sqlite::reads::{deliveries, rejection, scan};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

#[test]
fn no_list_reads_a_whole_table_or_sorts_it() {
    let log = model::log().new_tree(&mut TestRunner::default()).unwrap().current();
    for sql in scan::STATEMENTS.iter().chain(deliveries::STATEMENTS).chain(rejection::STATEMENTS) {
        let mut statement = log.raw.prepare(&format!("explain query plan {sql}")).unwrap();
        let count = statement.parameter_count();
        let values = rusqlite::params_from_iter(std::iter::repeat_n(1, count));
        let steps: Vec<String> =
            statement.query_map(values, |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        let bad = |step: &&String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
        assert_eq!(steps.iter().find(bad), None, "{sql}: {steps:#?}");
    }
}
