//! Runs the accept loops: TLS for peers and clients, a Unix socket for local clients, and clear text for scrapers.
//!
//! Every handshake runs in its own task with a time limit, so a silent client cannot block the accept loop. The certificate of every
//! TLS connection is checked again when the certificate material changes and every 30 seconds, so a revocation also closes
//! connections that are already open.

use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

pub use crate::connection_limits::Connection;
use crate::connection_limits::{Activity, AdmissionSlot, Gate, UnderWay};
use crate::identity::Identity;
use crate::tls::{ClientAuth, TlsCredentials, TlsStore};
use piperoll_format::address::network;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Limits, in time and in bytes, on reading from a connection after its handshake was refused; see `linger`.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Time that requests in progress are given to finish after a shutdown was requested.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Flow-control windows, in bytes, of one stream and of one connection. They limit the memory that request bodies can occupy
/// before a handler reads them.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Maximum number of concurrent requests on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Bytes of a response that are buffered per request before the connection can send them.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const PIECE_BYTES: usize = 64 * 1024;
/// Time limit for the next piece of a request body, and minimum average rate of a body that takes longer than this limit in
/// total.
const PIECE_TIMEOUT: Duration = Duration::from_secs(15);
const BYTES_PER_SECOND_MIN: u64 = 8 * 1024;
/// Limit on the size of request headers. It is large because a cursor over hundreds of nodes is part of the request line.
const HEADERS_BYTES_MAX: u32 = 256 * 1024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Response extension that keeps a resource, such as a slot of a concurrency limit, until the response
/// body was sent completely or dropped.
#[derive(Clone)]
pub struct Held(pub Arc<dyn std::any::Any + Send + Sync>);

/// Limits for draining a request body that its handler did not read to the end: `REST_WAIT` before the response is sent,
/// `REST_TIMEOUT` after it, and `REST_BYTES_MAX` in size. Without draining, a client that is still sending would see a
/// broken stream instead of the response.
const REST_WAIT: Duration = Duration::from_millis(100);
const REST_TIMEOUT: Duration = Duration::from_secs(10);
const REST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Peer of a TLS connection; a request extension.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    pub address: SocketAddr,
    /// Present if the peer presented a certificate; the certificate has been verified.
    pub identity: Option<Identity>,
}

/// Peer of a Unix socket connection, as reported by the kernel; a request extension.
#[derive(Debug, Clone, Copy)]
pub struct UnixPeer {
    pub uid: u32,
    pub gid: u32,
}

/// Serves `app` over TLS until `shutdown`, then drains.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<TlsStore>,
    auth: ClientAuth,
    app: Router,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let gate = Gate::new();
    loop {
        let (stream, address) = match accept(listener.accept(), &shutdown).await {
            Next::Connection(connection) => connection,
            Next::Failed => continue,
            Next::Stop => break,
        };
        let Some(place) = admit(&gate, network(address.ip()), false) else { continue };
        let (tls, app, shutdown) = (Arc::clone(&tls), app.clone(), shutdown.clone());
        tasks.spawn(async move {
            let activity = Arc::clone(&place.activity);
            serve_tls_connection(stream, address, &tls, auth, app, activity, shutdown).await;
            drop(place);
        });
    }
    drain(&tasks).await;
}

/// Serves `app` on a Unix socket until `shutdown`, then drains.
pub async fn serve_unix(listener: UnixListener, app: Router, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let gate = Gate::new();
    loop {
        let (stream, _) = match accept(listener.accept(), &shutdown).await {
            Next::Connection(connection) => connection,
            Next::Failed => continue,
            Next::Stop => break,
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        let Some(place) = admit(&gate, credentials.uid(), true) else { continue };
        let peer = UnixPeer { uid: credentials.uid(), gid: credentials.gid() };
        let (app, shutdown) = (app.clone(), shutdown.clone());
        tasks.spawn(async move {
            let activity = Arc::clone(&place.activity);
            serve_connection(stream, peer, app, activity, shutdown, std::future::pending()).await;
            drop(place);
        });
    }
    drain(&tasks).await;
}

/// Serves `app` over a stream inside this process; `peer` describes the other end.
pub async fn serve_stream<S>(stream: S, peer: TlsPeer, app: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let gate = Gate::new();
    let Some(place) = admit(&gate, 0, true) else { return };
    serve_connection(stream, peer, app, Arc::clone(&place.activity), shutdown, std::future::pending()).await;
}

/// Serves `app` in clear text until `shutdown`, then drains. Meant for scrapers; the same connection limits
/// apply as on the other listeners.
pub async fn serve_plain(listener: TcpListener, app: Router, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let gate = Gate::new();
    loop {
        let (stream, address) = match accept(listener.accept(), &shutdown).await {
            Next::Connection(connection) => connection,
            Next::Failed => continue,
            Next::Stop => break,
        };
        let Some(place) = admit(&gate, network(address.ip()), false) else { continue };
        let (app, shutdown) = (app.clone(), shutdown.clone());
        tasks.spawn(async move {
            let activity = Arc::clone(&place.activity);
            serve_connection(stream, address, app, activity, shutdown, std::future::pending()).await;
            drop(place);
        });
    }
    drain(&tasks).await;
}

/// Admits a connection of the client, or logs the reason for the refusal; the caller then closes the connection.
fn admit<K: Eq + Hash + Clone + Display>(gate: &Gate<K>, client: K, known: bool) -> Option<AdmissionSlot<K>> {
    gate.admit(client.clone(), known).map_err(|reason| tracing::warn!(%client, %reason, "connection refused")).ok()
}

enum Next<T> {
    Connection(T),
    Failed,
    Stop,
}

/// Waits for the next connection. After a failed accept (too many open files) it sleeps for a moment so
/// that the accept loop does not spin.
async fn accept<T>(accepting: impl Future<Output = std::io::Result<T>>, shutdown: &CancellationToken) -> Next<T> {
    tokio::select! {
        accepted = accepting => match accepted {
            Ok(connection) => Next::Connection(connection),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                Next::Failed
            }
        },
        () = shutdown.cancelled() => Next::Stop,
    }
}

async fn drain(tasks: &TaskTracker) {
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections did not finish in time and were closed");
    }
}

async fn serve_tls_connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: &TlsStore,
    auth: ClientAuth,
    app: Router,
    activity: Arc<Activity>,
    shutdown: CancellationToken,
) {
    let config = match tls.current().server_config(auth) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "cannot create a TLS configuration");
            return;
        }
    };
    let _ = stream.set_nodelay(true);
    let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream).into_fallible();
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            tracing::info!(%address, %error, "TLS handshake refused");
            linger(stream).await;
            return;
        }
        Err(_) => {
            tracing::info!(%address, "TLS handshake timed out");
            return;
        }
    };
    let chain: Option<Vec<CertificateDer<'static>>> =
        stream.get_ref().1.peer_certificates().map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
    let identity = match chain.as_deref().and_then(|chain| chain.first()).map(|first| Identity::of_certificate(first)) {
        None => None,
        Some(Ok(identity)) => Some(identity),
        Some(Err(error)) => {
            tracing::info!(%address, %error, "peer refused");
            return;
        }
    };
    if identity.is_some() {
        Connection(Arc::clone(&activity)).identified();
    }
    let peer = TlsPeer { address, identity };
    let distrusted = distrusted(tls.subscribe(), auth, chain, address);
    serve_connection(stream, peer, app, activity, shutdown, distrusted).await;
}

/// Closes a connection in such a way that the client receives the TLS alert that was sent last. In TLS 1.3 the client has already
/// begun to send by then. Closing the socket with unread bytes would make the kernel reset the connection, and the client would
/// lose data that it had not read yet.
async fn linger(mut stream: TcpStream) {
    let ending = async {
        let _ = stream.shutdown().await;
        let (mut left, mut waste) = (LINGER_BYTES_MAX, [0; 4_096]);
        while let Ok(count @ 1..) = stream.read(&mut waste).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, ending).await;
}

/// Resolves when the peer's certificate is no longer valid: it was revoked, it expired, or the authority changed.
async fn distrusted(
    mut material: tokio::sync::watch::Receiver<Arc<TlsCredentials>>,
    auth: ClientAuth,
    chain: Option<Vec<CertificateDer<'static>>>,
    address: SocketAddr,
) {
    let Some(chain) = chain else { return std::future::pending().await };
    let Some((first, intermediates)) = chain.split_first() else { return std::future::pending().await };
    loop {
        tokio::select! {
            changed = material.changed() => if changed.is_err() { return std::future::pending().await },
            () = tokio::time::sleep(RECHECK_INTERVAL) => {}
        }
        let verifier = material.borrow_and_update().client_verifier(auth);
        let verdict = verifier.and_then(|v| v.verify_client_cert(first, intermediates, UnixTime::now()).map(|_| ()));
        if let Err(error) = verdict {
            tracing::warn!(%address, %error, "open connection closed: the peer's certificate is no longer valid");
            return;
        }
    }
}

async fn serve_connection<S, P>(
    stream: S,
    peer: P,
    app: Router,
    activity: Arc<Activity>,
    shutdown: CancellationToken,
    cut: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let asked = Arc::clone(&activity);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Connection(Arc::clone(&asked)));
        let under_way = asked.request();
        let (parts, body) = request.into_parts();
        let body = Arc::new(Mutex::new(Arriving::new(body)));
        let request = hyper::Request::from_parts(parts, Body::new(Lent(Arc::clone(&body))));
        let answering = app.clone().call(request);
        async move {
            let Ok(mut response) = answering.await;
            let held = response.extensions_mut().remove::<Held>();
            if tokio::time::timeout(REST_WAIT, read_rest(&body)).await.is_err() {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(REST_TIMEOUT, read_rest(&body)).await;
                });
            }
            // The client has not read any of the response body yet; its time limit for doing so starts now.
            under_way.waits(true);
            Ok::<_, std::convert::Infallible>(response.map(|body| Leaving {
                body,
                under_way,
                rest: Bytes::new(),
                _held: held,
            }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut over = std::pin::pin!(activity.over());
    let mut connection = std::pin::pin!(connection);
    let mut cut = std::pin::pin!(cut);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = cut.as_mut() => return,
            reason = over.as_mut() => {
                tracing::debug!(%reason, "connection closed");
                return;
            }
        }
    }
}

/// Incoming request body. A body that stalls or trickles in ends with an error, so that the bytes received so far are not held
/// forever.
struct Arriving {
    body: Incoming,
    /// Time of the first poll.
    began: Option<Instant>,
    bytes: u64,
    /// Deadline for the next piece of the body.
    due: Pin<Box<tokio::time::Sleep>>,
}

impl Arriving {
    fn new(body: Incoming) -> Self {
        Self { body, began: None, bytes: 0, due: Box::pin(tokio::time::sleep(PIECE_TIMEOUT)) }
    }

    fn is_slow(&self) -> bool {
        let elapsed = self.began.map(|began| began.elapsed()).unwrap_or_default();
        elapsed > PIECE_TIMEOUT && self.bytes < elapsed.as_secs().saturating_mul(BYTES_PER_SECOND_MIN)
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.due.as_mut().reset(tokio::time::Instant::now() + PIECE_TIMEOUT);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new))) };
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.is_slow() {
                return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut)))));
            }
            self.due.as_mut().reset(tokio::time::Instant::now() + PIECE_TIMEOUT);
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.due.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Some(Err(axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut)))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Request body as its handler sees it. [`read_rest`] drains the bytes that the handler does not read.
struct Lent(Arc<Mutex<Arriving>>);

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// Reads and discards the rest of a body, up to about `REST_BYTES_MAX` bytes.
async fn read_rest(body: &Mutex<Arriving>) {
    let mut bytes = 0;
    std::future::poll_fn(|cx| {
        loop {
            let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
            if body.is_end_stream() || bytes > REST_BYTES_MAX {
                return Poll::Ready(());
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// Response body that is passed to the connection in pieces of at most `PIECE_BYTES`. It keeps data that the connection has not
/// taken yet, and `UnderWay` records how long that data has been waiting.
struct Leaving {
    body: Body,
    under_way: UnderWay,
    rest: Bytes,
    _held: Option<Held>,
}

impl hyper::body::Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Poll::Ready(other) => return Poll::Ready(other),
                // No data is ready, so nothing is waiting for the client.
                Poll::Pending => {
                    self.under_way.waits(false);
                    return Poll::Pending;
                }
            }
        }
        self.under_way.waits(true);
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
