//! TLS client for systems outside of the cluster. It checks the server's certificate against the receiver's CA and the DNS name.

use std::path::Path;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config_files;
use crate::tls::{TlsError, provider};

/// Builds a TLS 1.3 or 1.2 client configuration that accepts a server only if its certificate was issued by `ca` for the name
/// that the client connects to. `own` names the files of our certificate chain and of its key (mode 0600), for receivers that
/// require a client certificate.
pub fn receiver_config(ca: &Path, own: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsError> {
    let bad = |path: &Path, problem: String| TlsError::Material { path: path.to_owned(), problem };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        CertificateDer::pem_slice_iter(&config_files::read(path)?)
            .collect::<Result<_, _>>()
            .map_err(|e| bad(path, format!("not a PEM certificate: {e}")))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|e| bad(ca, format!("not a CA certificate: {e}")))?;
    }
    if roots.is_empty() {
        return Err(bad(ca, "contains no certificate".to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(provider())
        // TLS 1.2 is included because rsyslog in Debian 12 and many SIEMs support nothing newer.
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| bad(ca, e.to_string()))?
        .with_root_certificates(roots);
    match own {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_slice(&config_files::read_private(key)?)
                .map_err(|e| bad(key, format!("not a PEM private key: {e}")))?;
            builder.with_client_auth_cert(chain, secret).map_err(|e| bad(certificate, e.to_string()))
        }
    }
}
