//! The relay between real sockets on loopback.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

const IDLE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "a test dials its own listener")]
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A client and a server joined by a tunnel.
async fn tunnelled(early: &'static [u8], idle: Duration) -> (TcpStream, TcpStream, JoinHandle<Transfer>) {
    let (client, near) = pair().await;
    let (far, server) = pair().await;
    (client, server, tokio::spawn(splice(near, far, Bytes::from_static(early), idle)))
}

#[tokio::test]
async fn small_messages_go_back_and_forth_after_the_early_ones() {
    let (mut client, mut server, tunnel) = tunnelled(b"early ", IDLE).await;
    client.write_all(b"bird").await.unwrap();
    let mut got = [0; 10];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"early bird");
    for _ in 0..100 {
        server.write_all(b"ping").await.unwrap();
        client.read_exact(&mut got[..4]).await.unwrap();
        client.write_all(b"pong").await.unwrap();
        server.read_exact(&mut got[..4]).await.unwrap();
    }
    drop((client, server));
    let transfer = tunnel.await.unwrap();
    assert_eq!((transfer.up, transfer.down), (410, 400));
    assert!(matches!(transfer.ended, Ended::Closed), "{transfer:?}");
}

/// Octet at an offset of a long stream: not periodic in any power of two, so that a lost or doubled page shows.
fn octet(offset: usize) -> u8 {
    (offset % 251) as u8
}

async fn send_bulk(socket: &mut (impl AsyncWriteExt + Unpin), length: usize) {
    let mut sent = 0;
    while sent < length {
        let chunk: Vec<u8> = (sent..length.min(sent + 100_000)).map(octet).collect();
        socket.write_all(&chunk).await.unwrap();
        sent += chunk.len();
    }
    socket.shutdown().await.unwrap();
}

async fn check_bulk(socket: &mut (impl AsyncReadExt + Unpin), length: usize) {
    let (mut got, mut buffer) = (0, vec![0; 70_000]);
    loop {
        let octets = socket.read(&mut buffer).await.unwrap();
        if octets == 0 {
            break;
        }
        for (n, value) in buffer[..octets].iter().enumerate() {
            assert_eq!(*value, octet(got + n), "at {}", got + n);
        }
        got += octets;
    }
    assert_eq!(got, length);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_passes_both_ways_at_once_and_half_close_is_kept() {
    const UP: usize = 48 * 1024 * 1024 + 17;
    const DOWN: usize = 32 * 1024 * 1024 + 5;
    let (client, server, tunnel) = tunnelled(b"", IDLE).await;
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    tokio::join!(
        send_bulk(&mut client_write, UP),
        check_bulk(&mut server_read, UP),
        send_bulk(&mut server_write, DOWN),
        check_bulk(&mut client_read, DOWN),
    );
    let transfer = tunnel.await.unwrap();
    assert_eq!((transfer.up, transfer.down), (UP as u64, DOWN as u64));
    assert!(matches!(transfer.ended, Ended::Closed), "{transfer:?}");
}

#[tokio::test]
async fn one_direction_lives_on_after_the_other_has_ended() {
    let (mut client, mut server, tunnel) = tunnelled(b"", IDLE).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    server.write_all(b"late answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late answer");
    assert_eq!(tunnel.await.unwrap().down, 11);
}

#[tokio::test]
async fn a_silent_tunnel_ends_and_a_talking_one_does_not() {
    let idle = Duration::from_millis(300);
    let (mut client, mut server, tunnel) = tunnelled(b"", idle).await;
    for _ in 0..6 {
        tokio::time::sleep(idle / 2).await;
        client.write_all(b".").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
    }
    assert!(!tunnel.is_finished());
    let transfer = tunnel.await.unwrap();
    assert!(matches!(transfer.ended, Ended::Idle(_)), "{transfer:?}");
    assert_eq!(transfer.up, 6);
}

#[tokio::test]
async fn a_reset_ends_both_sides() {
    let (client, mut server, tunnel) = tunnelled(b"", IDLE).await;
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let transfer = tunnel.await.unwrap();
    assert!(matches!(transfer.ended, Ended::Failed(_)), "{transfer:?}");
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_or(0), 0);
}
