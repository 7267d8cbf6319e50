//! Names of a bundle's members, its version, and its limits.

/// First line of a manifest; no other file begins with it.
pub const FORMAT: &str = "piperoll bundle v1";
/// First line of the manifest of a bundle that also contains entries of archived logs. A verifier of the first version must
/// refuse such a bundle, because it would not check these entries.
pub const FORMAT_2: &str = "piperoll bundle v2";
/// First line of the manifest of a bundle in which the rows of a node that did not answer are from an archive. Earlier verifiers would
/// find that the manifest contradicts itself.
pub const FORMAT_3: &str = "piperoll bundle v3";
/// Status of a node that did not answer and whose rows of the range are from an archive.
pub(super) const ARCHIVED: &str = "archived";
/// Maximum number of archived logs of one node in a bundle. No node has this many, and the names of the members with archived
/// logs contain a number of at most two digits.
pub const EARLIER_LOGS_MAX: usize = 64;
/// Maximum size of a bundle, which is held in memory while it is checked.
pub const BUNDLE_BYTES_MAX: usize = 8 * 1024 * 1024 * 1024;
/// A checkpoint covers the whole range if its cosignature precedes the end of the range by at most this time. Nodes sign once a
/// second, and cosignatures have a resolution of one second.
pub(super) const CHECKPOINT_AGE_SECONDS_MAX: i64 = 2;
/// Maximum size of a trust file.
pub const TRUST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum number of nodes in one bundle or trust file; no cluster has this many.
pub(super) const NODES_MAX: usize = 20_000;
/// Maximum number of aggregators in one trust file.
pub(super) const AGGREGATORS_MAX: usize = 256;
/// Maximum number of signatures of one manifest. It is low, because checking one signature takes as long as hashing the manifest.
pub(super) const MANIFEST_SIGNATURES_MAX: usize = 8;
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024 * 1024;

pub const MANIFEST: &str = "manifest";
pub const TIMELINE: &str = "timeline.ndjson";
pub const CSV: &str = "timeline.csv";
pub const REPORT: &str = "report.html";
/// Trust file of the exporter. A verifier that has no trust file uses this one, and reports the bundle as not trusted.
pub const TRUST: &str = "trust.toml";
/// Introduction for auditors.
pub const README: &str = "README.txt";

/// Returns the name of the member with a node's checkpoint. A node's members are ordered: checkpoint, entries, proof.
pub fn checkpoint_name(node: &str) -> String {
    format!("nodes/{node}/checkpoint")
}

pub fn entries_name(node: &str) -> String {
    format!("nodes/{node}/entries")
}

pub fn proof_name(node: &str) -> String {
    format!("nodes/{node}/proof")
}

/// Returns the names of the members of an archived log of a node, in this order: checkpoint, entries, proof. `number` counts from
/// 1.
pub fn earlier_names(node: &str, number: usize) -> [String; 3] {
    let folder = format!("{node}/earlier-{number}");
    [checkpoint_name(&folder), entries_name(&folder), proof_name(&folder)]
}

/// Returns the name of the member that contains a node's entries without a proof, unchanged. Such entries show only that
/// something is wrong.
pub fn rejected_name(node: &str) -> String {
    format!("nodes/{node}/rejected.ndjson")
}

/// Content of [`README`].
pub const README_TEXT: &str = include_str!("../../templates/bundle-readme.txt");
