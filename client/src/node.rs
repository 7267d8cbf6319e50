//! The node on this machine: HTTP/1.1 over its Unix socket, or HTTPS on loopback with a token.

use std::path::Path;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use piperoll_protocol::node::{BatchReport, GapReport, NDJSON, NodeStatus, Receipt, ScanRequest, socket_path};
use piperoll_protocol::problem::Problem;
use reqwest::{Client, RequestBuilder, Response};

use super::ClientError;

/// A durable commit takes milliseconds; a node that needs longer than this is in trouble.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the node on this machine.
#[derive(Clone)]
pub struct NodeClient {
    client: Client,
    /// In front of every path.
    base: String,
    /// For messages: the socket's path or the address.
    place: String,
    token: Option<String>,
}

/// The token stays out of everything that is printed.
impl std::fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClient").field("place", &self.place).finish_non_exhaustive()
    }
}

impl NodeClient {
    /// Does not connect yet.
    pub fn new(path: &Path) -> Result<Self, ClientError> {
        have_a_provider();
        let client = Client::builder()
            .unix_socket(path)
            // No TLS is spoken here, so no roots are needed: a container without any must work.
            .tls_certs_only(std::iter::empty())
            // The environment's proxies must not see audit traffic, nor may a redirect lead it elsewhere.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| ClientError::Protocol(e.to_string()))?;
        Ok(Self { client, base: "http://node".to_owned(), place: path.display().to_string(), token: None })
    }

    /// For whoever cannot reach the socket, such as a container: `address` is `127.0.0.1:7403` or so, `ca` the cluster's
    /// authority in PEM, `token` what `piperoll node token` printed.
    pub fn over_https(address: &str, ca: &[u8], token: &str) -> Result<Self, ClientError> {
        have_a_provider();
        let wrong = |e: reqwest::Error| ClientError::Protocol(in_words(&e));
        let client = Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(ca).map_err(wrong)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(wrong)?;
        let (base, place) = (format!("https://{address}"), format!("https://{address}"));
        Ok(Self { client, base, place, token: Some(token.to_owned()) })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.authorized(self.client.get(self.url(path)))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.authorized(self.client.post(self.url(path)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Records one entry; returns after it is on disk.
    pub async fn append(&self, entry: &serde_json::Value) -> Result<Receipt, ClientError> {
        let request = self.post(socket_path::ENTRIES).timeout(APPEND_TIMEOUT).json(entry);
        self.json(request).await
    }

    /// Records a batch of NDJSON lines, at most `BATCH_LINES_MAX`; every line gets its own result.
    pub async fn append_lines(&self, lines: Vec<u8>, import: bool) -> Result<BatchReport, ClientError> {
        let mut request = self
            .post(socket_path::ENTRIES)
            .timeout(APPEND_TIMEOUT)
            .header(reqwest::header::CONTENT_TYPE, NDJSON)
            .body(lines);
        if import {
            request = request.header("piperoll-import", "1");
        }
        let response = self.send(request).await?;
        let status = response.status();
        let text = response.text().await.map_err(|e| ClientError::Unknown(in_words(&e)))?;
        // A full disk or a stopping node reports per line as well, with the status of the cause.
        serde_json::from_str(&text).map_err(|_| problem(status.as_u16(), &text))
    }

    /// Says that events were lost; returns after the node's entry about it is on disk.
    pub async fn report_gap(&self, report: &GapReport) -> Result<Receipt, ClientError> {
        self.json(self.post(socket_path::GAPS).timeout(APPEND_TIMEOUT).json(report)).await
    }

    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.json(self.get(socket_path::STATUS).timeout(STATUS_TIMEOUT)).await
    }

    /// `Ok` while the node records entries.
    pub async fn health(&self) -> Result<(), ClientError> {
        let response = self.send(self.get(socket_path::HEALTHZ).timeout(STATUS_TIMEOUT)).await?;
        checked(response).await.map(|_| ())
    }

    /// The newest checkpoint, a signed note; signed now when it is time to.
    pub async fn checkpoint(&self) -> Result<String, ClientError> {
        let request = self.get(socket_path::CHECKPOINT).timeout(STATUS_TIMEOUT);
        let response = checked(self.send(request).await?).await?;
        response.text().await.map_err(|e| ClientError::Unknown(in_words(&e)))
    }

    /// Rows as NDJSON lines, ending with a `final` line.
    pub async fn scan(&self, request: &ScanRequest) -> Result<LineStream, ClientError> {
        self.lines(self.post(socket_path::SCAN).json(request)).await
    }

    /// A full check as NDJSON lines, ending with a `final` line.
    pub async fn verify(&self) -> Result<LineStream, ClientError> {
        self.lines(self.get(socket_path::VERIFY)).await
    }

    /// Asks for something that only root and the node's own user may do; see `socket_path`.
    pub async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.get(path)).await
    }

    /// The same with a request.
    pub async fn order<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        request: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        self.json(self.post(path).json(request)).await
    }

    async fn lines(&self, request: RequestBuilder) -> Result<LineStream, ClientError> {
        let response = checked(self.send(request).await?).await?;
        Ok(LineStream::new(response))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = checked(self.send(request).await?).await?;
        response.json().await.map_err(|e| ClientError::Unknown(in_words(&e)))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| {
            let kind = root_io_kind(&error);
            match kind {
                Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) if error.is_connect() => {
                    ClientError::Down { place: self.place.clone() }
                }
                Some(std::io::ErrorKind::PermissionDenied) => ClientError::Permission { place: self.place.clone() },
                _ => ClientError::Unknown(in_words(&error)),
            }
        })
    }
}

/// An application that chose no cryptography for its process gets ours; one that did keeps its own.
fn have_a_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Lost against another thread that does the same.
        let _ = rustls::crypto::CryptoProvider::install_default(std::sync::Arc::unwrap_or_clone(
            piperoll_net::tls::provider(),
        ));
    }
}

async fn checked(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    Err(problem(status.as_u16(), &text))
}

fn problem(status: u16, text: &str) -> ClientError {
    match serde_json::from_str(text) {
        Ok(problem) => ClientError::Refused(problem),
        Err(_) => ClientError::Refused(Problem::new(status, "error", format!("HTTP status {status}: {}", text.trim()))),
    }
}

fn root_io_kind(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

/// The last cause says what happened; reqwest's own text only says that something did.
fn in_words(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

type ByteStream = std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>;

/// A response body cut into lines.
pub struct LineStream {
    body: ByteStream,
    buffer: bytes::BytesMut,
}

impl LineStream {
    pub fn new(response: Response) -> Self {
        Self { body: Box::pin(response.bytes_stream()), buffer: bytes::BytesMut::new() }
    }

    /// The next line without its end; `None` at the end of the body.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(searched + at + 1);
                line.truncate(searched + at);
                return Ok(Some(line.freeze()));
            }
            searched = self.buffer.len();
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(ClientError::Unknown(in_words(&error))),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }
}
