//! Databases of single organizations: how one is made, refused, and left, with two nodes that both could.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::{Plan, PlanLimits};
use postroom_domain::{Clock, Secret, Timestamp};
use postroom_testkit::postgres::{APP_ROLE, OWNER_ROLE, connect};

use super::Room;
use crate::api::NewApiKey;
use crate::cells::registry::{Cell, Registry, TenantRow};
use crate::platform::{Isolation, NewOrganization, NewTenant};
use crate::postgres::footprint::connections;
use crate::postgres::migrate::{self, AppLogin};
use crate::postgres::open::{self, OpenError, Target};
use crate::postgres::{Mode, Options, Postgres};
use crate::worker::{DeliveryKey, EndpointKey, OrganizationKey, StoredEvent};
use crate::{Error, Handoff, SuperAdmin};

/// Delivers nothing, and has room for nothing.
struct Elsewhere;

impl Handoff for Elsewhere {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        false
    }
    fn deliver(&self, _: Arc<StoredEvent>, _: Vec<EndpointKey>) {}
    fn release(&self, _: EndpointKey, _: usize) {}
    fn wake(&self, _: EndpointKey) {}
    fn is_processing(&self, _: DeliveryKey) -> bool {
        false
    }
    fn is_busy(&self, _: OrganizationKey) -> bool {
        false
    }
}

/// 2026-11-22T10:00:00Z.
fn now() -> Timestamp {
    Timestamp::from_millis(1_795_341_600_000)
}

/// Engines on one shared database.
struct Nodes {
    room: Room,
    keyring: Keyring,
}

impl Nodes {
    async fn new() -> Self {
        Self { room: Room::new().await, keyring: Keyring::parse(&Keyring::generate()).unwrap() }
    }

    fn options(&self, migrate_url: Option<String>) -> Options {
        Options {
            url: Secret::from(self.room.database.app_url()),
            part_urls: HashMap::new(),
            migrate_url: migrate_url.map(Secret::from),
            keyring: self.keyring.clone(),
            clock: Clock::new(now),
            handoff: Arc::new(Elsewhere),
            dedupe_window: Duration::from_secs(7 * 24 * 3600),
            retention: Duration::from_secs(30 * 24 * 3600),
            plans: PlanLimits::default(),
            default_attempt_timeout: Duration::from_secs(15),
            delivers: true,
            lease: Duration::from_secs(15),
            mode: Mode::Serve,
        }
    }

    async fn open(&self) -> Postgres {
        self.open_as(Some(self.room.database.owner_url())).await
    }

    async fn open_as(&self, migrate_url: Option<String>) -> Postgres {
        open::open(self.options(migrate_url), Target::Shared).await.unwrap()
    }

    /// What is in the registry.
    async fn row(&self, node: &Postgres, slug: &str) -> TenantRow {
        let tenants = node.tenants(None).await.unwrap().unwrap();
        tenants.rows.into_iter().find(|row| *row.slug == *slug).unwrap()
    }

    /// An organization with a database of its own, all steps of it.
    async fn make(&self, node: &Postgres, slug: &str) -> TenantRow {
        let row = node.tenant_begin(&by(), &new(slug), now()).await.unwrap();
        node.tenant_build(&row).await.unwrap();
        let cell = open_cell(node, &row).await;
        cell.upkeep.organization_put(&node.organization_copy(row.org).await.unwrap()).await.unwrap();
        cell.storage.platform.close().await.unwrap();
        node.tenant_finish(&row, &row.scope(&by()), &new(slug), now()).await.unwrap();
        self.row(node, slug).await
    }

    /// Connections to the databases of organizations.
    async fn connections(&self) -> i64 {
        let sql = "select count(*) from pg_stat_activity where datname in (select database from tenants)";
        self.room.admin.query_one(sql, &[]).await.unwrap().get(0)
    }
}

fn by() -> SuperAdmin {
    SuperAdmin::by_operator()
}

fn new(slug: &str) -> NewTenant {
    let organization = NewOrganization {
        name: format!("{slug} incorporated"),
        slug: slug.to_owned(),
        plan: Plan::Free,
        webhook_limit: None,
        is_active: true,
        mandrill_webhook_secret: Some(Secret::from(format!("mandrill of {slug}"))),
    };
    let (_, hash) = api_key::generate();
    let scopes = vec![KeyScope::Admin];
    let api_key = NewApiKey { name: "first".to_owned(), scopes, expires_at: None, hash, last_four: "abcd".to_owned() };
    NewTenant { organization, api_key, endpoint: None, isolation: Isolation::Dedicated }
}

async fn open_cell(node: &Postgres, row: &TenantRow) -> Cell {
    node.cell_open(row, Arc::new(Elsewhere)).await.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Why a cell does not open, as the log tells it.
async fn refused(node: &Postgres, row: &TenantRow) -> String {
    match node.cell_open(row, Arc::new(Elsewhere)).await {
        Ok(_) => panic!("it opens"),
        Err(Error::Unavailable(source)) => source.to_string(),
        Err(error) => panic!("{error:?}"),
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_database_is_made_in_steps_that_can_each_be_done_again() {
    let nodes = Nodes::new().await;
    let (one, two) = (nodes.open().await, nodes.open().await);
    let begun = one.tenant_begin(&by(), &new("acme"), now()).await.unwrap();
    assert!(!begun.initialize && !begun.awake && begun.database.starts_with("postroom_ten_"), "{begun:?}");
    assert!(!begun.url.contains(APP_ROLE), "{}", begun.url);
    // Another node goes on with it, twice, and with another name for it.
    let mut asked = new("acme");
    asked.organization.name = "another name".to_owned();
    let again = two.tenant_begin(&by(), &asked, now()).await.unwrap();
    assert_eq!((again.cell, again.org, again.id), (begun.cell, begun.org, begun.id));
    let (first, second) = tokio::join!(one.tenant_build(&again), two.tenant_build(&again));
    first.unwrap();
    second.unwrap();
    two.tenant_build(&again).await.unwrap();
    let error = one.tenant_finish(&begun, &begun.scope(&by()), &new("acme"), now()).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "somebody began it again: {error:?}");
    let (organization, _) = two.tenant_finish(&again, &again.scope(&by()), &asked, now()).await.unwrap();
    assert_eq!(organization.name, "another name");
    for error in [
        two.tenant_finish(&again, &again.scope(&by()), &asked, now()).await.map(drop).unwrap_err(),
        one.tenant_begin(&by(), &new("acme"), now()).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Taken { .. }), "{error:?}");
    }
    assert!(nodes.row(&one, "acme").await.initialize);
    let keys = nodes.room.count("api_keys").await;
    assert_eq!(keys, 1, "of the call that finished it");
}

#[tokio::test]
async fn nothing_is_made_where_no_login_may_make_databases() {
    let nodes = Nodes::new().await;
    let without = nodes.open_as(None).await;
    let role = format!("{}_bare", nodes.room.database.name());
    // Where the server asks for passwords, the kit's URLs have this one.
    let password = nodes
        .room
        .database
        .password()
        .map_or_else(|| "null".to_owned(), |known| format!("'{}'", known.replace('\'', "''")));
    nodes
        .room
        .run(&format!(
            "create role {role} login password {password}; grant connect on database \"{0}\" to {role}",
            nodes.room.database.name()
        ))
        .await;
    let bare = nodes.open_as(Some(nodes.room.database.url_as(&role))).await;
    for (node, says) in [
        (&without, "POSTROOM_MIGRATE_DATABASE_URL of the servers".to_owned()),
        (&bare, format!("alter role \"{role}\" createdb")),
    ] {
        match node.tenant_begin(&by(), &new("acme"), now()).await {
            Err(Error::Conflict { code: "dedicated_not_available", detail }) => {
                assert!(detail.contains(&says), "{detail}")
            }
            other => panic!("{:?}", other.map(|row| row.slug)),
        }
    }
    assert_eq!(nodes.room.count("organizations").await, 0);
    nodes.room.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn nobody_else_gets_into_a_database_that_was_made() {
    let nodes = Nodes::new().await;
    let node = nodes.open().await;
    let row = nodes.make(&node, "acme").await;
    let rights = |role: &str| {
        format!(
            "select has_database_privilege('{role}', '{}', 'connect')::int::int8 from generate_series(1, 1)",
            row.database
        )
    };
    let stranger = format!("{}_stranger", nodes.room.database.name());
    nodes.room.run(&format!("create role {stranger} login password null")).await;
    for (role, may) in [(stranger.as_str(), 0_i64), (APP_ROLE, 1), (OWNER_ROLE, 1)] {
        let found: i64 = nodes.room.admin.query_one(&rights(role), &[]).await.unwrap().get(0);
        assert_eq!(found, may, "{role}");
    }
    nodes.room.run(&format!("drop role {stranger}")).await;
}

#[tokio::test]
async fn a_database_that_is_not_as_it_should_be_is_refused_with_what_to_do() {
    let nodes = Nodes::new().await;
    let (node, other) = (nodes.open_as(None).await, nodes.open().await);
    let (acme, zeta) = (nodes.make(&other, "acme").await, nodes.make(&other, "zeta").await);
    let shown = open_cell(&node, &acme).await;
    shown.storage.platform.close().await.unwrap();

    // Renamed: away, and in another's place.
    nodes.room.run(&format!("alter database \"{0}\" rename to \"{0}_away\"", acme.database)).await;
    assert!(refused(&node, &acme).await.contains("does not exist"));
    nodes.room.run(&format!("alter database \"{}\" rename to \"{}\"", zeta.database, acme.database)).await;
    let why = refused(&node, &acme).await;
    assert!(why.contains("another organization is in it"), "{why}");
    nodes.room.run(&format!("alter database \"{}\" rename to \"{}\"", acme.database, zeta.database)).await;
    // An empty one in its place is not its own.
    nodes.room.run(&format!("create database \"{}\" owner {OWNER_ROLE}", acme.database)).await;
    assert!(refused(&node, &acme).await.contains("postroom migrate up"));
    let why = refused(&other, &acme).await;
    assert!(why.contains("no organization is in it"), "{why}");
    nodes.room.run(&format!("drop database \"{}\"", acme.database)).await;
    nodes.room.run(&format!("alter database \"{0}_away\" rename to \"{0}\"", acme.database)).await;

    nodes.room.run(&format!("revoke connect on database \"{}\" from {APP_ROLE}", acme.database)).await;
    assert!(refused(&node, &acme).await.contains("permission denied"));
    nodes.room.run(&format!("grant connect on database \"{}\" to {APP_ROLE}", acme.database)).await;

    let server = nodes.room.database.admin_url();
    let admin_url = server.replace(nodes.room.database.name(), &acme.database);
    connect(&admin_url).await.batch_execute("update nodes set state = 'recovered'").await.unwrap();
    let owner_url = nodes.room.database.owner_url().replace(nodes.room.database.name(), &acme.database);
    migrate::down(&Secret::from(owner_url)).await.unwrap();
    let why = refused(&node, &acme).await;
    assert!(why.contains("run `postroom migrate up`"), "{why}");
    // Who has the owning login mends it.
    open_cell(&other, &acme).await.storage.platform.close().await.unwrap();
    open_cell(&node, &acme).await.storage.platform.close().await.unwrap();
    // All the time nothing was wrong with the other one.
    open_cell(&node, &zeta).await.storage.platform.close().await.unwrap();
}

#[tokio::test]
async fn the_copy_of_an_organization_is_replaced_by_newer_ones_only() {
    let nodes = Nodes::new().await;
    let node = nodes.open().await;
    let row = nodes.make(&node, "acme").await;
    let cell = open_cell(&node, &row).await;
    let copy = node.organization_copy(row.org).await.unwrap();
    let count = async |from: &str| {
        let url = nodes.room.database.admin_url().replace(nodes.room.database.name(), &row.database);
        let admin = connect(&url).await;
        admin.query_one(&format!("select count(*) from {from}"), &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(count(&format!("organizations where org = {} and slug = 'acme'", row.org)).await, 1);
    assert_eq!(count("sources where is_implied and deleted_at is null").await, 1, "of its Mandrill secret");
    let later = Timestamp::from_millis(now().as_millis() + 1);
    let renamed = crate::cells::registry::OrganizationCopy {
        name: "renamed".to_owned(),
        mandrill_secret: None,
        mandrill_fingerprint: None,
        updated_at: later,
        ..copy.clone()
    };
    cell.upkeep.organization_put(&renamed).await.unwrap();
    cell.upkeep.organization_put(&copy).await.unwrap();
    assert_eq!(count("organizations where name = 'renamed' and mandrill_secret is null").await, 1);
    assert_eq!(count("sources where is_implied and deleted_at is null").await, 0);
    let other = nodes.make(&node, "zeta").await;
    let theirs = node.organization_copy(other.org).await.unwrap();
    assert!(matches!(cell.upkeep.organization_put(&theirs).await, Err(Error::Internal(_))));
    cell.storage.platform.close().await.unwrap();
}

#[tokio::test]
async fn a_database_sleeps_when_the_last_one_has_left_and_nothing_waits() {
    let nodes = Nodes::new().await;
    let (one, two) = (nodes.open().await, nodes.open().await);
    let row = nodes.make(&one, "acme").await;
    let (a, b) = (open_cell(&one, &row).await, open_cell(&two, &row).await);
    assert!(a.upkeep.is_idle().await.unwrap() && b.upkeep.is_idle().await.unwrap());
    let before = nodes.row(&one, "acme").await;
    a.storage.platform.close().await.unwrap();
    one.cell_sleep(row.cell, 0, now()).await.unwrap();
    let left = nodes.row(&one, "acme").await;
    assert!(left.awake && left.wakes == before.wakes, "somebody is in there: {left:?}");
    b.storage.platform.close().await.unwrap();
    two.cell_sleep(row.cell, 0, now()).await.unwrap();
    let asleep = nodes.row(&one, "acme").await;
    assert!(!asleep.awake && asleep.slept_at == Some(now()), "{asleep:?}");

    // What waits is for somebody to look at, though this one has left.
    let c = open_cell(&one, &row).await;
    let url = nodes.room.database.admin_url().replace(nodes.room.database.name(), &row.database);
    let waits = "insert into exceptions (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, since) \
         values (1, 1, gen_random_uuid(), 0, 'waiting', now(), 0, 0, now())";
    connect(&url).await.batch_execute(waits).await.unwrap();
    assert!(!c.upkeep.is_idle().await.unwrap());
    let before = nodes.row(&one, "acme").await;
    c.storage.platform.close().await.unwrap();
    one.cell_sleep(row.cell, 0, now()).await.unwrap();
    let called = nodes.row(&one, "acme").await;
    assert!(called.awake && called.wakes > before.wakes, "{called:?}");
}

#[tokio::test]
async fn whoever_finds_a_dead_node_has_somebody_look_where_it_may_have_been() {
    let nodes = Nodes::new().await;
    let (dead, alive) = (nodes.open().await, nodes.open().await);
    let row = nodes.make(&dead, "acme").await;
    let _in_there = open_cell(&dead, &row).await;
    let before = nodes.row(&alive, "acme").await;
    let third = nodes.open().await;
    until("its death is noticed", async || {
        // Again and again: in truth it lives, and gives a sign of life now and then.
        nodes.room.run("update nodes set lease_until = '-infinity' where node = (select min(node) from nodes)").await;
        nodes.row(&third, "acme").await.wakes > before.wakes
    })
    .await;
    let after = nodes.row(&third, "acme").await;
    assert!(after.awake && after.wakes == before.wakes + 1, "{before:?} {after:?}");
}

#[tokio::test]
async fn the_registry_is_read_again_only_when_it_has_changed() {
    let nodes = Nodes::new().await;
    let (one, two) = (nodes.open().await, nodes.open().await);
    let seen = one.tenants(None).await.unwrap().unwrap();
    assert!(seen.rows.is_empty() && one.tenants(Some(seen.revision)).await.unwrap().is_none());
    nodes.make(&two, "acme").await;
    until(
        "another node's organization is seen",
        async || matches!(one.tenants(Some(seen.revision)).await, Ok(Some(tenants)) if tenants.rows.len() == 1),
    )
    .await;
}

#[tokio::test]
async fn open_databases_take_no_more_connections_than_is_said_and_next_to_none_when_idle() {
    const CELLS: i64 = 3;
    let nodes = Nodes::new().await;
    let node = nodes.open().await;
    let mut cells = Vec::new();
    for number in 0..CELLS {
        let row = nodes.make(&node, &format!("acme-{number}")).await;
        cells.push((row.org, open_cell(&node, &row).await));
    }
    let at_most = i64::try_from(connections().cell).unwrap() * CELLS;
    for _ in 0..5 {
        let busy = cells.iter().flat_map(|(_, cell)| {
            (0..10).map(|_| async { drop(tokio::join!(cell.storage.platform.gauges(), cell.upkeep.is_idle())) })
        });
        let (_, found) = tokio::join!(futures_util::future::join_all(busy), nodes.connections());
        assert!(found <= at_most, "{found} connections to {CELLS} databases");
    }
    assert!(nodes.connections().await > 3 * CELLS, "it is not by chance that there are few");
    until("idle connections are closed", async || nodes.connections().await <= 3 * CELLS).await;
    for (_, cell) in &cells {
        cell.storage.platform.close().await.unwrap();
    }
    until("closed ones leave nothing", async || nodes.connections().await == 0).await;
}

#[tokio::test]
async fn the_owning_login_goes_through_all_databases_and_one_that_fails_stops_no_other() {
    let nodes = Nodes::new().await;
    let node = nodes.open().await;
    let (acme, zeta) = (nodes.make(&node, "acme").await, node.tenant_begin(&by(), &new("zeta"), now()).await.unwrap());
    let (owner, app) = (Secret::from(nodes.room.database.owner_url()), Secret::from(nodes.room.database.app_url()));
    let logins = [AppLogin::of_all_parts(APP_ROLE)];
    let organization = Some(acme.organization);
    let known = async || {
        let mut all = Vec::new();
        let applied = |steps: Vec<migrate::Step>| steps.iter().filter(|step| step.applied).count();
        let tell = |it: &migrate::Database, steps: Result<_, OpenError>| {
            all.push((it.slug.clone(), steps.map(applied).ok()));
        };
        migrate::status_all(&owner, &app, tell).await.unwrap();
        all
    };
    let all_of_them = Some(migrate::NEWEST);
    let (acme_is, zeta_is) = (Some("acme".to_owned()), Some("zeta".to_owned()));
    assert_eq!(known().await, [(None, all_of_them), (acme_is.clone(), all_of_them), (zeta_is.clone(), all_of_them)]);

    let newest = migrate::status(&owner).await.unwrap().last().unwrap().name;
    nodes.room.run("update nodes set state = 'recovered'").await;
    let mut told = Vec::new();
    let tell = |it: &migrate::Database, done: Result<Option<&'static str>, OpenError>| {
        told.push((it.organization, done.unwrap()));
    };
    migrate::down_all(&owner, &app, tell).await.unwrap();
    let last = Some(newest);
    let nothing = (Some(zeta.organization), None);
    assert_eq!(told, [(organization, last), nothing, (None, last)], "the one that knows the others goes last");
    assert_eq!(nodes.room.count(&format!("tenants where migration_version = {}", migrate::NEWEST - 1)).await, 1);
    let one_less = Some(migrate::NEWEST - 1);
    assert_eq!(known().await[..2], [(None, one_less), (acme_is.clone(), one_less)], "noted or not");

    nodes.room.run(&format!("revoke connect on database \"{}\" from {OWNER_ROLE}", acme.database)).await;
    let mut told = Vec::new();
    let tell = |it: &migrate::Database, done: Result<migrate::Migrated, OpenError>| {
        told.push((it.organization, done.map(|done| done.applied).map_err(|error| error.to_string())));
    };
    migrate::up_all(&owner, &app, &logins, tell).await.unwrap();
    assert_eq!(told[0], (None, Ok(vec![newest])));
    assert!(matches!(&told[1], (Some(_), Err(said)) if said.contains(&acme.organization.to_string())), "{told:?}");
    nodes.room.run(&format!("grant connect on database \"{}\" to {OWNER_ROLE}", acme.database)).await;
    let mut told = Vec::new();
    let tell = |it: &migrate::Database, done: Result<migrate::Migrated, OpenError>| {
        told.push((it.organization, done.unwrap().applied));
    };
    migrate::up_all(&owner, &app, &logins, tell).await.unwrap();
    assert_eq!(told[..2], [(None, vec![]), (organization, vec![newest])]);
    assert_eq!(known().await, [(None, all_of_them), (acme_is, all_of_them), (zeta_is, all_of_them)]);
    assert_eq!(nodes.room.count(&format!("tenants where migration_version = {}", migrate::NEWEST)).await, 1);
}
