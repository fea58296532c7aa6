//! A submit that has its row and no connection: it leaves in time, or never.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::ALL_ENDED;
use crate::support::World;

/// An upstream that lets nobody in: its backlog is full, and what knocks is dropped and knocks again, a second and three later.
struct Crowded {
    listener: TcpListener,
    address: SocketAddr,
    crowd: Vec<TcpStream>,
}

impl Crowded {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("an address");
        let listener = socket.listen(1).expect("listen");
        let address = listener.local_addr().expect("its address");
        let mut crowd = Vec::new();
        // On this machine one that is let in is in at once.
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            crowd.push(connected.expect("connect"));
            assert!(crowd.len() < 100, "the backlog does not fill");
        }
        Self { listener, address, crowd }
    }

    /// Lets everybody in, takes every submit, and counts them.
    fn open(self) -> Arc<AtomicUsize> {
        let posts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&posts);
        tokio::spawn(async move {
            drop(self.crowd);
            while let Ok((stream, _)) = self.listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&counted)));
            }
        });
        posts
    }
}

async fn answer(mut stream: TcpStream, posts: Arc<AtomicUsize>) {
    let mut begin = [0; 4];
    if stream.read_exact(&mut begin).await.is_ok() && &begin == b"POST" {
        posts.fetch_add(1, Ordering::AcqRel);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n\"u-1\"").await;
        // What the client still sends is read, so that closing does not reset it.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

#[tokio::test]
async fn a_post_that_waits_for_its_connection_when_a_cancel_returns_never_leaves() {
    let upstream = Crowded::new().await;
    let mut world = World::new().await;
    world.set("lanes.prod.base_url", format!("http://{}", upstream.address));
    // Its lease would not hold it back.
    world.set("queue.lease", "60s").set("queue.beat", "20s");
    let worker = world.worker(&[]);
    let task = world.create(1).await;
    world.until("select count(*) = 1 from imagemill.attempts where state = 'submitting'").await;
    let done: serde_json::Value = sqlx::query_scalar("select imagemill.cancel_task($1)")
        .bind(task.id)
        .fetch_one(world.pool())
        .await
        .expect("cancel by SQL");
    assert_eq!(done, json!({ "ended": 0, "in_flight": 1 }));
    let posts = upstream.open();
    world.until(ALL_ENDED).await;
    let attempts: Vec<(String, Option<String>)> =
        sqlx::query_as("select state, error from imagemill.attempts").fetch_all(world.pool()).await.expect("the attempts");
    assert_eq!(posts.load(Ordering::Acquire), 0, "a submit came after the cancel had returned: {attempts:?}");
    assert_eq!(attempts.iter().map(|(state, _)| state.as_str()).collect::<Vec<_>>(), ["not_sent"], "{attempts:?}");
    assert!(attempts[0].1.as_deref().is_some_and(|error| error.contains("no connection")), "{attempts:?}");
    assert_eq!(world.cells().await, "cancelled: 1");
    drop(worker);
    world.assert_settled().await;
}
