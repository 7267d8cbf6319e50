//! `aggregator.toml` and the roster: the contents of the files, and the checked configuration that is built from them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use piperoll_archive::record::ArchiveKeys;
use piperoll_archive::store::{Address, AddressError, Credentials};
use piperoll_archive::write::Settings;
pub use piperoll_evidence::bundle::Membership;
use piperoll_evidence::bundle::{KeepPolicy, Moved};
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::mac::{EpochSecret, KeyRing};
use piperoll_format::merkle::decode_hash;
use piperoll_format::note::{KeyKind, SigningSeed, VerifyingKey};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
pub use piperoll_net::config_files::ConfigError;
use piperoll_net::config_files::{self, FileError};
use piperoll_net::identity::{Identity, Kind};
use piperoll_net::telemetry::LogFormat;
use piperoll_net::tls::TlsFiles;
use piperoll_protocol::access::Role;
use piperoll_query::human_time;
use serde::Deserialize;

use crate::access::rate_limit::Rates;
use crate::access::scope::{Scope, Written};
use crate::access::sessions::SESSION_IDLE_DEFAULT;

/// Default interval between polls, five seconds. The rows written since the last poll are the only ones that an intruder on
/// a node can change without being noticed.
const WITNESS_POLL_MS: u64 = 5_000;
/// Default time that a UTC day must have ended before its rows are archived: nodes that were unreachable for a short time are then
/// back.
const ARCHIVE_AFTER: Duration = Duration::from_hours(2);
/// Default interval between two rounds of the archive.
const ARCHIVE_INTERVAL: Duration = Duration::from_mins(10);
/// Shortest time for which archived rows are kept, one day.
const ARCHIVE_KEEP_MIN: Duration = Duration::from_hours(24);
/// Default and maximum exchange interval, one hour. A witness that loses its memory loses at most the pins of one interval.
const WITNESS_EXCHANGE: Duration = Duration::from_hours(1);

/// An aggregator's configuration, ready to use.
#[derive(Clone)]
pub struct AggregatorConfig {
    pub cluster: ClusterName,
    pub id: NodeId,
    pub listen: String,
    pub log_format: LogFormat,
    pub state_dir: PathBuf,
    pub files: TlsFiles,
    pub roster: Vec<RosterNode>,
    /// Retention policies: how long rows have to stay on every node, in ascending order of start time.
    pub retention: Vec<KeepPolicy>,
    /// Public keys of the cluster's witnesses; this aggregator may be one of them.
    pub witnesses: Vec<VerifyingKey>,
    /// Roles and scopes of people with a certificate.
    pub users: HashMap<String, User>,
    pub limits: FanOutLimits,
    /// Configuration of a node to run in the same process.
    pub embedded_node: Option<PathBuf>,
    /// Configurations of nodes that left, whose folders are read in the same process.
    pub kept: Vec<(NodeId, PathBuf)>,
    /// Socket of the node that records this aggregator's own entries.
    pub audit_socket: PathBuf,
    /// Key that cosigns the nodes' checkpoints.
    pub witness_key: SigningSeed,
    /// Key that signs the manifests of evidence bundles.
    pub export_key: SigningSeed,
    /// Interval between two polls of every node's checkpoint.
    pub witness_interval: Duration,
    /// Interval between two rounds of the pin exchange: writing this aggregator's pins and comparing the pins of the others.
    pub witness_exchange: Duration,
    pub rates: Rates,
    /// Time without a request after which a browser is signed out.
    pub session_idle: Duration,
    /// The archive that this aggregator writes.
    pub archive: Option<ArchiveConfig>,
}

/// Archive that an aggregator writes.
#[derive(Clone)]
pub struct ArchiveConfig {
    pub id: NodeId,
    pub cluster: ClusterName,
    pub address: Address,
    pub credentials: Option<Credentials>,
    pub keys: ArchiveKeys,
    /// Time that a UTC day must have ended before its rows are archived.
    pub after: Duration,
    /// Interval between two rounds.
    pub interval: Duration,
    /// Time after which archived rows are removed; `None` keeps them forever.
    pub keep: Option<Duration>,
}

impl ArchiveConfig {
    /// Returns the settings of the archive's writer, whose state is in `dir`.
    pub fn settings(&self, dir: PathBuf) -> Settings {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        Settings {
            cluster: self.cluster.clone(),
            archive: self.id.clone(),
            keys: self.keys.clone(),
            dir,
            host: if host.is_empty() { "unknown".to_owned() } else { host.to_owned() },
        }
    }
}

/// A person with a certificate.
#[derive(Debug, Clone)]
pub struct User {
    pub role: Role,
    pub scope: Scope,
}

/// One expected node.
#[derive(Clone)]
pub struct RosterNode {
    pub id: NodeId,
    pub address: String,
    pub life: Membership,
    /// Recorded changes to the time at which the membership begins or ends.
    pub moved: Vec<Moved>,
    /// Seq of the last row of a node that left.
    pub last_seq: Option<u64>,
    pub ring: KeyRing,
    /// Public key of the node's checkpoints; without it the node cannot be witnessed.
    pub checkpoint_key: Option<[u8; 32]>,
    /// Key that replaces `checkpoint_key`. During the transition, checkpoints carry both signatures.
    pub next_checkpoint_key: Option<[u8; 32]>,
    /// Earlier keys. A checkpoint that was pinned under one of them stays valid.
    pub former_checkpoint_keys: Vec<[u8; 32]>,
}

/// Time limits of a fan-out. Timers count only time spent waiting for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanOutLimits {
    pub connect: Duration,
    pub first_row: Duration,
    /// Longest wait for a complete frame.
    pub idle: Duration,
    /// Limit for a whole page, unless nodes report progress.
    pub page: Duration,
    /// Limit for a page while nodes report progress: a search with few matches reads very many rows.
    pub search: Duration,
}

impl Default for FanOutLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_row: Duration::from_secs(2),
            idle: Duration::from_secs(2),
            page: Duration::from_secs(5),
            search: Duration::from_secs(20),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    cluster: ClusterName,
    id: NodeId,
    listen: String,
    #[serde(default)]
    log_format: LogFormat,
    state_dir: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    crl: PathBuf,
    roster: PathBuf,
    users: Option<PathBuf>,
    secrets_dir: PathBuf,
    embedded_node: Option<PathBuf>,
    #[serde(default)]
    retired: Vec<RawKept>,
    audit_socket: PathBuf,
    witness_key: PathBuf,
    export_key: PathBuf,
    #[serde(default)]
    witness: RawWitness,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    rates: RawRates,
    #[serde(default)]
    session: RawSession,
    archive: Option<RawArchive>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    id: NodeId,
    url: String,
    steps_key: PathBuf,
    mirror_key: PathBuf,
    credentials: Option<PathBuf>,
    after_seconds: Option<u32>,
    interval_seconds: Option<NonZeroU32>,
    keep: Option<String>,
}

/// Folder of a node that left the cluster and whose log this aggregator reads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKept {
    node: NodeId,
    /// Contains the node's `node.toml`, secrets and log.
    folder: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWitness {
    poll_ms: Option<u64>,
    exchange_seconds: Option<NonZeroU32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    connect_ms: Option<u64>,
    first_row_ms: Option<u64>,
    idle_ms: Option<u64>,
    page_ms: Option<u64>,
    search_ms: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRates {
    per_address: Option<NonZeroU32>,
    per_caller: Option<NonZeroU32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSession {
    idle_seconds: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoster {
    /// Format of the roster; missing in rosters of the first version.
    format: Option<String>,
    /// C2SP verification keys.
    #[serde(default)]
    witnesses: Vec<String>,
    #[serde(default)]
    node: Vec<RawNode>,
    #[serde(default)]
    retention: Vec<KeepPolicy>,
}

/// Value of `format` in a roster that this program reads.
const ROSTER_FORMAT: &str = "piperoll roster v2";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    id: NodeId,
    address: String,
    checkpoint_key: Option<String>,
    next_checkpoint_key: Option<String>,
    #[serde(default)]
    former_checkpoint_keys: Vec<String>,
    /// Used together with `first_day` and `last_day` in rosters of the first version.
    #[serde(default)]
    status: RawStatus,
    first_day: Option<String>,
    last_day: Option<String>,
    member_from: Option<Timestamp>,
    member_until: Option<Timestamp>,
    #[serde(default)]
    moved: Vec<Moved>,
    /// Last row of a node that left; shows whether all of its rows were witnessed.
    last_seq: Option<u64>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawStatus {
    #[default]
    Active,
    Retired,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUsers {
    #[serde(default)]
    user: Vec<RawUser>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    name: String,
    role: Role,
    scope: Option<String>,
}

impl AggregatorConfig {
    /// Reads `aggregator.toml`, the roster, the users and every node's secrets.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let typed: RawConfig = config_files::read_toml(path)?;
        let base = config_files::base_of(path);
        let Roster { nodes: roster, retention, witnesses } =
            load_roster(&base.join(&typed.roster), &base.join(&typed.secrets_dir), &typed.cluster)?;
        let users = match &typed.users {
            Some(users) => load_users(&base.join(users))?,
            None => HashMap::new(),
        };
        let mut kept: Vec<(NodeId, PathBuf)> = Vec::new();
        for RawKept { node, folder } in typed.retired {
            let problem = if roster.iter().any(|known| known.id == node) {
                kept.iter().any(|(known, _)| *known == node).then_some("is named twice")
            } else {
                Some("is not in the roster")
            };
            if let Some(problem) = problem {
                let problem = format!("retired: the node {node} {problem}");
                return Err(ConfigError::Content { path: path.to_owned(), problem });
            }
            kept.push((node, base.join(folder).join("node.toml")));
        }
        let limits = typed.limits.check().map_err(|problem| ConfigError::Content { path: path.to_owned(), problem })?;
        let cluster = typed.cluster.clone();
        let archive = typed.archive.map(|archive| archive.open(path, &base, &cluster, &retention)).transpose()?;
        Ok(Self {
            cluster: typed.cluster,
            id: typed.id,
            listen: typed.listen,
            log_format: typed.log_format,
            state_dir: base.join(typed.state_dir),
            files: TlsFiles {
                certificate: base.join(typed.certificate),
                key: config_files::at(&base, &typed.key),
                ca: base.join(typed.ca),
                crl: base.join(typed.crl),
            },
            roster,
            retention,
            witnesses,
            users,
            limits,
            embedded_node: typed.embedded_node.map(|file| base.join(file)),
            kept,
            audit_socket: base.join(typed.audit_socket),
            witness_key: config_files::read_seed(&config_files::at(&base, &typed.witness_key))?,
            export_key: config_files::read_seed(&config_files::at(&base, &typed.export_key))?,
            witness_interval: Duration::from_millis(typed.witness.poll_ms.unwrap_or(WITNESS_POLL_MS).max(1)),
            witness_exchange: typed.witness.exchange_seconds.map_or(WITNESS_EXCHANGE, |seconds| {
                Duration::from_secs(u64::from(seconds.get())).min(WITNESS_EXCHANGE)
            }),
            rates: Rates {
                per_address: typed.rates.per_address.unwrap_or(Rates::default().per_address),
                per_caller: typed.rates.per_caller.unwrap_or(Rates::default().per_caller),
            },
            session_idle: typed
                .session
                .idle_seconds
                .map_or(SESSION_IDLE_DEFAULT, |seconds| Duration::from_secs(seconds.get().into())),
            archive,
        })
    }

    /// Returns the identity that this aggregator's certificate must have.
    pub fn identity(&self) -> Identity {
        Identity::new(&self.cluster, Kind::Aggregator, &self.id)
    }
}

impl RawArchive {
    fn open(
        self,
        path: &Path,
        base: &Path,
        cluster: &ClusterName,
        policies: &[KeepPolicy],
    ) -> Result<ArchiveConfig, ConfigError> {
        let bad =
            |problem: String| ConfigError::Content { path: path.to_owned(), problem: format!("archive: {problem}") };
        let address = self.url.parse().map_err(|error: AddressError| bad(format!("url: {error}")))?;
        let seed = |file: &Path| config_files::read_seed(&config_files::at(base, file));
        let keys = ArchiveKeys::new(cluster, &self.id, &seed(&self.steps_key)?, &seed(&self.mirror_key)?);
        let credentials = self.credentials.map(|file| Credentials::read(&config_files::at(base, &file)));
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let keep = self.keep.as_deref().map(|text| keep(text, policies)).transpose().map_err(bad)?.flatten();
        Ok(ArchiveConfig {
            cluster: cluster.clone(),
            address,
            credentials: credentials.transpose().map_err(|error| bad(error.to_string()))?,
            keys: keys.ok_or_else(|| bad(format!("{:?} cannot be the name of a key", self.id.as_str())))?,
            id: self.id,
            after: self.after_seconds.map_or(ARCHIVE_AFTER, seconds),
            interval: self.interval_seconds.map_or(ARCHIVE_INTERVAL, |interval| seconds(interval.get())),
            keep,
        })
    }
}

/// Reads how long archived rows are kept: at least as long as the cluster's policies require of the nodes.
fn keep(text: &str, policies: &[KeepPolicy]) -> Result<Option<Duration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    let keep = humantime::parse_duration(text)
        .map_err(|error| format!("keep {text:?} is neither \"forever\" nor a duration such as 3650d: {error}"))?;
    if keep < ARCHIVE_KEEP_MIN {
        return Err(format!("keep must be at least 1d, not {text:?}"));
    }
    match policies.iter().find(|policy| keep < ARCHIVE_KEEP_MIN * policy.keep_days) {
        Some(policy) => {
            let days = policy.keep_days;
            Err(format!("keep {text:?} is shorter than the cluster's retention policy of {days} days permits"))
        }
        None => Ok(Some(keep)),
    }
}

impl RawLimits {
    fn check(&self) -> Result<FanOutLimits, String> {
        let default = FanOutLimits::default();
        let pick = |name: &str, typed: Option<u64>, default: Duration| match typed {
            None => Ok(default),
            Some(0) => Err(format!("limits.{name} must be at least 1 millisecond")),
            Some(ms) => Ok(Duration::from_millis(ms)),
        };
        Ok(FanOutLimits {
            connect: pick("connect_ms", self.connect_ms, default.connect)?,
            first_row: pick("first_row_ms", self.first_row_ms, default.first_row)?,
            idle: pick("idle_ms", self.idle_ms, default.idle)?,
            page: pick("page_ms", self.page_ms, default.page)?,
            search: pick("search_ms", self.search_ms, default.search)?,
        })
    }
}

fn load_users(path: &Path) -> Result<HashMap<String, User>, ConfigError> {
    let typed: RawUsers = config_files::read_toml(path)?;
    let user = |typed: RawUser| {
        let bad =
            |problem| ConfigError::Content { path: path.to_owned(), problem: format!("{}: {problem}", typed.name) };
        let scope = Scope::of(typed.role, typed.scope.as_deref(), Written::InFile, SystemClock.now()).map_err(bad)?;
        Ok((typed.name, User { role: typed.role, scope }))
    };
    typed.user.into_iter().map(user).collect()
}

fn load_roster(path: &Path, secrets: &Path, cluster: &ClusterName) -> Result<Roster, ConfigError> {
    let bad = |problem: String| ConfigError::Content { path: path.to_owned(), problem };
    let mut typed: RawRoster = config_files::read_toml(path)?;
    if let Some(format) = typed.format.filter(|format| format != ROSTER_FORMAT) {
        return Err(bad(format!("unknown roster format {format:?}; this program reads {ROSTER_FORMAT:?}")));
    }
    let mut roster: Vec<RosterNode> = Vec::new();
    for node in typed.node {
        if roster.iter().any(|known| known.id == node.id) {
            return Err(bad(format!("node {} is listed twice", node.id)));
        }
        let life = life(&node).map_err(bad)?;
        let ring = KeyRing::new(cluster.clone(), node.id.clone(), epochs(secrets, &node.id)?);
        let key = |text: &String| {
            decode_hash(text)
                .ok_or_else(|| bad(format!("node {}: a checkpoint key must be 32 bytes in base64", node.id)))
        };
        let checkpoint_key = node.checkpoint_key.as_ref().map(key).transpose()?;
        let next_checkpoint_key = node.next_checkpoint_key.as_ref().map(key).transpose()?;
        let former_checkpoint_keys = node.former_checkpoint_keys.iter().map(key).collect::<Result<_, _>>()?;
        roster.push(RosterNode {
            id: node.id,
            address: node.address,
            life,
            moved: node.moved,
            last_seq: node.last_seq,
            ring,
            checkpoint_key,
            next_checkpoint_key,
            former_checkpoint_keys,
        });
    }
    if roster.is_empty() {
        return Err(bad("the roster lists no nodes; add one with `piperoll cluster add-node`".to_owned()));
    }
    roster.sort_by(|a, b| a.id.cmp(&b.id));
    typed.retention.sort_by_key(|policy| policy.from);
    let witness = |text: &String| {
        let key = VerifyingKey::parse(text).ok().filter(|key| key.kind() == KeyKind::Witness);
        key.ok_or_else(|| bad(format!("{text:?} is not a witness key")))
    };
    let witnesses = typed.witnesses.iter().map(witness).collect::<Result<_, _>>()?;
    Ok(Roster { nodes: roster, retention: typed.retention, witnesses })
}

/// Validated content of the roster.
struct Roster {
    nodes: Vec<RosterNode>,
    retention: Vec<KeepPolicy>,
    witnesses: Vec<VerifyingKey>,
}

fn life(node: &RawNode) -> Result<Membership, String> {
    if node.status == RawStatus::Active {
        let from = node.member_from.unwrap_or(Timestamp::MIN);
        let until = node.member_until.unwrap_or(Timestamp::MAX);
        if until < from {
            return Err(format!("node {}: member_from is after member_until", node.id));
        }
        return Ok(Membership { from, until });
    }
    let day = |name: &str, text: &Option<String>| {
        text.as_deref()
            .and_then(human_time::day_range)
            .ok_or_else(|| format!("retired node {} needs {name} = \"YYYY-MM-DD\"", node.id))
    };
    let (from, _) = day("first_day", &node.first_day)?;
    let (_, until) = day("last_day", &node.last_day)?;
    if until <= from {
        return Err(format!("retired node {}: first_day is after last_day", node.id));
    }
    Ok(Membership { from, until })
}

/// Reads the secrets of a node from the files `<node>.<epoch>`.
fn epochs(dir: &Path, id: &NodeId) -> Result<Vec<(u32, EpochSecret)>, ConfigError> {
    let entries = std::fs::read_dir(dir).map_err(|source| FileError::Io { path: dir.to_owned(), source })?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((node, epoch)) = name.to_str().and_then(|n| n.rsplit_once('.')) else { continue };
        let Ok(epoch) = epoch.parse::<u32>() else { continue };
        if node != id.as_str() {
            continue;
        }
        found.push((epoch, config_files::read_secret(&entry.path())?));
    }
    Ok(found)
}
