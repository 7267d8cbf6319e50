//! Syslog over TCP and TLS, with confirmed delivery.
//!
//! Syslog has no acknowledgements, but a connection can end in order: the node announces that it will send nothing more
//! (`close_notify` and FIN), and a receiver that has read everything closes its side. If a receiver dies or is stopped with
//! unread data, its kernel sends a reset. So an orderly end proves that the receiver has read everything that its kernel had
//! accepted; the node checks first that the kernel had accepted everything (`queue.rs`). Every few seconds, the node ends the
//! connection to confirm delivery, and only then opens the next connection, which keeps the rows in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use piperoll_net::outbound_tls::receiver_config;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::batch::SinkError;
use super::config::SyslogTarget;
use super::queue::{is_known, wait_until_taken};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to wait for the receiver to accept more data; a stopped receiver accepts none.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time to wait for the receiver to read what its kernel has accepted (at most a few megabytes) and to close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes per write.
const CHUNK_BYTES: usize = 64 * 1024;
/// Maximum bytes that are read from a receiver, which should send none because syslog has no responses.
const CHATTER_BYTES_MAX: usize = 64 * 1024;
/// Maximum rows in flight. After each failed confirmation the window is halved; after each successful one it is doubled.
const WINDOW_ROWS_MAX: u64 = 50_000;
const WINDOW_ROWS_MIN: u64 = 100;

/// Time to wait for a reset, which arrives if the receiver closed the connection before it had read everything.
const RESET_PAUSE: Duration = Duration::from_millis(20);

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

struct OpenConnection {
    stream: Stream,
    /// Local and remote address.
    ends: (SocketAddr, SocketAddr),
}

pub(super) struct StreamSink {
    target: SyslogTarget,
    open: Option<OpenConnection>,
    connector: Option<TlsConnector>,
    /// Set if data was sent since the last confirmation. If the connection that carried the data is closed without a
    /// confirmation, the arrival of the data can no longer be confirmed.
    is_sent: bool,
    window: u64,
}

impl StreamSink {
    pub(super) fn new(target: SyslogTarget) -> Self {
        Self { target, open: None, connector: None, is_sent: false, window: WINDOW_ROWS_MAX }
    }

    pub(super) fn reset(&mut self) {
        // Dropping the connector makes the next connection read the certificate files again.
        (self.open, self.connector, self.is_sent) = (None, None, false);
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Sends bytes. If a call is dropped before it completes, the connection is closed, so that a partial message is never
    /// followed by another message.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if self.open.is_none() {
            if self.is_sent {
                return Err(self.problem("the connection was aborted", "the rows sent on it will be sent again"));
            }
            self.open = Some(self.connect().await?);
        }
        self.is_sent = true;
        let Some(mut open) = self.open.take() else { return Ok(()) };
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let written = async {
                match &mut open.stream {
                    Stream::Plain(stream) => stream.write_all(chunk).await,
                    Stream::Tls(stream) => {
                        stream.write_all(chunk).await?;
                        stream.flush().await
                    }
                }
            };
            match tokio::time::timeout(PROGRESS_TIMEOUT, written).await {
                Ok(result) => result.map_err(|error| self.problem("the connection broke", error))?,
                Err(_) => {
                    let timeout = format!("no progress within {} s", PROGRESS_TIMEOUT.as_secs());
                    return Err(self.problem("the receiver is not accepting data", timeout));
                }
            }
        }
        self.open = Some(open);
        Ok(())
    }

    /// Ends the connection and confirms delivery: the connection ends in order only if the receiver has read everything.
    pub(super) async fn confirm(&mut self) -> Result<(), SinkError> {
        if !self.is_sent {
            return Ok(());
        }
        let open = self.open.take();
        let open =
            open.ok_or_else(|| self.problem("the connection was aborted", "the rows sent on it will be sent again"))?;
        let ended = self.end(open).await;
        match ended {
            Ok(()) => (self.is_sent, self.window) = (false, (self.window * 2).min(WINDOW_ROWS_MAX)),
            Err(_) => self.window = (self.window / 2).max(WINDOW_ROWS_MIN),
        }
        ended
    }

    async fn end(&self, OpenConnection { mut stream, ends }: OpenConnection) -> Result<(), SinkError> {
        let must_say_goodbye = self.target.tls.as_ref().is_some_and(|tls| tls.close_notify);
        wait_until_taken(ends, PROGRESS_TIMEOUT)
            .await
            .map_err(|message| self.problem("the receiver did not accept all data", message))?;
        let goodbye = async {
            match &mut stream {
                Stream::Plain(stream) => read_to_end(stream, false).await?,
                Stream::Tls(stream) => {
                    read_to_end(stream.as_mut(), !must_say_goodbye).await?;
                    // `close_notify` announces only that the receiver will send no more data. Whether the receiver has read
                    // everything can be seen only from how the TCP connection ends.
                    read_raw_end(stream.get_mut().0).await?;
                }
            }
            tokio::time::sleep(RESET_PAUSE).await;
            match is_known(ends).await {
                true => Ok(()),
                false => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            }
        };
        match tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.problem(
                "the receiver closed the connection without close_notify, so it is unknown how much it has read",
                "rows will be sent again; if the receiver always closes like this, remove close_notify = true",
            )),
            Ok(Err(error)) => {
                Err(self.problem("the receiver closed the connection before it had read everything", error))
            }
            Err(_) => {
                let message = format!(
                    "not finished within {} s; the next attempt sends less at a time",
                    GOODBYE_TIMEOUT.as_secs()
                );
                Err(self.problem("the receiver did not read everything", message))
            }
        }
    }

    async fn connect(&mut self) -> Result<OpenConnection, SinkError> {
        let SyslogTarget { host, port, .. } = self.target.clone();
        let connector = self.connector()?;
        let connecting = async {
            let stream =
                TcpStream::connect((host.as_str(), port)).await.map_err(|e| self.problem("no connection", e))?;
            let _ = stream.set_nodelay(true);
            let addresses = || Ok::<_, std::io::Error>((stream.local_addr()?, stream.peer_addr()?));
            let ends = addresses().map_err(|e| self.problem("no connection", e))?;
            let Some(connector) = connector else { return Ok(OpenConnection { stream: Stream::Plain(stream), ends }) };
            let name = rustls_pki_types::ServerName::try_from(host.clone())
                .map_err(|e| self.problem("cannot verify a certificate for this host name", e))?;
            let stream = connector.connect(name, stream).await.map_err(|e| self.problem("TLS", e))?;
            Ok(OpenConnection { stream: Stream::Tls(Box::new(stream)), ends })
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connection) => connection,
            Err(_) => Err(self.problem("no connection", format!("within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    fn connector(&mut self) -> Result<Option<TlsConnector>, SinkError> {
        let Some(tls) = &self.target.tls else { return Ok(None) };
        if let Some(connector) = &self.connector {
            return Ok(Some(connector.clone()));
        }
        let own = tls.own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let config = receiver_config(&tls.ca, own).map_err(|error| SinkError(error.to_string()))?;
        // Kept until an error occurs, so that TLS sessions are resumed.
        let connector = TlsConnector::from(Arc::new(config));
        self.connector = Some(connector.clone());
        Ok(Some(connector))
    }

    fn problem(&self, what: &str, problem: impl std::fmt::Display) -> SinkError {
        SinkError::new(format!("{}: {what}", self.target.place()), problem)
    }
}

/// Announces the end of the data, and reads until the other end does the same.
async fn read_to_end(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    may_omit_goodbye: bool,
) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut heard = 0;
    let mut buffer = [0; 1_024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(count) if heard + count <= CHATTER_BYTES_MAX => heard += count,
            Ok(_) => {
                return Err(std::io::Error::other("the receiver sent data, which the syslog protocol does not allow"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && may_omit_goodbye => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Reads until TCP itself ends; a reset is an error.
async fn read_raw_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1_024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
