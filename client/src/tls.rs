//! TLS to a node on loopback, verified with the cluster's CA.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::ClientError;

/// Time limit for the TCP connection and the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Address and expected name of a node, and the CA that must have issued its certificate.
#[derive(Clone)]
pub(crate) struct HttpsEndpoint {
    address: Arc<str>,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl HttpsEndpoint {
    /// Creates an endpoint; `address` is `HOST:PORT`, `ca` the PEM text of the CA.
    pub(crate) fn new(address: &str, ca: &[u8]) -> Result<Self, ClientError> {
        let wrong = |problem: String| ClientError::Protocol(problem);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            let certificate = certificate.map_err(|e| wrong(format!("the CA is not valid PEM: {e}")))?;
            roots.add(certificate).map_err(|e| wrong(format!("invalid CA certificate: {e}")))?;
        }
        if roots.is_empty() {
            return Err(wrong("the CA contains no PEM certificate".to_owned()));
        }
        // Use the crypto provider that the application has installed, if there is one.
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (host, _) = address.rsplit_once(':').ok_or_else(|| wrong(format!("{address:?} is not HOST:PORT")))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|e| wrong(format!("{host:?}: {e}")))?;
        Ok(Self { address: address.into(), name, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(crate) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let connecting = async {
            let stream = TcpStream::connect(&*self.address).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(self.name.clone(), stream).await
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}
