//! The audit log by command: read over the API, and checked in the database itself, where whoever owns it can change it.

use std::process::Output;

use serde_json::{Value, json};

use super::kills::change;
use super::support::{Engine, Server, stderr, stdout};

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub fn entries_are_listed_and_one_that_its_owner_changed_is_found(engine: Engine) {
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", Some("http://127.0.0.1:9/"));
    tenant.source("github", "a source's secret");
    let list = |arguments: &[&str]| {
        let all = [&["audit", "list", "--json"], arguments].concat();
        let listed = server.command(&all).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
        assert_eq!(listed.status.code(), Some(0), "{}", stderr(&listed));
        json_lines(&listed)
    };
    let made = list(&["--action", "source.created"]);
    assert_eq!((made.len(), &made[0]["resource_type"]), (1, &json!("source")), "{made:?}");
    assert_eq!(made[0]["actor"].as_str().map(|actor| &actor[..4]), Some("key_"));
    let all = list(&[]).len();
    assert!(all >= 4, "the organization, its key, its endpoint and its source: {all}");
    assert_eq!(list(&["--before", "2026-01-01T00:00:00Z"]).len(), 0);
    let table = server.command(&["audit", "list"]).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
    assert!(stdout(&table).contains("source.created"), "{}", stdout(&table));

    let verify = |arguments: &[&str]| server.run(&[&["audit", "verify"], arguments].concat());
    let (whole, of_acme) = (verify(&[]), verify(&["--organization", "acme"]));
    for checked in [&whole, &of_acme] {
        assert_eq!(checked.status.code(), Some(0), "{}{}", stdout(checked), stderr(checked));
        assert!(stdout(checked).contains(&format!(": {all} entries, head ")), "{}", stdout(checked));
        assert!(stdout(checked).lines().all(|line| line.starts_with("whole ")), "{}", stdout(checked));
    }
    let nobody = verify(&["--organization", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("there is no organization nobody"), "{}", stderr(&nobody));

    change(&server.place, "audit_logs", "actor = 'operator' where number = 3 and org > 0");
    for arguments in [&[][..], &["--organization", "acme"]] {
        let found = verify(arguments);
        assert_eq!(found.status.code(), Some(1), "{}{}", stdout(&found), stderr(&found));
        let said = stdout(&found);
        let line = said.lines().find(|line| line.starts_with("broken ")).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(": entry 3: ") && line.contains("; 2 entries before it are good, head "), "{line}");
        let told = json_lines(&verify(&[arguments, &["--json"]].concat()));
        let broken: Vec<&Value> = told.iter().filter(|chain| chain["broken_at"] == 3).collect();
        assert!(broken.len() == 1 && broken[0]["reason"].is_string() && broken[0]["entries"] == 2, "{told:?}");
    }
}
