//! People and organizations by command: invited by mail, signed in by its link, changed and switched off.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use super::support::{Engine, Server, request, stderr, stdout, wait_until};

/// The mails of a server without an SMTP server, oldest first.
pub fn mails(server: &Server) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(server.dir().join("postroom-data/mail"));
    let mut files: Vec<PathBuf> = folder.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    files
}

/// The token of the link in a mail, after checking that both its parts have it.
pub fn token(mail: &str) -> String {
    let text = mail.replace("=\r\n", "").replace("=3D", "=");
    let tokens: HashSet<&str> =
        text.split("/sign-in#token=").skip(1).map(|rest| rest.get(..43).expect("a whole token")).collect();
    assert_eq!(tokens.len(), 1, "{mail}");
    tokens.into_iter().next().expect("one").to_owned()
}

/// Signs in with a link's token.
pub fn sign_in(url: &str, token: &str) -> (u16, Value) {
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    let body = json!({ "token": token }).to_string();
    let (status, _, answer) = request("POST", &format!("{url}/api/auth/verify-magic-link"), &headers, body.as_bytes());
    (status, serde_json::from_slice(&answer).unwrap_or_default())
}

fn with_key(server: &Server, key: &str, arguments: &[&str]) -> Output {
    server.command(arguments).env("POSTROOM_API_KEY", key).output().expect("the binary starts")
}

/// What a command printed as JSON, one object a line.
fn json_of(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub fn people_are_invited_sign_in_and_are_switched_off_by_command(engine: Engine) {
    let server = Server::start(engine);
    let key = server.tenant("Acme", None).key;
    let users = |arguments: &[&str]| with_key(&server, &key, &[&["users"], arguments, &["--json"]].concat());

    let invited = json_of(&users(&["invite", "Ada@example.com", "--role", "admin"])).remove(0);
    assert_eq!((&invited["status"], &invited["role"]), (&json!("invited"), &json!("admin")));
    let mail = wait_until("a mail", || mails(&server).pop());
    assert_eq!(std::fs::metadata(&mail).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&mail).unwrap();
    assert!(text.contains("To: Ada@example.com\r\n") && text.contains("\"Acme\""), "{text}");
    let link = token(&text);

    let (status, signed_in) = sign_in(&server.url, &link);
    assert_eq!((status, &signed_in["user"]["role"]), (200, &json!("admin")), "{signed_in}");
    assert_eq!(sign_in(&server.url, &link).0, 401, "a link works once");
    assert_eq!(json_of(&users(&["show", "ada@EXAMPLE.com"]))[0]["status"], "active");

    let refused = users(&["role", "ada@example.com", "member"]);
    assert_eq!(refused.status.code(), Some(1), "the last admin stays one");
    assert!(stderr(&refused).contains("last_admin"), "{}", stderr(&refused));

    json_of(&users(&["invite", "bob@example.com"]));
    let mail = wait_until("the next mail", || mails(&server).into_iter().nth(1));
    let (status, bob) = sign_in(&server.url, &token(&std::fs::read_to_string(mail).unwrap()));
    assert_eq!(status, 200, "{bob}");
    let session = bob["token"].as_str().unwrap().to_owned();
    let asks = || with_key(&server, &session, &["events", "list"]).status.code();
    assert_eq!(asks(), Some(0), "a session is a credential like any other");
    assert_eq!(json_of(&users(&["deactivate", "bob@example.com"]))[0]["status"], "deactivated");
    wait_until("the end of the session", || (asks() == Some(1)).then_some(()));
    assert_eq!(json_of(&users(&["list"])).len(), 2);
    assert_eq!(json_of(&users(&["activate", "bob@example.com"]))[0]["status"], "active");

    let log = std::fs::read_to_string(server.place.log()).unwrap();
    assert!(log.contains(".eml") && !log.contains(&link), "the log tells the file and not the link");
    let table = stdout(&with_key(&server, &key, &["users", "list"]));
    assert!(table.contains("EMAIL") && table.contains("Ada@example.com"), "{table}");
    let unknown = users(&["show", "carol@example.com"]);
    assert!(stderr(&unknown).contains("there is nothing with the email \"carol@example.com\" here"));
}

pub fn a_super_admin_is_made_beside_a_running_server_and_runs_organizations_by_command(engine: Engine) {
    let server = Server::start_with(engine, &[("POSTROOM_PUBLIC_URL", "https://hooks.example.com")]);
    let create = |email: &str| {
        let mut command = server.command(&["admin", "create", "--email", email, "--json"]);
        command.env("POSTROOM_PUBLIC_URL", "https://hooks.example.com").output().unwrap()
    };
    let made = json_of(&create("root@example.com")).remove(0);
    let link = made["link"].as_str().unwrap();
    let first = link.strip_prefix("https://hooks.example.com/sign-in#token=").expect(link);
    let again = json_of(&create("root@example.com")).remove(0);
    assert_eq!(again["id"], made["id"], "the same person, another link");
    assert_ne!(again["link"], made["link"]);
    assert!(stderr(&create("root")).contains("give one e-mail address, like ada@example.com"));

    let (status, signed_in) = sign_in(&server.url, first);
    assert_eq!((status, &signed_in["user"]["role"]), (200, &json!("super_admin")), "{signed_in}");
    let session = signed_in["token"].as_str().unwrap().to_owned();
    let orgs = |arguments: &[&str]| with_key(&server, &session, &[&["orgs"], arguments, &["--json"]].concat());
    let acme = json_of(&orgs(&["create", "Acme Corp.", "--plan", "starter", "--webhook-limit", "7"])).remove(0);
    assert_eq!((&acme["slug"], &acme["webhook_limit"]), (&json!("acme-corp"), &json!(7)));
    let changed = json_of(&orgs(&["update", "acme-corp", "--plan", "free", "--webhook-limit", "plan"])).remove(0);
    assert_eq!((&changed["plan"], &changed["webhook_limit"]), (&json!("free"), &json!(1_000)));
    assert_eq!(json_of(&orgs(&["deactivate", "acme-corp"]))[0]["is_active"], false);
    assert_eq!(json_of(&orgs(&["activate", "acme-corp"]))[0]["is_active"], true);
    assert_eq!(json_of(&orgs(&["show", "acme-corp"]))[0]["id"], acme["id"]);
    assert_eq!(json_of(&orgs(&["list"])).len(), 1);
    assert!(stderr(&orgs(&["update", "acme-corp"])).contains("say what to change"));

    let users = with_key(&server, &session, &["users", "list", "--organization", "acme-corp", "--json"]);
    assert_eq!(json_of(&users), Vec::<Value>::new());
    let nowhere = with_key(&server, &session, &["users", "list"]);
    assert!(stderr(&nowhere).contains("organization_required); here with --organization"), "{}", stderr(&nowhere));
}

pub fn a_super_admin_is_listed_and_switched_off_and_on_beside_a_running_server(engine: Engine) {
    let server = Server::start(engine);
    let admin = |arguments: &[&str]| server.run(&[&["admin"], arguments].concat());
    let link = || {
        let made = json_of(&admin(&["create", "--email", "root@example.com", "--json"])).remove(0);
        made["link"].as_str().unwrap().split_once("#token=").unwrap().1.to_owned()
    };
    let (status, signed_in) = sign_in(&server.url, &link());
    assert_eq!(status, 200, "{signed_in}");
    let session = signed_in["token"].as_str().unwrap().to_owned();
    let unused = link();
    let asks = || with_key(&server, &session, &["orgs", "list"]).status.code();
    assert_eq!(asks(), Some(0));
    let listed = json_of(&admin(&["list", "--json"]));
    assert_eq!((listed.len(), &listed[0]["status"]), (1, &json!("active")), "{listed:?}");

    let off = admin(&["deactivate", "--email", "Root@example.com"]);
    assert_eq!(stdout(&off).trim(), "Root@example.com is switched off", "{}", stderr(&off));
    wait_until("the end of the session", || (asks() == Some(1)).then_some(()));
    assert_eq!(sign_in(&server.url, &unused).0, 401, "their links are void");
    let refused = admin(&["create", "--email", "root@example.com"]);
    assert!(stderr(&refused).contains("switched off"), "{}", stderr(&refused));
    let table = stdout(&admin(&["list"]));
    assert!(table.contains("EMAIL") && table.contains("deactivated"), "{table}");

    assert_eq!(json_of(&admin(&["activate", "--email", "root@example.com", "--json"]))[0]["status"], "active");
    assert_eq!(sign_in(&server.url, &link()).0, 200);
    let unknown = admin(&["deactivate", "--email", "eve@example.com"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("eve@example.com is no super admin"), "{}", stderr(&unknown));
}

pub fn api_keys_are_listed_and_revoked_by_command(engine: Engine) {
    let server = Server::start(engine);
    let key = server.tenant("Acme", None).key;
    let made = server.run(&["apikey", "create", "--organization", "acme", "--name", "reader", "--scopes", "read"]);
    let reader = stdout(&made).trim().to_owned();
    let listed = json_of(&with_key(&server, &key, &["apikey", "list", "--json"]));
    assert_eq!(listed.len(), 2);
    assert!(!stdout(&with_key(&server, &key, &["apikey", "list"])).contains(&reader));
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(listed[0]["name"], "reader");
    let revoked = with_key(&server, &key, &["apikey", "revoke", id]);
    assert_eq!(stdout(&revoked).trim(), format!("revoked {id}"), "{}", stderr(&revoked));
    wait_until("the end of the key", || {
        (with_key(&server, &reader, &["events", "list"]).status.code() == Some(1)).then_some(())
    });
}

/// A figure of `/metrics`; nought while it is not there.
pub fn figure(server: &Server, name: &str) -> u64 {
    let (_, _, body) = request("GET", &format!("{}/metrics", server.url), &[], b"");
    let text = String::from_utf8(body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or(0)
}
