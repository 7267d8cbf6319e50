//! Verifies archives of entries that are about to be pruned. An archive is a container like a bundle and holds one node's entries
//! `from_seq..to_seq` with their proof and the newest cosigned checkpoint. The node's log keeps the file's digest in its
//! `log.pruned` entry.

use super::archive::Member;
use super::archive_head::ArchiveHead;
use super::names::{checkpoint_name, entries_name, proof_name};
use super::node::{BundleQuery, NodeMembers, check_node};
use super::trust::Trust;
use super::verdict::{Check, Checks, NodeVerdict, Verdict};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;

/// Checks an archive on the machine that created it. The check uses no witness keys, so it proves the entries only against a
/// checkpoint that the node itself signed.
pub fn verify_own_archive(archive: &[u8], trust: &Trust) -> Verdict {
    let checks = Checks::without(Check::Witness);
    match super::archive::Members::new(archive).collect::<Result<Vec<Member<'_>>, _>>() {
        Ok(members) => verify_archive(&members, trust, checks),
        Err(error) => {
            let mut verdict = Verdict::default();
            verdict.find(None, error.to_string());
            verdict
        }
    }
}

pub(super) fn verify_archive(members: &[Member<'_>], trust: &Trust, checks: Checks) -> Verdict {
    let mut verdict = Verdict { trusted: true, ..Verdict::default() };
    let Some(head) = members.first().and_then(|member| ArchiveHead::parse(member.bytes)) else {
        verdict.find(None, "its head is not a valid archive head");
        return verdict;
    };
    let id = head.node_id.as_str();
    let names = [checkpoint_name(id), entries_name(id), proof_name(id)];
    let [_, checkpoint, entries, proof] = members else {
        verdict.find(None, format!("it has {} members instead of 4", members.len()));
        return verdict;
    };
    if [checkpoint, entries, proof].map(|member| member.name) != names.each_ref().map(String::as_str) {
        verdict.find(Some(id), "its members are not named like those of an archive");
        return verdict;
    }
    if head.cluster != trust.cluster {
        // The head is not signed, but the checkpoint is. If the checkpoint belongs to this cluster and the head names another
        // cluster, the head was changed.
        if checkpoint.bytes.starts_with(format!("{}/", trust.cluster).as_bytes()) {
            verdict.find(
                None,
                format!("it belongs to cluster {}, but its checkpoint to cluster {}", head.cluster, trust.cluster),
            );
            return verdict;
        }
        return verdict.set_aside(format!(
            "the archive belongs to cluster {}, but the trust file to cluster {}; use the trust file of the archive's cluster",
            head.cluster, trust.cluster
        ));
    }
    let all = Timestamp::MAX;
    let question =
        BundleQuery { filter: Filter::default(), from: Timestamp::MIN, to: all, created: Timestamp::MIN, checks };
    let mut node = NodeVerdict { node_id: id.to_owned(), status: "ok".to_owned(), ..NodeVerdict::default() };
    let members = NodeMembers { checkpoint: checkpoint.bytes, entries: entries.bytes, proof: proof.bytes };
    let known = trust.nodes.iter().find(|known| known.id.as_str() == id);
    let rows = check_node(trust, known, &question, members, &mut node);
    // The archived entries may be followed by the erasure statements of erased entries.
    let (inside, behind) = rows.split_at(rows.partition_point(|row| row.seq() < head.to_seq));
    let whole = inside.len() as u64 == head.to_seq.saturating_sub(head.from_seq)
        && inside.first().is_some_and(|row| row.seq() == head.from_seq)
        && behind.iter().all(|row| matches!(Statement::read(row.body), Some(Statement::Erased(_))));
    if !whole {
        verdict.find(
            Some(id),
            format!("some of the rows {} to {} are missing", head.from_seq, head.to_seq.saturating_sub(1)),
        );
    }
    if node.generation.as_deref() != Some(&head.generation) {
        verdict.find(Some(id), "its rows belong to a different log than the one named in its head");
    }
    for message in node.take_faults() {
        verdict.find(Some(id), message);
    }
    // The entries before and after the archived range are expected to be missing.
    node.unproven = None;
    node.rows = inside.len() as u64;
    verdict.rows = node.rows;
    (verdict.complete, verdict.proven) = (whole, whole);
    verdict.nodes.push(node);
    verdict.archive = Some(head);
    verdict
}
