//! Which servers and logins are refused, and that each refusal says what to do.

use std::collections::HashMap;
use std::sync::Arc;

use postroom_domain::Secret;
use postroom_storage::api::EventFilter;
use postroom_storage::platform::{Isolation, NewTenant};
use postroom_storage::postgres::migrate::{self, AppLogin};
use postroom_storage::postgres::{self, OpenError, Part};
use postroom_testkit::postgres::{APP_ROLE, Database, OWNER_ROLE, PgBouncer, Server, connect};

use super::migrating::{NEWER, NEWEST};
use super::{Role, migrated, owner};
use crate::support::{Hands, Lanes, new_endpoint, new_event, opening, page};

/// Opens a database.
async fn opened(url: &str, part_urls: &[(Part, &str)]) -> Result<postroom_storage::Storage, OpenError> {
    let keys = postroom_domain::keyring::Keyring::generate();
    let lanes = Lanes { room: 1_000_000.into(), ..Lanes::default() };
    let opening = opening(&Hands::new(), &Arc::new(lanes), &keys);
    let part_urls = part_urls.iter().map(|(part, url)| (*part, Secret::from(*url))).collect::<HashMap<_, _>>();
    let options = postgres::Options { part_urls, ..crate::support::options_at(url, opening) };
    postgres::open(options).await
}

/// Opens a database that will be refused.
async fn refused(url: &str, part_urls: &[(Part, &str)]) -> OpenError {
    match opened(url, part_urls).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_login_that_nothing_binds_is_refused() {
    let database = migrated().await;
    for (options, because) in [
        ("superuser", "is a superuser"),
        ("bypassrls", "may bypass row-level security"),
        ("createrole", "may make and grant roles"),
        ("replication", "may copy the whole server"),
        ("in role pg_read_all_data", "may become \"pg_read_all_data\", which reads or writes everything"),
        ("in role pg_execute_server_program", "may become \"pg_execute_server_program\""),
        (&format!("in role {OWNER_ROLE}"), "may become \"postroom_test_owner\", which may make and grant roles"),
    ] {
        let role = Role::new(&database, &format!("login noinherit {options}")).await;
        role.run(&format!(
            "grant postroom_api to {0}; grant connect on database {1} to {0}",
            role.name,
            database.name()
        ))
        .await;
        let error = refused(&database.url_as(&role.name), &[]).await;
        assert!(matches!(error, OpenError::Unbound { .. }), "{options}: {error}");
        assert!(error.to_string().contains(because), "{options}: {error}");
        assert!(error.to_string().contains("create role postroom_app login noinherit"), "{error}");
        role.give_back().await;
    }
}

#[tokio::test]
async fn an_owner_of_anything_of_ours_is_refused() {
    let database = migrated().await;
    for (thing, sql) in [
        ("the table events", "alter table events owner to"),
        ("the function revise", "alter function revise() owner to"),
        ("the schema public", "alter schema public owner to"),
        ("the database", &format!("alter database {} owner to", database.name())),
    ] {
        let role = Role::new(&database, "login noinherit").await;
        role.run(&format!("{sql} {0}; grant connect on database {1} to {0}", role.name, database.name())).await;
        let error = refused(&database.url_as(&role.name), &[]).await;
        assert!(matches!(error, OpenError::Unbound { .. }), "{error}");
        // Whoever owns the database is in the role that owns the schema, and through it owns both.
        let said = error.to_string().contains(&format!("owns {thing}, or may become its owner"));
        assert!(said || thing == "the schema public", "{error}");
        role.run(&format!("{sql} {OWNER_ROLE}")).await;
        role.give_back().await;
    }
}

#[tokio::test]
async fn a_login_is_its_parts_and_nothing_more() {
    let database = migrated().await;
    let member_of_all = "in role postroom_authorizer, postroom_receiver, postroom_worker, postroom_api, \
         postroom_dead_letter, postroom_platform";
    let role = Role::new(&database, &format!("login inherit {member_of_all}")).await;
    role.run(&format!("grant connect on database {} to {}", database.name(), role.name)).await;
    let url = database.url_as(&role.name);
    let error = refused(&url, &[]).await;
    assert!(matches!(&error, OpenError::Inherits { role, .. } if role == "postroom_api"), "{error}");
    assert!(error.to_string().contains(&format!("alter role \"{}\" noinherit", role.name)), "{error}");
    let error = refused(&database.app_url(), &[(Part::Worker, &url)]).await;
    assert!(matches!(&error, OpenError::Inherits { role, .. } if role == "postroom_api"), "{error}");

    role.run(&format!("alter role {0} noinherit; revoke postroom_dead_letter from {0}", role.name)).await;
    let error = refused(&url, &[]).await;
    assert!(matches!(&error, OpenError::NotAPart { role: "postroom_dead_letter", .. }), "{error}");
    assert!(error.to_string().contains(&format!("grant postroom_dead_letter to \"{}\"", role.name)), "{error}");
    role.give_back().await;
}

#[tokio::test]
async fn an_older_schema_is_refused_with_the_command_that_migrates_it() {
    let database = Database::new().await;
    let error = refused(&database.app_url(), &[]).await;
    assert!(error.to_string().contains("run `postroom migrate up`"), "{error}");
    let logins = [AppLogin::of_all_parts(APP_ROLE)];
    migrate::up(&owner(&database), &logins).await.unwrap();
    migrate::down(&owner(&database)).await.unwrap();
    let error = refused(&database.app_url(), &[]).await;
    assert!(matches!(error, OpenError::Older { found, known: NEWEST } if found == NEWEST - 1), "{error}");
    assert!(error.to_string().contains("POSTROOM_MIGRATE_DATABASE_URL"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_unless_it_says_that_this_program_may_work_on_it() {
    let database = migrated().await;
    let admin = connect(&database.admin_url()).await;
    admin.batch_execute(&format!("insert into migrations values ({NEWER}, 'newer', 3)")).await.unwrap();
    let storage = opened(&database.app_url(), &[]).await.unwrap();
    storage.platform.health().await.unwrap();
    storage.platform.close().await.unwrap();
    admin.batch_execute(&format!("insert into migrations values ({0}, 'newest', {0})", NEWER + 1)).await.unwrap();
    let error = refused(&database.app_url(), &[]).await;
    assert!(matches!(error, OpenError::Newer { known: NEWEST, needed, .. } if needed == NEWER + 1), "{error}");
}

/// A login of its own for each part, as `postroom migrate up` makes them what they are.
async fn own_logins(database: &Database) -> Vec<(Part, Role)> {
    let mut roles = Vec::new();
    for part in Part::ALL {
        roles.push((part, Role::new(database, "login noinherit").await));
    }
    let urls = roles.iter().map(|(part, role)| (*part, Secret::from(database.url_as(&role.name).as_str()))).collect();
    let logins = AppLogin::of_urls(&Secret::from(database.app_url().as_str()), &urls).unwrap();
    let done = migrate::up(&owner(database), &logins).await.unwrap();
    assert!(done.advice.is_empty(), "{:?}", done.advice);
    roles
}

/// Does something with every part.
async fn works(storage: &postroom_storage::Storage) {
    let now = Hands::new().now();
    let by = postroom_storage::SuperAdmin::by_operator();
    let organization = crate::support::new_organization("acme");
    let new = NewTenant {
        organization,
        api_key: crate::support::new_key(),
        endpoint: Some(new_endpoint()),
        isolation: Isolation::Shared,
    };
    let acme = storage.platform.tenant_create(by, new, now).await.unwrap();
    for n in 0..20 {
        let event = new_event(&acme, "a", Some(&format!("id-{n}")), now);
        assert_eq!(storage.receiver.event_record(event).await.unwrap().deliveries, 1);
    }
    let events = storage.api.event_list(&acme.scope, EventFilter::default(), page(50)).await.unwrap().data;
    assert_eq!(events.len(), 20);
    let again = storage.api.event_replay(&acme.scope, events[0].id, None, now).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(storage.worker.pending_heads(None, 9).await.unwrap().len(), 1);
    assert!(storage.api.endpoint_create(&acme.scope, new_endpoint(), now).await.is_ok());
    storage.platform.health().await.unwrap();
    storage.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_of_its_own_is_its_part_without_becoming_it() {
    let database = Database::new().await;
    let roles = own_logins(&database).await;
    for (part, role) in &roles {
        let client = connect(&database.url_as(&role.name)).await;
        let sql = "select string_agg(rolname, ',') from pg_roles where rolname <> current_user \
             and pg_has_role(oid, 'usage')";
        assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, String>(0), part.role());
    }
    let urls: Vec<_> = roles.iter().map(|(part, role)| (*part, database.url_as(&role.name))).collect();
    let urls: Vec<_> = urls.iter().map(|(part, url)| (*part, url.as_str())).collect();
    works(&opened(&database.app_url(), &urls).await.unwrap()).await;
    for (_, role) in roles {
        role.give_back().await;
    }
}

mod pgbouncer {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_pooler_that_hands_out_another_connection_for_every_transaction_does_no_harm() {
        let database = Database::new().await;
        let roles = own_logins(&database).await;
        let pooler = PgBouncer::start(&database.admin_url()).await;
        let urls: Vec<_> = roles.iter().map(|(part, role)| (*part, pooler.url(&database.url_as(&role.name)))).collect();
        let urls: Vec<_> = urls.iter().map(|(part, url)| (*part, url.as_str())).collect();
        works(&opened(&pooler.url(&database.app_url()), &urls).await.unwrap()).await;
        drop(pooler);
        for (_, role) in roles {
            role.give_back().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_login_for_all_parts_is_refused_through_such_a_pooler_and_taken_in_session_mode() {
        let database = migrated().await;
        for connections in [1, 20] {
            let pooler = PgBouncer::start_with_pool(&database.admin_url(), connections).await;
            // The second time there are connections from the first, so that nobody needs a new one.
            for _ in 0..2 {
                let error = refused(&pooler.url(&database.app_url()), &[]).await;
                assert!(matches!(&error, OpenError::Pooled { login } if login == APP_ROLE), "{error}");
                assert!(error.to_string().contains("give each part a login of its own"), "{error}");
                assert!(!error.may_pass());
            }
        }
        let pooler = PgBouncer::start_in_session_mode(&database.admin_url()).await;
        works(&opened(&pooler.url(&database.app_url()), &[]).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_without_the_password() {
    let database = migrated().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(&format!("postgres://postroom:hunter2@{free}/postroom"), &[]).await.to_string();
    assert!(error.contains("Connection refused") && !error.contains("hunter2"), "{error}");
    let server = database.admin_url();
    let (_, server) = server.split_once('@').unwrap();
    let error = refused(&format!("postgres://postroom_test_nobody:hunter2@{server}"), &[]).await;
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

mod own_server {
    use super::*;

    #[tokio::test]
    async fn a_server_that_could_lose_what_it_committed_is_refused() {
        let mut server = Server::start_with(&[("data_sync_retry", "on")]).await;
        let database = Database::on(&server.admin_url()).await;
        migrate::up(&owner(&database), &[AppLogin::of_all_parts(APP_ROLE)]).await.unwrap();
        let is_refused_for = async |expected: &str| {
            let error = refused(&database.app_url(), &[]).await;
            assert!(matches!(&error, OpenError::Unsafe { setting, .. } if setting == expected), "{error}");
            assert!(error.to_string().contains("in postgresql.conf"), "{error}");
        };
        is_refused_for("data_sync_retry").await;
        server.set("data_sync_retry", "off").await;
        server.stop_fast().await;
        server.restart().await;
        for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
            server.set(setting, "off").await;
            is_refused_for(setting).await;
            server.set(setting, "on").await;
        }
    }

    #[tokio::test]
    async fn a_standby_is_refused_by_the_server_and_by_migrations() {
        let server = Server::start().await;
        let database = Database::on(&server.admin_url()).await;
        migrate::up(&owner(&database), &[AppLogin::of_all_parts(APP_ROLE)]).await.unwrap();
        let standby = server.standby().await;
        standby.catch_up_with(&server).await;
        let elsewhere = |url: String| url.replace(&server.address().to_string(), &standby.address().to_string());
        let error = refused(&elsewhere(database.app_url()), &[]).await;
        assert!(matches!(error, OpenError::ReadOnly), "{error}");
        let url = Secret::from(elsewhere(database.owner_url()).as_str());
        let error = migrate::up(&url, &[]).await.unwrap_err();
        assert!(matches!(error, OpenError::ReadOnly), "{error}");

        server.set("default_transaction_read_only", "on").await;
        let error = refused(&database.app_url(), &[]).await;
        assert!(matches!(error, OpenError::ReadOnly), "{error}");
    }
}
