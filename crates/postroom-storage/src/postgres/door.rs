//! What is refused at the door: a server that could lose what was acknowledged, and a login that could see more than
//! the parts it is used for, or be another part than it became.
//!
//! Row-level security and column grants keep organizations and parts apart, and both mean nothing to a superuser, an
//! owner, or whoever may become one. So such a login is refused, before anything is read with it.

use std::collections::HashMap;
use std::sync::Arc;

use postroom_domain::Secret;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row};

use super::address::{self, Address};
use super::budget::Budget;
use super::convert::get;
use super::migrate;
use super::open::OpenError;
use super::pool::{Bound, Part, bind};
use super::pooler;

/// The oldest server whose behaviour this program was tested with.
const VERSION_MIN: i32 = 150_000;
/// From here on a role is inherited or may be become by each single grant.
const GRANTS_BY_THEMSELVES: i32 = 160_000;

/// Its version and whether it is a standby, or read-only for other reasons.
const SERVER: &str = "select current_setting('server_version_num')::int4, \
     pg_is_in_recovery() or current_setting('transaction_read_only')::bool";

/// A setting with which a commit can be lost, or texts be changed.
const UNSAFE: &str = "select name, setting from pg_settings where (name, setting) in (('fsync', 'off'), \
     ('full_page_writes', 'off'), ('synchronous_commit', 'off'), ('data_sync_retry', 'on')) \
     or (name = 'server_encoding' and setting <> 'UTF8') order by name limit 1";

/// A role without bounds that the login is or may become; itself first.
const UNBOUND: &str = "select rolname::text, case when rolsuper then 'is a superuser' \
       when rolbypassrls then 'may bypass row-level security' when rolcreaterole then 'may make and grant roles' \
       when rolreplication then 'may copy the whole server' else 'reads or writes everything' end \
     from pg_roles where pg_has_role(session_user, oid, 'member') \
       and (rolsuper or rolbypassrls or rolcreaterole or rolreplication or rolname in ('pg_read_all_data', \
         'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')) \
     order by rolname <> session_user, rolname limit 1";

/// Something of ours that the login owns, or may become the owner of.
const OWNED: &str = "select what from ( \
       select 'the database' as what, datdba as owner from pg_database where datname = current_database() \
       union all select 'the schema public', nspowner from pg_namespace where nspname = 'public' \
       union all select 'the table ' || relname, relowner from pg_class where relnamespace = 'public'::regnamespace \
       union all select 'the function ' || proname, proowner from pg_proc where pronamespace = 'public'::regnamespace \
     ) as things where pg_has_role(session_user, owner, 'member') order by what limit 1";

/// A role whose rights the login has without becoming it, other than those that it should.
const INHERITED: &str = "select rolname::text from pg_roles where pg_has_role(session_user, oid, 'usage') \
     and rolname <> session_user and rolname <> all ($1) order by rolname limit 1";

/// Which roles of parts there are, whether the login may become them, and whether it is them already.
const PARTS: &str = "select rolname::text, pg_has_role(session_user, oid, $2), \
     pg_has_role(session_user, oid, 'usage') from pg_roles where rolname = any ($1)";

/// A way into the database as one part.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) part: Part,
    pub(super) address: Address,
    /// Whether it is the part without becoming it: then nothing has to be said to a new connection, so a pooler that
    /// hands out another one for every transaction does no harm.
    pub(super) is_the_part: bool,
}

impl Login {
    /// What makes a new connection the part's. The times are bounds for statements that hang, and for a process that is
    /// stopped in the middle of a transaction: what it has locked must not hold up the others for longer than its lease.
    pub(super) fn greeting(&self) -> String {
        const BOUNDS: &str = "set statement_timeout = '30s'; set lock_timeout = '5s'; \
             set idle_in_transaction_session_timeout = '10s'";
        if self.is_the_part { BOUNDS.to_owned() } else { format!("set role {}; {BOUNDS}", self.part.role()) }
    }

    /// A connection that belongs to no pool and is the part's already.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, task) = self.address.connect().await?;
        client.batch_execute(&self.greeting()).await?;
        Ok((client, task))
    }
}

/// Looks at the server and at every login, and gives the way in for each part.
/// Their connections are counted in `budget`, if there is one.
pub(super) async fn admit(
    url: &Secret,
    part_urls: &HashMap<Part, Secret>,
    budget: Option<&Arc<Budget>>,
) -> Result<HashMap<Part, Login>, OpenError> {
    let mut logins = HashMap::new();
    for (address, parts) in address::of_parts(url, part_urls, budget)? {
        let (client, _task) = address.connect().await.map_err(OpenError::unreachable)?;
        let version = server(&client).await?;
        bounded(&client, address.login(), &parts).await?;
        let mut becomes = false;
        for part in parts {
            let is_the_part = member(&client, address.login(), part, version).await?;
            becomes |= !is_the_part;
            logins.insert(part, Login { part, address: address.clone(), is_the_part });
        }
        if becomes && pooler::pools_transactions(&address, &client).await? {
            return Err(OpenError::Pooled { login: address.login().to_owned() });
        }
    }
    Ok(logins)
}

/// Refuses a server that is too old, cannot be written, or does not keep what it committed. Returns its version.
async fn server(client: &Client) -> Result<i32, OpenError> {
    let row = one(client, SERVER, &[]).await?.ok_or_else(|| OpenError::Database("the server says nothing".into()))?;
    let (version, is_read_only): (i32, bool) = (get(&row, 0)?, get(&row, 1)?);
    if version < VERSION_MIN {
        return Err(OpenError::ServerTooOld { major: version / 10_000 });
    }
    if is_read_only {
        return Err(OpenError::ReadOnly);
    }
    if let Some(row) = one(client, UNSAFE, &[]).await? {
        return Err(OpenError::Unsafe { setting: get(&row, 0)?, value: get(&row, 1)? });
    }
    Ok(version)
}

/// Refuses a login that could see more than its parts.
async fn bounded(client: &Client, login: &str, parts: &[Part]) -> Result<(), OpenError> {
    let unbound = |because: String| OpenError::Unbound { login: login.to_owned(), because };
    if let Some(row) = one(client, UNBOUND, &[]).await? {
        let (role, may): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let through = if role == login { String::new() } else { format!("may become \"{role}\", which ") };
        return Err(unbound(format!("{through}{may}")));
    }
    if let Some(row) = one(client, OWNED, &[]).await? {
        return Err(unbound(format!("owns {}, or may become its owner", get::<String>(&row, 0)?)));
    }
    let own: Vec<&str> = if let [part] = parts { vec![part.role()] } else { Vec::new() };
    if let Some(row) = one(client, INHERITED, bind![own]).await? {
        return Err(OpenError::Inherits { login: login.to_owned(), role: get(&row, 0)? });
    }
    Ok(())
}

/// Refuses a login that may not become a part. Returns whether it is that part already.
async fn member(client: &Client, login: &str, part: Part, version: i32) -> Result<bool, OpenError> {
    let how = if version < GRANTS_BY_THEMSELVES { "member" } else { "set" };
    let Some(row) = one(client, PARTS, bind![vec![part.role()], how]).await? else {
        return Err(OpenError::Older { found: 0, known: migrate::NEWEST });
    };
    let (may_become_it, is_it): (bool, bool) = (get(&row, 1)?, get(&row, 2)?);
    if is_it || may_become_it {
        Ok(is_it)
    } else {
        Err(OpenError::NotAPart { login: login.to_owned(), role: part.role() })
    }
}

async fn one(client: &Client, sql: &str, values: &[Bound<'_>]) -> Result<Option<Row>, OpenError> {
    let rows = client.query_typed(sql, values).await.map_err(|error| OpenError::Database(error.into()))?;
    Ok(rows.into_iter().next())
}
