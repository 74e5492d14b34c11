//! A database for one test, and the two roles that all of them share.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};
use url::Url;
use uuid::Uuid;

use super::{connect, told};

/// Owns every test database, as the role of `postroom migrate` would: it may make roles and databases, and is no superuser.
pub const OWNER_ROLE: &str = "postroom_test_owner";

/// May log in and nothing else; what it may do, a migration grants. It inherits nothing from the roles it is a member of.
pub const APP_ROLE: &str = "postroom_test_app";

const VARIABLE: &str = "POSTROOM_TEST_DATABASE_URL";

/// One lock for everything of the kit that is not of one database: roles and templates. Advisory locks are per database, so
/// it is always taken in the database of the superuser's URL.
const LOCK: i64 = 0x706f_7374_726f_6f6d;

/// How long the end of a test waits for its database to be dropped.
const DROP_WAIT: Duration = Duration::from_secs(20);

/// A database that only this test uses, gone when this value is.
///
/// ```no_run
/// # use postroom_testkit::postgres::{Database, connect};
/// # async fn example() {
/// let database = Database::new().await;
/// let owner = connect(&database.owner_url()).await;
/// owner.batch_execute("CREATE TABLE event (id int8)").await.unwrap();
/// # }
/// ```
#[derive(Debug)]
pub struct Database {
    server: Url,
    name: String,
    /// Whether the end of this value is the end of the database. On a server of the test's own, the server's end is.
    dropped_at_end: bool,
    /// A query in it that names other databases, which go with it.
    others: Option<&'static str>,
}

impl Database {
    /// An empty database on the server of `POSTROOM_TEST_DATABASE_URL`.
    ///
    /// # Panics
    ///
    /// When there is no such server.
    pub async fn new() -> Self {
        static ROLES: OnceCell<()> = OnceCell::const_new();
        let server = server();
        let admin = connect(server.as_str()).await;
        ROLES.get_or_init(|| make_roles(&admin, &server)).await;
        Self::create(&admin, server, None, true).await
    }

    /// An empty database on the server of this superuser's URL, which goes with its server.
    ///
    /// # Panics
    ///
    /// When the server does not let us in.
    pub async fn on(admin_url: &str) -> Self {
        let server = Url::parse(admin_url).expect("the URL of a server");
        let admin = connect(admin_url).await;
        make_roles(&admin, &server).await;
        Self::create(&admin, server, None, false).await
    }

    /// A copy of the database that `make` filled, which happens once for each fingerprint on a server: take a hash of the
    /// migrations. `make` gets the owner's URL and must have closed its connections when it returns.
    ///
    /// # Panics
    ///
    /// When there is no server, or a connection to what `make` filled stays open.
    pub async fn from_template(fingerprint: &str, make: impl AsyncFnOnce(&str)) -> Self {
        let empty_url = server();
        let admin = connect(empty_url.as_str()).await;
        let template = template_name(&admin, fingerprint).await;
        if !exists(&admin, &template).await {
            Self::make_template(&admin, &empty_url, &template, make).await;
        }
        Self::create(&admin, empty_url, Some(&template), true).await
    }

    async fn make_template(admin: &Client, server: &Url, template: &str, make: impl AsyncFnOnce(&str)) {
        make_roles(admin, server).await;
        // The lock goes with the connection, so a process that dies in here holds up nobody.
        execute(admin, &format!("SELECT pg_advisory_lock({LOCK})")).await;
        if !exists(admin, template).await {
            // It gets its name when it is finished: a name that exists is a template that is whole.
            let unfinished = format!("{template}_unfinished");
            execute(admin, &format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await;
            execute(admin, &format!("CREATE DATABASE {unfinished} OWNER {OWNER_ROLE}")).await;
            make(&url(server, OWNER_ROLE, &unfinished)).await;
            // A connection that was just closed may linger on the server for a moment; CREATE DATABASE waits for such
            // ones, ALTER DATABASE RENAME too.
            execute(admin, &format!("ALTER DATABASE {unfinished} RENAME TO {template}")).await;
        }
        execute(admin, &format!("SELECT pg_advisory_unlock({LOCK})")).await;
    }

    async fn create(admin: &Client, server: Url, template: Option<&str>, dropped_at_end: bool) -> Self {
        let name = format!("postroom_test_{}", Uuid::now_v7().simple());
        let like = template.unwrap_or("template1");
        execute(admin, &format!("CREATE DATABASE {name} OWNER {OWNER_ROLE} TEMPLATE {like}")).await;
        let database = Self { server, name, dropped_at_end, others: None };
        if let Some(template) = template {
            database.take_over_settings(admin, template).await;
        }
        database
    }

    /// A copy has all that is in a database, but not what is said about it: grants on it, and its settings.
    async fn take_over_settings(&self, admin: &Client, template: &str) {
        let (new, old) = (&self.name, template);
        execute(
            admin,
            &format!(
                "UPDATE pg_database new SET datacl = old.datacl FROM pg_database old \
                 WHERE new.datname = '{new}' AND old.datname = '{old}' AND old.datacl IS NOT NULL; \
                 INSERT INTO pg_db_role_setting SELECT new.oid, s.setrole, s.setconfig \
                 FROM pg_db_role_setting s JOIN pg_database old ON old.oid = s.setdatabase, pg_database new \
                 WHERE new.datname = '{new}' AND old.datname = '{old}'"
            ),
        )
        .await;
    }

    /// The databases that this query in it names go with it.
    #[must_use]
    pub fn taking(mut self, query: &'static str) -> Self {
        self.others = Some(query);
        self
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its server listens.
    ///
    /// # Panics
    ///
    /// When the server's name is none of this machine.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let addresses = self.server.socket_addrs(|| Some(5432)).expect("the server's address");
        *addresses.first().expect("a name has an address")
    }

    /// As [`OWNER_ROLE`]: what `postroom migrate` would be given.
    #[must_use]
    pub fn owner_url(&self) -> String {
        self.url_as(OWNER_ROLE)
    }

    /// As [`APP_ROLE`]: what the server would be given.
    #[must_use]
    pub fn app_url(&self) -> String {
        self.url_as(APP_ROLE)
    }

    /// As the superuser of the server, in this database.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url_as(self.server.username())
    }

    /// As another role, which has to have the superuser's password where the server wants one; see [`Database::password`].
    #[must_use]
    pub fn url_as(&self, role: &str) -> String {
        url(&self.server, role, &self.name)
    }

    /// The password that all roles of the kit share with the superuser: who knows it is superuser already. `None` where the
    /// server lets them in without.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.server.password()
    }
}

impl Drop for Database {
    /// Waits, on a thread of its own, because a test process ends right after its last test.
    fn drop(&mut self) {
        if !self.dropped_at_end {
            return;
        }
        let (own_url, others) = (self.admin_url(), self.others);
        let (server, name) = (self.server.clone(), std::mem::take(&mut self.name));
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let dropped = timeout(DROP_WAIT, async {
                    let admin = connect(server.as_str()).await;
                    let mut names = match others {
                        Some(query) => names(&own_url, query).await,
                        None => Vec::new(),
                    };
                    names.push(name.clone());
                    for name in names {
                        execute(&admin, &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await;
                    }
                });
                dropped.await.unwrap_or_else(|_| panic!("{name} was not dropped within {DROP_WAIT:?}"));
            });
        });
        // Best effort: the thread has said what went wrong, and a failed test must not fail a second time in here.
        drop(dropping.join());
    }
}

/// What a query in a database names; nothing if that is not there any more.
async fn names(url: &str, query: &str) -> Vec<String> {
    let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else { return Vec::new() };
    tokio::spawn(connection);
    let rows = client.query(query, &[]).await.unwrap_or_default();
    rows.iter().map(|row| row.get(0)).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the tests' server is, is the surrounding's matter; no setting of ours"
)]
fn server() -> Url {
    let Ok(url) = std::env::var(VARIABLE) else {
        panic!("run scripts/test, or set {VARIABLE} to a superuser URL of a PostgreSQL 15 or newer");
    };
    Url::parse(&url).unwrap_or_else(|error| panic!("{VARIABLE} is no URL: {error}"))
}

fn url(server: &Url, role: &str, database: &str) -> String {
    let mut url = server.clone();
    url.set_username(role).expect("the URL of a server has a host");
    url.set_path(database);
    url.into()
}

/// Roles belong to the whole server, and many test processes want them at once: the lock lets one make them.
async fn make_roles(admin: &Client, server: &Url) {
    if roles_let_in(server).await {
        return;
    }
    execute(admin, &format!("SELECT pg_advisory_lock({LOCK})")).await;
    if !roles_let_in(server).await {
        let password = password_literal(server);
        for (role, may) in [
            (OWNER_ROLE, "LOGIN NOSUPERUSER NOBYPASSRLS CREATEROLE CREATEDB INHERIT"),
            (APP_ROLE, "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOINHERIT"),
        ] {
            let verb =
                if holds(admin, "SELECT FROM pg_roles WHERE rolname = $1", role).await { "ALTER" } else { "CREATE" };
            execute(admin, &format!("{verb} ROLE {role} {may} PASSWORD {password}")).await;
        }
    }
    execute(admin, &format!("SELECT pg_advisory_unlock({LOCK})")).await;
}

/// Whether both roles are there and have the password of today. They are changed only if not: a pooler in front of the
/// server may hold on to what it knows of them.
async fn roles_let_in(server: &Url) -> bool {
    for role in [OWNER_ROLE, APP_ROLE] {
        if tokio_postgres::connect(&url(server, role, server.path()), NoTls).await.is_err() {
            return false;
        }
    }
    true
}

fn password_literal(server: &Url) -> String {
    let config: Config = server.as_str().parse().expect("the URL of a server");
    let Some(password) = config.get_password() else { return "NULL".to_owned() };
    format!("'{}'", String::from_utf8_lossy(password).replace('\'', "''"))
}

/// A fingerprint is any text; the name of a database is at most 63 bytes.
async fn template_name(admin: &Client, fingerprint: &str) -> String {
    match admin.query_one("SELECT 'postroom_test_template_' || md5($1)", &[&fingerprint]).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("the name of a template: {}", told(&error)),
    }
}

async fn exists(admin: &Client, database: &str) -> bool {
    holds(admin, "SELECT FROM pg_database WHERE datname = $1", database).await
}

async fn holds(admin: &Client, query: &str, value: &str) -> bool {
    match admin.query_opt(query, &[&value]).await {
        Ok(row) => row.is_some(),
        Err(error) => panic!("{query}: {}", told(&error)),
    }
}

async fn execute(admin: &Client, statement: &str) {
    if let Err(error) = admin.batch_execute(statement).await {
        panic!("{}: {}", statement.split(" PASSWORD ").next().unwrap_or_default(), told(&error));
    }
}
