//! Connections, one pool for each part of the process. A connection of a pool has become the part's role before anybody
//! gets it, so what a part may see is decided by the database.
//!
//! Every statement goes out with its types, unnamed, in one round trip: nothing is prepared on a connection, so a
//! pooler that hands out another connection for every transaction (PgBouncer in transaction mode) does no harm. The
//! organization of a transaction is set by a bound value and ends with the transaction; a transaction that is not
//! ended in order takes its connection with it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, QueueMode, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};

use super::convert::get;
use super::door::Login;
use super::footprint::Footprint;
use super::open::OpenError;
use crate::{Error, Result};

/// How long somebody waits for a connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may take to be made, and how long to become its part.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the answer to a statement may take: a server that is frozen or cut off says nothing at all.
const ANSWER: Duration = Duration::from_secs(5);

/// A part of the process, as the database knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Proves callers.
    Authorizer,
    /// Accepts events.
    Receiver,
    /// Delivers.
    Worker,
    /// An organization's own resources.
    Api,
    /// Moves what was not delivered.
    DeadLetter,
    /// Super admins and upkeep.
    Platform,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Authorizer, Self::Receiver, Self::Worker, Self::Api, Self::DeadLetter, Self::Platform];

    /// Its role in the database.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Authorizer => "postroom_authorizer",
            Self::Receiver => "postroom_receiver",
            Self::Worker => "postroom_worker",
            Self::Api => "postroom_api",
            Self::DeadLetter => "postroom_dead_letter",
            Self::Platform => "postroom_platform",
        }
    }
}

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Pool(deadpool_postgres::Pool);

impl Pool {
    /// A pool of connections that are a part's. Connects only when somebody asks.
    pub(super) fn new(login: &Login, footprint: Footprint) -> Result<Self, OpenError> {
        let manager = Manager::from_connect(
            login.address.config.clone(),
            login.address.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let greeting = login.greeting();
        let become_part = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let greeting = greeting.clone();
            Box::pin(async move {
                let said = tokio::time::timeout(CONNECT, client.batch_execute(&greeting)).await;
                said.map_err(|_| HookError::message("the database does not answer"))?.map_err(HookError::Backend)
            })
        });
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(footprint.connections(login.part))
            // Those that only a load needed come to rest after it.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(PATIENCE), create: Some(CONNECT), recycle: Some(PATIENCE) })
            .post_create(become_part)
            .build()
            .map_err(|error| OpenError::Database(error.into()))?;
        Ok(Self(pool))
    }

    /// A connection for single statements of a part that works for all organizations.
    pub(super) async fn connection(&self) -> Result<Connection> {
        Ok(Connection(Desk::new(self.0.get().await?)))
    }

    /// A transaction in which only the rows of one organization exist.
    pub(super) async fn begin_for(&self, org: i64) -> Result<Transaction> {
        let transaction = Transaction { desk: Some(Desk::new(self.0.get().await?)) };
        // Both are on their way at once: one round trip.
        tokio::try_join!(transaction.run("begin"), transaction.enter(org))?;
        Ok(transaction)
    }

    /// A transaction of a part that works for all organizations.
    pub(super) async fn begin_unscoped(&self) -> Result<Transaction> {
        let transaction = Transaction { desk: Some(Desk::new(self.0.get().await?)) };
        transaction.run("begin").await?;
        Ok(transaction)
    }

    /// A transaction that only reads: all of it as the database was at its first statement.
    pub(super) async fn snapshot(&self) -> Result<Transaction> {
        let transaction = Transaction { desk: Some(Desk::new(self.0.get().await?)) };
        transaction.run("begin isolation level repeatable read read only").await?;
        Ok(transaction)
    }

    /// How many connections it may have, has, and lends out now.
    pub(super) fn status(&self) -> (usize, usize, usize) {
        let status = self.0.status();
        (status.max_size, status.size, status.size - status.available)
    }

    /// Has so many connections at most.
    #[cfg(test)]
    pub(super) fn resize(&self, connections: usize) {
        self.0.resize(connections);
    }

    /// Closes connections that nobody has used for so long.
    pub(super) fn close_idle(&self, idle: Duration) {
        self.0.retain(|_, metrics| metrics.last_used() < idle);
    }

    /// How long the one that nobody has used for longest was not used; none when all are in use, or none is there.
    pub(super) fn longest_idle(&self) -> Option<Duration> {
        let mut longest = None;
        self.0.retain(|_, metrics| {
            longest = longest.max(Some(metrics.last_used()));
            true
        });
        longest
    }

    /// Nobody gets a connection any more.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

/// One value of a statement with its type.
pub(super) type Bound<'a> = (&'a (dyn ToSql + Sync), Type);

/// What has one column type.
pub(super) trait Typed: ToSql + Sync {
    const TYPE: Type;
}

macro_rules! typed {
    ($($rust:ty => $sql:ident / $array:ident),* $(,)?) => {
        $(
            impl Typed for $rust { const TYPE: Type = Type::$sql; }
            impl Typed for Option<$rust> { const TYPE: Type = Type::$sql; }
            impl Typed for Vec<$rust> { const TYPE: Type = Type::$array; }
            impl Typed for Vec<Option<$rust>> { const TYPE: Type = Type::$array; }
        )*
    };
}

typed! {
    i16 => INT2 / INT2_ARRAY,
    i32 => INT4 / INT4_ARRAY,
    i64 => INT8 / INT8_ARRAY,
    bool => BOOL / BOOL_ARRAY,
    &str => TEXT / TEXT_ARRAY,
    String => TEXT / TEXT_ARRAY,
    &[u8] => BYTEA / BYTEA_ARRAY,
    Vec<u8> => BYTEA / BYTEA_ARRAY,
    uuid::Uuid => UUID / UUID_ARRAY,
    std::time::SystemTime => TIMESTAMPTZ / TIMESTAMPTZ_ARRAY,
}

/// A value with its type: what [`bind!`] makes of each of its arguments.
pub(super) fn bound<T: Typed>(value: &T) -> Bound<'_> {
    (value, T::TYPE)
}

/// The values of a statement, in order.
macro_rules! bind {
    ($($value:expr),* $(,)?) => { &[$($crate::postgres::pool::bound(&$value)),*] };
}
pub(super) use bind;

/// A connection of the pool and what is under way on it. It goes back only when nothing is: whoever gave up waiting, or
/// was not waited for, must not leave a statement behind to the next one.
struct Desk {
    client: Option<Object>,
    under_way: AtomicUsize,
    patience: Duration,
}

impl Desk {
    fn new(client: Object) -> Self {
        Self { client: Some(client), under_way: AtomicUsize::new(0), patience: ANSWER }
    }

    /// Waits for an answer, for as long as is worth it.
    async fn ask<'a, T, F>(&'a self, statement: impl FnOnce(&'a Object) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + 'a,
    {
        let client =
            self.client.as_ref().ok_or_else(|| Error::Internal("a connection was used after its end".into()))?;
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(self.patience, statement(client)).await;
        let answer = answer.map_err(|late| {
            // Where one gets no answer the others would not either, each of them only after as long.
            Object::pool(client).into_iter().for_each(|pool| drop(pool.retain(|_, _| false)));
            Error::Unavailable(late.into())
        })?;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        Ok(answer?)
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.ask(|client| client.batch_execute(sql)).await
    }

    async fn query(&self, sql: &str, values: &[Bound<'_>]) -> Result<Vec<Row>> {
        self.ask(|client| client.query_typed(sql, values)).await
    }

    async fn execute(&self, sql: &str, values: &[Bound<'_>]) -> Result<u64> {
        self.ask(|client| client.execute_typed(sql, values)).await
    }

    fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Nobody else gets it.
    fn end(&mut self) {
        drop(self.client.take().map(Object::take));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if !self.is_idle() {
            self.end();
        }
    }
}

/// A connection for single statements.
pub(super) struct Connection(Desk);

impl Connection {
    /// Rows of a statement.
    pub(super) async fn query(&self, sql: &str, values: &[Bound<'_>]) -> Result<Vec<Row>> {
        self.0.query(sql, values).await
    }

    /// The one row of a statement, if there is one.
    pub(super) async fn query_one(&self, sql: &str, values: &[Bound<'_>]) -> Result<Option<Row>> {
        one(self.query(sql, values).await?)
    }

    /// How many rows a statement changed.
    pub(super) async fn execute(&self, sql: &str, values: &[Bound<'_>]) -> Result<u64> {
        self.0.execute(sql, values).await
    }
}

/// A transaction. Rolled back, with the loss of its connection, when it is dropped without [`Transaction::commit`] or
/// [`Transaction::rollback`].
pub(super) struct Transaction {
    desk: Option<Desk>,
}

impl Transaction {
    /// For statements that may take longer than others.
    pub(super) fn patient(mut self, patience: Duration) -> Self {
        self.desk.iter_mut().for_each(|desk| desk.patience = patience);
        self
    }

    fn desk(&self) -> Result<&Desk> {
        self.desk.as_ref().ok_or_else(|| Error::Internal("a transaction was used after its end".into()))
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.desk()?.run(sql).await
    }

    /// From here on only the rows of this organization exist.
    pub(super) async fn enter(&self, org: i64) -> Result<()> {
        const ENTER: &str = "select set_config('app.current_organization_id', $1, true)";
        self.query(ENTER, bind![org.to_string()]).await?;
        Ok(())
    }

    /// Rows of a statement.
    pub(super) async fn query(&self, sql: &str, values: &[Bound<'_>]) -> Result<Vec<Row>> {
        self.desk()?.query(sql, values).await
    }

    /// The one row of a statement, if there is one.
    pub(super) async fn query_one(&self, sql: &str, values: &[Bound<'_>]) -> Result<Option<Row>> {
        one(self.query(sql, values).await?)
    }

    /// The one row of a statement, or [`Error::NotFound`].
    pub(super) async fn expect(&self, kind: &'static str, sql: &str, values: &[Bound<'_>]) -> Result<Row> {
        self.query_one(sql, values).await?.ok_or(Error::NotFound { kind })
    }

    /// The first value of a statement that always has one row.
    pub(super) async fn value<T: FromSqlOwned>(&self, sql: &str, values: &[Bound<'_>]) -> Result<T> {
        let row = self.query_one(sql, values).await?;
        get(&row.ok_or_else(|| Error::Internal("a statement that always has a row found none".into()))?, 0)
    }

    /// How many rows a statement changed.
    pub(super) async fn execute(&self, sql: &str, values: &[Bound<'_>]) -> Result<u64> {
        self.desk()?.execute(sql, values).await
    }

    /// Ends it; what it did is durable when this resolves.
    pub(super) async fn commit(mut self) -> Result<()> {
        self.run("commit").await?;
        drop(self.desk.take());
        Ok(())
    }

    /// Ends it as its work ended: what failed leaves no trace.
    pub(super) async fn finish<T>(self, worked: Result<T>) -> Result<T> {
        match worked {
            Ok(value) => self.commit().await.map(|()| value),
            Err(error) => {
                // If this fails its connection goes, and with it all that was done.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }

    /// Ends it without a trace.
    pub(super) async fn rollback(mut self) -> Result<()> {
        // Behind a statement that was not answered there is nothing to wait for: the connection ends.
        if self.desk()?.is_idle() {
            self.run("rollback").await?;
            drop(self.desk.take());
        }
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(mut desk) = self.desk.take() {
            // It may be in the middle of anything: nobody else gets it.
            desk.end();
        }
    }
}

fn one(rows: Vec<Row>) -> Result<Option<Row>> {
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (first, None) => Ok(first),
        _ => Err(Error::Internal("a statement for one row found more".into())),
    }
}
