//! Roles: those of the parts, which belong to the whole server, and the logins that may become them.

use std::collections::HashMap;
use std::time::Duration;

use postroom_domain::Secret;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::super::address;
use super::super::cells::quoted;
use super::super::convert::get;
use super::super::open::OpenError;
use super::super::pool::{Part, bind};

/// How often something about roles is tried while other databases' migrations do the same.
const TRIES: usize = 50;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// From here on a role is inherited or not by each single grant, and before by each member.
const GRANTS_BY_THEMSELVES: i32 = 160_000;

/// The role of the command that seals secrets anew.
pub(in crate::postgres) const KEYS: &str = "postroom_keys";
/// The role of the command that copies everything elsewhere.
pub(in crate::postgres) const COPY: &str = "postroom_copy";

const ROLE: &str = "select rolinherit from pg_roles where rolname = $1";

const MEMBER: &str = "select pg_has_role($1::name, $2::name, 'member'), pg_has_role($1::name, $2::name, 'usage')";

const HERE: &str = "select current_database()::text, session_user::text, current_setting('server_version_num')::int4";

/// What is granted on the database and the schema to everybody, as a database is made.
const OPEN_TO_ALL: &str = "select has_schema_privilege('public', 'public', 'create'), \
     has_database_privilege('public', current_database(), 'connect')";

/// A login that servers use, and which parts they are with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLogin {
    name: String,
    parts: Vec<Part>,
}

impl AppLogin {
    /// A login that becomes whichever part is needed.
    #[must_use]
    pub fn of_all_parts(name: &str) -> Self {
        Self { name: name.to_owned(), parts: Part::ALL.to_vec() }
    }

    /// The logins of the URLs that a server is given: `url`, and those of parts that have one of their own.
    ///
    /// # Errors
    /// When a URL cannot be read.
    pub fn of_urls(url: &Secret, part_urls: &HashMap<Part, Secret>) -> Result<Vec<Self>, OpenError> {
        let mut logins: Vec<Self> = Vec::new();
        for (address, parts) in address::of_parts(url, part_urls, None)? {
            match logins.iter_mut().find(|login| login.name == address.login()) {
                Some(login) => login.parts.extend(parts),
                None => logins.push(Self { name: address.login().to_owned(), parts }),
            }
        }
        Ok(logins)
    }

    /// Whether it is its part without becoming it. One that is several must not be all of them at once.
    fn inherits(&self) -> bool {
        self.parts.len() == 1
    }
}

/// Refuses logins that are not there, before anything is changed.
pub(super) async fn check(client: &Client, logins: &[AppLogin]) -> Result<(), OpenError> {
    for login in logins {
        if client.query_typed(ROLE, bind![login.name.as_str()]).await?.is_empty() {
            return Err(OpenError::NoLogin { login: login.name.clone() });
        }
    }
    Ok(())
}

/// Makes the roles of the parts that the server does not have.
pub(super) async fn make_roles(client: &Client) -> Result<(), OpenError> {
    for role in Part::ALL.iter().map(|part| part.role()).chain([KEYS, COPY]) {
        if client.query_typed(ROLE, bind![role]).await?.is_empty() {
            match again_while_others_do(client, &format!("create role {role} nologin noinherit")).await {
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Lets each login become its parts and connect, and nobody else connect or make things in our schema. Returns what has
/// to be done by somebody who may.
pub(super) async fn grant(client: &Client, logins: &[AppLogin]) -> Result<Vec<String>, OpenError> {
    let rows = client.query_typed(HERE, &[]).await?;
    let row = rows.first().ok_or_else(|| OpenError::Database("the server says nothing".into()))?;
    let (database, owner, version): (String, String, i32) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
    let database = quoted(&database);
    let mut advice = Vec::new();
    // Who owns the database may take every right anyway, rotates the keys, and copies.
    for role in [KEYS, COPY] {
        let rows = client.query_typed(MEMBER, bind![owner.as_str(), role]).await?;
        if rows.first().map(|row| get::<bool>(row, 0)).transpose()? == Some(false) {
            try_all(client, &[format!("grant {role} to {}", quoted(&owner))], &mut advice).await?;
        }
    }
    for login in logins {
        if login.name == owner {
            advice.push(format!(
                "the login {} owns the database, so the server will refuse to use it: make another one (create role \
                 postroom_app login noinherit password '...'), give it to the server as POSTROOM_DATABASE_URL and this \
                 one to `postroom migrate up` as POSTROOM_MIGRATE_DATABASE_URL",
                quoted(&login.name)
            ));
            continue;
        }
        let mut wanted = memberships(client, login, version).await?;
        wanted.push(format!("grant connect on database {database} to {}", quoted(&login.name)));
        try_all(client, &wanted, &mut advice).await?;
    }
    close_to_others(client, &database, &mut advice).await?;
    Ok(advice)
}

/// The statements that make a login a member of its parts, if it is not already as it should be.
async fn memberships(client: &Client, login: &AppLogin, version: i32) -> Result<Vec<String>, OpenError> {
    let (name, inherits) = (quoted(&login.name), login.inherits());
    let mut wanted = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| part.role() != login.name) {
        let rows = client.query_typed(MEMBER, bind![login.name.as_str(), part.role()]).await?;
        let row = rows.first().ok_or_else(|| OpenError::Database("a role has gone".into()))?;
        let (is_member, has_it): (bool, bool) = (get(row, 0)?, get(row, 1)?);
        let is_its = login.parts.contains(&part);
        if is_its && version >= GRANTS_BY_THEMSELVES && (!is_member || has_it != inherits) {
            wanted.push(format!("grant {} to {name} with inherit {inherits}, set true", part.role()));
        } else if is_its && !is_member {
            wanted.push(format!("grant {} to {name}", part.role()));
        } else if !is_its && is_member && inherits {
            wanted.push(format!("revoke {} from {name}", part.role()));
        }
    }
    let rows = client.query_typed(ROLE, bind![login.name.as_str()]).await?;
    let inherits_now = rows.first().map(|row| get::<bool>(row, 0)).transpose()?;
    if version < GRANTS_BY_THEMSELVES && inherits_now != Some(inherits) {
        wanted.push(format!("alter role {name} {}", if inherits { "inherit" } else { "noinherit" }));
    }
    Ok(wanted)
}

/// On PostgreSQL every role may connect to a new database, and the parts' roles are the same in all databases of a
/// server: another installation's login must not come in here and become one of them.
async fn close_to_others(client: &Client, database: &str, advice: &mut Vec<String>) -> Result<(), OpenError> {
    let wanted = [
        "revoke create on schema public from public".to_owned(),
        format!("revoke connect, temporary on database {database} from public"),
    ];
    for statement in &wanted {
        // Whoever does not own it is only warned.
        again_while_others_do(client, statement).await?;
    }
    let rows = client.query_typed(OPEN_TO_ALL, &[]).await?;
    for (at, statement) in wanted.iter().enumerate() {
        if rows.first().map(|row| get::<bool>(row, at)).transpose()? != Some(false) {
            advice.push(as_superuser(statement));
        }
    }
    Ok(())
}

/// Runs what may be run; the rest becomes advice.
async fn try_all(client: &Client, wanted: &[String], advice: &mut Vec<String>) -> Result<(), OpenError> {
    for statement in wanted {
        match again_while_others_do(client, statement).await {
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                advice.push(as_superuser(statement));
            }
            done => done?,
        }
    }
    Ok(())
}

fn as_superuser(statement: &str) -> String {
    format!("this login may not do it, so run as a superuser: {statement};")
}

/// Runs a statement about roles again while it collides with another database's migration.
async fn again_while_others_do(client: &Client, statement: &str) -> Result<(), Error> {
    for _ in 1..TRIES {
        match client.batch_execute(statement).await {
            Err(error) if collided(&error) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
    client.batch_execute(statement).await
}

/// Two transactions changed the same row of a catalogue at once.
fn collided(error: &Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    let is_internal = *error.code() == SqlState::INTERNAL_ERROR && error.message().contains("tuple concurrently");
    is_internal || *error.code() == SqlState::UNIQUE_VIOLATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_login_becomes_its_parts_and_one_of_its_own_is_its_part() {
        let url = |login: &str| Secret::from(format!("postgres://{login}@localhost/postroom").as_str());
        let none = AppLogin::of_urls(&url("app"), &HashMap::new()).unwrap();
        assert_eq!(none, [AppLogin::of_all_parts("app")]);
        assert!(!none[0].inherits());
        let own = HashMap::from([(Part::Worker, url("worker")), (Part::Api, url("app"))]);
        let logins = AppLogin::of_urls(&url("app"), &own).unwrap();
        let parts: Vec<_> =
            logins.iter().map(|login| (login.name.as_str(), login.parts.len(), login.inherits())).collect();
        assert_eq!(parts, [("app", 5, false), ("worker", 1, true)]);
    }
}
