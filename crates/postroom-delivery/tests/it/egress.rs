//! The one way out: what may be dialled, and TLS.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use postroom_delivery::{Client, Posted};
use postroom_domain::delivery::AttemptError;
use postroom_domain::egress::Policy;
use postroom_domain::endpoint::EndpointSettings;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::receiver::{Receiver, Reply};
use crate::room::Room;

fn client(allow: &[&str], own: Vec<std::net::SocketAddr>) -> Client {
    let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
    Client::new(Arc::new(Policy::new(allow, own)), "Postroom/1", None).unwrap()
}

#[tokio::test]
async fn private_addresses_are_not_dialled_whether_literal_or_resolved() {
    let mut room = Room::new().await;
    room.settings.client = client(&[], Vec::new());
    room.names(|name| {
        let ips: &[&str] = match name {
            "private.example" => &["10.0.0.1"],
            "metadata.example" => &["169.254.169.254"],
            "mapped.example" => &["::ffff:127.0.0.1"],
            "mixed.example" => &["8.8.8.8", "127.0.0.1"],
            _ => &["127.0.0.1"],
        };
        Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect())
    });
    room.start();
    let receiver = Receiver::always(Reply::status(200)).await;
    let port = receiver.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "localhost",
        "rebound.example",
        "private.example",
        "metadata.example",
        "mapped.example",
        "mixed.example",
    ] {
        let target = room.endpoint(&format!("http://{host}:{port}/")).await;
        let attempt = room.attempt_at(&target).await.attempt;
        assert_eq!(attempt.error, Some(AttemptError::BlockedAddress), "{host}");
        assert!(attempt.response.is_none());
    }
    assert_eq!(receiver.connections(), 0, "not even a connection");
}

#[tokio::test]
async fn a_key_is_fetched_through_the_same_guard_and_only_in_full() {
    let receiver = Receiver::always(Reply::status(200)).await;
    let url = |path: &str| format!("http://{}{path}", receiver.address).parse::<url::Url>().unwrap();
    let timeout = std::time::Duration::from_secs(5);
    let blocked = client(&[], Vec::new()).fetch(&url("/key"), None, timeout).await.unwrap_err();
    assert!(blocked.to_string().starts_with("blocked"), "{blocked}");
    assert_eq!(receiver.connections(), 0, "not even a connection");
    let open = client(&["127.0.0.0/8"], Vec::new());
    assert_eq!(open.fetch(&url("/key?a=b"), None, timeout).await.unwrap().status, 200);
    let mut secret = HeaderValue::from_static("Bearer A21AAF");
    secret.set_sensitive(true);
    let posted = Posted {
        content_type: HeaderValue::from_static("application/json"),
        authorization: Some(secret),
        body: "{}".into(),
    };
    assert!(!format!("{posted:?}").contains("A21AAF"));
    assert_eq!(open.fetch(&url("/key"), Some(posted), timeout).await.unwrap().status, 200);
    let seen = receiver.requests().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.body.as_slice()), ("POST", b"{}".as_slice()));
    assert_eq!(seen.headers["authorization"], "Bearer A21AAF");
    assert_eq!(seen.headers["content-type"], "application/json");
    let moved = Receiver::always(Reply::status(302)).await;
    let moved = format!("http://{}/", moved.address).parse().unwrap();
    assert_eq!(open.fetch(&moved, None, timeout).await.unwrap().status, 302, "a redirect is not followed");
}

#[tokio::test]
async fn a_name_is_resolved_once_for_an_attempt_and_what_was_vetted_is_dialled() {
    let mut room = Room::new().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    // Public to the check, private to whoever asks again.
    room.names(move |_| {
        let ip: IpAddr =
            if counted.fetch_add(1, Ordering::SeqCst) == 0 { [127, 0, 0, 1].into() } else { [10, 0, 0, 1].into() };
        Ok(vec![ip])
    });
    room.start();
    let receiver = Receiver::always(Reply::status(200)).await;
    let url = format!("http://rebinding.example:{}/", receiver.address.port());
    let target = room.endpoint(&url).await;
    assert_eq!(room.attempt_at(&target).await.attempt.response.as_ref().unwrap().status, 200);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(receiver.requests()[0].headers["host"], format!("rebinding.example:{}", receiver.address.port()));
}

#[tokio::test]
async fn when_one_address_of_a_name_does_not_answer_the_next_one_is_dialled() {
    let mut room = Room::new().await;
    // Nobody listens on the first two.
    room.names(|_| Ok(["127.0.0.2", "127.0.0.3", "127.0.0.1"].map(|ip| ip.parse().unwrap()).to_vec()));
    room.start();
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&format!("http://many.example:{}/", receiver.address.port())).await;
    assert_eq!(room.attempt_at(&target).await.attempt.response.as_ref().unwrap().status, 200);
}

#[tokio::test]
async fn this_servers_own_listener_is_refused_even_where_private_networks_are_allowed() {
    let receiver = Receiver::always(Reply::status(200)).await;
    let any = std::net::SocketAddr::new([0, 0, 0, 0].into(), receiver.address.port());
    for own in [receiver.address, any] {
        let mut room = Room::new().await;
        room.settings.client = client(&["127.0.0.0/8"], vec![own]);
        room.names(|_| Ok(vec![[127, 0, 0, 1].into()]));
        room.start();
        for host in ["127.0.0.1", "our-public-name.example"] {
            let target = room.endpoint(&format!("http://{host}:{}/", own.port())).await;
            assert_eq!(room.attempt_at(&target).await.attempt.error, Some(AttemptError::BlockedAddress), "{host}");
        }
    }
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn names_that_do_not_resolve_and_ports_where_nobody_listens_have_their_class() {
    let mut room = Room::new().await;
    room.names(|name| match name {
        "empty.example" => Ok(Vec::new()),
        _ => Err(std::io::Error::other("no such name")),
    });
    room.start();
    for host in ["empty.example", "nowhere.example"] {
        let target = room.endpoint(&format!("http://{host}/")).await;
        assert_eq!(room.attempt_at(&target).await.attempt.error, Some(AttemptError::Dns), "{host}");
    }
    let gone = Receiver::always(Reply::status(200)).await.url("/");
    let target = room.endpoint(&gone).await;
    assert_eq!(room.attempt_at(&target).await.attempt.error, Some(AttemptError::Connect));
}

#[tokio::test]
async fn a_name_server_that_keeps_silent_costs_only_its_own_deliveries() {
    let mut room = Room::new().await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = parking_lot::Mutex::new(held);
    room.names(move |name| {
        if name == "silent.example" {
            let _ = held.lock().recv();
        }
        Ok(vec![[127, 0, 0, 1].into()])
    });
    room.start();
    let receiver = Receiver::always(Reply::with(200, "connection: close\r\n")).await;
    let port = receiver.address.port();
    let short = |settings: &mut EndpointSettings| settings.timeout_ms = Some(1000);
    let silent = room.endpoint_with(&format!("http://silent.example:{port}/"), short).await;
    let quick = room.endpoint(&format!("http://quick.example:{port}/")).await;
    room.record(&silent).await;
    for _ in 0..20 {
        room.record(&quick).await;
    }
    let attempts = room.attempts(21).await;
    let failed: Vec<_> = attempts.iter().filter_map(|one| one.attempt.error).collect();
    assert_eq!(failed, [AttemptError::Timeout]);
    assert_eq!(receiver.count(), 20);
    drop(release);
}

/// A certificate authority, and a receiver with a certificate of it for `name`.
async fn tls_receiver(name: &str, expired: bool) -> (Receiver, String) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let certificate = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (Receiver::start(|_, _| Reply::status(200), Some(acceptor)).await, ca_pem)
}

#[tokio::test]
async fn certificates_are_checked_and_an_extra_authority_can_be_trusted() {
    for (name, trusted, expired, error) in [
        ("good.example", true, false, None),
        ("good.example", false, false, Some(AttemptError::Tls)),
        ("good.example", true, true, Some(AttemptError::Tls)),
        ("other.example", true, false, Some(AttemptError::Tls)),
    ] {
        let (receiver, ca) = tls_receiver(name, expired).await;
        let mut room = Room::new().await;
        let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new()));
        room.settings.client = Client::new(policy, "Postroom/1", trusted.then_some(ca.as_bytes())).unwrap();
        room.names(|_| Ok(vec![[127, 0, 0, 1].into()]));
        room.start();
        let target = room.endpoint(&format!("https://good.example:{}/", receiver.address.port())).await;
        for _ in 0..2 {
            assert_eq!(room.attempt_at(&target).await.attempt.error, error, "{name} {trusted} {expired}");
        }
        assert_eq!(receiver.count(), if error.is_none() { 2 } else { 0 });
        assert_eq!(receiver.connections(), if error.is_none() { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_speak_tls_is_a_tls_failure() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    // What arrives is no request; the receiver waits for the end of its head, so the deadline ends it.
    let url = receiver.url("/").replace("http:", "https:");
    let silent = room.endpoint_with(&url, |settings| settings.timeout_ms = Some(1000)).await;
    assert_eq!(room.attempt_at(&silent).await.attempt.error, Some(AttemptError::Timeout));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let talking = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    });
    let target = room.endpoint(&format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(room.attempt_at(&target).await.attempt.error, Some(AttemptError::Tls));
    talking.await.unwrap();
}
