//! What cannot be seen from outside: what a connection of a pool is and sees, and what upkeep leaves in the tables.

mod cells;
mod grants;
mod isolation;
mod retention;

use std::collections::HashMap;

use postroom_domain::Secret;
use postroom_testkit::postgres::{APP_ROLE, Database, connect};
use tokio_postgres::Client;

use super::door::{self, Login};
use super::footprint::Footprint;
use super::migrate::{self, AppLogin};
use super::pool::{Part, Pool};

/// A migrated database, a way in for each part, and one for somebody who sees everything.
struct Room {
    database: Database,
    logins: HashMap<Part, Login>,
    admin: Client,
}

impl Room {
    async fn new() -> Self {
        let database = Database::from_template(&migrate::schema(), async |owner_url: &str| {
            let logins = [AppLogin::of_all_parts(APP_ROLE)];
            migrate::up(&Secret::from(owner_url), &logins).await.unwrap();
        })
        .await
        .taking("select database from tenants");
        let url = Secret::from(database.app_url().as_str());
        let logins = door::admit(&url, &HashMap::new(), None).await.unwrap();
        let admin = connect(&database.admin_url()).await;
        Self { database, logins, admin }
    }

    fn pool(&self, part: Part) -> Pool {
        Pool::new(&self.logins[&part], Footprint::Shared).unwrap()
    }

    /// Does something as a superuser, whom nothing binds.
    async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }

    /// A number that a superuser sees.
    async fn count(&self, from: &str) -> i64 {
        self.admin.query_one(&format!("select count(*) from {from}"), &[]).await.unwrap().get(0)
    }
}
