//! The bench and the kill loop, short: the long runs are for people and for CI.

use super::support::{Engine, Place, Server, stderr, stdout};

fn bench(engine: Engine, arguments: &[&str]) -> serde_json::Value {
    let place = Place::new(engine);
    let dir = &place.dir;
    let output = place.command(&["bench"]).args(arguments).output().unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

pub fn killed_again_and_again_under_load_it_loses_invents_and_alters_nothing(engine: Engine) {
    let last = bench(engine, &["--kill", "5", "--organizations", "3", "--concurrency", "16"]);
    assert_eq!((&last["lost"], &last["invented"], &last["altered"]), (&0.into(), &0.into(), &0.into()), "{last}");
    assert_eq!(last["kills"], 5);
    assert!(last["accepted"].as_u64().unwrap() > 0 && last["seed"].is_u64(), "{last}");
}

pub fn bench_beside_the_bare_gateway_prints_every_figure(engine: Engine) {
    let last =
        bench(engine, &["--bare", "--rounds", "1", "--events", "300", "--organizations", "2", "--concurrency", "8"]);
    for figure in ["accepted_per_s", "delivered_per_s", "p50_ms", "p99_ms", "ratio_to_bare", "cpu_us_per_event"] {
        assert!(last[figure].is_number(), "{figure}: {last}");
    }
    assert_eq!(
        (&last["lost"], &last["doubled"], &last["accepted"]),
        (&0.into(), &0.into(), &last["delivered"]),
        "{last}"
    );
}

pub fn bench_sends_the_organizations_own_events_too(engine: Engine) {
    let last = bench(engine, &["--own", "--rounds", "1", "--events", "200", "--organizations", "2", "--json"]);
    assert_eq!((&last["lost"], &last["altered"]), (&0.into(), &0.into()), "{last}");
}

pub fn bench_measures_a_server_that_runs_already_and_takes_its_things_away_again(engine: Engine) {
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    let arguments = ["bench", "--url", &server.url, "--rounds", "1", "--events", "100", "--json"];
    let output = server.command(&arguments).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(tenant.get("/v1/sources")["data"], serde_json::json!([]));
    assert_eq!(tenant.get("/v1/endpoints")["data"], serde_json::json!([]));
}
