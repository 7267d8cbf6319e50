//! The manifest: what was asked, what the exporter says became of it, and a digest of every other member. A signed note
//! whose text is the format's name and one JSON object.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::names::{EARLIER_LOGS_MAX, FORMAT, FORMAT_2, MANIFEST_BYTES_MAX, MANIFEST_SIGNATURES_MAX, NODES_MAX};
use piperoll_format::ids::ClusterName;
use piperoll_format::note::{Note, NoteError, SigningKey};
use piperoll_format::time::Timestamp;

/// The signed statement of the exporter. Everything in it that can be recomputed is recomputed by a verifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub cluster: ClusterName,
    /// The name of the aggregator's key.
    pub exporter: String,
    /// Program and version.
    pub tool: String,
    pub created: Timestamp,
    pub asked: Asked,
    /// Every expected node is in the bundle with everything that was asked for.
    pub complete: bool,
    pub rows: u64,
    /// All nodes of the exporter's roster that had a part in the range, by id.
    pub nodes: Vec<NodePart>,
    /// All other members, in their order.
    pub members: Vec<MemberDigest>,
}

/// What was asked, by whom, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub by: String,
    pub reason: String,
    /// Canonical filter text; empty for everything.
    pub filter: String,
    /// Half-open.
    pub from: Timestamp,
    pub to: Timestamp,
    /// What was to be done about missing nodes: `refuse`, `wait` or `partial`.
    pub incomplete: String,
}

/// What the exporter says about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePart {
    pub node_id: String,
    /// `ok`, or why its part is missing or not whole.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the witness concludes about its log.
    pub verdict: String,
    /// Of its present log; none when nothing of it could be read or proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Rows under its checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Rows of its present log in the timeline.
    pub rows: u64,
    /// Rows beside the range, which show that nothing of it is missing.
    pub borders: u64,
    /// Logs of it that another one took the place of and that have a part in the range. Missing where there are none, and in
    /// bundles of the first version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierPart>,
    /// Rows as they were found that no proof stands behind.
    pub rejected: u64,
    /// Erased rows of the range, by the node's word, of which nobody can say whether the filter would have selected them; they are not
    /// in the timeline. Missing where there are none, and in bundles of earlier versions, whose timeline has all erased rows of
    /// the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
}

/// What the exporter says about a log of a node that another one took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierPart {
    pub generation: String,
    /// Rows under its checkpoint.
    pub size: u64,
    /// Rows of it in the timeline.
    pub rows: u64,
    /// Rows beside the range.
    pub borders: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberDigest {
    pub name: String,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl MemberDigest {
    pub fn of(name: &str, content: &[u8]) -> Self {
        Self { name: name.to_owned(), bytes: content.len() as u64, sha256: hex::encode(Sha256::digest(content)) }
    }
}

impl Manifest {
    /// The version that is enough for what it says.
    fn format(&self) -> &'static str {
        if self.nodes.iter().all(|node| node.earlier.is_empty()) { FORMAT } else { FORMAT_2 }
    }
}

/// The member's bytes: the manifest as a note, signed.
pub fn manifest_note(manifest: &Manifest, key: &SigningKey) -> Result<String, NoteError> {
    let json = serde_json::to_string_pretty(manifest).unwrap_or_default();
    let note = Note::unsigned(format!("{}\n{json}\n", manifest.format()))?;
    let signature = key.sign(note.text());
    Ok(note.with(signature).to_string())
}

/// Reads the member; the signature is for the caller to check.
pub fn read_manifest(member: &[u8]) -> Result<(Manifest, Note), String> {
    let text = std::str::from_utf8(member).map_err(|_| "the manifest is not text".to_owned())?;
    let note = Note::parse_up_to(text, MANIFEST_BYTES_MAX).map_err(|error| format!("the manifest: {error}"))?;
    if note.signatures() > MANIFEST_SIGNATURES_MAX {
        let count = note.signatures();
        return Err(format!(
            "the manifest has {count} signatures, more than the {MANIFEST_SIGNATURES_MAX} that are read"
        ));
    }
    let (format, json) = note.text().split_once('\n').unwrap_or_default();
    if ![FORMAT, FORMAT_2].contains(&format) {
        return Err(format!("the manifest does not begin with {FORMAT:?} or {FORMAT_2:?}"));
    }
    let manifest: Manifest = serde_json::from_str(json).map_err(|error| format!("the manifest: {error}"))?;
    if manifest.nodes.len() > NODES_MAX {
        return Err(format!(
            "the manifest names {} nodes, more than the {NODES_MAX} of one bundle",
            manifest.nodes.len()
        ));
    }
    if manifest.nodes.iter().any(|node| node.earlier.len() > EARLIER_LOGS_MAX) {
        return Err(format!("the manifest names more than {EARLIER_LOGS_MAX} earlier logs of a node"));
    }
    if manifest.format() != format {
        return Err(format!("the manifest begins with {format:?}, and what it says is {:?}", manifest.format()));
    }
    // One form only: what a program read and what a person reads must be the same.
    if serde_json::to_string_pretty(&manifest).is_ok_and(|form| json.strip_suffix('\n') == Some(&form)) {
        Ok((manifest, note))
    } else {
        Err("the manifest is not in the form that Piperoll writes".to_owned())
    }
}
