//! Holds a process at a statement of its own, from outside: a trigger on the table comes to no end while the test wants it.
//!
//! On PostgreSQL the trigger waits for a lock that the test has, and the server says who waits for it, at which statement. On the
//! embedded engine the trigger counts without end: the process then has the file's write lock and does nothing but count, and
//! nothing else that it does inside a transaction takes it so long.

use std::time::Duration;

use postroom_testkit::postgres::connect;
use rusqlite::{Connection, ErrorCode};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use crate::support::{Place, wait_for, wait_until};

/// Where a process is held: at a row of a table, both as PostgreSQL names them.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// `Before("insert", "mails")`
    Before(&'static str, &'static str),
    /// The row is written, and nothing after it.
    After(&'static str, &'static str),
    /// All is written, `commit` was sent, and is not answered. Only PostgreSQL has this step: SQLite's commit is one call.
    Committing(&'static str, &'static str),
}

/// The lock, in the database of one test.
const LOCK: i64 = 7;

/// Who waits for it, and with what.
const WAITING: &str = "select pid, query from pg_locks join pg_stat_activity using (pid) \
     where locktype = 'advisory' and not granted and objid = 7 and objsubid = 1 and datname = current_database()";

/// How much of the processor's time, in ticks of 10 ms, a process uses up that counts without end.
const COUNTING: u64 = 4;

/// A place where the next process that comes to a step stays there.
pub enum Held {
    Embedded(Connection),
    Postgres { client: Client, runtime: Runtime, statement: String, table: &'static str },
}

impl Held {
    pub fn at(place: &Place, step: Step) -> Self {
        let (when, how, table) = match step {
            Step::Before(how, table) => ("before", how, table),
            Step::After(how, table) | Step::Committing(how, table) => ("after", how, table),
        };
        if place.database.is_none() {
            let file = open(place);
            let table = embedded(table);
            let forever =
                "with recursive forever(n) as (select 1 union all select n + 1 from forever) select n from forever";
            let trigger =
                format!("create trigger held {when} {how} on {table} begin select max(n) from ({forever}); end");
            file.execute_batch(&trigger).expect("a trigger");
            return Self::Embedded(file);
        }
        let is_late = matches!(step, Step::Committing(..));
        let (constraint, deferred) = if is_late { ("constraint", "deferrable initially deferred") } else { ("", "") };
        let sql = format!(
            "create function held() returns trigger language plpgsql as \
               $$begin perform pg_advisory_xact_lock({LOCK}); return coalesce(new, old); end$$; \
             create {constraint} trigger held {when} {how} on {table} {deferred} for each row execute function held(); \
             select pg_advisory_lock({LOCK})"
        );
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let client = connect(&place.database().admin_url()).await;
            client.batch_execute(&sql).await.expect("a trigger");
            client
        });
        let statement = if is_late { "commit".to_owned() } else { how.to_owned() };
        Self::Postgres { client, runtime, statement, table }
    }

    /// Waits until this process is there.
    pub fn wait(&self, pid: u32) {
        match self {
            Self::Embedded(file) => {
                let mut since = None;
                wait_until("a process that counts inside a transaction", || {
                    if !is_locked(file) {
                        since = None;
                        return None;
                    }
                    let now = ticks(pid);
                    (now - *since.get_or_insert(now) >= COUNTING).then_some(())
                });
            }
            Self::Postgres { statement, table, .. } => {
                let asked = wait_until("a process that waits for the lock", || self.waiting());
                let asked = asked.to_lowercase();
                let is_there = asked.contains(statement.as_str()) && (statement == "commit" || asked.contains(table));
                assert!(is_there, "{statement} {table}: {asked}");
            }
        }
    }

    /// What waits for the lock.
    fn waiting(&self) -> Option<String> {
        let Self::Postgres { client, runtime, .. } = self else { return None };
        runtime.block_on(client.query_opt(WAITING, &[])).expect("an answer").map(|row| row.get("query"))
    }

    /// Takes the trigger away, after the process was killed and when nothing that it has sent is under way. The statement that
    /// was held is undone, as if it had never been sent; a `commit` goes on.
    pub fn release(self) {
        match self {
            Self::Embedded(file) => file.execute_batch("drop trigger held").expect("nobody has the file"),
            Self::Postgres { client, runtime, statement, table } => {
                let ask = |sql: &str| runtime.block_on(client.query(sql, &[])).expect("an answer");
                if statement != "commit" {
                    let undone = format!("select pg_terminate_backend(pid) from ({WAITING}) as waiting");
                    assert_eq!(ask(&undone).len(), 1);
                }
                ask(&format!("select pg_advisory_unlock({LOCK})"));
                let others = "select from pg_stat_activity where datname = current_database() \
                              and pid <> pg_backend_pid() and backend_type = 'client backend'";
                wait_until("the end of its connections", || ask(others).is_empty().then_some(()));
                ask(&format!("drop trigger held on {table}"));
                ask("drop function held");
            }
        }
    }
}

/// How many rows of a table are so.
pub fn count(place: &Place, table: &str, condition: &str) -> i64 {
    match &place.database {
        None => {
            let sql = format!("select count(*) from {} where {condition}", embedded(table));
            open(place).query_row(&sql, [], |row| row.get(0)).expect("a number")
        }
        Some(database) => wait_for(async {
            let sql = format!("select count(*) from {table} where {condition}");
            connect(&database.admin_url()).await.query_one(&sql, &[]).await.expect("a number").get(0)
        }),
    }
}

/// What a test changes in a database as nobody else may.
pub fn change(place: &Place, table: &str, set: &str) {
    match &place.database {
        None => open(place).execute_batch(&format!("update {} set {set}", embedded(table))).expect("a change"),
        Some(database) => wait_for(async {
            let sql = format!("update {table} set {set}");
            connect(&database.admin_url()).await.batch_execute(&sql).await.expect("a change");
        }),
    }
}

fn open(place: &Place) -> Connection {
    let file = Connection::open(place.dir.path().join("postroom-data/postroom.db")).expect("a database");
    file.busy_timeout(Duration::from_secs(5)).expect("a setting");
    file
}

/// How the embedded engine names a table.
fn embedded(table: &str) -> &str {
    match table {
        "audit_logs" => "audit",
        "idempotency_keys" => "idempotency",
        other => other.trim_end_matches('s'),
    }
}

/// Whether somebody else is writing.
fn is_locked(file: &Connection) -> bool {
    file.busy_timeout(Duration::ZERO).expect("a setting");
    let begun = file.execute_batch("begin immediate; rollback");
    file.busy_timeout(Duration::from_secs(5)).expect("a setting");
    begun.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

/// What a process has used of the processor.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}
