//! `node.toml`: what is typed, and the checked value it becomes.

use std::path::{Path, PathBuf};

use piperoll_shared::log::ids::{ClusterName, NodeId};
use piperoll_shared::log::seal::KeyRing;
use piperoll_shared::net::files;
pub use piperoll_shared::net::files::ConfigError;
use piperoll_shared::net::identity::{Identity, Kind};
use piperoll_shared::net::telemetry::LogFormat;
use piperoll_shared::net::tls::TlsFiles;
use serde::Deserialize;

use crate::store::LogKeys;

/// Longest path that fits `sockaddr_un` (unix(7)), its closing NUL included.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_MODE_DEFAULT: u32 = 0o660;

/// A node's configuration, ready to use: paths absolute, secrets read.
#[derive(Clone)]
pub struct NodeConfig {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub data_dir: PathBuf,
    pub log_format: LogFormat,
    pub keys: LogKeys,
    pub socket: SocketConfig,
    pub peer: PeerConfig,
    /// Plain HTTP for a scraper on this machine; the socket serves `/metrics` always.
    pub metrics_listen: Option<String>,
}

/// The local socket.
#[derive(Debug, Clone)]
pub struct SocketConfig {
    pub path: PathBuf,
    pub mode: u32,
    pub group: Option<String>,
    /// Who may read through the socket besides root and the daemon's own user. Appending is open to whoever
    /// may connect.
    pub readers: Vec<u32>,
}

/// The mTLS interface for aggregators.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    pub listen: String,
    pub files: TlsFiles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    cluster: ClusterName,
    node_id: NodeId,
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    #[serde(default)]
    log_format: LogFormat,
    secrets: Vec<TypedSecret>,
    checkpoint_key: PathBuf,
    #[serde(default)]
    socket: TypedSocket,
    peer: TypedPeer,
    #[serde(default)]
    metrics: TypedMetrics,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedSecret {
    epoch: u32,
    file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedSocket {
    path: Option<PathBuf>,
    mode: Option<String>,
    group: Option<String>,
    #[serde(default)]
    readers: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedPeer {
    listen: String,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    crl: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedMetrics {
    listen: Option<String>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}

impl NodeConfig {
    /// Reads `node.toml`; relative paths in it are relative to its own folder, so the folder can be copied.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bad = |problem: String| ConfigError::Content { path: path.to_owned(), problem };
        let typed: Typed = files::read_toml(path)?;
        let base = files::base_of(path);
        let mut secrets = Vec::new();
        for secret in &typed.secrets {
            secrets.push((secret.epoch, files::read_secret(&base.join(&secret.file))?));
        }
        if secrets.is_empty() {
            return Err(bad("`secrets` names no secret; a node needs at least epoch 0".to_owned()));
        }
        let keys = LogKeys {
            ring: KeyRing::new(typed.cluster.clone(), typed.node_id.clone(), secrets),
            checkpoint: files::read_seed(&base.join(&typed.checkpoint_key))?,
        };
        let socket = typed.socket.check(&base).map_err(bad)?;
        Ok(Self {
            cluster: typed.cluster,
            node_id: typed.node_id,
            data_dir: base.join(typed.data_dir),
            log_format: typed.log_format,
            keys,
            socket,
            peer: PeerConfig {
                listen: typed.peer.listen,
                files: TlsFiles {
                    certificate: base.join(typed.peer.certificate),
                    key: base.join(typed.peer.key),
                    ca: base.join(typed.peer.ca),
                    crl: base.join(typed.peer.crl),
                },
            },
            metrics_listen: typed.metrics.listen,
        })
    }

    /// Who this node's certificate must say it is.
    pub fn identity(&self) -> Identity {
        Identity::new(&self.cluster, Kind::Node, &self.node_id)
    }
}

impl TypedSocket {
    fn check(self, base: &Path) -> Result<SocketConfig, String> {
        let path = base.join(self.path.unwrap_or_else(|| PathBuf::from("node.sock")));
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(format!(
                "socket.path is {bytes} bytes long, a Unix socket allows {SOCKET_PATH_BYTES_MAX}; set a shorter one, such as /run/piperoll/node.sock"
            ));
        }
        let mode = match &self.mode {
            None => SOCKET_MODE_DEFAULT,
            Some(text) => u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| format!("socket.mode {text:?} is not a mode such as \"0660\""))?,
        };
        Ok(SocketConfig { path, mode, group: self.group, readers: self.readers })
    }
}
