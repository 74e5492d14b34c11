//! What the proxy does to those who go through it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postroom_testkit::postgres::{Database, Direction, Mode, Proxy, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::one;

/// Long enough for an answer that is not held back. Where one is, its length decides nothing.
const A_MOMENT: Duration = Duration::from_millis(200);

async fn database() -> (Database, Proxy) {
    let database = Database::new().await;
    let proxy = Proxy::to(database.address()).await;
    (database, proxy)
}

/// A server that greets each who comes with one message of a thousand bytes, made of its letter but for the length.
async fn chatterbox(letter: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut message = [letter; 1000];
    message[1..5].copy_from_slice(&999_u32.to_be_bytes());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                client.write_all(&message).await.unwrap();
                client.read_to_end(&mut Vec::new()).await.ok();
            });
        }
    });
    address
}

#[tokio::test]
async fn a_refused_client_is_reset_and_comes_back_to_the_same_port() {
    let (database, proxy) = database().await;
    let url = proxy.url(&database.app_url());
    let client = connect(&url).await;
    assert_eq!(one::<i32>(&client, "SELECT 7").await, 7);
    assert_eq!(proxy.connections(), 1);

    proxy.set(Mode::Refuse).await;
    assert!(client.batch_execute("SELECT 7").await.is_err());
    assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);

    proxy.set(Mode::Pass).await;
    assert_eq!(one::<i32>(&connect(&url).await, "SELECT 7").await, 7);
}

#[tokio::test]
async fn a_black_hole_takes_connections_and_lets_everything_through_when_it_ends() {
    let (database, proxy) = database().await;
    let url = proxy.url(&database.app_url());
    let client = connect(&url).await;
    proxy.set(Mode::BlackHole).await;
    let asked = client.query_one("SELECT 7", &[]);
    let newcomer = connect(&url);
    tokio::pin!(asked, newcomer);
    assert!(timeout(A_MOMENT, &mut asked).await.is_err());
    assert!(timeout(A_MOMENT, &mut newcomer).await.is_err());
    TcpStream::connect(proxy.address()).await.expect("it is open");

    proxy.set(Mode::Pass).await;
    assert_eq!(asked.await.unwrap().get::<_, i32>(0), 7);
    assert_eq!(one::<i32>(&newcomer.await, "SELECT 8").await, 8);
}

#[tokio::test]
async fn a_slow_way_delays_each_answer() {
    let (database, proxy) = database().await;
    let client = connect(&proxy.url(&database.app_url())).await;
    let asked = Instant::now();
    proxy.set(Mode::Delay(A_MOMENT)).await;
    client.simple_query("SELECT 7").await.unwrap();
    client.simple_query("SELECT 7").await.unwrap();
    assert!(asked.elapsed() >= 2 * A_MOMENT, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_connection_is_cut_after_exactly_so_many_bytes_and_the_next_is_not() {
    let proxy = Proxy::to(chatterbox(b'a').await).await;
    let cut = proxy.cut_after(Direction::ToClient, 700);
    let (mut read, mut first) = (Vec::new(), TcpStream::connect(proxy.address()).await.unwrap());
    let reset = first.read_to_end(&mut read).await.unwrap_err();
    assert_eq!((reset.kind(), read.len()), (ErrorKind::ConnectionReset, 700));
    cut.await.unwrap();

    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    second.read_exact(&mut [0; 1000]).await.unwrap();
    let cut = proxy.cut_after(Direction::ToServer, 3);
    second.write_all(b"question").await.unwrap();
    cut.await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_answer_to_a_commit_is_lost_and_what_it_committed_is_there() {
    let (database, proxy) = database().await;
    let owner = connect(&database.owner_url()).await;
    owner.batch_execute("CREATE TABLE event (id int8)").await.unwrap();
    let url = proxy.url(&database.owner_url());
    let count = async || one::<i64>(&owner, "SELECT count(*) FROM event").await;

    let mut client = connect(&url).await;
    let lost = proxy.lose_answer("COMMIT");
    let transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO event VALUES ($1)", &[&1_i64]).await.unwrap();
    assert!(transaction.commit().await.is_err());
    lost.await.unwrap();
    assert_eq!(count().await, 1);

    // Once: the next commit is answered. A statement that is a transaction of its own is caught by its own tag, and only then.
    let mut client = connect(&url).await;
    let lost = proxy.lose_answer("INSERT");
    let transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO event VALUES ($1)", &[&2_i64]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count().await, 2);
    assert!(client.execute("INSERT INTO event VALUES ($1)", &[&3_i64]).await.is_err());
    lost.await.unwrap();
    assert_eq!(count().await, 3);
}

#[tokio::test]
async fn a_proxy_that_points_elsewhere_resets_those_who_were_at_the_old_place() {
    let proxy = Proxy::to(chatterbox(b'a').await).await;
    let letter = async || {
        let (mut client, mut letters) = (TcpStream::connect(proxy.address()).await.unwrap(), [0; 1000]);
        client.read_exact(&mut letters).await.unwrap();
        (client, letters[0])
    };
    let (mut old, a) = letter().await;
    proxy.repoint(chatterbox(b'b').await);
    assert_eq!(old.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (_, b) = letter().await;
    assert_eq!((a, b), (b'a', b'b'));
}
