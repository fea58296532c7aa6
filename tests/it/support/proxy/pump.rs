//! The two directions of one connection.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream, UnixStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
        unix,
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    orders::Place,
    session::{Answer, Session},
    wire::Messages,
};

const BUFFER: usize = 16 << 10;

/// Both directions, until PostgreSQL has closed the connection. Cut: the client is reset, and PostgreSQL sees its end.
pub(super) async fn run(
    shared: &Arc<Shared>,
    session: &Arc<Mutex<Session>>,
    client: TcpStream,
    server: UnixStream,
    cut: CancellationToken,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asking = tokio::spawn(ask(Arc::clone(shared), Arc::clone(session), from_client, to_server, cut.clone()));
    answer(shared, session, from_server, to_client, &cut).await;
    // PostgreSQL has closed its side: nothing that the client still says can reach anybody.
    cut.cancel();
    let _ = asking.await;
}

/// What the client says. PostgreSQL sees the end of the connection when this returns.
async fn ask(
    shared: Arc<Shared>,
    session: Arc<Mutex<Session>>,
    mut client: OwnedReadHalf,
    mut server: unix::OwnedWriteHalf,
    cut: CancellationToken,
) {
    let mut messages = Messages::of_client();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = tokio::select! {
            read = client.read(&mut buffer) => read,
            () = cut.cancelled() => return,
        };
        let Ok(read @ 1..) = read else { return };
        if is_silent(&shared, &session) {
            continue;
        }
        messages.push(&buffer[..read]);
        let mut ready = Vec::new();
        for message in messages.by_ref() {
            let (asked, commits) =
                session.lock().unwrap_or_else(PoisonError::into_inner).asks(&message, shared.silences.load(Ordering::Acquire));
            if asked {
                shared.unanswered.fetch_add(1, Ordering::AcqRel);
            }
            if !commits.is_empty()
                && let Some(go) = shared.orders.meet(Place::Before, &commits, shared.number, backend(&session))
            {
                // An error is the sign as well: whoever ordered it is gone.
                let _ = go.await;
            }
            ready.extend(message.bytes);
        }
        if server.write_all(&ready).await.is_err() {
            return;
        }
    }
}

fn is_silent(shared: &Shared, session: &Mutex<Session>) -> bool {
    session.lock().unwrap_or_else(PoisonError::into_inner).is_silent(shared.silences.load(Ordering::Acquire))
}

fn backend(session: &Mutex<Session>) -> i32 {
    session.lock().unwrap_or_else(PoisonError::into_inner).backend()
}

/// What PostgreSQL says, to its end.
async fn answer(
    shared: &Shared,
    session: &Mutex<Session>,
    mut server: unix::OwnedReadHalf,
    client: OwnedWriteHalf,
    cut: &CancellationToken,
) {
    let mut client = Some(client);
    let mut messages = Messages::of_server();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = tokio::select! {
            read = server.read(&mut buffer) => read,
            () = cut.cancelled(), if client.is_some() => {
                reset(&mut client);
                continue;
            }
        };
        let Ok(read @ 1..) = read else { break };
        if is_silent(shared, session) {
            continue;
        }
        messages.push(&buffer[..read]);
        let mut ready = Vec::new();
        for message in messages.by_ref() {
            let answer = session.lock().unwrap_or_else(PoisonError::into_inner).answers(&message);
            let Answer::Whole { bytes, answered, committed } = answer else { continue };
            if answered {
                shared.unanswered.fetch_sub(1, Ordering::AcqRel);
            }
            if !committed.is_empty()
                && let Some(go) = shared.orders.meet(Place::After, &committed, shared.number, backend(session))
            {
                let _ = go.await;
                reset(&mut client);
                cut.cancel();
            }
            ready.extend(bytes);
        }
        if let Some(open) = &mut client
            && open.write_all(&ready).await.is_err()
        {
            // The client is gone; what PostgreSQL still does for it is waited for all the same.
            client = None;
            cut.cancel();
        }
    }
    let mut rest = session.lock().unwrap_or_else(PoisonError::into_inner).held();
    rest.extend(messages.rest());
    if let Some(mut open) = client {
        // What PostgreSQL said last, and the end; a client that is gone needs neither.
        let _ = open.write_all(&rest).await;
        let _ = open.shutdown().await;
    }
}

/// The client sees an error, not an orderly end: without lingering, closing sends a reset.
fn reset(client: &mut Option<OwnedWriteHalf>) {
    if let Some(open) = client.take() {
        // Fails on a socket that is gone already.
        let _ = open.as_ref().set_zero_linger();
    }
}
