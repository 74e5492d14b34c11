//! A lane's own connection. It tells an error after which certainly nothing was stored from one after which nobody knows.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use crate::postgres::door::Login;
use crate::postgres::pool::Bound;
use crate::{Error, Result};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_millis(1_500);
/// How long a statement may take. Whoever waits for it is answered in time to be believed.
const STATEMENT: Duration = Duration::from_secs(3);

/// Why a statement did not end as it should.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server refused it: nothing of it is stored.
    Refused(tokio_postgres::Error),
    /// The answer is lost, and with it the connection: it may be stored, or may still be at it.
    Lost(Error),
}

impl Fault {
    /// What whoever asked for it is told.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) => error.into(),
            Self::Lost(error) => error,
        }
    }

    /// Whether the very same statement may be sent again at once: it had to end for the sake of another one, or its plan is
    /// not there any more.
    pub(super) fn is_conflict(&self) -> bool {
        let conflict = |state: &SqlState| {
            state.code().starts_with("40")
                || *state == SqlState::INVALID_SQL_STATEMENT_NAME
                || *state == SqlState::FEATURE_NOT_SUPPORTED
        };
        matches!(self, Self::Refused(error) if error.code().is_some_and(conflict))
    }

    /// Whether the server refused it with this state.
    pub(super) fn is(&self, state: &SqlState) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some(state))
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        // A connection that the server ends may have ended between the commit and its answer.
        let severity = error.as_db_error().and_then(|error| error.parsed_severity());
        if severity == Some(Severity::Error) {
            Self::Refused(error)
        } else {
            Self::Lost(Error::Unavailable(error.into()))
        }
    }
}

/// See the [module](self).
pub(super) struct Line {
    client: Client,
    /// Statements that the server has planned for this connection. None when a pooler may be in between, which hands out
    /// another connection for every transaction: there the same name may be another client's statement.
    kept: Option<Mutex<HashMap<&'static str, Statement>>>,
}

/// Plans are made once and for any values: the values are lists of rows to write, of which nothing is to be learned. The
/// lane's only transaction takes no time between its statements; one that does belongs to a process that was stopped.
const PLAN_ONCE: &str = "set plan_cache_mode = force_generic_plan; set idle_in_transaction_session_timeout = '3s'";

impl Line {
    /// A new connection.
    pub(super) async fn connect(login: &Login) -> Result<Self> {
        let connecting = async {
            let (client, _driver) = login.connect().await?;
            // A login that has to become the part cannot go through such a pooler.
            if !login.is_the_part {
                client.batch_execute(PLAN_ONCE).await?;
            }
            Ok::<_, tokio_postgres::Error>(client)
        };
        let client = tokio::time::timeout(CONNECT, connecting).await.map_err(|late| Error::Unavailable(late.into()))?;
        let client = client.map_err(|refused| Error::Unavailable(refused.into()))?;
        Ok(Self { client, kept: (!login.is_the_part).then(Mutex::default) })
    }

    /// Whether it is known to be gone.
    pub(super) fn is_gone(&self) -> bool {
        self.client.is_closed()
    }

    /// Rows of a statement that is sent all the time: it is planned once, where that can be. Planning the ones of the lanes
    /// takes longer than doing them.
    pub(super) async fn write(&self, sql: &'static str, values: &[Bound<'_>]) -> Result<Vec<Row>, Fault> {
        let Some(kept) = &self.kept else { return self.query(sql, values).await };
        let known = kept.lock().get(sql).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let types: Vec<Type> = values.iter().map(|(_, kind)| kind.clone()).collect();
                let statement = bounded(self.client.prepare_typed(sql, &types)).await?;
                kept.lock().insert(sql, statement.clone());
                statement
            }
        };
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|(value, _)| *value).collect();
        let answer = bounded(self.client.query(&statement, &values)).await;
        match answer {
            // Somebody has made the server forget it (`discard all`), or something that it was planned with has changed.
            Err(fault)
                if fault.is(&SqlState::INVALID_SQL_STATEMENT_NAME) || fault.is(&SqlState::FEATURE_NOT_SUPPORTED) =>
            {
                kept.lock().remove(sql);
                Err(fault)
            }
            answer => answer,
        }
    }

    /// Rows of any other statement.
    pub(super) async fn query(&self, sql: &str, values: &[Bound<'_>]) -> Result<Vec<Row>, Fault> {
        bounded(self.client.query_typed(sql, values)).await
    }

    /// Several statements without values.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Fault> {
        bounded(self.client.batch_execute(sql)).await
    }
}

async fn bounded<T>(statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fault> {
    match tokio::time::timeout(STATEMENT, statement).await {
        Ok(answer) => Ok(answer?),
        Err(late) => Err(Fault::Lost(Error::Unavailable(late.into()))),
    }
}
