//! People and organizations by command: invited by mail, signed in by its link, changed and switched off; and nothing half
//! done when a server is killed in the middle.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Engine, Server, Tenant, bearer, post, request, stderr, stdout, wait_until, wait_within};

/// The mails of a server without an SMTP server, oldest first.
fn mails(server: &Server) -> Vec<PathBuf> {
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

/// Invitations by several clients until the server is gone: the addresses that were answered 201.
fn invite_until_killed(server: &mut Server, key: &str, round: usize, kill_after: usize) -> Vec<String> {
    let (url, accepted) = (server.url.clone(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (url, accepted) = (&url, &accepted);
                scope.spawn(move || {
                    let mut invited = Vec::new();
                    for number in 0..200 {
                        let email = format!("p{round}-{client}-{number}@example.com");
                        let body = json!({ "email": email, "role": "member" });
                        let ask = || post(&format!("{url}/v1/users"), key, &body);
                        // The connection breaks when the server dies: what was under way has no answer.
                        let Ok((201, _)) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)) else { break };
                        accepted.fetch_add(1, Ordering::Relaxed);
                        invited.push(email);
                    }
                    invited
                })
            })
            .collect();
        wait_until("some invitations", || (accepted.load(Ordering::Relaxed) >= kill_after).then_some(()));
        server.kill();
        clients.into_iter().flat_map(|client| client.join().expect("a client ends")).collect()
    })
}

pub fn killed_between_any_two_steps_of_invitations_and_sign_ins_nothing_is_half_done(engine: Engine) {
    let mut server = Server::start(engine);
    let key = server.tenant("Acme", None).key;
    let mut acknowledged = Vec::new();
    for (round, kill_after) in [1, 5, 12].into_iter().enumerate() {
        acknowledged.extend(invite_until_killed(&mut server, &key, round, kill_after));
        server.restart(&[]);
    }
    let users = json_of(&with_key(&server, &key, &["users", "list", "--limit", "5000", "--json"]));
    let email = |user: &Value| user["email"].as_str().expect("an address").to_owned();
    let known: HashSet<String> = users.iter().map(email).collect();
    assert!(acknowledged.iter().all(|email| known.contains(email)), "an acknowledged invitation is kept");
    // Up to eight mails that a server had taken when it was killed come when its 60 seconds are over; the others are
    // there at once, and each goes to somebody who is there.
    let tokens = wait_until("the mails", || {
        let mails = mails(&server);
        let to = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let to = text.lines().find_map(|line| line.strip_prefix("To: ")).map(str::to_owned);
            to.map(|to| (to, token(&text)))
        };
        let found: Vec<(String, String)> = mails.iter().filter_map(to).collect();
        (found.len() + 8 * 3 >= known.len() && found.len() >= 4).then_some(found)
    });
    assert!(tokens.iter().all(|(to, _)| known.contains(to)), "a mail goes to somebody who is there");

    // Signing in, killed after the first few: what was answered holds, and what was not can be done or was.
    let (done, url) = (AtomicUsize::new(0), server.url.clone());
    let answers: Vec<(String, Option<(u16, Value)>)> = std::thread::scope(|scope| {
        let clients: Vec<_> = tokens
            .chunks(tokens.len().div_ceil(4))
            .map(|chunk| {
                let (done, url) = (&done, &url);
                scope.spawn(move || {
                    let try_one = |token: &str| {
                        let ask = || sign_in(url, token);
                        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)).ok();
                        done.fetch_add(1, Ordering::Relaxed);
                        answer
                    };
                    chunk.iter().map(|(_, token)| (token.clone(), try_one(token))).collect::<Vec<_>>()
                })
            })
            .collect();
        wait_until("some who sign in", || (done.load(Ordering::Relaxed) >= 2).then_some(()));
        server.kill();
        clients.into_iter().flat_map(|client| client.join().expect("a client ends")).collect()
    });
    server.restart(&[]);
    for (token, answer) in answers {
        let again = sign_in(&server.url, &token).0;
        match answer {
            Some((200, made)) => {
                assert!([401, 429].contains(&again), "a link that was used is used up: {again}");
                let session = made["token"].as_str().expect("a session");
                let (status, ..) = request("GET", &format!("{}/v1/events", server.url), &bearer(session), b"");
                assert_eq!(status, 200, "a session that was answered is there");
            }
            // No answer: it was done, and the person asks for another link, or it was not, and the link still works.
            _ => assert!([200, 401, 429].contains(&again), "{again}"),
        }
    }
}

pub fn keys_rotated_and_killed_again_and_again_open_everything_in_the_end(engine: Engine) {
    // Nobody listens there: mails stay in storage, with their links encrypted.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Server::start_with(engine, &[("POSTROOM_SMTP_URL", &format!("smtp://127.0.0.1:{nobody}"))]);
    let mut tenant = server.tenant("Acme", None);
    for number in 0..20 {
        let endpoint = json!({ "url": format!("http://127.0.0.1:9/{number}") });
        assert_eq!(tenant.post("/v1/endpoints", &endpoint).0, 201);
        let person = json!({ "email": format!("p{number}@example.com"), "role": "member" });
        assert_eq!(tenant.post("/v1/users", &person).0, 201);
    }
    let secrets_before = secrets(&tenant);
    wait_until("a try for every mail", || (figure(&server, "postroom_mail_failures_total") >= 20).then_some(()));
    assert_eq!(server.terminate(), 0);

    let fresh = stdout(&server.run(&["keys", "generate"])).trim().to_owned();
    let old = match engine {
        Engine::Embedded => std::fs::read_to_string(server.dir().join("postroom-data/encryption.keys")).unwrap(),
        Engine::Postgres => server.place.setting("POSTROOM_ENCRYPTION_KEYS"),
    };
    let rotate = || {
        let mut command = server.place.command(&["keys", "rotate"]);
        command.env("POSTROOM_ENCRYPTION_KEYS", format!("{fresh},{}", old.trim()));
        if let Some(database) = &server.place.database {
            command.env("POSTROOM_MIGRATE_DATABASE_URL", database.owner_url());
        }
        command
    };
    // At moments spread over its life.
    for moment in 0..12 {
        let mut child = rotate().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_millis(moment * 25);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    let rotated = rotate().output().unwrap();
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));

    // The fresh key alone opens every secret, and every mail with a link that works.
    server.restart(&[("POSTROOM_ENCRYPTION_KEYS", &fresh)]);
    tenant.url.clone_from(&server.url);
    assert_eq!(secrets(&tenant), secrets_before);
    // A mail that had failed twice by then waits for a minute.
    let patience = Duration::from_secs(90);
    let mails = wait_within(patience, "the mails", || Some(mails(&server)).filter(|mails| mails.len() == 20));
    for mail in mails {
        assert_eq!(sign_in(&server.url, &token(&std::fs::read_to_string(mail).unwrap())).0, 200);
    }
}

/// The signing secrets of all endpoints.
fn secrets(tenant: &Tenant) -> Vec<String> {
    let endpoints = tenant.get("/v1/endpoints")["data"].as_array().expect("a list").clone();
    let path = |endpoint: &Value| format!("/v1/endpoints/{}/secret", endpoint["id"].as_str().expect("an id"));
    endpoints.iter().map(|endpoint| tenant.get(&path(endpoint))["secret"].as_str().expect("text").to_owned()).collect()
}

/// A figure of `/metrics`; nought while it is not there.
pub fn figure(server: &Server, name: &str) -> u64 {
    let (_, _, body) = request("GET", &format!("{}/metrics", server.url), &[], b"");
    let text = String::from_utf8(body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or(0)
}
