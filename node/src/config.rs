//! `node.toml`: raw input, and the checked configuration that it becomes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use piperoll_detect::Rules;
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::limits::{RETENTION_DAYS_DEFAULT, RETENTION_DAYS_MAX, RETENTION_DAYS_MIN};
use piperoll_format::mac::KeyRing;
use piperoll_format::note::{KeyKind, VerifyingKey};
use piperoll_net::config_files;
pub use piperoll_net::config_files::ConfigError;
use piperoll_net::identity::{Identity, Kind};
use piperoll_net::telemetry::LogFormat;
use piperoll_net::tls::TlsFiles;
use piperoll_redact::Redactor;
use serde::Deserialize;

use crate::sinks::{ForwardConfig, RawForward};
use crate::sources::{IntakeConfig, RawIntake};
use crate::store::LogKeys;

/// Longest path that `sockaddr_un` can hold (unix(7)): 108 bytes, less the terminating NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_MODE_DEFAULT: u32 = 0o660;
const SECONDS_PER_DAY: u64 = 86_400;
const GIB: f64 = 1_073_741_824.0;
const RETENTION_EVERY_MIN: Duration = Duration::from_secs(1);

/// A node's configuration, ready to use: paths are absolute, and secrets have been read.
#[derive(Clone)]
pub struct NodeConfig {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub data_dir: PathBuf,
    /// Directory of `node.toml` and of the keys that are stored next to it.
    pub folder: PathBuf,
    pub log_format: LogFormat,
    pub keys: LogKeys,
    pub socket: SocketConfig,
    pub http: HttpConfig,
    pub peer: PeerConfig,
    /// Address that serves `/metrics` as plain HTTP to a scraper on this machine; the socket always serves `/metrics`.
    pub metrics_listen: Option<String>,
    pub retention: RetentionConfig,
    /// Detection rules.
    pub flags: Rules,
    /// Masks secrets that callers should not have sent.
    pub redactor: Redactor,
    /// Destinations that entries are forwarded to.
    pub forward: Vec<ForwardConfig>,
    /// Sources besides the socket.
    pub intake: Vec<IntakeConfig>,
}

/// How long rows are retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Number of days for which rows are kept; `None` keeps them forever.
    pub keep_days: Option<u32>,
    /// Maximum size of the database in bytes; above it, the oldest rows are pruned, but never rows younger than 90 days.
    pub size_max: Option<u64>,
    /// Interval between retention runs.
    pub every: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { keep_days: Some(RETENTION_DAYS_DEFAULT), size_max: None, every: Duration::from_hours(24) }
    }
}

/// Default limit on the bytes of entries that one user other than root may append per hour: more than a correctly working
/// application records, and too little to fill a disk before an operator notices.
const BYTES_PER_HOUR_DEFAULT: u64 = 4 * 1024 * 1024 * 1024;

/// The local socket.
#[derive(Debug, Clone)]
pub struct SocketConfig {
    pub path: PathBuf,
    pub mode: u32,
    pub group: Option<String>,
    /// User ids that may read through the socket, besides root and the daemon's own user. Any client that may connect may append.
    pub readers: Vec<u32>,
    /// Bytes of entries that one user or token may append per hour; `None` means no limit.
    pub bytes_per_hour: Option<u64>,
}

/// Recording over HTTPS, for clients that cannot reach the socket.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// A loopback address of this machine; `None` disables the listener.
    pub listen: Option<SocketAddr>,
    /// Path of the token file.
    pub tokens: PathBuf,
}

/// The mTLS interface for aggregators.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    pub listen: String,
    pub files: TlsFiles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    cluster: ClusterName,
    node_id: NodeId,
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    #[serde(default)]
    log_format: LogFormat,
    secrets: Vec<RawSecret>,
    checkpoint_key: PathBuf,
    next_checkpoint_key: Option<PathBuf>,
    #[serde(default)]
    socket: RawSocket,
    #[serde(default)]
    http: RawHttp,
    peer: RawPeer,
    #[serde(default)]
    metrics: RawMetrics,
    #[serde(default)]
    retention: RawRetention,
    #[serde(default)]
    flags: Rules,
    #[serde(default)]
    redact: RawRedact,
    #[serde(default)]
    forward: Vec<RawForward>,
    #[serde(default)]
    intake: Vec<RawIntake>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRedact {
    /// Additional names of secrets.
    #[serde(default)]
    keys: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRetention {
    keep: Option<String>,
    size_max_gib: Option<f64>,
    every: Option<String>,
    archive_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecret {
    epoch: u32,
    file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSocket {
    path: Option<PathBuf>,
    mode: Option<String>,
    group: Option<String>,
    #[serde(default)]
    readers: Vec<u32>,
    bytes_per_hour: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    listen: Option<SocketAddr>,
    tokens: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    listen: String,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    crl: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetrics {
    listen: Option<String>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}

/// File next to `node.toml` with the public keys of the cluster's witnesses, one C2SP verification key per line. `piperoll cluster`
/// writes it.
const WITNESSES: &str = "witnesses";

/// Reads the witnesses' keys. A directory from an older version has no such file; without it, nothing is pruned automatically,
/// and the node's status shows the reason.
fn read_witnesses(path: &Path) -> Result<Vec<VerifyingKey>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|line| {
        let key = VerifyingKey::parse(line).ok().filter(|key| key.kind() == KeyKind::Witness);
        key.ok_or_else(|| {
            format!(
                "{}: {line:?} is not a valid witness key; copy the file from the cluster directory again",
                path.display()
            )
        })
    });
    keys.collect()
}

impl NodeConfig {
    /// Reads `node.toml`; relative paths in it are relative to its own folder, so the folder can be copied.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bad = |problem: String| ConfigError::Content { path: path.to_owned(), problem };
        let typed: RawConfig = config_files::read_toml(path)?;
        let base = config_files::base_of(path);
        let mut secrets = Vec::new();
        for secret in &typed.secrets {
            secrets.push((secret.epoch, config_files::read_secret(&config_files::at(&base, &secret.file))?));
        }
        if secrets.is_empty() {
            return Err(bad("`secrets` is empty; a node needs at least the secret of epoch 0".to_owned()));
        }
        let keys = LogKeys {
            ring: KeyRing::new(typed.cluster.clone(), typed.node_id.clone(), secrets),
            checkpoint: config_files::read_seed(&config_files::at(&base, &typed.checkpoint_key))?,
            next_checkpoint: match &typed.next_checkpoint_key {
                None => None,
                Some(file) => Some(config_files::read_seed(&config_files::at(&base, file))?),
            },
            witnesses: read_witnesses(&base.join(WITNESSES)).map_err(bad)?,
            archive: typed.retention.archive_key.as_deref().map(archive_key).transpose().map_err(bad)?,
        };
        let socket = typed.socket.check(&base).map_err(bad)?;
        if let Some(listen) = typed.http.listen.filter(|listen| !listen.ip().is_loopback()) {
            return Err(bad(format!(
                "http.listen is {listen}, which other machines can reach; entries are accepted only from this machine, so use 127.0.0.1 or [::1]"
            )));
        }
        let retention = typed.retention.check().map_err(bad)?;
        typed.flags.check().map_err(bad)?;
        let redactor = Redactor::new(&typed.redact.keys).map_err(|e| bad(format!("redact.keys: {e}")))?;
        let intake = RawIntake::check_all(typed.intake, &base).map_err(bad)?;
        let forward = RawForward::check_all(typed.forward, &base).map_err(bad)?;
        Ok(Self {
            cluster: typed.cluster,
            node_id: typed.node_id,
            data_dir: base.join(typed.data_dir),
            folder: base.clone(),
            log_format: typed.log_format,
            keys,
            socket,
            http: HttpConfig {
                listen: typed.http.listen,
                tokens: base.join(typed.http.tokens.unwrap_or_else(|| PathBuf::from("recording-tokens.toml"))),
            },
            peer: PeerConfig {
                listen: typed.peer.listen,
                files: TlsFiles {
                    certificate: base.join(typed.peer.certificate),
                    key: config_files::at(&base, &typed.peer.key),
                    ca: base.join(typed.peer.ca),
                    crl: base.join(typed.peer.crl),
                },
            },
            metrics_listen: typed.metrics.listen,
            retention,
            flags: typed.flags,
            redactor,
            forward,
            intake,
        })
    }

    /// Returns the identity that this node's certificate must have.
    pub fn identity(&self) -> Identity {
        Identity::new(&self.cluster, Kind::Node, &self.node_id)
    }
}

/// Parses the mirror key of an archive.
fn archive_key(text: &str) -> Result<VerifyingKey, String> {
    let key = VerifyingKey::parse(text.trim()).ok().filter(|key| key.kind() == KeyKind::Witness);
    key.ok_or_else(|| {
        format!("retention.archive_key {text:?} is not the mirror key of an archive; `piperoll cluster add-archive` prints it")
    })
}

impl RawRetention {
    fn check(self) -> Result<RetentionConfig, String> {
        let default = RetentionConfig::default();
        let duration = |name: &str, text: &str| {
            humantime::parse_duration(text)
                .map_err(|e| format!("retention.{name} {text:?} is not a duration such as 365d: {e}"))
        };
        let keep_days = match self.keep.as_deref() {
            None => default.keep_days,
            Some("forever") => None,
            Some(text) => {
                let days = duration("keep", text)?.as_secs() / SECONDS_PER_DAY;
                let days = u32::try_from(days).unwrap_or(u32::MAX);
                if !(RETENTION_DAYS_MIN..=RETENTION_DAYS_MAX).contains(&days) {
                    return Err(format!(
                        "retention.keep must be {RETENTION_DAYS_MIN}d to {RETENTION_DAYS_MAX}d or \"forever\", not {text:?}"
                    ));
                }
                Some(days)
            }
        };
        let size_max = match self.size_max_gib {
            None => None,
            // The range check makes the value non-negative and far below 2^64.
            Some(gib) if (0.001..=1_000_000.0).contains(&gib) => Some((gib * GIB) as u64),
            Some(gib) => return Err(format!("retention.size_max_gib must be 0.001 to 1000000, not {gib}")),
        };
        let every = self.every.as_deref().map_or(Ok(default.every), |text| duration("every", text))?;
        if every < RETENTION_EVERY_MIN {
            return Err(format!("retention.every must be at least {} s", RETENTION_EVERY_MIN.as_secs()));
        }
        Ok(RetentionConfig { keep_days, size_max, every })
    }
}

impl RawSocket {
    fn check(self, base: &Path) -> Result<SocketConfig, String> {
        let path = base.join(self.path.unwrap_or_else(|| PathBuf::from("node.sock")));
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(format!(
                "socket.path is {bytes} bytes long, but a Unix socket allows at most {SOCKET_PATH_BYTES_MAX}; set a shorter one, such as /run/piperoll/node.sock"
            ));
        }
        let mode = match &self.mode {
            None => SOCKET_MODE_DEFAULT,
            Some(text) => u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| format!("socket.mode {text:?} is not a mode such as \"0660\""))?,
        };
        let bytes_per_hour = match self.bytes_per_hour {
            None => Some(BYTES_PER_HOUR_DEFAULT),
            Some(0) => None,
            some => some,
        };
        Ok(SocketConfig { path, mode, group: self.group, readers: self.readers, bytes_per_hour })
    }
}
