//! Evidence bundles (docs/format.md, "Evidence bundle"). A bundle is one archive. With only public keys, a verifier can determine
//! from it which entries the nodes of a cluster had recorded, that none of them was changed, and what is missing.
//!
//! An aggregator writes a bundle once; it can be checked anywhere, without network, secrets or a database. The writer and the
//! verifier share all code that determines bytes of the bundle, so the verifier refuses every bundle that differs from what the
//! writer would write.

mod archive;
mod archive_head;
mod manifest;
mod membership;
mod names;
mod node;
mod node_archive;
mod policy;
mod readable;
mod render;
mod report;
mod rows;
mod trust;
mod verdict;
mod verify;

pub use archive::{ArchiveError, Member, Members, member_header, member_padding, write_end};
pub use archive_head::{ARCHIVE, ArchiveHead};
pub use manifest::{BundleRequest, EarlierPart, Manifest, MemberDigest, NodePart, manifest_note, read_manifest};
pub use membership::{Instant, KeepPolicy, Membership, Moved};
pub use names::{
    BUNDLE_BYTES_MAX, CSV, EARLIER_LOGS_MAX, FORMAT, FORMAT_2, FORMAT_3, MANIFEST, MANIFEST_BYTES_MAX, README,
    README_TEXT, REPORT, TIMELINE, TRUST, TRUST_BYTES_MAX, checkpoint_name, earlier_names, entries_name, proof_name,
    rejected_name,
};
pub use node::was_witnessed_until;
pub use node_archive::verify_own_archive;
pub use policy::{PolicyFit, kept_to_policy};
pub use readable::{csv_line, merged, timeline_line};
pub use render::{Outcome, render_verdict};
pub use report::{REPORT_ROWS_MAX, report};
pub use rows::{ERASED_HEAD_BYTES, ROW_LENGTH_BYTES, Rows, RowsError, StoredEntry, write_entry, write_erased};
pub use trust::{ArchiveTrust, KeySpan, NodeTrust, Trust, TrustError};
pub use verdict::{Check, Finding, NodeVerdict, PRUNED_EARLY, Verdict};
pub use verify::verify_bundle;
#[cfg(feature = "negative-control")]
pub use verify::verify_bundle_without;
