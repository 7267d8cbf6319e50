//! What the witness remembers of a node, on disk before anybody is told.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use piperoll_shared::log::ids::NodeId;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::net::replaced::replace;
use serde::{Deserialize, Serialize};

/// The largest consistent log that was seen of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) origin: String,
    pub(crate) size: u64,
    /// The node's checkpoint with this witness's cosignature.
    pub(crate) note: String,
    /// When it was last seen to hold.
    pub(crate) seen: Timestamp,
}

/// A fork or a rollback. It stays until an operator accepts what happened; a node cannot make it go away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// `fork` or `rollback`.
    pub(crate) verdict: String,
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
    /// The generation that the node presented last, which is what accepting it names.
    pub(crate) generation: String,
    /// The signed note that the node presented last: accepting means this log, at least at this size. Missing in files of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) presented: Option<String>,
}

/// One node's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) pin: Option<Pin>,
    pub(crate) alarm: Option<Alarm>,
}

/// A line of the evidence that is kept for ever: two signed notes that cannot both be true, or an acceptance.
#[derive(Debug, Serialize)]
pub(crate) struct Evidence<'a> {
    pub(crate) at: Timestamp,
    pub(crate) what: &'a str,
    pub(crate) words: &'a str,
    pub(crate) pinned: Option<&'a str>,
    pub(crate) presented: Option<&'a str>,
}

/// `state/witness/<node>.json` and `<node>.evidence.ndjson`.
pub(crate) struct Memory {
    dir: PathBuf,
    node: NodeId,
}

impl Memory {
    pub(crate) fn open(state_dir: &Path, node: &NodeId) -> std::io::Result<(Self, Remembered)> {
        let dir = state_dir.join("witness");
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        }
        let memory = Self { dir, node: node.clone() };
        let path = memory.path();
        let remembered = match std::fs::read(&path) {
            // Forgetting would let a node present any history as the first one.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                std::io::Error::other(format!(
                    "{}: {error}; restore it from a backup: without it nobody knows what this node had signed",
                    path.display()
                ))
            })?,
            // What was witnessed is gone. If evidence against the node remains that nobody accepted, so does the alarm.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let alarm = memory.alarm_of_evidence();
                if let Some(alarm) = &alarm {
                    tracing::error!(%node, reason = alarm.reason, "what was witnessed of a node is gone, and evidence against it remains");
                }
                Remembered { pin: None, alarm }
            }
            Err(error) => return Err(error),
        };
        Ok((memory, remembered))
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.node))
    }

    /// The alarm that the last line of the evidence is about, when it was not accepted since.
    fn alarm_of_evidence(&self) -> Option<Alarm> {
        #[derive(Deserialize)]
        struct Kept {
            at: Timestamp,
            what: String,
            words: String,
            presented: Option<String>,
        }
        let text = std::fs::read_to_string(self.dir.join(format!("{}.evidence.ndjson", self.node))).ok()?;
        let kept: Kept = serde_json::from_str(text.lines().last()?).ok()?;
        if kept.what == "accepted" {
            return None;
        }
        let origin = kept.presented.as_deref().and_then(|note| note.lines().next()).unwrap_or_default();
        let generation = origin.rsplit('/').next().unwrap_or_default().to_owned();
        let reason = format!("{}; what was witnessed before is gone from the state directory", kept.words);
        Some(Alarm { verdict: kept.what, reason, since: kept.at, generation, presented: kept.presented })
    }

    /// Replaces the file whole and synced. A crash here leaves what was remembered before, never less.
    pub(crate) fn store(&self, remembered: &Remembered) -> std::io::Result<()> {
        replace(&self.path(), &serde_json::to_vec_pretty(remembered).unwrap_or_default())
    }

    pub(crate) fn keep(&self, evidence: &Evidence<'_>) -> std::io::Result<()> {
        let path = self.dir.join(format!("{}.evidence.ndjson", self.node));
        let mut line = serde_json::to_vec(evidence).unwrap_or_default();
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.write_all(&line)?;
        file.sync_all()
    }
}
