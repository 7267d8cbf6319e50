//! Connection to one node: opened on demand, shared by all queries, dropped when it fails.
//!
//! Dials without a pooled client: callers need to distinguish "nothing listens", "wrong identity" and "accepted but silent".

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use piperoll_evidence::bundle::Membership;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::identity::Identity;
use piperoll_net::tls::{TlsCredentials, TlsStore};
use piperoll_protocol::frame::MEDIA_TYPE_WITH_PLACES;
use rustls::AlertDescription;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// Maximum age of a connection, so that an expired or revoked certificate is not used for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Time limit for a TLS handshake with a node that does not respond.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Buffer size of a stream inside this process.
const LOCAL_BUFFER_BYTES: usize = 64 * 1024;
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum bytes that a node may send before they are read: per stream, and for all streams of one node together.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const SMALL_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Maximum bytes of a large answer. The proof of a filtered export contains a few hashes per row.
const LARGE_ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Reason why a node gave no answer or only part of one. The messages are for the operator who has to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The TCP connection, the TLS handshake or the identity was refused.
    Unreachable { reason: String, tcp: bool },
    /// The connection was accepted, but no answer arrived.
    Timeout(String),
    /// Like `Timeout`, but the node does not complete a TLS handshake on another connection either: the process or its machine is frozen.
    Frozen(String),
    /// The answer was an error.
    Error(String),
    /// The connection broke.
    Broken(String),
}

impl Failure {
    fn tcp(reason: impl Into<String>) -> Self {
        Self::Unreachable { reason: reason.into(), tcp: true }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self::Unreachable { reason: reason.into(), tcp: false }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Unreachable { reason, .. }
            | Self::Timeout(reason)
            | Self::Frozen(reason)
            | Self::Error(reason)
            | Self::Broken(reason) => reason,
        }
    }
}

/// Connection to one node.
pub(crate) struct NodeConnection {
    way: Arc<Endpoint>,
    state: Arc<Mutex<DialState>>,
}

/// Serves the log of a node's folder over a stream inside this process.
pub type LocalLog = Arc<dyn Fn(DuplexStream) + Send + Sync>;

/// Address of a node, and the identity expected there.
struct Endpoint {
    address: String,
    /// Log of the node's folder, used instead of `address` once the node has left the cluster. Until then a copy of the
    /// folder lacks the entries that the node still records.
    local: Option<LocalLog>,
    life: Membership,
    expected: Identity,
    tls: Arc<TlsStore>,
    connect_timeout: Duration,
}

/// An open connection.
#[derive(Clone)]
struct Sender {
    send: SendRequest<Full<Bytes>>,
    /// Reason why the node's TLS refused the connection. A request on that connection only learns that the connection broke.
    refusal: Refusal,
}

type Dialed = Result<Sender, Failure>;

#[derive(Default)]
struct DialState {
    open: Option<OpenConnection>,
    /// Number of connections opened so far.
    made: u64,
    /// The dial in progress. All requests that need it wait for it together, so that a node that hangs delays them all by a
    /// single time limit.
    dialing: Option<watch::Receiver<Option<Dialed>>>,
}

struct OpenConnection {
    /// Sequence number of this connection within its `NodeConnection`.
    number: u64,
    sender: Sender,
    material: Arc<TlsCredentials>,
    since: Instant,
    is_local: bool,
}

/// Choice of connection for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The connection that pages and probes share.
    Shared,
    /// A separate connection: a stream whose consumer stalls fills its connection's window and must not stall other requests.
    Own,
}

impl NodeConnection {
    pub(crate) fn new(
        address: String,
        local: Option<LocalLog>,
        life: Membership,
        expected: Identity,
        tls: Arc<TlsStore>,
        connect_timeout: Duration,
    ) -> Self {
        let way = Arc::new(Endpoint { address, local, life, expected, tls, connect_timeout });
        Self { way, state: Arc::default() }
    }

    /// Whether the log is read in this process.
    pub(crate) fn is_local(&self) -> bool {
        self.way.local().is_some()
    }

    /// Returns the number of the shared connection; `None` while the connection is not open. The number changes when the node
    /// restarts, perhaps as another version of the program.
    pub(crate) fn connection_number(&self) -> Option<u64> {
        self.state().open.as_ref().filter(|open| !open.sender.send.is_closed()).map(|open| open.number)
    }

    /// Sends a request and waits for the head of the answer, at most `timeout` after connecting. A request that fails on a reused
    /// connection is retried once on a new one, since no part of it was answered.
    pub(crate) async fn request(
        &self,
        lane: Channel,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let mut retried = false;
        loop {
            let (mut sender, fresh) = match lane {
                Channel::Shared => self.connection().await?,
                Channel::Own => (self.way.dial(&self.way.tls.current()).await?, true),
            };
            let request = Request::builder()
                .method(method.clone())
                .uri(format!("https://{}{path}", self.way.address))
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, MEDIA_TYPE_WITH_PLACES)
                .body(Full::new(body.clone()))
                .map_err(|e| Failure::Error(format!("invalid node address: {e}")))?;
            match self.answered(sender.send.send_request(request), timeout).await? {
                Ok(response) => return check_status(response).await,
                Err(_) if !fresh && !retried => {
                    retried = true;
                    self.forget();
                }
                Err(error) => {
                    self.forget();
                    return Err(sender.refusal.get().cloned().unwrap_or_else(|| after_connect(&error)));
                }
            }
        }
    }

    /// Waits for an answer, at most `timeout` (longer by the duration of the probe if the probe succeeds). An existing connection
    /// does not show whether the node is reachable now. If no answer has arrived for most of that time, `Endpoint::probe` tries a
    /// second connection in parallel. Its result distinguishes a machine that is gone, a frozen one and a busy node.
    async fn answered<T>(&self, sending: impl Future<Output = T>, timeout: Duration) -> Result<T, Failure> {
        let mut sending = std::pin::pin!(sending);
        let beside = PROBE_LIMIT.min(timeout);
        if let Ok(answer) = tokio::time::timeout(timeout.saturating_sub(beside), &mut sending).await {
            return Ok(answer);
        }
        let both = tokio::time::timeout(beside, &mut sending);
        let (answer, probed) = tokio::select! {
            answer = both => (answer.ok(), None),
            probed = self.way.probe(beside) => (None, Some(probed)),
        };
        let (answer, probed) = match (answer, probed) {
            (Some(answer), _) => return Ok(answer),
            // The probe succeeded, so continue to wait for the answer, for the time limit that the probe had.
            (None, Some(Ok(()))) => (tokio::time::timeout(beside, &mut sending).await.ok(), Ok(())),
            (None, Some(Err(failure))) => (None, Err(failure)),
            (None, None) => (None, Err(Failure::Frozen(no_handshake(beside)))),
        };
        if let Some(answer) = answer {
            return Ok(answer);
        }
        self.forget();
        let silent = format!("connected, but silent for {} ms", timeout.as_millis());
        Err(match probed {
            Ok(()) => Failure::Timeout(format!("{silent}; the node accepts other connections, so it is busy")),
            Err(Failure::Frozen(message)) => {
                Failure::Frozen(format!("the node does not respond: {silent}; a second connection failed: {message}"))
            }
            Err(gone @ Failure::Unreachable { tcp: true, .. }) => gone,
            Err(other) => Failure::Timeout(format!("{silent}; a second connection failed: {}", other.reason())),
        })
    }

    /// Checks whether a node completes a TLS handshake on a new connection; sends no request.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        self.way.probe(PROBE_LIMIT).await
    }

    /// Sends a small body. The response has no content: it only reports success.
    pub(crate) async fn post(&self, path: &str, body: Bytes, timeout: Duration) -> Result<(), Failure> {
        let whole = self.way.connect_timeout * 2 + timeout;
        let sending = self.request(Channel::Shared, Method::POST, path, body, timeout);
        match tokio::time::timeout(whole, sending).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Failure::Timeout(format!("no answer within {} ms", whole.as_millis()))),
        }
    }

    /// Requests a small JSON answer.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<T, Failure> {
        self.json(Channel::Shared, Method::GET, path, Bytes::new(), SMALL_ANSWER_BYTES_MAX, timeout).await
    }

    /// Requests a JSON answer that may be large, up to `bytes_max`, on a separate connection.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<T, Failure> {
        let body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
        self.json(Channel::Own, Method::POST, path, body, bytes_max.min(LARGE_ANSWER_BYTES_MAX), timeout).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        lane: Channel,
        method: Method,
        path: &str,
        body: Bytes,
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<T, Failure> {
        let reading = async {
            let response = self.request(lane, method, path, body, timeout).await?;
            let body = http_body_util::Limited::new(response.into_body(), bytes_max)
                .collect()
                .await
                .map_err(|e| Failure::Broken(format!("the answer was interrupted: {e}")))?;
            serde_json::from_slice(&body.to_bytes())
                .map_err(|e| Failure::Error(format!("cannot parse the answer: {e}")))
        };
        let whole = self.way.connect_timeout * 2 + timeout;
        tokio::time::timeout(whole, reading)
            .await
            .unwrap_or_else(|_| Err(Failure::Timeout(format!("no complete answer within {} ms", whole.as_millis()))))
    }

    /// Returns the open connection, or a new one and `true`.
    async fn connection(&self) -> Result<(Sender, bool), Failure> {
        let mut dialed = {
            let mut state = self.state();
            let material = self.way.tls.current();
            if let Some(known) = &state.open
                && !known.sender.send.is_closed()
                && Arc::ptr_eq(&known.material, &material)
                && known.since.elapsed() < CONNECTION_AGE_MAX
                && known.is_local == self.way.local().is_some()
            {
                return Ok((known.sender.clone(), false));
            }
            state.open = None;
            match state.dialing.clone().filter(|dialed| dialed.has_changed().is_ok()) {
                Some(dialed) => dialed,
                None => {
                    let (result_sender, dialed) = watch::channel(None);
                    state.dialing = Some(dialed.clone());
                    tokio::spawn(dial_for_all(Arc::clone(&self.way), Arc::clone(&self.state), material, result_sender));
                    dialed
                }
            }
        };
        let result = match dialed.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => None,
        };
        let given_up = || Err(Failure::Error("connecting to the node was aborted".to_owned()));
        result.unwrap_or_else(given_up).map(|sender| (sender, true))
    }

    fn state(&self) -> MutexGuard<'_, DialState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        self.state().open = None;
    }
}

/// Dials once for all waiting requests, even if the request that started the dial no longer waits.
async fn dial_for_all(
    way: Arc<Endpoint>,
    state: Arc<Mutex<DialState>>,
    material: Arc<TlsCredentials>,
    result_sender: watch::Sender<Option<Dialed>>,
) {
    let is_local = way.local().is_some();
    let dialed = way.dial(&material).await;
    {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.dialing = None;
        if let Ok(sender) = &dialed {
            state.made += 1;
            let number = state.made;
            state.open =
                Some(OpenConnection { number, sender: sender.clone(), material, since: Instant::now(), is_local });
        }
    }
    let _ = result_sender.send(Some(dialed));
}

fn no_handshake(limit: Duration) -> String {
    format!("TCP was accepted, but no TLS handshake completed within {} ms", limit.as_millis())
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

impl Endpoint {
    fn local(&self) -> Option<&LocalLog> {
        self.local.as_ref().filter(|_| self.life.has_ended_by(SystemClock.now()))
    }

    async fn probe(&self, limit: Duration) -> Result<(), Failure> {
        if self.local().is_some() {
            return Ok(());
        }
        let shaken = tokio::time::timeout(limit, self.shake(&self.tls.current(), limit)).await;
        shaken.unwrap_or_else(|_| Err(Failure::Frozen(no_handshake(limit)))).map(drop)
    }

    /// Connects and completes the TLS handshake; the limit applies to each step separately.
    async fn shake(&self, material: &TlsCredentials, limit: Duration) -> Result<TlsStream, Failure> {
        let stream = match tokio::time::timeout(limit, TcpStream::connect(&self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::tcp(format!("{}: {error}", self.address))),
            Err(_) => {
                return Err(Failure::tcp(format!(
                    "{}: no answer to a TCP connect within {} ms",
                    self.address,
                    limit.as_millis()
                )));
            }
        };
        let _ = stream.set_nodelay(true);
        let config = material
            .client_config(&self.expected)
            .map_err(|e| Failure::refused(format!("cannot create a TLS configuration: {e}")))?;
        // The server name is not checked; the URI in the certificate is.
        let name = ServerName::try_from("node.piperoll.invalid").map_err(|e| Failure::refused(e.to_string()))?;
        match tokio::time::timeout(limit, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Failure::refused(tls_words(&error))),
            Err(_) => Err(Failure::Frozen(no_handshake(limit))),
        }
    }

    async fn dial(&self, material: &Arc<TlsCredentials>) -> Dialed {
        let limit = self.connect_timeout;
        if let Some(local) = self.local() {
            let (ours, theirs) = tokio::io::duplex(LOCAL_BUFFER_BYTES);
            local(theirs);
            return begin(ours, limit, std::future::pending()).await;
        }
        let stream = self.shake(material, limit).await?;
        let chain: Vec<CertificateDer<'static>> =
            stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
        let distrusted = distrusted(Arc::clone(&self.tls), self.expected.clone(), chain);
        begin(stream, limit, distrusted).await
    }
}

/// Begins HTTP/2 on a stream; the connection ends when `distrusted` resolves, with its reason.
async fn begin<S>(stream: S, limit: Duration, distrusted: impl Future<Output = String> + Send + 'static) -> Dialed
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let refusal = Refusal::default();
    let handshake = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(AlertRecorder { stream, refusal: Arc::clone(&refusal) }));
    let (send, connection) = match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return Err(refusal.get().cloned().unwrap_or_else(|| after_connect(&error))),
        Err(_) => return Err(Failure::Timeout("connected, but the HTTP/2 handshake did not complete".to_owned())),
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = connection => {}
            reason = distrusted => tracing::warn!(%reason, "connection to a node closed"),
        }
    });
    Ok(Sender { send, refusal })
}

/// Reason for which the node refused the connection; set at most once.
type Refusal = Arc<OnceLock<Failure>>;

/// A stream that remembers the TLS alert that ended it, because HTTP/2 only reports that a connection broke, not why.
struct AlertRecorder<S> {
    stream: S,
    refusal: Refusal,
}

impl<S> AlertRecorder<S> {
    fn heard(&self, read: &Poll<std::io::Result<()>>) {
        if let Poll::Ready(Err(error)) = read
            && let Some(rustls::Error::AlertReceived(alert)) = error.get_ref().and_then(|e| e.downcast_ref())
            && is_about_us(*alert)
        {
            let _ = self.refusal.set(Failure::refused(alert_words(*alert)));
        }
    }
}

impl<S: AsyncRead + Unpin> AlertRecorder<S> {
    /// After a failed write, reads the remaining input, which may contain the alert that explains the failure. A closed
    /// connection always becomes readable, so the wait ends; the write is then retried and fails again.
    fn listen<T>(&mut self, cx: &mut Context<'_>, written: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        let Poll::Ready(Err(error)) = written else { return written };
        let mut bytes = [0; 1_024];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            self.heard(&read);
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AlertRecorder<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.heard(&read);
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for AlertRecorder<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.listen(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.listen(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.listen(cx, written)
    }
}

/// Resolves when the node's certificate is no longer trusted, so that a revocation also cuts open streams.
async fn distrusted(tls: Arc<TlsStore>, expected: Identity, chain: Vec<CertificateDer<'static>>) -> String {
    let mut material = tls.subscribe();
    loop {
        tokio::select! {
            changed = material.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = tokio::time::sleep(RECHECK_INTERVAL) => {}
        }
        let current = Arc::clone(&material.borrow_and_update());
        if let Err(reason) = current.check_peer(&expected, &chain) {
            return format!("{expected}: {reason}");
        }
    }
}

async fn check_status(response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    #[derive(serde::Deserialize)]
    struct Said {
        detail: String,
    }
    let body = http_body_util::Limited::new(response.into_body(), SMALL_ANSWER_BYTES_MAX).collect().await;
    let detail = body
        .ok()
        .and_then(|body| serde_json::from_slice::<Said>(&body.to_bytes()).ok())
        .map_or_else(String::new, |said| format!(": {}", said.detail));
    Err(Failure::Error(format!("the node answered {status}{detail}")))
}

fn tls_words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::General(message)) => message.clone(),
        Some(rustls::Error::AlertReceived(alert)) => alert_words(*alert),
        Some(rustls::Error::InvalidMessage(_)) => "the server at this address does not speak TLS".to_owned(),
        Some(other) => format!("TLS failed: {other}"),
        None => format!("connection broken during the TLS handshake: {error}"),
    }
}

/// Whether an alert means that the node rejects our certificate. Other alerts mean that the connection failed for another reason.
fn is_about_us(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
            | Alert::DecryptError
    )
}

/// Describes why a node refused our certificate. If the reason is its validity period, either side's clock may be wrong.
fn alert_words(alert: AlertDescription) -> String {
    // This alert is also sent for a certificate that is not valid yet.
    let why = if alert == AlertDescription::CertificateExpired {
        ": according to the node's clock, it has expired or is not valid yet. If it is valid according to this machine's clock, the clocks differ; run `piperoll doctor` on both \
         machines to find out which one is wrong"
    } else {
        ""
    };
    format!("the node refused our certificate ({alert:?}){why}")
}

/// Returns the failure for a connection that broke for a reason other than a refusal.
fn after_connect(error: &hyper::Error) -> Failure {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    let mut last = error.to_string();
    while let Some(cause) = source {
        last = cause.to_string();
        source = cause.source();
    }
    Failure::Broken(format!("connection broken: {last}"))
}
