//! `postroom config` as people run it. The table of single values is beside the settings themselves.

use super::support::{postroom, stderr, stdout, write};

#[test]
fn config_check_reports_every_problem_at_once_and_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "postroom.toml", "listen = \"8080\"\nretry_scedule = [60]\n");
    let output = postroom()
        .args(["config", "check", "--retention-days", "forever"])
        .current_dir(dir.path())
        .env("POSTROOM_MAX_BODY_BYTES", "1MB")
        .env("POSTROOM_ADMIN_TOKEN", "hunter2")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    for part in [
        "error: 5 settings are wrong:",
        "listen (postroom.toml line 1): \"8080\" is not an address and a port",
        "retry_scedule (postroom.toml line 2): unknown setting; did you mean retry_schedule?",
        "max_body_bytes (environment POSTROOM_MAX_BODY_BYTES): \"1MB\" is not a whole number of bytes",
        "retention_days (flag --retention-days): \"forever\" is not a whole number of days",
        "admin_token (environment POSTROOM_ADMIN_TOKEN): is shorter than 32 characters",
    ] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(stdout(&output), "");
}

#[test]
fn serve_refuses_wrong_settings_before_it_touches_anything() {
    let dir = tempfile::tempdir().unwrap();
    let output = postroom().args(["serve", "--listen", "x"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not an address and a port"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn config_show_masks_secrets_and_tells_origins() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "postroom.toml", "max_body_bytes = 2048\n");
    let show = |json: &[&str]| {
        postroom()
            .args(["config", "show", "--listen", "127.0.0.1:9"])
            .args(json)
            .current_dir(dir.path())
            .env("POSTROOM_ADMIN_TOKEN", super::support::ADMIN_TOKEN)
            .output()
            .unwrap()
    };
    let table = stdout(&show(&[]));
    assert!(table.contains("POSTROOM_LISTEN") && table.contains("flag --listen"), "{table}");
    assert!(!table.contains(super::support::ADMIN_TOKEN));
    let json = stdout(&show(&["--json"]));
    let settings: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| settings.iter().find(|setting| setting["setting"] == key).unwrap();
    assert_eq!(of("max_body_bytes")["value"], "2048");
    assert_eq!(of("max_body_bytes")["origin"], "postroom.toml line 1");
    assert_eq!(of("admin_token")["value"], "***");
    assert_eq!(of("data_dir")["origin"], "default");
}
