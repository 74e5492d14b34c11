//! What README says can be done, done.

use std::path::Path;

use serde_json::Value;

use super::support::{ADMIN_TOKEN, Engine, Receiver, Server, post, postroom, stderr};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    std::fs::read_to_string(path).expect("README.md")
}

/// The lines of shell blocks, continued lines joined.
fn shell_lines() -> Vec<String> {
    let text = readme().replace("\\\n", " ");
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// The path and the body of the request that README shows for this path.
fn shown_request(path: &str) -> Value {
    let lines = shell_lines();
    let line = lines.iter().find(|line| line.starts_with("curl") && line.contains(&format!("8080{path} ")));
    let line = line.unwrap_or_else(|| panic!("README shows no curl for {path}"));
    let body = line.split("-d '").nth(1).and_then(|rest| rest.split('\'').next()).expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn every_command_of_the_readme_exists() {
    let lines = shell_lines();
    let commands: Vec<&String> = lines.iter().filter(|line| line.starts_with("postroom ")).collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in commands {
        let words = command.split_whitespace().skip(1).take_while(|word| !word.starts_with(['-', '#']));
        // Ids and the like are arguments, not subcommands: help is asked for in front of them.
        let words: Vec<&str> = words.filter(|word| !word.contains('_')).collect();
        let output = postroom().args(&words).arg("--help").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
    }
}

pub fn the_readme_s_requests_make_an_organization_receive_and_send(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let mut tenant = shown_request("/v1/tenants");
    tenant["target_url"] = receiver.url().into();
    let (status, made) = post(&format!("{}/v1/tenants", server.url), ADMIN_TOKEN, &tenant);
    assert_eq!(status, 201, "{made}");
    let key = made["api_key"]["secret"].as_str().unwrap();

    let (status, sent) = post(&format!("{}/v1/events", server.url), key, &shown_request("/v1/events"));
    assert_eq!((status, &sent["deliveries"]), (202, &1.into()), "{sent}");
    assert_eq!(receiver.next().header("webhook-id"), sent["id"].as_str().unwrap());

    let (status, source) = post(&format!("{}/v1/sources", server.url), key, &shown_request("/v1/sources"));
    assert_eq!(status, 201, "{source}");
    assert!(source["url"].as_str().unwrap().ends_with("/in/acme-corp/stripe"), "{source}");

    let (status, invited) = post(&format!("{}/v1/users", server.url), key, &shown_request("/v1/users"));
    assert_eq!((status, &invited["status"]), (201, &"invited".into()), "{invited}");
}
