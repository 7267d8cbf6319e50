//! TLS 1.3 between members of one cluster: loads certificate material, checks it, and replaces it as a whole.
//!
//! DNS names are not checked. A peer's identity is the URI in its certificate, and the certificate is accepted only if this
//! cluster's authority signed it, it is within its validity period, and it is not revoked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::sync::watch;

use crate::config_files::{self, FileError};
use crate::identity::{Identity, IdentityError};
use piperoll_format::time::Timestamp;

/// Interval at which the files are checked for changes. A revocation must reach open connections within a minute.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the cryptography provider. All other code obtains the provider from this function.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Paths of a member's certificate material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    /// Mode 0600.
    pub key: PathBuf,
    pub ca: PathBuf,
    /// The authority's revocation list.
    pub crl: PathBuf,
}

/// Error for certificate material that cannot be used; the old material stays in use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {problem}")]
    Material { path: PathBuf, problem: String },
    #[error("{path}: {source}")]
    Identity { path: PathBuf, source: IdentityError },
}

/// All material read from [`TlsFiles`] at one moment and checked for consistency.
pub struct TlsCredentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    pub identity: Identity,
    /// Expiry of our own certificate.
    pub not_after: Timestamp,
}

impl TlsCredentials {
    /// Reads all files. If one of them is invalid, the whole set is rejected, so that a half-updated set is never used.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let bad = |path: &PathBuf, problem: String| TlsError::Material { path: path.clone(), problem };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&config_files::read(&files.certificate)?)
                .collect::<Result<_, _>>()
                .map_err(|e| bad(&files.certificate, format!("not a PEM certificate: {e}")))?;
        let first = chain.first().ok_or_else(|| bad(&files.certificate, "contains no certificate".to_owned()))?;
        let identity = Identity::of_certificate(first)
            .map_err(|source| TlsError::Identity { path: files.certificate.clone(), source })?;
        let not_after = not_after(first)
            .ok_or_else(|| bad(&files.certificate, "cannot parse the certificate's validity dates".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(&config_files::read_private(&files.key)?)
            .map_err(|e| bad(&files.key, format!("not a PEM private key: {e}")))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&config_files::read(&files.ca)?) {
            let authority = authority.map_err(|e| bad(&files.ca, format!("not a PEM certificate: {e}")))?;
            roots.add(authority).map_err(|e| bad(&files.ca, e.to_string()))?;
        }
        let crls = CertificateRevocationListDer::pem_slice_iter(&config_files::read(&files.crl)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(&files.crl, format!("not a PEM revocation list: {e}")))?;
        if crls.is_empty() {
            return Err(bad(&files.crl, "contains no revocation list".to_owned()));
        }
        let material = Self { chain, key, roots: Arc::new(roots), crls, identity, not_after };
        material
            .server_config(ClientAuth::Required)
            .map_err(|e| bad(&files.certificate, format!("the certificate, key and authority do not match: {e}")))?;
        Ok(material)
    }

    /// Returns the configuration of accepted connections. Session resumption is off: a resumed session would skip the check of a
    /// certificate that has been revoked in the meantime.
    pub fn server_config(&self, auth: ClientAuth) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.client_verifier(auth)?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = match auth {
            ClientAuth::Required => vec![b"h2".to_vec()],
            ClientAuth::Optional => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(config)
    }

    /// Returns the verifier for the client certificates of accepted connections. The verifier also rechecks them while a
    /// connection is open.
    pub fn client_verifier(&self, auth: ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .with_crls(self.crls.iter().cloned());
        let builder = match auth {
            ClientAuth::Required => builder,
            ClientAuth::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|e| rustls::Error::General(e.to_string()))
    }

    fn peer_verifier(&self, expected: &Identity) -> PeerVerifier {
        PeerVerifier {
            roots: Arc::clone(&self.roots),
            crls: self.crls.clone(),
            expected: expected.clone(),
            provider: provider(),
        }
    }

    /// Rechecks the certificate chain of a connected peer. The error message states why the chain is no longer acceptable.
    pub fn check_peer(&self, expected: &Identity, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let (first, intermediates) = chain.split_first().ok_or_else(|| "no certificate".to_owned())?;
        self.peer_verifier(expected).check(first, intermediates, UnixTime::now())
    }

    /// Returns the configuration of a connection that we open to exactly this peer.
    pub fn client_config(&self, expected: &Identity) -> Result<ClientConfig, rustls::Error> {
        let verifier = self.peer_verifier(expected);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Whether a client has to present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// For peers: always.
    Required,
    /// For people and programs: they may present a token instead.
    Optional,
}

/// Returns the expiry of a certificate in DER form, or `None` if the certificate cannot be parsed.
pub fn not_after(der: &[u8]) -> Option<Timestamp> {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}

/// Server certificate verifier that accepts exactly one identity. webpki checks the chain, the dates and the revocation list; then the
/// URI must be the one that the roster expects at this address. DNS names are not checked.
#[derive(Debug)]
struct PeerVerifier {
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    expected: Identity,
    provider: Arc<CryptoProvider>,
}

impl PeerVerifier {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), String> {
        let lists: Vec<webpki::CertRevocationList<'_>> = self
            .crls
            .iter()
            .map(|der| webpki::BorrowedCertRevocationList::from_der(der).map(Into::into))
            .collect::<Result<_, _>>()
            .map_err(|e| format!("cannot parse the revocation list: {e}"))?;
        let lists: Vec<&webpki::CertRevocationList<'_>> = lists.iter().collect();
        let revocation = webpki::RevocationOptionsBuilder::new(&lists)
            .map_err(|_| "no revocation list is loaded".to_owned())?
            .with_depth(webpki::RevocationCheckDepth::EndEntity)
            .build();
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(|e| in_words(&e))?;
        certificate
            .verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                webpki::KeyUsage::server_auth(),
                Some(revocation),
                None,
            )
            .map_err(|e| in_words(&e))?;
        let found = Identity::of_certificate(end_entity).map_err(|e| e.to_string())?;
        if found != self.expected {
            return Err(format!("the certificate is for {found}, expected {}", self.expected));
        }
        Ok(())
    }
}

fn in_words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::CertExpired { time, not_after } => format!(
            "the certificate expired {} days ago by this machine's clock: renew it (`piperoll cluster renew`), or fix the clock if it is wrong",
            days_between(*not_after, *time)
        ),
        webpki::Error::CertNotValidYet { time, not_before } => format!(
            "the certificate is not valid yet: its validity begins in {} days by this machine's clock; compare the clocks of both machines",
            days_between(*time, *not_before)
        ),
        webpki::Error::CertRevoked => "the certificate is revoked".to_owned(),
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            "the certificate was not signed by this cluster's authority".to_owned()
        }
        other => format!("the certificate was rejected ({other})"),
    }
}

/// Returns the number of days between two times, rounded up.
fn days_between(from: UnixTime, to: UnixTime) -> u64 {
    to.as_secs().saturating_sub(from.as_secs()).div_ceil(24 * 3_600)
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.check(end_entity, intermediates, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(message) => Err(rustls::Error::General(message)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not supported".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Certificate material in use, replaced as a whole when the files change. If a new file is broken, the old material
/// stays in use and the error is logged.
pub struct TlsStore {
    files: TlsFiles,
    current: watch::Sender<Arc<TlsCredentials>>,
}

impl TlsStore {
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let material = Arc::new(TlsCredentials::load(&files)?);
        Ok(Arc::new(Self { files, current: watch::Sender::new(material) }))
    }

    pub fn current(&self) -> Arc<TlsCredentials> {
        Arc::clone(&self.current.borrow())
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<TlsCredentials>> {
        self.current.subscribe()
    }

    /// Reads the files again immediately.
    pub fn reload(&self) {
        match TlsCredentials::load(&self.files) {
            Ok(material) if material.identity == self.current().identity => {
                tracing::info!(identity = %material.identity, not_after = %material.not_after, "certificate material reloaded");
                self.current.send_replace(Arc::new(material));
            }
            Ok(material) => tracing::error!(
                found = %material.identity, in_use = %self.current().identity,
                "the new certificate has a different identity; keeping the old one"
            ),
            Err(error) => {
                tracing::error!(%error, "cannot use the new certificate material; keeping the old one")
            }
        }
    }

    /// Reloads when a file changes or SIGHUP arrives; runs until dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = self.stamps();
        let mut hangup = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::error!(%error, "cannot listen for SIGHUP; restart to load new certificates");
                return;
            }
        };
        let mut tick = tokio::time::interval(RELOAD_INTERVAL);
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = tick.tick() => false,
            };
            let now = self.stamps();
            if asked || now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn stamps(&self) -> [Option<(SystemTime, u64)>; 4] {
        let files = &self.files;
        [&files.certificate, &files.key, &files.ca, &files.crl].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }
}
