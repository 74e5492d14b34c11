use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const TOKEN: &str = "k3J9sQ7xV2mZ8pL4wN6tR1yB5cF0hGdA";

fn load(file: Option<&str>, environment: &[(&str, &str)], listen: Option<&str>) -> Loaded {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("postroom.toml");
    fs::write(&path, file.unwrap_or_default()).unwrap();
    let flags = Flags { config: file.map(|_| path), listen: listen.map(str::to_owned), ..Flags::default() };
    Loaded::read_from(&flags, environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))))
}

fn problems(loaded: Loaded) -> Vec<String> {
    let problems = loaded.config.err().map_or_else(Vec::new, |problems| problems.0);
    problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect()
}

#[test]
fn nothing_has_to_be_set() {
    let config = load(None, &[], None).config.unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.retry_schedule.seconds().collect::<Vec<_>>(), [60, 300, 900]);
    assert!(config.admin_token.is_none() && config.public_url.is_none() && config.allow_private_networks.is_empty());
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = Some("listen = \"127.0.0.1:1\"\nmax_body_bytes = 2048\nretry_schedule = [1, 2]\n");
    let env = [("POSTROOM_LISTEN", "127.0.0.1:2"), ("POSTROOM_MAX_BODY_BYTES", "4096"), ("PATH", "/bin")];
    let loaded = load(file, &env, Some("127.0.0.1:3"));
    let config = loaded.config.unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.max_body_bytes, 4096);
    assert_eq!(config.retry_schedule.seconds().collect::<Vec<_>>(), [1, 2]);
    let origin = |key| loaded.shown.iter().find(|s| s.setting.key == key).unwrap().origin.to_string();
    assert_eq!(origin("listen"), "flag --listen");
    assert_eq!(origin("max_body_bytes"), "environment POSTROOM_MAX_BODY_BYTES");
    assert!(origin("retry_schedule").ends_with("postroom.toml line 3"));
    assert_eq!(origin("data_dir"), "default");
}

#[test]
fn an_empty_retry_schedule_is_no_retry_and_other_empty_values_are_refused() {
    let config = load(None, &[("POSTROOM_RETRY_SCHEDULE", "")], None).config.unwrap();
    assert_eq!(config.retry_schedule.seconds().count(), 0);
    assert_eq!(
        problems(load(None, &[("POSTROOM_LISTEN", "")], None)),
        ["listen: is set but empty: give a value, or unset it to have the default"]
    );
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let loaded = load(
        Some("retry_scedule = [60]\nmax_body_bytes = \"1MB\"\n"),
        &[("POSTROOM_LISTN", "x"), ("POSTROOM_DEDUPE_DAYS", "0")],
        Some("8080"),
    );
    let text = loaded.config.unwrap_err().to_string();
    let text = text.replace('\n', " | ");
    for part in [
        "5 settings are wrong:",
        "postroom.toml line 1): unknown setting; did you mean retry_schedule?",
        "POSTROOM_LISTN (environment POSTROOM_LISTN): unknown setting; did you mean POSTROOM_LISTEN?",
        "\"8080\" is not an address and a port",
        "postroom.toml line 2): \"1MB\" is not a whole number of bytes from 1024 to 67108864",
        "dedupe_days (environment POSTROOM_DEDUPE_DAYS): \"0\" is not a whole number of days from 1 to 365",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn values_out_of_form_are_refused_with_what_would_be_right() {
    let cases: &[(&str, &str, &str)] = &[
        ("LISTEN", "8080", "is not an address and a port"),
        ("LISTEN", "localhost", "is not an address and a port"),
        ("LISTEN", "127.0.0.1:65536", "is not an address and a port"),
        ("LISTEN", &"/s".repeat(100), "is not an address and a port"),
        ("MAX_BODY_BYTES", "1MB", "whole number of bytes"),
        ("MAX_BODY_BYTES", "1MiB", "whole number of bytes"),
        ("MAX_BODY_BYTES", "0", "from 1024"),
        ("MAX_BODY_BYTES", "18446744073709551616", "to 67108864"),
        ("DELIVERY_TIMEOUT_MS", "5 parsecs", "whole number of milliseconds"),
        ("DELIVERY_TIMEOUT_MS", "-1", "from 1000"),
        ("DELIVERY_TIMEOUT_MS", "1000000000000000000000000000000", "to 30000"),
        ("DELIVERY_TIMEOUT_MS", "15s", "whole number of milliseconds"),
        ("RETRY_SCHEDULE", "60;300", "list of seconds"),
        ("RETRY_SCHEDULE", "60,,300", "each item is a whole number"),
        ("RETRY_SCHEDULE", "0", "1 to 604800"),
        ("RETRY_SCHEDULE", "-60", "each item is a whole number"),
        ("RETRY_SCHEDULE", "604801", "1 to 604800"),
        ("ALLOW_PRIVATE_NETWORKS", "10.0.0.0/33", "CIDR"),
        ("ALLOW_PRIVATE_NETWORKS", "10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        ("ALLOW_PRIVATE_NETWORKS", "localhost", "CIDR"),
        ("TRUSTED_PROXIES", "proxy.internal", "CIDR"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,0.0.0.0/0", "0.0.0.0/0 is every address"),
        ("PUBLIC_URL", "hooks.acme.com", "does not begin with https://"),
        ("PUBLIC_URL", "ftp://hooks.acme.com", "does not begin with https://"),
        ("PUBLIC_URL", "https://hooks.acme.com/postroom", "more than scheme, host and port"),
        ("PUBLIC_URL", "https://a:b@hooks.acme.com", "user name or password"),
        ("PUBLIC_URL", "http://hooks.acme.com", "plain http on a public name"),
        ("PUBLIC_URL", "http://203.0.113.9", "plain http on a public name"),
        ("ADMIN_TOKEN", "short", "shorter than 32 characters"),
        ("ADMIN_TOKEN", "change-me-change-me-change-me-change-me", "can be guessed"),
        ("ADMIN_TOKEN", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "can be guessed"),
        ("ADMIN_TOKEN", "k3J9sQ7xV2mZ8pL4wN6tR1yB5cF0hGd A", "visible ASCII"),
        ("ENCRYPTION_KEYS", "c2hvcnQ=", "number 1 is not base64 of exactly 32 bytes"),
        ("RETENTION_DAYS", "thirty", "whole number of days"),
        ("FREE_WEBHOOK_LIMIT", "0", "nothing is accepted: give 1 or more, or none"),
        ("FREE_WEBHOOK_LIMIT", "-1", "from 1 to 1000000000000, nor none"),
        ("STARTER_WEBHOOK_LIMIT", "many", "whole number of events a month"),
        ("STARTER_WEBHOOK_LIMIT", "", "is set but empty"),
        ("PREMIUM_WEBHOOK_LIMIT", "1000000000001", "to 1000000000000"),
        ("PREMIUM_WEBHOOK_LIMIT", "unlimited", "nor none (no limit)"),
        ("ROLES", "receiver;api", "is no role: there are receiver, api and worker"),
        ("ROLES", "receiver,", "\"\" is no role"),
        ("ROLES", "Receiver", "is no role"),
        ("ROLES", "api,dashboard", "this version has no dashboard: leave it out"),
        ("ROLES", "receiver", "on the embedded engine one process runs all parts: unset it, or set database_url"),
        ("DATABASE_URL_WORKER", "postgres://w:x@h/d", "means nothing without database_url"),
        ("MIGRATE_DATABASE_URL", "postgres://o:x@h/d", "means nothing without database_url"),
    ];
    for (key, value, expected) in cases {
        let name = format!("POSTROOM_{key}");
        let found = problems(load(None, &[(name.as_str(), value)], None));
        assert_eq!(found.len(), 1, "{key}={value}: {found:?}");
        assert!(found[0].contains(expected), "{key}={value}: {found:?}");
    }
}

const DATABASE_URL: &str = "postgres://postroom:hunter2@127.0.0.1:5432/postroom";

/// Settings of a process on PostgreSQL, with one more.
fn on_postgres(name: &str, value: &str) -> Loaded {
    let keys = postroom_domain::keyring::Keyring::generate();
    let environment = [
        ("POSTROOM_DATABASE_URL", DATABASE_URL),
        ("POSTROOM_ENCRYPTION_KEYS", keys.expose_str().unwrap()),
        (name, value),
    ];
    load(None, &environment, None)
}

#[test]
fn every_part_can_have_a_login_of_its_own_and_the_rest_share_one() {
    let loaded = on_postgres("POSTROOM_DATABASE_URL_DEAD_LETTER", "postgres://letters:hunter3@127.0.0.1/postroom");
    let shown: Vec<&str> = loaded.shown.iter().map(|shown| shown.value.as_str()).collect();
    assert!(!shown.concat().contains("hunter"), "{shown:?}");
    let config = loaded.config.unwrap();
    assert!(!format!("{config:?}").contains("hunter"), "{config:?}");
    let Database::Postgres(database) = config.database else { panic!("{:?}", config.database) };
    assert_eq!(database.part_urls.keys().collect::<Vec<_>>(), [&postroom_storage::postgres::Part::DeadLetter]);
    assert_eq!(database.logins().unwrap().len(), 2);
    assert!(database.migrate_url.is_none());
}

#[test]
fn a_process_on_postgresql_may_run_any_parts() {
    for (text, receiver, api, worker) in
        [("receiver", true, false, false), ("worker,api", false, true, true), ("all", true, true, true)]
    {
        let config = on_postgres("POSTROOM_ROLES", text).config.unwrap();
        assert_eq!(config.roles, Roles { receiver, api, worker }, "{text}");
    }
}

#[test]
fn postgresql_needs_encryption_keys_that_every_process_has() {
    let environment = [("POSTROOM_DATABASE_URL", DATABASE_URL)];
    let found = problems(load(None, &environment, None));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("encryption_keys: must be set on PostgreSQL"), "{found:?}");
    assert!(found[0].contains("`postroom keys generate` prints one"), "{found:?}");
}

#[test]
fn a_wrong_database_url_is_refused_with_what_to_do_and_is_not_repeated() {
    for (value, expected) in [
        ("hunter2", "give postgres://user:password@host:port/database"),
        ("mysql://u:hunter2@h/d", "does not begin with postgres://"),
        ("postgres://u:hun@ter2@h/d", "write special characters in percent form"),
        ("postgres://u:hunter2@h/d?sslmode=none", "sslmode is"),
        ("postgres://u:hunter2@h/d?pool_size=1000000", "means nothing here"),
        ("postgres://u:hunter2@h:0/d", "port"),
    ] {
        for name in ["POSTROOM_DATABASE_URL_WORKER", "POSTROOM_MIGRATE_DATABASE_URL"] {
            let found = problems(on_postgres(name, value));
            assert_eq!(found.len(), 1, "{value}: {found:?}");
            assert!(found[0].contains(expected) && !found[0].contains("hunter2"), "{value}: {found:?}");
        }
        let found = problems(load(None, &[("POSTROOM_DATABASE_URL", value)], None)).concat();
        assert!(found.contains(expected) && !found.contains("hunter2"), "{value}: {found}");
    }
}

#[test]
fn good_values_of_every_form_are_taken() {
    for (key, value) in [
        ("LISTEN", "[::]:0"),
        ("PUBLIC_URL", "https://hooks.acme.com"),
        ("PUBLIC_URL", "http://localhost:8080"),
        ("PUBLIC_URL", "http://10.1.2.3:8080/"),
        ("PUBLIC_URL", "http://postroom.internal"),
        ("ALLOW_PRIVATE_NETWORKS", "127.0.0.0/8, ::1/128"),
        ("TRUSTED_PROXIES", ""),
        ("TRUSTED_PROXIES", "10.0.0.2/32, fd00::/8"),
        ("ADMIN_TOKEN", TOKEN),
        ("RETRY_SCHEDULE", "1"),
        ("ROLES", "all"),
        ("ROLES", "worker, receiver,api"),
    ] {
        let name = format!("POSTROOM_{key}");
        assert_eq!(problems(load(None, &[(name.as_str(), value)], None)), Vec::<String>::new(), "{key}={value}");
    }
}

#[test]
fn a_settings_file_that_cannot_be_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let huge = write("huge.toml", b"");
    fs::File::options().write(true).open(&huge).unwrap().set_len(100 << 20).unwrap();
    let cases = [
        (dir.path().join("missing.toml"), "cannot be read"),
        (dir.path().to_owned(), "is a directory"),
        (huge, "larger than 1 MiB"),
        (write("binary.toml", &[0xff, 0xfe, 0]), "not text in UTF-8"),
        (write("twice.toml", b"listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n"), "line 2 is not valid TOML"),
        (write("broken.toml", b"listen = \n"), "line 1 is not valid TOML"),
        (write("number.toml", b"retention_days = 99999999999999999999999\n"), "not a whole number of days"),
        (write("nested.toml", b"[server]\nlisten = \"127.0.0.1:1\"\n"), "is a table: settings are not nested"),
        (write("bool.toml", b"max_body_bytes = true\n"), "is true or false"),
        (write("float.toml", b"max_body_bytes = 1.5\n"), "a number with a fraction"),
    ];
    for (path, expected) in cases {
        let flags = Flags { config: Some(path.clone()), ..Flags::default() };
        let found = problems(Loaded::read_from(&flags, std::iter::empty()));
        assert!(found.iter().any(|text| text.contains(expected)), "{}: {found:?}", path.display());
    }
    let empty = Flags { config: Some(write("empty.toml", b"")), ..Flags::default() };
    assert!(Loaded::read_from(&empty, std::iter::empty()).config.is_ok());
}

#[test]
fn a_secret_can_be_a_file_and_is_masked_wherever_it_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let name = path.to_str().unwrap();

    let loaded = load(None, &[("POSTROOM_ADMIN_TOKEN_FILE", name)], None);
    assert!(loaded.warnings.is_empty());
    let shown = loaded.shown.iter().find(|s| s.setting.key == "admin_token").unwrap();
    assert_eq!(
        (shown.value.as_str(), shown.origin.to_string().as_str()),
        ("***", "environment POSTROOM_ADMIN_TOKEN_FILE")
    );
    let config = loaded.config.unwrap();
    assert_eq!(config.admin_token, Some(Secret::from(TOKEN)));
    assert!(!format!("{config:?}").contains(TOKEN));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = load(None, &[("POSTROOM_ADMIN_TOKEN_FILE", name)], None);
    assert!(loaded.warnings[0].contains("others may read it: run chmod 600"), "{:?}", loaded.warnings);

    fs::write(&path, "8 bytes!").unwrap();
    let found = problems(load(None, &[("POSTROOM_ADMIN_TOKEN_FILE", name)], None));
    assert!(found[0].contains("shorter than 32"), "{found:?}");

    let both = [("POSTROOM_ADMIN_TOKEN", TOKEN), ("POSTROOM_ADMIN_TOKEN_FILE", name)];
    let found = problems(load(None, &both, None));
    assert!(found[0].contains("directly and as a file"), "{found:?}");

    let found = problems(load(None, &[("POSTROOM_ADMIN_TOKEN_FILE", "/nonexistent/token")], None));
    assert!(found[0].contains("/nonexistent/token: cannot be read"), "{found:?}");
}

#[test]
fn a_wrong_secret_is_not_repeated_in_the_error() {
    for (name, value) in [("POSTROOM_ADMIN_TOKEN", "hunter2hunter2"), ("POSTROOM_ENCRYPTION_KEYS", "hunter2hunter2")] {
        let text = load(None, &[(name, value)], None).config.unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn reaching_every_network_is_allowed_but_warned_of() {
    let loaded = load(None, &[("POSTROOM_ALLOW_PRIVATE_NETWORKS", "0.0.0.0/0")], None);
    assert!(loaded.config.is_ok());
    assert!(loaded.warnings[0].contains("deliveries may reach every address"), "{:?}", loaded.warnings);
}

#[test]
fn an_environment_value_that_is_not_text_is_refused() {
    let bad = (OsString::from("POSTROOM_DATA_DIR"), OsString::from_vec(vec![0xff]));
    let found = problems(Loaded::read_from(&Flags::default(), std::iter::once(bad)));
    assert_eq!(found, ["POSTROOM_DATA_DIR: the value is not UTF-8"]);
}

#[test]
fn client_settings_are_not_unknown_to_the_server() {
    let env = [("POSTROOM_URL", "http://127.0.0.1:1"), ("POSTROOM_API_KEY", "prk_x")];
    assert!(load(None, &env, None).config.is_ok());
}

#[test]
fn the_reference_page_is_what_the_settings_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
    let page = settings::reference_page();
    if fs::read_to_string(path).unwrap_or_default() != page {
        fs::write(path, &page).unwrap();
        panic!("docs/settings.md was not current and has been written anew: look at the difference and commit it");
    }
}
