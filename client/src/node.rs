//! Client of the node on this machine: HTTP/1.1 over its Unix socket, or HTTPS on loopback with a token.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use piperoll_protocol::node::{BatchReport, GapReport, NDJSON, NodeStatus, Receipt, ScanRequest, socket_path};
use piperoll_protocol::problem::Problem;

use crate::error::ClientError;
use crate::transport::{Endpoint, Transport};

/// Time limit for an append. A durable commit takes milliseconds; a node that needs longer than this has a problem.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Media type of a request.
const JSON: &str = "application/json";

/// A connection to the node on this machine. Clones share its pool of connections.
#[derive(Clone)]
pub struct NodeClient {
    transport: Transport,
    /// Scheme and authority, which precede every path.
    base: Arc<str>,
    /// The socket's path or the address, for messages.
    place: Arc<str>,
    /// Header value `Bearer …`, marked as sensitive.
    authorization: Option<HeaderValue>,
}

/// Omits the token from debug output.
impl std::fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClient").field("place", &self.place).finish_non_exhaustive()
    }
}

/// One request to the node.
struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Option<(&'static str, Vec<u8>)>,
    import: bool,
    /// Time limit of the whole answer; a stream has none.
    timeout: Option<Duration>,
}

impl<'a> Call<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, import: false, timeout: None }
    }

    fn post(path: &'a str, media_type: &'static str, body: Vec<u8>) -> Self {
        Self { method: Method::POST, path, body: Some((media_type, body)), import: false, timeout: None }
    }

    fn post_json(path: &'a str, request: &impl serde::Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| ClientError::Protocol(e.to_string()))?;
        Ok(Self::post(path, JSON, body))
    }

    fn within(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

impl NodeClient {
    /// Creates a client for the node whose socket is at `path`. Does not connect yet.
    ///
    /// # Errors
    /// Currently none; reserved for transports that need preparation.
    pub fn new(path: &Path) -> Result<Self, ClientError> {
        let transport = Transport::new(Endpoint::Socket(Arc::new(path.to_owned())));
        let place = path.display().to_string().into();
        Ok(Self { transport, base: "http://node".into(), place, authorization: None })
    }

    /// Creates a client for an application that cannot reach the socket, such as one in a container. `address` is `127.0.0.1:7403` or
    /// similar, `ca` the cluster's CA in PEM, and `token` a token from `piperoll node token create`. Does not connect yet.
    ///
    /// # Errors
    /// When the address, the CA or the token is malformed.
    #[cfg(feature = "loopback-https")]
    pub fn over_https(address: &str, ca: &[u8], token: &str) -> Result<Self, ClientError> {
        let endpoint = crate::tls::HttpsEndpoint::new(address, ca)?;
        let wrong = |_| ClientError::Protocol("the token contains invalid characters".to_owned());
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).map_err(wrong)?;
        authorization.set_sensitive(true);
        // The scheme of the URL has no effect: the connector always uses TLS.
        let base = format!("http://{address}").into();
        let place = format!("https://{address}").into();
        Ok(Self {
            transport: Transport::new(Endpoint::Https(endpoint)),
            base,
            place,
            authorization: Some(authorization),
        })
    }

    /// Records one entry; returns after it is on disk.
    ///
    /// # Errors
    /// The node refuses the entry, or does not answer; see [`ClientError`].
    pub async fn append(&self, entry: &serde_json::Value) -> Result<Receipt, ClientError> {
        self.json(Call::post_json(socket_path::ENTRIES, entry)?.within(APPEND_TIMEOUT)).await
    }

    /// Records a batch of NDJSON lines, at most `BATCH_LINES_MAX`; every line gets its own result.
    ///
    /// # Errors
    /// The request as a whole failed. The refusal of a single entry is not an error; it is in the report.
    pub async fn append_lines(&self, lines: Vec<u8>, import: bool) -> Result<BatchReport, ClientError> {
        let call = Call { import, ..Call::post(socket_path::ENTRIES, NDJSON, lines) };
        let (status, text) = self.text(call.within(APPEND_TIMEOUT)).await?;
        // A node that is stopping or whose disk is full also answers with a report of all lines. The status is then that of the
        // error, so parse the report regardless of the status.
        serde_json::from_slice(&text).map_err(|_| problem(status, &text))
    }

    /// Reports that events were lost; returns after the node's entry about the loss is on disk.
    ///
    /// # Errors
    /// As [`NodeClient::append`].
    pub async fn report_gap(&self, report: &GapReport) -> Result<Receipt, ClientError> {
        self.json(Call::post_json(socket_path::GAPS, report)?.within(APPEND_TIMEOUT)).await
    }

    /// Requests the node's status.
    ///
    /// # Errors
    /// The node does not answer, or denies access.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.json(Call::get(socket_path::STATUS).within(STATUS_TIMEOUT)).await
    }

    /// Checks that the node records entries.
    ///
    /// # Errors
    /// The node does not answer, or reports why it cannot record.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.good_text(Call::get(socket_path::HEALTHZ).within(STATUS_TIMEOUT)).await.map(|_| ())
    }

    /// Returns the newest checkpoint, a signed note. The node signs a new one if it is due.
    ///
    /// # Errors
    /// The node does not answer, or cannot sign.
    pub async fn checkpoint(&self) -> Result<String, ClientError> {
        let text = self.good_text(Call::get(socket_path::CHECKPOINT).within(STATUS_TIMEOUT)).await?;
        String::from_utf8(text.into())
            .map_err(|_| ClientError::Protocol("the checkpoint is not valid UTF-8".to_owned()))
    }

    /// Reads rows as NDJSON lines, ending with a `final` line.
    ///
    /// # Errors
    /// The node does not answer, or refuses the request.
    pub async fn scan(&self, request: &ScanRequest) -> Result<LineStream, ClientError> {
        self.lines(Call::post_json(socket_path::SCAN, request)?).await
    }

    /// Runs a full check, which returns NDJSON lines, ending with a `final` line.
    ///
    /// # Errors
    /// As [`NodeClient::scan`].
    pub async fn verify(&self) -> Result<LineStream, ClientError> {
        self.lines(Call::get(socket_path::VERIFY)).await
    }

    /// Reads from a path that only root and the node's own user may use; see `socket_path`.
    ///
    /// # Errors
    /// The node does not answer, or refuses the request.
    pub async fn admin_get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Call::get(path)).await
    }

    /// Sends a request to a path that only root and the node's own user may use.
    ///
    /// # Errors
    /// As [`NodeClient::admin_get`].
    pub async fn admin_post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        request: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        self.json(Call::post_json(path, request)?).await
    }

    async fn lines(&self, call: Call<'_>) -> Result<LineStream, ClientError> {
        let response = self.send(call).await?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(problem(status, &body_of(response).await.unwrap_or_default()));
        }
        Ok(LineStream::new(response.into_body().into_data_stream()))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let text = self.good_text(call).await?;
        serde_json::from_slice(&text).map_err(|e| ClientError::Unknown(e.to_string()))
    }

    async fn good_text(&self, call: Call<'_>) -> Result<Bytes, ClientError> {
        let (status, text) = self.text(call).await?;
        if (200..300).contains(&status) { Ok(text) } else { Err(problem(status, &text)) }
    }

    /// Sends a request, and returns the status and the body of the answer.
    async fn text(&self, call: Call<'_>) -> Result<(u16, Bytes), ClientError> {
        let timeout = call.timeout;
        let answering = async {
            let response = self.send(call).await?;
            let status = response.status().as_u16();
            Ok((status, body_of(response).await.map_err(|error| ClientError::Unknown(last_cause(&error)))?))
        };
        match timeout {
            None => answering.await,
            Some(timeout) => tokio::time::timeout(timeout, answering)
                .await
                .unwrap_or_else(|_| Err(ClientError::Unknown(format!("no answer within {} s", timeout.as_secs())))),
        }
    }

    async fn send(&self, call: Call<'_>) -> Result<Response<Incoming>, ClientError> {
        let Call { method, path, body, import, .. } = call;
        let repeatable = method == Method::GET;
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if import {
            request = request.header("piperoll-import", "1");
        }
        let (media_type, body) = body.unzip();
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|e| ClientError::Protocol(e.to_string()))?;
        let again = repeatable.then(|| request.clone());
        let response = match (self.transport.send(request).await, again) {
            // The node closed the connection before it answered, mostly one of the pool that was idle for long. A request that only reads may
            // be repeated (RFC 9110, section 9.2.2); the pool has dropped this connection.
            (Err(error), Some(again)) if was_closed(&error) => self.transport.send(again).await,
            (answer, _) => answer,
        };
        response.map_err(|error| match root_io_kind(&error) {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) if error.is_connect() => {
                ClientError::Down { place: self.place.to_string() }
            }
            Some(ErrorKind::PermissionDenied) => ClientError::Permission { place: self.place.to_string() },
            _ => ClientError::Unknown(last_cause(&error)),
        })
    }
}

/// Whether an open connection was closed before the answer began.
fn was_closed(error: &hyper_util::client::legacy::Error) -> bool {
    if error.is_connect() {
        return false;
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_incomplete_message)
        || matches!(root_io_kind(error), Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset))
}

async fn body_of(response: Response<Incoming>) -> Result<Bytes, hyper::Error> {
    Ok(response.into_body().collect().await?.to_bytes())
}

fn problem(status: u16, text: &[u8]) -> ClientError {
    ClientError::Refused(serde_json::from_slice(text).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(text);
        Problem::new(status, "error", format!("HTTP status {status}: {}", text.trim()))
    }))
}

fn root_io_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

/// Returns the last cause of an error, which says what happened; the outer errors only say that something failed.
fn last_cause(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A response body that is split into lines.
#[must_use = "no line is read until `next` is called"]
pub struct LineStream {
    body: ByteStream,
    buffer: BytesMut,
}

/// A stream that converts its errors to text.
struct Told<S>(S);

impl<S, E> Stream for Told<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: StdError + 'static,
{
    type Item = Result<Bytes, String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.0).poll_next(cx);
        next.map(|next| next.map(|next| next.map_err(|error| last_cause(&error))))
    }
}

impl LineStream {
    /// Creates a stream of lines from the chunks of a body.
    pub fn new<E: StdError + 'static>(body: impl Stream<Item = Result<Bytes, E>> + Send + 'static) -> Self {
        Self { body: Box::pin(Told(Box::pin(body))), buffer: BytesMut::new() }
    }

    /// Returns the next line without its line ending, or `None` at the end of the body.
    ///
    /// # Errors
    /// The connection failed before the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(searched + at + 1);
                line.truncate(searched + at);
                return Ok(Some(line.freeze()));
            }
            searched = self.buffer.len();
            match std::future::poll_fn(|cx| self.body.as_mut().poll_next(cx)).await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(ClientError::Unknown(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    const HEALTHY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    async fn read_request(stream: &mut UnixStream) -> bool {
        let mut received = Vec::new();
        while !received.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    /// A node that closes every connection as soon as it has read the second request on it. Returns the number of connections.
    async fn closing_node(listener: UnixListener, connections: usize) -> usize {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            if read_request(&mut stream).await {
                stream.write_all(HEALTHY).await.expect("an open connection");
            }
            read_request(&mut stream).await;
        }
        connections
    }

    #[tokio::test]
    async fn a_request_that_only_reads_is_repeated_if_its_connection_was_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let node = tokio::spawn(closing_node(UnixListener::bind(&path).expect("a socket"), 2));
        let client = NodeClient::new(&path).expect("a client");
        client.health().await.expect("a healthy node");
        client.health().await.expect("a healthy node");
        drop(client);
        assert_eq!(node.await.expect("a node"), 2);
    }

    #[tokio::test]
    async fn an_entry_is_not_sent_a_second_time_without_the_caller() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let node = tokio::spawn(closing_node(UnixListener::bind(&path).expect("a socket"), 1));
        let client = NodeClient::new(&path).expect("a client");
        client.health().await.expect("a healthy node");
        let error = client.append(&serde_json::json!({"action": "a"})).await.expect_err("a closed connection");
        assert!(matches!(error, ClientError::Unknown(_)), "{error}");
        assert_eq!(node.await.expect("a node"), 1);
    }
}
