//! A connection that does only what the part of the process it acts for may do ([`super::grants`]).
//!
//! SQLite asks about each table and column when a statement is prepared, and never again. So a statement that one part
//! had prepared must not be found in the cache by another one: a part gets a statement only after the same text was
//! once prepared for itself. All text is the program's own (`&'static str`), so where it lies in memory says which it
//! is, and asking costs next to nothing.
//!
//! Only the owner of a connection says for which part it acts; code that is lent one (`&Connection`) cannot become
//! another part. This guards against mistakes in our own statements. It is no wall against foreign code in the process.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{CachedStatement, Params, Result, Row, Statement};
use tracing::error;

use super::grants::{self, Part};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Connection {
    raw: rusqlite::Connection,
    part: Part,
    /// The same, for SQLite's callback.
    acting: Arc<AtomicU8>,
    /// What each part has prepared: where the text lies and how long it is.
    admitted: RefCell<HashSet<(Part, usize, usize)>>,
}

impl Connection {
    /// A connection that is set up, migrated, and acts for a part from now on.
    pub(super) fn new(mut raw: rusqlite::Connection, part: Part) -> Result<Self> {
        let acting = Arc::new(AtomicU8::new(part as u8));
        let asked = acting.clone();
        raw.authorizer(Some(move |context: AuthContext<'_>| judge(asked.load(Ordering::Relaxed), &context.action)))?;
        Ok(Self { raw, part, acting, admitted: RefCell::default() })
    }

    /// Acts for another part from now on.
    pub(super) fn act_as(&mut self, part: Part) {
        self.part = part;
        // Asked on this thread only.
        self.acting.store(part as u8, Ordering::Relaxed);
    }

    /// A statement, kept prepared for the next time.
    pub(super) fn prepare_cached(&self, sql: &'static str) -> Result<CachedStatement<'_>> {
        let text = (self.part, sql.as_ptr().addr(), sql.len());
        if !self.admitted.borrow().contains(&text) {
            drop(self.raw.prepare(sql)?);
            self.admitted.borrow_mut().insert(text);
        }
        self.raw.prepare_cached(sql)
    }

    /// A statement that is needed once.
    pub(super) fn prepare(&self, sql: &'static str) -> Result<Statement<'_>> {
        self.raw.prepare(sql)
    }

    /// The one row of a statement that is needed once.
    pub(super) fn query_row<T>(
        &self,
        sql: &'static str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.raw.query_row(sql, values, read)
    }

    /// Whatever is read until it is dropped is of one moment.
    pub(super) fn snapshot(&mut self) -> Result<Transaction<'_>> {
        self.begin("begin")
    }

    /// A transaction that writes; undone when it is dropped without a commit.
    pub(super) fn transaction(&mut self) -> Result<Transaction<'_>> {
        self.begin("begin immediate")
    }

    fn begin(&mut self, how: &'static str) -> Result<Transaction<'_>> {
        self.prepare_cached(how)?.execute([])?;
        Ok(Transaction(self))
    }

    /// Undoes the transaction, if one is open.
    pub(super) fn roll_back(&self) -> Result<()> {
        if self.raw.is_autocommit() { Ok(()) } else { self.prepare_cached("rollback")?.execute([]).map(drop) }
    }

    /// Whether no transaction is open.
    pub(super) fn is_autocommit(&self) -> bool {
        self.raw.is_autocommit()
    }

    /// The row that was inserted last.
    pub(super) fn last_insert_rowid(&self) -> i64 {
        self.raw.last_insert_rowid()
    }

    /// The database file.
    pub(super) fn path(&self) -> Option<&Path> {
        self.raw.path().map(Path::new)
    }
}

/// An open transaction of a connection.
#[derive(Debug)]
pub(super) struct Transaction<'c>(&'c mut Connection);

impl Transaction<'_> {
    /// Makes what was written durable.
    pub(super) fn commit(self) -> Result<()> {
        self.prepare_cached("commit")?.execute([]).map(drop)
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // When this fails, the next `begin` does, and says so.
        let _ = self.0.roll_back();
    }
}

/// A refusal is a mistake of ours, and is logged with names of the schema only.
fn judge(part: u8, action: &AuthAction<'_>) -> Authorization {
    match Part::ALL.get(usize::from(part)) {
        Some(part) if grants::allow(*part, action) => Authorization::Allow,
        part => {
            let part = part.map(|part| part.as_str());
            error!(part, ?action, "a part of the process asked the database for what it may not do");
            Authorization::Deny
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::migrate;

    const HASHES: &str = "select hash from api_key";

    #[test]
    fn a_statement_that_one_part_has_prepared_is_no_other_parts() {
        let mut raw = rusqlite::Connection::open_in_memory().unwrap();
        migrate::to_newest(&mut raw).unwrap();
        let mut connection = Connection::new(raw, Part::Authorizer).unwrap();
        let prepares = |connection: &Connection| connection.prepare_cached(HASHES).is_ok();
        assert!(prepares(&connection));
        for part in Part::ALL {
            connection.act_as(part);
            let may = matches!(part, Part::Authorizer | Part::Copier);
            assert_eq!(prepares(&connection), may, "{}", part.as_str());
            connection.act_as(Part::Authorizer);
            assert!(prepares(&connection));
        }
    }

    #[test]
    fn a_transaction_that_is_dropped_is_undone() {
        let mut raw = rusqlite::Connection::open_in_memory().unwrap();
        migrate::to_newest(&mut raw).unwrap();
        let mut connection = Connection::new(raw, Part::Platform).unwrap();
        let revision = |connection: &Connection| {
            connection.query_row("select value from revision", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let change = |commit: bool, connection: &mut Connection| {
            let transaction = connection.transaction().unwrap();
            transaction.prepare_cached("update revision set value = value + 1").unwrap().execute([]).unwrap();
            if commit {
                transaction.commit().unwrap();
            }
        };
        change(false, &mut connection);
        assert_eq!((revision(&connection), connection.is_autocommit()), (0, true));
        change(true, &mut connection);
        assert_eq!((revision(&connection), connection.is_autocommit()), (1, true));
    }
}
