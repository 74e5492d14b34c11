//! What the engine for many nodes promises besides the suite: how a database is migrated, which servers and logins are
//! refused, and what each part of the process may do there.

mod dedicated;
mod doors;
mod following;
mod migrating;
mod moving;
mod nodes;
mod rotating;
mod tls;
mod together;
mod unavailable;

use postroom_domain::Secret;
use postroom_storage::postgres::migrate::{self, AppLogin};
use postroom_testkit::postgres::{APP_ROLE, Database, connect};
use uuid::Uuid;

/// The database's owner, as `postroom migrate` is given it.
fn owner(database: &Database) -> Secret {
    Secret::from(database.owner_url().as_str())
}

/// The login that becomes whichever part is needed.
fn app() -> Vec<AppLogin> {
    vec![AppLogin::of_all_parts(APP_ROLE)]
}

/// A migrated database.
async fn migrated() -> Database {
    Database::from_template(&migrate::schema(), async |owner_url: &str| {
        migrate::up(&Secret::from(owner_url), &app()).await.unwrap();
    })
    .await
}

/// A role of the whole server that only one test uses. Roles outlive databases: give it back.
struct Role {
    name: String,
    admin_url: String,
}

impl Role {
    async fn new(database: &Database, options: &str) -> Self {
        let role = Self { name: format!("postroom_test_{}", Uuid::now_v7().simple()), admin_url: database.admin_url() };
        let password = database.password().map_or("null".to_owned(), |password| format!("'{password}'"));
        role.run(&format!("create role {} {options} password {password}", role.name)).await;
        role
    }

    async fn run(&self, sql: &str) {
        connect(&self.admin_url).await.batch_execute(sql).await.unwrap();
    }

    async fn give_back(self) {
        self.run(&format!("drop owned by {0}; drop role {0}", self.name)).await;
    }
}
