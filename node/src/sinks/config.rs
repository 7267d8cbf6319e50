//! `[[forward]]` in `node.toml`: raw input, and the checked configuration that it becomes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;
use piperoll_siem::{ENTERPRISE_DEFAULT, Format, SYSLOG_BYTES_MIN};
use serde::Deserialize;

use crate::start_at::RawFrom;

/// Longest message that rsyslog accepts by default.
const SYSLOG_BYTES_DEFAULT: usize = 8_192;
/// Upper limit of the configured message size; larger than any entry in any format.
const SYSLOG_BYTES_MAX: usize = 1024 * 1024;
const SYSLOG_TLS_PORT: u16 = 6_514;
const NAME_BYTES_MAX: usize = 64;
/// Default time for which rows may be in flight before the worker confirms that they arrived.
const CONFIRM_EVERY_DEFAULT: Duration = Duration::from_secs(5);
const CONFIRM_EVERY_MIN: Duration = Duration::from_millis(100);
const CONFIRM_EVERY_MAX: Duration = Duration::from_secs(300);

/// One destination.
#[derive(Debug, Clone)]
pub struct ForwardConfig {
    /// Name of the destination in metrics and entries; also the name of its offset file.
    pub name: String,
    pub target: Target,
    pub format: Format,
    /// Filter for intact rows; rows that are not intact are always forwarded.
    pub filter: Filter,
    pub filter_text: String,
    /// Whether to begin with rows that are recorded from now on, instead of with the first row of the log.
    pub from_now: bool,
    pub confirm_every: Duration,
}

/// Kind and address of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Syslog(SyslogTarget),
    File { path: PathBuf },
    Webhook(WebhookTarget),
}

/// RFC 5424 over TCP or TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogTarget {
    pub host: String,
    pub port: u16,
    pub tls: Option<TlsTarget>,
    pub size_max: usize,
    pub enterprise: u32,
}

impl SyslogTarget {
    /// Returns `host:port`, with brackets around an IPv6 address.
    pub(super) fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsTarget {
    pub ca: PathBuf,
    /// The node's own certificate and key, for receivers that require one.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Whether a delivery is accepted only if the receiver confirms that it has read everything (`close_notify`) before it closes
    /// the connection. rsyslog does not send this confirmation. If it is not required, an attacker who can forge packets can drop
    /// data and make the node believe that the data arrived.
    pub close_notify: bool,
}

/// A webhook that receives batches of lines by POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    pub url: reqwest::Url,
    /// File with the token for `Authorization: Bearer`.
    pub token: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

impl Target {
    /// Renders the target for people and for entries, without anything that may be secret.
    pub fn shown(&self) -> String {
        match self {
            Self::Syslog(target) => {
                format!("{}://{}", if target.tls.is_some() { "tls" } else { "tcp" }, target.place())
            }
            Self::File { path } => format!("file://{}", path.display()),
            // Many receivers have a secret in the path.
            Self::Webhook(WebhookTarget { url, .. }) => url.origin().ascii_serialization(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawForward {
    name: String,
    to: String,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    filter: String,
    #[serde(default)]
    from: RawFrom,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    close_notify: Option<bool>,
    token: Option<PathBuf>,
    size_max: Option<usize>,
    enterprise: Option<u32>,
    confirm_every: Option<String>,
}

impl RawForward {
    /// Checks all destinations; the error says which one is wrong.
    pub(crate) fn check_all(typed: Vec<Self>, base: &Path) -> Result<Vec<ForwardConfig>, String> {
        let mut configs: Vec<ForwardConfig> = Vec::new();
        for forward in typed {
            let name = forward.name.clone();
            let config = forward.check(base).map_err(|problem| format!("forward {name:?}: {problem}"))?;
            if configs.iter().any(|other| other.name == config.name) {
                return Err(format!("forward {name:?}: duplicate destination name"));
            }
            configs.push(config);
        }
        Ok(configs)
    }

    fn check(self, base: &Path) -> Result<ForwardConfig, String> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&self.name.len())
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if !is_name {
            return Err(format!("a name must have 1 to {NAME_BYTES_MAX} letters, digits, '-' or '_'"));
        }
        // An age in the filter would mean a different time at every evaluation.
        let filter = Filter::parse_config(&self.filter, Timestamp::MIN).map_err(|e| format!("filter: {e}"))?;
        let confirm_every = match self.confirm_every.as_deref() {
            None => CONFIRM_EVERY_DEFAULT,
            Some(text) => humantime::parse_duration(text)
                .ok()
                .filter(|every| (CONFIRM_EVERY_MIN..=CONFIRM_EVERY_MAX).contains(every))
                .ok_or_else(|| format!("confirm_every {text:?} is not a duration from 100ms to 5m"))?,
        };
        let target = self.target(base)?;
        Ok(ForwardConfig {
            name: self.name,
            target,
            format: self.format,
            filter,
            filter_text: self.filter,
            from_now: self.from == RawFrom::Now,
            confirm_every,
        })
    }

    fn target(&self, base: &Path) -> Result<Target, String> {
        let at = |path: &PathBuf| base.join(path);
        let kinds = "use tls://host:6514, tcp://host:514, file:///path or https://host/path";
        let (scheme, rest) = self.to.split_once("://").ok_or_else(|| format!("`to` has no scheme; {kinds}"))?;
        let (is_tls, is_syslog) = (scheme == "tls", matches!(scheme, "tls" | "tcp"));
        self.refuse_what_does_not_apply(is_tls, is_syslog, matches!(scheme, "https" | "http"))?;
        match scheme {
            "tls" | "tcp" => {
                let (host, port) = host_and_port(rest, is_tls.then_some(SYSLOG_TLS_PORT))?;
                let tls = match (&self.ca, is_tls) {
                    (_, false) => None,
                    (None, true) => {
                        return Err(
                            "`ca` is missing; set it to the CA that issued the receiver's certificate".to_owned()
                        );
                    }
                    (Some(ca), true) => Some(TlsTarget {
                        ca: at(ca),
                        own: match (&self.certificate, &self.key) {
                            (Some(certificate), Some(key)) => Some((at(certificate), at(key))),
                            (None, None) => None,
                            _ => return Err("`certificate` and `key` must be set together".to_owned()),
                        },
                        close_notify: self.close_notify.unwrap_or(false),
                    }),
                };
                let size_max = self.size_max.unwrap_or(SYSLOG_BYTES_DEFAULT);
                if !(SYSLOG_BYTES_MIN..=SYSLOG_BYTES_MAX).contains(&size_max) {
                    return Err(format!(
                        "size_max must be {SYSLOG_BYTES_MIN} to {SYSLOG_BYTES_MAX} bytes, not {size_max}"
                    ));
                }
                let enterprise = self.enterprise.unwrap_or(ENTERPRISE_DEFAULT);
                Ok(Target::Syslog(SyslogTarget { host, port, tls, size_max, enterprise }))
            }
            "file" if rest.starts_with('/') => Ok(Target::File { path: PathBuf::from(rest) }),
            "file" => Err("a file needs an absolute path: file:///var/log/piperoll.ndjson".to_owned()),
            "https" | "http" => {
                let url = reqwest::Url::parse(&self.to).map_err(|e| format!("`to` is not a valid address: {e}"))?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err("`to` must not contain a user or password, because it is displayed; put a token into the file that `token` names".to_owned());
                }
                let host = url.host_str().unwrap_or_default();
                let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                if scheme == "http" && !is_here {
                    return Err("http:// is allowed only for this machine (127.0.0.1); use https://".to_owned());
                }
                Ok(Target::Webhook(WebhookTarget {
                    url,
                    token: self.token.as_ref().map(at),
                    ca: self.ca.as_ref().map(at),
                }))
            }
            other => Err(format!("unsupported scheme {other:?}; {kinds}")),
        }
    }

    /// Refuses a setting that has no effect for this scheme: it is a mistake, and an operator might believe that something is
    /// encrypted.
    fn refuse_what_does_not_apply(&self, is_tls: bool, is_syslog: bool, is_web: bool) -> Result<(), String> {
        for (name, is_set, applies) in [
            ("ca", self.ca.is_some(), is_tls || is_web),
            ("certificate", self.certificate.is_some(), is_tls),
            ("key", self.key.is_some(), is_tls),
            ("close_notify", self.close_notify.is_some(), is_tls),
            ("token", self.token.is_some(), is_web),
            ("size_max", self.size_max.is_some(), is_syslog),
            ("enterprise", self.enterprise.is_some(), is_syslog),
        ] {
            if is_set && !applies {
                // The address may hold a secret.
                let scheme = self.to.split_once("://").map_or("", |(scheme, _)| scheme);
                return Err(format!("`{name}` does not apply to {scheme}://"));
            }
        }
        Ok(())
    }
}

fn host_and_port(text: &str, default: Option<u16>) -> Result<(String, u16), String> {
    let text = text.trim_end_matches('/');
    let bad = || format!("{text:?} is not of the form host:port");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
            (host, Some(port.parse().map_err(|_| bad())?))
        }
        _ => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        return Err(bad());
    }
    Ok((host.to_owned(), port.or(default).ok_or_else(bad)?))
}
