//! Syslog over TCP and TLS, with certainty.
//!
//! Syslog has no acknowledgements. What it has is an end: we say that nothing more will come (`close_notify` and FIN), and a receiver that
//! has read all of it closes in order. One that dies, or is stopped, with something unread makes its kernel send a reset. So a connection
//! that ended in order delivered everything, and every few seconds one is ended to know it. The next one is opened only then, so the order
//! of rows is kept.

use std::sync::Arc;
use std::time::Duration;

use piperoll_shared::net::receiver::receiver_config;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::SyslogTarget;
use super::sink::SinkError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the receiver to take what is sent; one that is stopped takes nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// For the receiver to read the rest and to close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(30);
/// What a receiver says is not read further than this; syslog has no answers.
const CHATTER_BYTES_MAX: usize = 64 * 1024;

trait Connection: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Connection for T {}

pub(super) struct StreamSink {
    target: SyslogTarget,
    connection: Option<Box<dyn Connection>>,
    connector: Option<TlsConnector>,
}

impl StreamSink {
    pub(super) fn new(target: SyslogTarget) -> Self {
        Self { target, connection: None, connector: None }
    }

    pub(super) fn reset(&mut self) {
        // With new files of certificates, if there are any.
        (self.connection, self.connector) = (None, None);
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let written = async {
            connection.write_all(bytes).await?;
            connection.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, written).await {
            Ok(result) => result.map_err(|error| self.problem("the connection broke", error)),
            Err(_) => Err(self.problem("the receiver takes nothing", format!("for {} s", WRITE_TIMEOUT.as_secs()))),
        }
    }

    /// Ends the connection; it ends in order only if everything was read.
    pub(super) async fn confirm(&mut self) -> Result<(), SinkError> {
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let must_say_goodbye = self.target.tls.as_ref().is_some_and(|tls| tls.close_notify);
        let goodbye = async {
            connection.shutdown().await?;
            let mut heard = 0;
            let mut buffer = [0; 1_024];
            loop {
                match connection.read(&mut buffer).await {
                    Ok(0) => return Ok(()),
                    Ok(count) if heard + count <= CHATTER_BYTES_MAX => heard += count,
                    Ok(_) => return Err(std::io::Error::other("it answers, which syslog does not")),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !must_say_goodbye => {
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        match tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.problem(
                "the receiver closed without close_notify, so nobody knows what it has read",
                "rows are sent again; if it always closes like this, leave close_notify = true out",
            )),
            Ok(Err(error)) => Err(self.problem("the receiver ended before it had read everything", error)),
            Err(_) => {
                Err(self
                    .problem("the receiver does not read to the end", format!("for {} s", GOODBYE_TIMEOUT.as_secs())))
            }
        }
    }

    async fn connect(&mut self) -> Result<Box<dyn Connection>, SinkError> {
        let SyslogTarget { host, port, .. } = self.target.clone();
        let connector = self.connector()?;
        let connecting = async {
            let stream =
                TcpStream::connect((host.as_str(), port)).await.map_err(|e| self.problem("no connection", e))?;
            let _ = stream.set_nodelay(true);
            let Some(connector) = connector else { return Ok(Box::new(stream) as Box<dyn Connection>) };
            let name = rustls_pki_types::ServerName::try_from(host.clone())
                .map_err(|e| self.problem("no certificate can name this host", e))?;
            let stream = connector.connect(name, stream).await.map_err(|e| self.problem("TLS", e))?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connection) => connection,
            Err(_) => Err(SinkError::new(
                self.target.place(),
                format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            )),
        }
    }

    fn connector(&mut self) -> Result<Option<TlsConnector>, SinkError> {
        let Some(tls) = &self.target.tls else { return Ok(None) };
        if let Some(connector) = &self.connector {
            return Ok(Some(connector.clone()));
        }
        let own = tls.own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let config = receiver_config(&tls.ca, own).map_err(|error| SinkError(error.to_string()))?;
        // Kept until something goes wrong, so that a session is resumed instead of begun.
        let connector = TlsConnector::from(Arc::new(config));
        self.connector = Some(connector.clone());
        Ok(Some(connector))
    }

    fn problem(&self, what: &str, problem: impl std::fmt::Display) -> SinkError {
        SinkError::new(format!("{}: {what}", self.target.place()), problem)
    }
}
