//! A database that is away, says nothing, or has moved: everybody is told in time, and all goes on by itself.

mod own_server {
    use std::time::{Duration, Instant};

    use postroom_storage::api::EventFilter;
    use postroom_storage::platform::Tenant;
    use postroom_storage::postgres::{self, migrate};
    use postroom_storage::{Error, Result, Storage, SuperAdmin};
    use postroom_testkit::postgres::{Database, Server, connect};

    use super::super::{app, owner};
    use crate::support::{Harness, Opening, Room, new_endpoint, options_at, page};

    /// A server that a test may stop. `elsewhere` is tried too where a login goes.
    struct Own {
        server: Server,
        database: Database,
        elsewhere: Option<Server>,
    }

    impl Own {
        fn url(&self) -> String {
            let (url, here) = (self.database.app_url(), self.server.address().to_string());
            let Some(elsewhere) = &self.elsewhere else { return url };
            url.replace(&here, &format!("{here},{}", elsewhere.address()))
        }
    }

    impl Harness for Own {
        async fn temporary() -> Self {
            // Starting a server looks again and again in a way that cannot move between threads.
            let here = tokio::runtime::Handle::current();
            let started = tokio::task::spawn_blocking(move || here.block_on(Server::start()));
            let server = started.await.unwrap();
            let database = Database::on(&server.admin_url()).await;
            migrate::up(&owner(&database), &app()).await.unwrap();
            Self { server, database, elsewhere: None }
        }

        async fn open(&self, opening: Opening) -> Storage {
            postgres::open(options_at(&self.url(), opening)).await.unwrap()
        }

        async fn crashed(&self) -> Self {
            panic!("no test crashes it")
        }
    }

    /// Everything that asks the database, all at once: each is told in time that it cannot be asked now.
    async fn all_are_told(room: &Room<Own>, acme: &Tenant) {
        let (api, platform, now) = (&room.storage.api, &room.storage.platform, room.now());
        let started = Instant::now();
        let timed = async |what: &str, within: u64, answer: Result<()>| {
            assert!(matches!(answer, Err(Error::Unavailable(_) | Error::Overloaded)), "{what}: {answer:?}");
            assert!(started.elapsed() < Duration::from_secs(within), "{what} after {:?}", started.elapsed());
        };
        tokio::join!(
            async { timed("health", 10, platform.health().await).await },
            async { timed("send", 20, room.try_send(acme, "a", None).await.map(drop)).await },
            async { timed("send", 20, room.try_send(acme, "a", Some("its own")).await.map(drop)).await },
            async {
                timed("list", 20, api.event_list(&acme.scope, EventFilter::default(), page(9)).await.map(drop)).await
            },
            async { timed("create", 20, api.endpoint_create(&acme.scope, new_endpoint(), now).await.map(drop)).await },
            async {
                let got = platform.organization_get(SuperAdmin::by_operator(), acme.organization.id).await;
                timed("organization", 20, got.map(drop)).await;
            },
            async { timed("upkeep", 20, platform.upkeep(now).await.map(drop)).await },
        );
    }

    /// Waits until everything works again. Returns how long that took.
    async fn goes_on(room: &Room<Own>, acme: &Tenant) -> Duration {
        let started = Instant::now();
        room.until(async || room.storage.platform.health().await.is_ok()).await;
        room.until(async || room.try_send(acme, "a", None).await.is_ok()).await;
        room.until(async || room.storage.api.endpoint_create(&acme.scope, new_endpoint(), room.now()).await.is_ok())
            .await;
        started.elapsed()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_says_nothing_keeps_nobody_waiting() {
        let room = Room::<Own>::new().await;
        let acme = room.organization("acme").await;
        let before = room.send(&acme, "a").await.id;
        room.harness.server.freeze();
        all_are_told(&room, &acme).await;
        room.harness.server.thaw();
        goes_on(&room, &acme).await;
        assert!(room.storage.api.event_get(&acme.scope, before).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_is_stopped_and_started_is_used_again_by_itself() {
        let mut room = Room::<Own>::new().await;
        let acme = room.organization("acme").await;
        let before = room.send(&acme, "a").await.id;
        room.harness.server.kill_nine().await;
        all_are_told(&room, &acme).await;
        room.harness.server.restart().await;
        goes_on(&room, &acme).await;
        assert!(room.storage.api.event_get(&acme.scope, before).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_failover_the_new_primary_is_found_among_the_hosts() {
        let mut own = Own::temporary().await;
        let standby = own.server.standby().await;
        own.elsewhere = Some(standby);
        let mut room = Room::on(own).await;
        let acme = room.organization("acme").await;
        let before = room.send(&acme, "a").await.id;
        room.harness.elsewhere.as_ref().unwrap().catch_up_with(&room.harness.server).await;
        room.harness.server.stop_fast().await;
        assert!(room.storage.platform.health().await.is_err(), "a standby is not enough");
        room.harness.elsewhere.as_ref().unwrap().promote().await;
        goes_on(&room, &acme).await;
        assert!(room.storage.api.event_get(&acme.scope, before).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_became_read_only_is_not_healthy() {
        let room = Room::<Own>::new().await;
        assert!(room.storage.platform.health().await.is_ok());
        let admin = connect(&room.harness.database.admin_url()).await;
        let end = "alter system set default_transaction_read_only = on; ";
        admin.batch_execute(end).await.unwrap();
        admin.batch_execute("select pg_reload_conf()").await.unwrap();
        room.until(async || matches!(room.storage.platform.health().await, Err(Error::Unavailable(_)))).await;
    }
}
