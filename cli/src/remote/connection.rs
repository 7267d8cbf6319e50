//! Reaching the aggregator: flags, environment, then `~/.config/piperoll/config.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use piperoll_shared::api::aggregator::Envelope;
use piperoll_shared::api::problem::Problem;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use serde::Deserialize;

use crate::args::ConnectionArgs;
use crate::exit::UsageError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A page answers within the aggregator's own limit; this is for the way there and back.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings file; every key may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    url: Option<String>,
    token: Option<String>,
    ca: Option<PathBuf>,
}

/// Where to ask, and with what.
pub(crate) struct Connection {
    client: Client,
    url: String,
    token: String,
}

/// What a page request gave.
pub(crate) enum Answer<T> {
    Good(T),
    /// 503 with an envelope: not complete though asked to be, or nobody answered.
    Unavailable(Box<Envelope>),
}

/// TLS that trusts only the given authority, or the system's when none is given.
pub(crate) fn https_client(ca: Option<&Path>) -> anyhow::Result<Client> {
    Ok(builder(ca)?.build()?)
}

/// The same, for one name at one address, whatever DNS says.
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
            let pem = std::fs::read(ca).with_context(|| format!("the authority {}", ca.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).with_context(|| ca.display().to_string())?;
            builder = builder.tls_certs_only(certificates);
        }
        None => bail!("no authority to trust: give --ca or set PIPEROLL_CA to the cluster's ca.crt"),
    }
    Ok(builder)
}

impl Connection {
    pub(crate) fn open(args: &ConnectionArgs) -> anyhow::Result<Self> {
        let settings = settings()?;
        let missing = |what: &str, flag: &str, variable: &str| {
            anyhow!("no {what}: give {flag}, set {variable}, or write it in ~/.config/piperoll/config.toml")
        };
        let url = args.url.clone().or(settings.url).ok_or_else(|| missing("aggregator", "--url", "PIPEROLL_URL"))?;
        if !url.starts_with("https://") {
            bail!("the aggregator speaks https only; {url:?} does not begin with https://");
        }
        let token =
            args.token.clone().or(settings.token).ok_or_else(|| missing("token", "--token", "PIPEROLL_TOKEN"))?;
        let ca = args.ca.clone().or(settings.ca).ok_or_else(|| missing("authority", "--ca", "PIPEROLL_CA"))?;
        Ok(Self { client: https_client(Some(&ca))?, url: url.trim_end_matches('/').to_owned(), token })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends; an error answer becomes an error with the aggregator's own words.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer<Response>> {
        let response = request.send().await.map_err(|error| anyhow!("{}: {}", self.url, last_cause(&error)))?;
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

/// Codes of an aggregator that say that the question itself is wrong (`QueryError`).
const USAGE: [&str; 5] = ["bad_filter", "bad_range", "bad_parameter", "bad_cursor", "cursor_of_another_query"];

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

/// reqwest's own text only says that something failed; its last cause says what.
pub(super) fn last_cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
