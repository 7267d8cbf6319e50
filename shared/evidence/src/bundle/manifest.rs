//! The manifest of a bundle: the request, its outcome according to the exporter, and a digest of every other member. A manifest
//! is a signed note whose text consists of the name of the format and one JSON object.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::names::{
    ARCHIVED, EARLIER_LOGS_MAX, FORMAT, FORMAT_2, FORMAT_3, MANIFEST_BYTES_MAX, MANIFEST_SIGNATURES_MAX, NODES_MAX,
};
use piperoll_format::ids::ClusterName;
use piperoll_format::note::{Note, NoteError, SigningKey};
use piperoll_format::time::Timestamp;

/// Statement that the exporter signs. A verifier recomputes everything in it that can be recomputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub cluster: ClusterName,
    /// Name of the aggregator's key.
    pub exporter: String,
    /// Program and version that wrote the bundle.
    pub tool: String,
    pub created: Timestamp,
    pub asked: BundleRequest,
    /// Whether the bundle contains every expected node with everything that was requested.
    pub complete: bool,
    pub rows: u64,
    /// All nodes of the exporter's roster, ordered by id, except nodes that had left the cluster and have no entries in the
    /// range.
    pub nodes: Vec<NodePart>,
    /// Digests of all other members, in their order in the archive.
    pub members: Vec<MemberDigest>,
}

/// The request: its author, reason, filter and range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRequest {
    pub by: String,
    pub reason: String,
    /// Filter in its canonical text form; empty if every entry was requested.
    pub filter: String,
    /// Start of the range, which is half-open.
    pub from: Timestamp,
    pub to: Timestamp,
    /// Requested treatment of missing nodes: `refuse`, `wait` or `partial`.
    pub incomplete: String,
}

/// The exporter's statement about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePart {
    pub node_id: String,
    /// `ok`; `archived` if the node did not answer, and all of its rows of the range are from an archive; or the reason why the
    /// node's part is missing or incomplete.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The witness's verdict on the node's log.
    pub verdict: String,
    /// Generation of the node's current log; `None` if nothing of that log could be read or proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Number of rows covered by the node's checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Number of entries of the current log in the timeline.
    pub rows: u64,
    /// Number of entries just outside of the range, which show that nothing of the range is missing.
    pub borders: u64,
    /// The node's archived logs that are relevant to the range. Absent if there are none, and in bundles of the first version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierPart>,
    /// Number of entries without a proof, which the bundle contains unchanged.
    pub rejected: u64,
    /// Number of erased entries of the range that may have matched the filter, according to the node; whether they did can no
    /// longer be determined. They are not in the timeline. Absent if there are none, and in bundles of earlier versions, whose
    /// timeline contains all erased entries of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
}

/// The exporter's statement about an archived log of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierPart {
    pub generation: String,
    /// Number of rows covered by the log's checkpoint.
    pub size: u64,
    /// Number of entries of this log in the timeline.
    pub rows: u64,
    /// Number of entries just outside of the range.
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
    /// Returns the lowest format version that can express this manifest.
    fn format(&self) -> &'static str {
        if self.nodes.iter().any(|node| node.status == ARCHIVED) {
            FORMAT_3
        } else if self.nodes.iter().any(|node| !node.earlier.is_empty()) {
            FORMAT_2
        } else {
            FORMAT
        }
    }
}

/// Returns the bytes of the `manifest` member: the manifest as a signed note.
pub fn manifest_note(manifest: &Manifest, key: &SigningKey) -> Result<String, NoteError> {
    let json = serde_json::to_string_pretty(manifest).unwrap_or_default();
    let note = Note::unsigned(format!("{}\n{json}\n", manifest.format()))?;
    let signature = key.sign(note.text());
    Ok(note.with(signature).to_string())
}

/// Reads the `manifest` member. The caller must check the signature.
pub fn read_manifest(member: &[u8]) -> Result<(Manifest, Note), String> {
    let text = std::str::from_utf8(member).map_err(|_| "the manifest is not valid UTF-8".to_owned())?;
    let note = Note::parse_up_to(text, MANIFEST_BYTES_MAX).map_err(|error| format!("invalid manifest: {error}"))?;
    if note.signatures() > MANIFEST_SIGNATURES_MAX {
        let count = note.signatures();
        return Err(format!("the manifest has {count} signatures, more than the limit of {MANIFEST_SIGNATURES_MAX}"));
    }
    let (format, json) = note.text().split_once('\n').unwrap_or_default();
    if ![FORMAT, FORMAT_2, FORMAT_3].contains(&format) {
        return Err(format!("the manifest does not begin with {FORMAT:?}, {FORMAT_2:?} or {FORMAT_3:?}"));
    }
    let manifest: Manifest = serde_json::from_str(json).map_err(|error| format!("invalid manifest: {error}"))?;
    if manifest.nodes.len() > NODES_MAX {
        return Err(format!("the manifest names {} nodes, more than the limit of {NODES_MAX}", manifest.nodes.len()));
    }
    if manifest.nodes.iter().any(|node| node.earlier.len() > EARLIER_LOGS_MAX) {
        return Err(format!("the manifest names more than {EARLIER_LOGS_MAX} archived logs of a node"));
    }
    if manifest.format() != format {
        return Err(format!("the manifest begins with {format:?}, but its content requires {:?}", manifest.format()));
    }
    // Accept only the form that Piperoll writes, so that programs and people read the same content.
    if serde_json::to_string_pretty(&manifest).is_ok_and(|form| json.strip_suffix('\n') == Some(&form)) {
        Ok((manifest, note))
    } else {
        Err("the manifest is not in canonical form".to_owned())
    }
}
