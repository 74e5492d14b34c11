use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use postroom_domain::organization::Plan;
use postroom_domain::{Email, Role};
use postroom_storage::SuperAdmin;
use postroom_storage::api::NewUser;
use postroom_storage::platform::NewOrganization;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{Flags, Loaded};
use crate::database;

#[test]
fn the_sender_is_of_the_public_name() {
    for (public_url, name) in [
        ("https://hooks.example.com", "hooks.example.com"),
        ("https://hooks.example.com:8443/", "hooks.example.com"),
        ("http://127.0.0.1:8080", "localhost"),
        ("http://[::1]:8080", "localhost"),
    ] {
        assert_eq!(host(public_url), name);
        assert!(format!("postroom@{name}").parse::<Mailbox>().is_ok());
    }
}

/// A mail server that hangs up on everybody, and counts them.
async fn hanging_up() -> (u16, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, calls) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            drop(stream);
        }
    });
    (port, calls)
}

/// An installation in which Ada was just invited, its mailer, and the clock of both.
struct Room {
    storage: postroom_storage::Storage,
    mailer: Mailer,
    millis: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

const START: i64 = 1_795_341_600_000;

impl Room {
    async fn with_server_at(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = Some(dir.path().to_str().unwrap().to_owned());
        let smtp = [("POSTROOM_SMTP_URL".into(), format!("smtp://127.0.0.1:{port}").into())];
        let config = Loaded::read_from(&Flags { data_dir, ..Flags::default() }, smtp.into_iter()).config.unwrap();
        let storage = database::serve(&config, None).await.unwrap();
        let millis = Arc::new(AtomicI64::new(START));
        let hands = millis.clone();
        let clock = Clock::new(move || Timestamp::from_millis(hands.load(SeqCst)));

        let acme = NewOrganization {
            name: "Acme".to_owned(),
            slug: "acme".to_owned(),
            plan: Plan::Free,
            webhook_limit: None,
            is_active: true,
            mandrill_webhook_secret: None,
        };
        storage.platform.organization_create(SuperAdmin::by_operator(), acme, clock.now()).await.unwrap();
        let scope = storage.authorizer.organization_enter(SuperAdmin::by_operator(), "acme").await.unwrap().unwrap();
        let ada = NewUser { email: Email::parse("ada@example.com").unwrap(), role: Role::Admin };
        storage.api.user_invite(&scope, ada, clock.now()).await.unwrap();

        let platform = storage.platform.clone();
        let mailer = Mailer::new(&config.mail, "https://hooks.example.com", platform, clock, Arc::default()).unwrap();
        Self { storage, mailer, millis, _dir: dir }
    }

    /// Whether a mail waits that is due within an hour.
    async fn has_mail(&self) -> bool {
        let later = Timestamp::from_millis(self.millis.load(SeqCst) + 3_600_000);
        !self.storage.platform.mail_take(later, 10).await.unwrap().is_empty()
    }
}

#[tokio::test]
async fn a_mail_is_tried_after_10_seconds_a_minute_and_every_five_and_given_up_when_its_link_ends() {
    let (port, calls) = hanging_up().await;
    let room = Room::with_server_at(port).await;
    for (seconds, tries) in [(0, 1), (9, 1), (1, 2), (59, 2), (1, 3), (299, 3), (1, 4), (299, 4), (1, 5)] {
        room.millis.fetch_add(seconds * 1000, SeqCst);
        assert!(!room.mailer.send_due().await);
        assert_eq!(calls.load(SeqCst), tries, "{seconds} s later");
    }
    // Four minutes before its link ends is the last try: the next would come after it.
    room.millis.store(START + 7 * 24 * 3_600_000 - 240_000, SeqCst);
    room.mailer.send_due().await;
    assert_eq!(calls.load(SeqCst), 6);
    assert!(!room.has_mail().await, "it is gone");
    room.storage.platform.close().await.unwrap();
}

/// A mail server that answers one step so, and the others well. Steps are named by their command; `hello` is before the
/// first and `mail` is the mail itself.
async fn answering(step: &'static str, answer: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _client_may_leave = talk(stream, step, answer).await;
        }
    });
    port
}

async fn talk(stream: tokio::net::TcpStream, step: &str, answer: &str) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = tokio::io::BufReader::new(read).lines();
    let say = |at: &str, well: &str| format!("{}\r\n", if at == step { answer } else { well });
    write.write_all(say("hello", "220 here").as_bytes()).await?;
    let mut is_mail = false;
    while let Some(line) = lines.next_line().await? {
        let said = match line.get(..4).unwrap_or(&line) {
            "." if is_mail => say("mail", "250 taken"),
            _ if is_mail => continue,
            "DATA" => say("DATA", "354 go on"),
            "QUIT" => return write.write_all(b"221 bye\r\n").await,
            command => say(command, "250 well"),
        };
        is_mail = said.starts_with("354");
        write.write_all(said.as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_server_refuses_for_good_is_given_up_at_once_and_everything_else_is_tried_again() {
    for (step, answer, waits) in [
        ("none", "", false),
        ("MAIL", "550 5.1.0 no such sender", false),
        ("RCPT", "550 5.1.1 no such user", false),
        ("DATA", "554 5.7.1 not for you", false),
        ("mail", "552 5.3.4 too big", false),
        ("hello", "554 5.3.2 not today", true),
        ("EHLO", "550 5.7.1 who are you", true),
        ("MAIL", "530 5.7.0 authentication required", true),
        ("MAIL", "451 4.3.2 come again", true),
        ("RCPT", "450 4.2.1 come again", true),
        ("DATA", "421 4.3.2 come again", true),
        ("mail", "452 4.2.2 full", true),
        ("RCPT", "what is that", true),
    ] {
        let room = Room::with_server_at(answering(step, answer).await).await;
        assert!(!room.mailer.send_due().await);
        assert_eq!(room.has_mail().await, waits, "{answer} to {step}");
        room.storage.platform.close().await.unwrap();
    }
}
