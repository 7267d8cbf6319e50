//! One connection to one node: dialled when needed, shared by all queries, given up when it fails.
//!
//! Own dialling instead of a pooled client, because the difference between "nobody listens", "not who we
//! expect" and "accepted but silent" is what the reader is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use piperoll_shared::net::identity::Identity;
use piperoll_shared::net::tls::{Material, TlsStore};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// A connection is replaced after this long, so that an expired or revoked certificate cannot live on.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes a node may send ahead: per stream, and for all streams of one node together.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const SMALL_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why a node gave no answer, or no whole one. The words are for the person who has to act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// TCP, TLS or identity refused.
    Unreachable { reason: String, tcp: bool },
    /// The connection was accepted but nothing came.
    Timeout(String),
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
            Self::Unreachable { reason, .. } | Self::Timeout(reason) | Self::Error(reason) | Self::Broken(reason) => {
                reason
            }
        }
    }
}

/// The way to one node.
pub(crate) struct Link {
    address: String,
    expected: Identity,
    tls: Arc<TlsStore>,
    connect_timeout: Duration,
    open: Mutex<Option<Open>>,
}

struct Open {
    send: SendRequest<Full<Bytes>>,
    material: Arc<Material>,
    since: Instant,
}

impl Link {
    pub(crate) fn new(address: String, expected: Identity, tls: Arc<TlsStore>, connect_timeout: Duration) -> Self {
        Self { address, expected, tls, connect_timeout, open: Mutex::new(None) }
    }

    /// Sends a request and waits for the head of the answer, at most `timeout` after connecting. A request that
    /// fails on a connection used before is tried once more on a fresh one: nothing of it was answered.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let mut retried = false;
        loop {
            let (mut send, fresh) = self.connection().await?;
            let request = Request::builder()
                .method(method.clone())
                .uri(format!("https://{}{path}", self.address))
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
                .map_err(|e| Failure::Error(format!("the node's address cannot be used: {e}")))?;
            match tokio::time::timeout(timeout, send.send_request(request)).await {
                Ok(Ok(response)) => return check_status(response).await,
                Ok(Err(_)) if !fresh && !retried => {
                    retried = true;
                    self.forget().await;
                }
                Ok(Err(error)) => {
                    self.forget().await;
                    return Err(after_connect(&error));
                }
                Err(_) => {
                    let silent = Failure::Timeout(format!("connected, but silent for {} ms", timeout.as_millis()));
                    return Err(if fresh { silent } else { self.silent_or_gone(silent).await });
                }
            }
        }
    }

    /// A connection made earlier says nothing about the way now: a cable may have been pulled since. Dialling
    /// again tells a process that hangs (it is still connected to) from a machine that is gone.
    async fn silent_or_gone(&self, silent: Failure) -> Failure {
        self.forget().await;
        match self.connection().await {
            Err(gone @ Failure::Unreachable { tcp: true, .. }) => gone,
            _ => silent,
        }
    }

    /// A small JSON answer.
    pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, Failure> {
        let reading = async {
            let response = self.request(Method::GET, path, Bytes::new(), timeout).await?;
            let body = http_body_util::Limited::new(response.into_body(), SMALL_ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|e| Failure::Broken(format!("the answer broke off: {e}")))?;
            serde_json::from_slice(&body.to_bytes())
                .map_err(|e| Failure::Error(format!("the answer cannot be read: {e}")))
        };
        let whole = self.connect_timeout * 2 + timeout;
        tokio::time::timeout(whole, reading)
            .await
            .unwrap_or_else(|_| Err(Failure::Timeout(format!("no whole answer within {} ms", whole.as_millis()))))
    }

    /// The open connection, or a new one; `true` when it is new.
    async fn connection(&self) -> Result<(SendRequest<Full<Bytes>>, bool), Failure> {
        let mut open = self.open.lock().await;
        let material = self.tls.current();
        if let Some(known) = open.as_ref()
            && !known.send.is_closed()
            && Arc::ptr_eq(&known.material, &material)
            && known.since.elapsed() < CONNECTION_AGE_MAX
        {
            return Ok((known.send.clone(), false));
        }
        *open = None;
        let send = self.dial(&material).await?;
        *open = Some(Open { send: send.clone(), material, since: Instant::now() });
        Ok((send, true))
    }

    async fn forget(&self) {
        *self.open.lock().await = None;
    }

    async fn dial(&self, material: &Arc<Material>) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let limit = self.connect_timeout;
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
            .map_err(|e| Failure::refused(format!("no TLS configuration can be made: {e}")))?;
        // The name takes no part in the check; the certificate's URI does.
        let name = ServerName::try_from("node.piperoll.invalid").map_err(|e| Failure::refused(e.to_string()))?;
        let stream = match tokio::time::timeout(limit, TlsConnector::from(Arc::new(config)).connect(name, stream)).await
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::refused(tls_words(&error))),
            Err(_) => {
                return Err(Failure::Timeout(format!(
                    "TCP was accepted, but no TLS handshake came within {} ms",
                    limit.as_millis()
                )));
            }
        };
        let chain: Vec<CertificateDer<'static>> =
            stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream));
        let (send, connection) = match tokio::time::timeout(limit, handshake).await {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => return Err(after_connect(&error)),
            Err(_) => return Err(Failure::Timeout("connected, but HTTP/2 did not begin".to_owned())),
        };
        let distrusted = distrusted(Arc::clone(&self.tls), self.expected.clone(), chain);
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                reason = distrusted => tracing::warn!(%reason, "connection to a node closed"),
            }
        });
        Ok(send)
    }
}

/// Resolves when the node's certificate no longer holds, so that a revocation cuts open streams too.
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
        Some(rustls::Error::General(words)) => words.clone(),
        Some(rustls::Error::AlertReceived(alert)) => format!("the node refused our certificate ({alert:?})"),
        Some(rustls::Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(other) => format!("TLS failed: {other}"),
        None => format!("the connection broke during the TLS handshake: {error}"),
    }
}

/// In TLS 1.3 a client learns only after its own handshake that the server refused its certificate.
fn after_connect(error: &hyper::Error) -> Failure {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    let mut last = error.to_string();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(rustls::Error::AlertReceived(alert)) = io.get_ref().and_then(|e| e.downcast_ref())
        {
            return Failure::refused(format!("the node refused our certificate ({alert:?})"));
        }
        last = cause.to_string();
        source = cause.source();
    }
    Failure::Broken(format!("the connection broke: {last}"))
}
