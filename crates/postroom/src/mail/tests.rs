use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use postroom_domain::organization::Plan;
use postroom_domain::{Email, Role};
use postroom_storage::SuperAdmin;
use postroom_storage::api::NewUser;
use postroom_storage::platform::NewOrganization;

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

#[tokio::test]
async fn a_mail_is_tried_after_10_seconds_a_minute_and_every_five_and_given_up_when_its_link_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (port, calls) = hanging_up().await;
    let data_dir = Some(dir.path().to_str().unwrap().to_owned());
    let smtp = [("POSTROOM_SMTP_URL".into(), format!("smtp://127.0.0.1:{port}").into())];
    let config = Loaded::read_from(&Flags { data_dir, ..Flags::default() }, smtp.into_iter()).config.unwrap();
    let storage = database::serve(&config, None).await.unwrap();
    let millis = Arc::new(AtomicI64::new(1_795_341_600_000));
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
    let mailer =
        Mailer::new(&config.mail, "https://hooks.example.com", platform, clock.clone(), Arc::default()).unwrap();
    for (seconds, tries) in [(0, 1), (9, 1), (1, 2), (59, 2), (1, 3), (299, 3), (1, 4), (299, 4), (1, 5)] {
        millis.fetch_add(seconds * 1000, SeqCst);
        assert!(!mailer.send_due().await);
        assert_eq!(calls.load(SeqCst), tries, "{seconds} s later");
    }
    // Four minutes before its link ends is the last try: the next would come after it.
    millis.store(1_795_341_600_000 + 7 * 24 * 3_600_000 - 240_000, SeqCst);
    mailer.send_due().await;
    assert_eq!(calls.load(SeqCst), 6);
    millis.fetch_add(3_600_000, SeqCst);
    assert!(storage.platform.mail_take(clock.now(), 10).await.unwrap().is_empty(), "it is gone");
    storage.platform.close().await.unwrap();
}
