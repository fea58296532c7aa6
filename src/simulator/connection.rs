//! Connections that a handler can cut without an answer.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// The handle by which a handler cuts the connection that its request came on.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection(Arc<Wire>);

#[derive(Debug, Default)]
struct Wire {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Connection {
    /// Resets the connection: the client sees an error, not an answer and not an orderly end.
    pub(super) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// Resets the connection and waits until the server has dropped the calling handler with it.
    pub(super) async fn cut_and_wait(&self) -> std::convert::Infallible {
        self.cut();
        std::future::pending().await
    }
}

/// All connections of one simulator, so that stopping it ends those too whose answer never comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    is_stopped: bool,
    connections: HashMap<u64, Connection>,
}

impl Connections {
    /// Cuts every connection, and every one that comes later.
    pub(super) fn cut_all(&self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_stopped = true;
        for connection in open.connections.values() {
            connection.cut();
        }
    }

    fn add(&self, number: u64, connection: &Connection) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_stopped {
            connection.cut();
        }
        open.connections.insert(number, connection.clone());
    }

    fn remove(&self, number: u64) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.connections.remove(&number);
    }
}

/// A TCP listener whose connections can be cut.
#[derive(Debug)]
pub(super) struct CuttableListener {
    listener: TcpListener,
    connections: Connections,
    accepted: AtomicU64,
}

impl CuttableListener {
    pub(super) fn new(listener: TcpListener, connections: Connections) -> Self {
        Self { listener, connections, accepted: AtomicU64::new(0) }
    }
}

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "the simulator could not switch off Nagle's algorithm");
                    }
                    let number = self.accepted.fetch_add(1, Ordering::Relaxed);
                    let connection = Connection::default();
                    self.connections.add(number, &connection);
                    let stream = CuttableStream { stream, connection, number, connections: self.connections.clone() };
                    return (stream, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator could not accept a connection");
                    // Out of file handles: they come back when other connections end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().connection.clone()
    }
}

/// A TCP stream that fails as soon as its [`Connection`] is cut.
#[derive(Debug)]
pub(super) struct CuttableStream {
    stream: TcpStream,
    connection: Connection,
    number: u64,
    connections: Connections,
}

impl CuttableStream {
    /// The error of a connection that was cut.
    fn check(&self) -> io::Result<()> {
        if self.connection.0.is_cut.load(Ordering::Acquire) {
            // Without lingering, closing the socket sends a reset instead of an orderly end.
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Drop for CuttableStream {
    fn drop(&mut self) {
        self.connections.remove(self.number);
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Registered before the look at the flag, so that a cut between the two is not missed.
        self.connection.0.waker.register(context.waker());
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
