//! Connects to the aggregator with settings from flags, environment, or `~/.config/piperoll/config.toml`.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::Envelope;
use piperoll_protocol::problem::Problem;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use serde::Deserialize;

use crate::args::ConnectionArgs;
use crate::exit::UsageError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of a page request. The aggregator has a time limit of its own; this limit also covers the network.
pub(crate) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Contents of the settings file; all keys are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    url: Option<String>,
    token: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Client, address and credentials for requests to the aggregator.
pub(crate) struct Connection {
    client: Client,
    url: String,
    /// `None` if only a client certificate is used.
    token: Option<String>,
    ca: PathBuf,
    verbose: bool,
}

/// Answer to a request.
pub(crate) enum Answer<T> {
    Good(T),
    /// 503 with an envelope: no node answered, or the answer is incomplete although completeness was required.
    Unavailable(Box<Envelope>),
}

/// Creates an HTTPS client that trusts only the given authority, and that connects to `address` for the host `name`, regardless
/// of DNS.
pub(crate) fn https_client_at(ca: Option<&Path>, name: &str, address: SocketAddr) -> anyhow::Result<Client> {
    Ok(builder(ca)?.resolve(name, address).build()?)
}

fn builder(ca: Option<&Path>) -> anyhow::Result<ClientBuilder> {
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("piperoll/", env!("CARGO_PKG_VERSION")));
    match ca {
        Some(ca) => {
            let pem = std::fs::read(ca).with_context(|| format!("the CA certificate {}", ca.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| anyhow!("{} contains no PEM certificate; use the cluster's ca.crt", ca.display()))?;
            builder = builder.tls_certs_only(certificates);
        }
        None => bail!("no trusted certificate authority: set --ca or PIPEROLL_CA to the cluster's ca.crt"),
    }
    Ok(builder)
}

/// Reads a client certificate and its key, as created by `cluster add-user`.
fn identity(cert: &Path, key: &Path) -> anyhow::Result<reqwest::Identity> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (mut pem, key_pem) = (zeroize::Zeroizing::new(read(cert)?), zeroize::Zeroizing::new(read(key)?));
    pem.extend_from_slice(b"\n");
    pem.extend_from_slice(&key_pem);
    reqwest::Identity::from_pem(&pem)
        .map_err(|_| anyhow!("{} and {} are not a PEM certificate and its key", cert.display(), key.display()))
}

/// Returns the value of an option. An empty variable counts as not set, as in most shells and tools. An empty flag is an error,
/// because otherwise the command would use the settings file, and possibly another identity than the user intended.
fn given<T: Clone + AsRef<OsStr>>(value: &Option<T>, flag: &str, variable: &str) -> Result<Option<T>, UsageError> {
    match value {
        Some(value) if value.as_ref().is_empty() => {
            let is_variable = std::env::var_os(variable).is_some_and(|value| value.is_empty());
            if is_variable { Ok(None) } else { Err(UsageError(format!("{flag} is empty"))) }
        }
        value => Ok(value.clone()),
    }
}

impl Connection {
    pub(crate) fn open(args: &ConnectionArgs) -> anyhow::Result<Self> {
        let settings = settings()?;
        let missing = |what: &str, flag: &str, variable: &str| {
            UsageError(format!("no {what}: use {flag}, set {variable}, or add it to ~/.config/piperoll/config.toml"))
        };
        let url = given(&args.url, "--url", "PIPEROLL_URL")?.or(settings.url);
        let url = url.ok_or_else(|| missing("aggregator", "--url", "PIPEROLL_URL"))?;
        if !url.starts_with("https://") {
            return Err(UsageError(format!("invalid URL {url:?}: the aggregator serves only https://")).into());
        }
        let token = given(&args.token, "--token", "PIPEROLL_TOKEN")?.or(settings.token);
        let cert = given(&args.cert, "--cert", "PIPEROLL_CERT")?;
        let key = given(&args.key, "--key", "PIPEROLL_KEY")?;
        if cert.is_some() != key.is_some() {
            return Err(UsageError("a client certificate needs both --cert and --key".to_owned()).into());
        }
        let cert = cert.zip(key).or_else(|| settings.cert.zip(settings.key));
        if token.is_none() && cert.is_none() {
            return Err(missing("token or certificate", "--token, or --cert and --key", "PIPEROLL_TOKEN").into());
        }
        let ca = given(&args.ca, "--ca", "PIPEROLL_CA")?.or(settings.ca);
        let ca = ca.ok_or_else(|| missing("CA certificate", "--ca", "PIPEROLL_CA"))?;
        let mut builder = builder(Some(&ca))?;
        if let Some((cert, key)) = &cert {
            builder = builder.identity(identity(cert, key)?);
        }
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { client: builder.build()?, url, token, ca, verbose: args.verbose })
    }

    pub(super) fn is_verbose(&self) -> bool {
        self.verbose
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request. An error response becomes an error with the aggregator's message.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer<Response>> {
        let response = request.send().await.map_err(|error| anyhow!("{}: {}", self.url, explain(&error, &self.ca)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Answer::Good(response));
        }
        let text = response.text().await.unwrap_or_default();
        if let Ok(envelope) = serde_json::from_str::<Envelope>(&text) {
            return Ok(Answer::Unavailable(Box::new(envelope)));
        }
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) if USAGE.contains(&problem.code.as_str()) => Err(UsageError(problem.detail).into()),
            Ok(problem) => bail!("{}", problem.detail),
            Err(_) => bail!("{} answered {status}", self.url),
        }
    }
}

/// Error codes of the aggregator that mean that the request itself is invalid (`QueryError`).
const USAGE: [&str; 6] =
    ["bad_filter", "bad_range", "bad_parameter", "bad_request", "bad_cursor", "cursor_of_another_query"];

fn settings() -> anyhow::Result<Settings> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let Some(path) = base.map(|base| base.join("piperoll/config.toml")) else { return Ok(Settings::default()) };
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).with_context(|| path.display().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

/// Explains why a request failed, and what to do about it. The text of a reqwest error does not state the reason; the errors in
/// its chain of causes do.
fn explain(error: &reqwest::Error, ca: &Path) -> String {
    let tls = tls_error(error);
    match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => bad_certificate(problem, ca),
        Some(rustls::Error::AlertReceived(alert)) => refused_certificate(*alert),
        _ => last_cause(error),
    }
}

/// Finds the TLS error among the causes. `source` of an `io::Error` skips the wrapped error and returns the source of that error,
/// so this function checks the wrapped error too.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.find_map(|cause| match cause.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().and_then(|inner| tls_error(inner)),
        None => cause.downcast_ref::<rustls::Error>(),
    })
}

fn bad_certificate(problem: &rustls::CertificateError, ca: &Path) -> String {
    use rustls::CertificateError as Bad;
    let ca = ca.display();
    match problem {
        Bad::UnknownIssuer | Bad::BadSignature => {
            format!("its certificate was not issued by the CA in {ca}; is that the ca.crt of this cluster?")
        }
        Bad::Expired | Bad::ExpiredContext { .. } => format!(
            "its certificate has expired according to this machine's clock ({}); renew it with `piperoll cluster renew`, or set the clock",
            SystemClock.now()
        ),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => format!(
            "its certificate is not valid yet according to this machine's clock ({}); set the clock",
            SystemClock.now()
        ),
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "its certificate is for another name; use the name or address that the aggregator was added with".to_owned()
        }
        Bad::Revoked => "its certificate was revoked".to_owned(),
        other => format!("its certificate was rejected ({other:?})"),
    }
}

/// Explains the TLS alert with which the aggregator refused the connection.
fn refused_certificate(alert: rustls::AlertDescription) -> String {
    use rustls::AlertDescription as Alert;
    match alert {
        Alert::CertificateExpired => "the aggregator rejected your certificate as expired; renew it with `piperoll cluster renew`, or correct the aggregator's clock".to_owned(),
        Alert::CertificateRevoked => "the aggregator rejected your certificate as revoked".to_owned(),
        Alert::UnknownCA | Alert::BadCertificate | Alert::DecryptError => {
            "the aggregator rejected your certificate; was it issued by this cluster?".to_owned()
        }
        other => format!("the aggregator refused the connection ({other:?})"),
    }
}

/// Returns the last cause of an error.
pub(super) fn last_cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
