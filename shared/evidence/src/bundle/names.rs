//! Names of a bundle's members, its version, and its limits.

/// The first words of a manifest, and of nothing else.
pub const FORMAT: &str = "piperoll bundle v1";
/// The same with rows of logs that another one took the place of: who knows only the first version would not check these.
pub const FORMAT_2: &str = "piperoll bundle v2";
/// Logs of one node that a bundle holds besides its present one. No node begins as many; the names of their members have two digits.
pub const EARLIER_LOGS_MAX: usize = 64;
/// A bundle is held in memory while it is checked.
pub const BUNDLE_BYTES_MAX: usize = 8 * 1024 * 1024 * 1024;
/// A checkpoint that a witness has seen within this time of the end of a range speaks for all of it: nodes sign once a
/// second, and cosignatures have whole seconds.
pub const CHECKPOINT_AGE_SECONDS_MAX: i64 = 2;
/// A trust file.
pub const TRUST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Nodes in one bundle or trust file; no cluster has as many.
pub(super) const NODES_MAX: usize = 20_000;
/// Aggregators in one trust file.
pub(super) const AGGREGATORS_MAX: usize = 256;
/// Signatures of one manifest. Checking one takes as long as hashing the manifest.
pub(super) const MANIFEST_SIGNATURES_MAX: usize = 8;
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024 * 1024;

pub const MANIFEST: &str = "manifest";
pub const TIMELINE: &str = "timeline.ndjson";
pub const CSV: &str = "timeline.csv";
pub const REPORT: &str = "report.html";
/// The exporter's own idea of whom to trust. A verifier uses it only to say that it has nothing better.
pub const TRUST: &str = "trust.toml";
/// What an auditor reads first.
pub const README: &str = "README.txt";

/// The members of one node, in this order.
pub fn checkpoint_name(node: &str) -> String {
    format!("nodes/{node}/checkpoint")
}

pub fn entries_name(node: &str) -> String {
    format!("nodes/{node}/entries")
}

pub fn proof_name(node: &str) -> String {
    format!("nodes/{node}/proof")
}

/// The members of an earlier log of a node, in this order; `number` counts from 1.
pub fn earlier_names(node: &str, number: usize) -> [String; 3] {
    let folder = format!("{node}/earlier-{number}");
    [checkpoint_name(&folder), entries_name(&folder), proof_name(&folder)]
}

/// Rows as they were found that no proof stands behind; what they show is only that something is wrong.
pub fn rejected_name(node: &str) -> String {
    format!("nodes/{node}/rejected.ndjson")
}

/// The text of [`README`].
pub const README_TEXT: &str = include_str!("../../templates/bundle-readme.txt");
