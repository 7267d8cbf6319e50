//! HTTP/1.1 to the node: over its Unix socket, or over TLS on loopback.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Time after which a node closes idle connections; `HEADER_TIMEOUT` in `piperoll-net`.
const NODE_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which the client closes them. A request that is sent while the node closes the connection fails, and the client cannot tell
/// whether the node has read it, so the client must be first by far.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const _: () = assert!(IDLE_TIMEOUT.as_secs() * 2 <= NODE_IDLE_TIMEOUT.as_secs());

/// Where a node listens.
#[derive(Clone)]
pub(crate) enum Endpoint {
    Socket(Arc<PathBuf>),
    #[cfg(feature = "loopback-https")]
    Https(crate::tls::HttpsEndpoint),
}

/// Opens connections to one endpoint, regardless of the host that a request names.
#[derive(Clone)]
struct Connector(Endpoint);

/// A pool of connections to one endpoint. Clones share it.
#[derive(Clone)]
pub(crate) struct Transport(Arc<Client<Connector, Full<Bytes>>>);

impl Transport {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
        Self(Arc::new(builder.build(Connector(endpoint))))
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.0.request(request).await
    }
}

/// A stream of bytes in both directions.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection of either kind.
struct Opened(Box<dyn Stream>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Opened>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let endpoint = self.0.clone();
        Box::pin(async move {
            let stream: Box<dyn Stream> = match endpoint {
                Endpoint::Socket(path) => Box::new(UnixStream::connect(&*path).await?),
                #[cfg(feature = "loopback-https")]
                Endpoint::Https(endpoint) => Box::new(endpoint.connect().await?),
            };
            Ok(TokioIo::new(Opened(stream)))
        })
    }
}

impl Connection for Opened {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Opened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
