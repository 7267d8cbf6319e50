//! Verifies a bundle with nothing but a trust file.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::archive::{Member, Members};
use super::archive_head::ARCHIVE;
use super::manifest::{EarlierPart, Manifest, NodePart, read_manifest};
use super::names::{
    ARCHIVED, MANIFEST, TRUST, TRUST_BYTES_MAX, checkpoint_name, earlier_names, entries_name, proof_name, rejected_name,
};
use super::node::{BundleQuery, NodeMembers, check_node, missing_earlier};
use super::node_archive::verify_archive;
use super::policy::PolicyFit;
use super::readable::{check_readable, merged};
use super::trust::Trust;
use super::verdict::{Check, Checks, NodeVerdict, PRUNED_EARLY, Verdict};
use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;

/// Verifies a bundle. Every count, digest and readable copy is computed again from the proven entries; no statement of the
/// manifest is taken on trust.
///
/// If `trust` is `None`, the trust file in the bundle is used and the verdict is marked as not trusted: anyone who forged the
/// bundle could have replaced these keys as well.
pub fn verify_bundle(bundle: &[u8], trust: Option<&Trust>) -> Verdict {
    verify(bundle, trust, Checks::default())
}

/// Verifies a bundle with one check switched off, to show that the check is needed.
#[cfg(feature = "negative-control")]
pub fn verify_bundle_without(check: Check, bundle: &[u8], trust: Option<&Trust>) -> Verdict {
    verify(bundle, trust, Checks { without: Some(check) })
}

fn verify(bundle: &[u8], trust: Option<&Trust>, checks: Checks) -> Verdict {
    let mut verdict = Verdict { trusted: trust.is_some(), ..Verdict::default() };
    // A file whose first member is neither a manifest nor an archive is some other kind of file, not altered evidence.
    let first = Members::new(bundle).next().and_then(Result::ok);
    if first.is_none_or(|first| ![MANIFEST, ARCHIVE].contains(&first.name)) {
        return verdict.set_aside("this file is neither a Piperoll evidence bundle nor an archive of pruned rows");
    }
    let members = match Members::new(bundle).collect::<Result<Vec<Member<'_>>, _>>() {
        Ok(members) => members,
        Err(error) => {
            verdict.find(None, error.to_string());
            return verdict;
        }
    };
    if members.first().is_some_and(|first| first.name == ARCHIVE) {
        return match trust {
            Some(trust) => verify_archive(&members, trust, checks),
            None => verdict.set_aside(
                "an archive of pruned rows can be verified only with the cluster's trust file; specify it with --trust",
            ),
        };
    }
    let Some((first, rest)) = members.split_first().filter(|(first, _)| first.name == MANIFEST) else {
        verdict.find(None, "it does not begin with a manifest");
        return verdict;
    };
    let (manifest, note) = match read_manifest(first.bytes) {
        Ok(read) => read,
        Err(message) => {
            verdict.find(None, message);
            return verdict;
        }
    };
    let own = match trust {
        Some(_) => None,
        None => match own_trust(rest) {
            Ok(own) => Some(own),
            Err(message) => {
                verdict.find(None, format!("{TRUST} in the bundle: {message}"));
                return verdict;
            }
        },
    };
    let Some(trust) = trust.or(own.as_ref()) else { return verdict };
    let signed = trust.exporters.iter().any(|key| key.name() == manifest.exporter && note.verify(key).is_ok());
    // If the bundle is from another cluster and this trust file does not list the exporter, the bundle merely has to be verified
    // with another trust file. If the trust file lists the exporter, but for another cluster, the bundle is forged or altered.
    let ours = trust.exporters.iter().any(|key| key.name() == manifest.exporter);
    if !signed && !ours && manifest.cluster != trust.cluster && checks.without_none() {
        let message = format!(
            "the bundle belongs to cluster {}, but the trust file to cluster {}; use the trust file of the bundle's cluster",
            manifest.cluster, trust.cluster
        );
        verdict.manifest = Some(manifest);
        return verdict.set_aside(message);
    }
    if checks.on(Check::ManifestSignature) && !signed {
        verdict.find(
            None,
            format!(
                "the manifest is not signed by an exporter listed in the trust file (it names {} as its exporter)",
                manifest.exporter
            ),
        );
    }
    if checks.on(Check::Cluster) && manifest.cluster != trust.cluster {
        verdict.find(
            None,
            format!("it belongs to cluster {}, but the trust file to cluster {}", manifest.cluster, trust.cluster),
        );
    }
    // Hashing every member takes as long as all other checks together, so it runs in parallel with them.
    let digests = || if checks.on(Check::Digests) { check_digests(&manifest, rest) } else { Vec::new() };
    let wrong = std::thread::scope(|scope| {
        let beside = scope.spawn(digests);
        check_question(trust, &manifest, rest, checks, &mut verdict);
        // The thread only hashes, so it should never panic; if it does, compute the hashes here.
        beside.join().unwrap_or_else(|_| digests())
    });
    for message in wrong {
        verdict.find(None, message);
    }
    verdict.manifest = Some(manifest);
    verdict
}

/// Statuses of nodes of which a bundle can have all rows of the range.
const ANSWERED: [&str; 2] = ["ok", ARCHIVED];

fn check_question(trust: &Trust, manifest: &Manifest, rest: &[Member<'_>], checks: Checks, verdict: &mut Verdict) {
    match Filter::parse_stored(&manifest.asked.filter, manifest.created) {
        Ok(filter) => {
            let (from, to, created) = (manifest.asked.from, manifest.asked.to, manifest.created);
            let question = BundleQuery { filter, from, to, created, checks };
            check_nodes(trust, &question, manifest, rest, verdict);
        }
        Err(error) => verdict.find(None, format!("invalid filter in the manifest: {error}")),
    }
}

/// Reads the trust file that the bundle contains.
fn own_trust(members: &[Member<'_>]) -> Result<Trust, String> {
    let member = members.iter().find(|member| member.name == TRUST).ok_or("it is missing")?;
    let text = std::str::from_utf8(member.bytes).ok().filter(|text| text.len() <= TRUST_BYTES_MAX);
    Trust::parse(text.ok_or("it is too long or not valid UTF-8")?).map_err(|error| error.to_string())
}

/// Compares the members with the manifest's digests; returns a message for each difference.
fn check_digests(manifest: &Manifest, members: &[Member<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    if manifest.members.len() != members.len() {
        let (said, found) = (manifest.members.len(), members.len());
        wrong.push(format!("the manifest lists {said} members, but there are {found}"));
    }
    for (said, found) in manifest.members.iter().zip(members) {
        if said.name != found.name {
            wrong.push(format!("found member {:?} instead of {:?}", found.name, said.name));
        } else if said.bytes != found.bytes.len() as u64 || said.sha256 != hex::encode(Sha256::digest(found.bytes)) {
            wrong.push(format!("{:?} does not match the signed manifest", found.name));
        }
    }
    wrong
}

fn check_nodes(
    trust: &Trust,
    question: &BundleQuery,
    manifest: &Manifest,
    members: &[Member<'_>],
    verdict: &mut Verdict,
) {
    if !manifest.nodes.is_sorted_by(|a, b| a.node_id < b.node_id) {
        verdict.find(None, "the manifest's nodes are not in order");
        return;
    }
    let mut left = members.iter();
    let mut rows = Vec::new();
    let trusted = trust.by_id();
    for part in &manifest.nodes {
        let mut node =
            NodeVerdict { node_id: part.node_id.clone(), status: part.status.clone(), ..NodeVerdict::default() };
        node.erased_apart = part.erased;
        let known = trusted.get(part.node_id.as_str()).copied();
        let mut take = |[checkpoint, entries, proof]: [String; 3]| {
            let mut next = |name| left.next().filter(|member| member.name == name).map(|member| member.bytes);
            Some(NodeMembers { checkpoint: next(checkpoint)?, entries: next(entries)?, proof: next(proof)? })
        };
        if part.generation.is_some() {
            let names = [checkpoint_name(&part.node_id), entries_name(&part.node_id), proof_name(&part.node_id)];
            match take(names) {
                Some(members) => rows.push(check_node(trust, known, question, members, &mut node)),
                None => node.fault("some of its members are missing".to_owned()),
            }
        }
        for (earlier, number) in part.earlier.iter().zip(1..) {
            let (node_id, status, erased_apart) = (part.node_id.clone(), part.status.clone(), part.erased);
            let mut log = NodeVerdict { node_id, status, erased_apart, ..NodeVerdict::default() };
            match take(earlier_names(&part.node_id, number)) {
                Some(members) => rows.push(check_node(trust, known, question, members, &mut log)),
                None => log.fault("some of its members are missing".to_owned()),
            }
            if question.checks.on(Check::Counts) {
                compare_earlier(earlier, &mut log);
            }
            let is_again =
                node.generation == log.generation || node.earlier.iter().any(|e| e.generation == log.generation);
            if is_again && question.checks.on(Check::Identity) {
                log.fault("it is in the bundle twice".to_owned());
            }
            for message in log.take_faults() {
                node.fault(format!("its archived log of generation {}: {message}", earlier.generation));
            }
            node.earlier.push(log);
        }
        node.stale = node.stale.take().or_else(|| missing_earlier(question, &node));
        let mut rejected = 0;
        if part.rejected > 0 {
            let name = rejected_name(&part.node_id);
            match left.next().filter(|member| member.name == name) {
                Some(member) => rejected = member.bytes.iter().filter(|byte| **byte == b'\n').count() as u64,
                None => node.fault("its rejected rows are missing".to_owned()),
            }
            if question.checks.on(Check::Rejected) {
                node.fault(format!("the exporter found {} rows without a proof", part.rejected));
            }
        }
        if question.checks.on(Check::Counts) {
            compare_counts(part, rejected, &mut node);
        }
        for message in node.take_faults() {
            verdict.find(Some(&part.node_id), message);
        }
        verdict.nodes.push(node);
    }
    if question.checks.on(Check::Expected) {
        check_expected(trust, question, manifest, verdict);
    } else {
        verdict.complete = true;
    }
    check_readable(manifest, merged(rows), left.as_slice(), question.checks, verdict);
}

/// Compares the manifest's counts with those of the verifier.
fn compare_counts(part: &NodePart, rejected: u64, node: &mut NodeVerdict) {
    for (what, said, found) in [
        ("rows", part.rows, node.rows),
        ("border rows", part.borders, node.borders),
        ("rejected rows", part.rejected, rejected),
    ] {
        if said != found {
            node.fault(format!("the manifest states {said} {what}, but there are {found}"));
        }
    }
    if part.generation != node.generation || part.size != node.size {
        node.fault("the manifest names a different log than the checkpoint".to_owned());
    }
}

/// Compares the manifest's statement about an archived log with the verifier's results.
fn compare_earlier(part: &EarlierPart, log: &mut NodeVerdict) {
    let said = (Some(&part.generation), Some(part.size), part.rows, part.borders);
    if said != (log.generation.as_ref(), log.size, log.rows, log.borders) {
        log.fault("it does not match its description in the manifest".to_owned());
    }
}

/// Returns the time at which the bundle was created: the exporter's time, or the time of the newest cosignature in the bundle if
/// that is later. This time decides which nodes were members; an exporter cannot leave out a node by backdating the bundle.
fn made_at(question: &BundleQuery, verdict: &Verdict) -> Timestamp {
    verdict.nodes.iter().filter_map(|node| node.witnessed_at).fold(question.created, Timestamp::max)
}

/// Checks that the nodes that the trust file expects are in the bundle in full.
fn check_expected(trust: &Trust, question: &BundleQuery, manifest: &Manifest, verdict: &mut Verdict) {
    // Use a map instead of scanning, because the author of the bundle controls the length of both lists.
    let mut places: HashMap<String, usize> =
        verdict.nodes.iter().enumerate().map(|(at, node)| (node.node_id.clone(), at)).collect();
    let made = made_at(question, verdict);
    let parts: HashMap<&str, &NodePart> = manifest.nodes.iter().map(|part| (part.node_id.as_str(), part)).collect();
    for node in &trust.nodes {
        let id = node.id.as_str();
        verdict.notes.extend(node.moved.iter().map(|moved| moved.describe(id)));
        // A node that joined after the bundle was created could not be queried. A node that has left is expected only for the
        // part of the range in which it was a member.
        let (from, to) = (question.from, question.to);
        let expected = node.life.has_begun_by(made) && node.life.overlaps(from, to);
        if !expected || !question.filter.concerns_node(id) {
            continue;
        }
        let known = match places.get(id) {
            Some(at) => &mut verdict.nodes[*at],
            None => {
                let absent =
                    NodeVerdict { node_id: id.to_owned(), status: "absent".to_owned(), ..NodeVerdict::default() };
                verdict.nodes.push(absent);
                let last = verdict.nodes.len() - 1;
                places.insert(id.to_owned(), last);
                &mut verdict.nodes[last]
            }
        };
        // The exporter's verdict is needed because only the exporter saw when the entries were pruned. Without this verdict, the
        // time of the prune would be known only from the node's own clock.
        let said = parts.get(id).map_or("", |part| part.verdict.as_str());
        known.missing = if known.size.is_none() {
            Some(format!("the bundle contains nothing from this node ({})", known.status))
        } else if let (Some((since, fit)), "pruned", None) = (&known.rest, known.status.as_str(), &known.stale) {
            match fit {
                PolicyFit::Kept if said == "pruned" => {
                    known.complete_since = Some(*since);
                    None
                }
                PolicyFit::Kept if said == PRUNED_EARLY => Some(
                    "the exporter found that some of its rows were pruned earlier than the policy allows".to_owned(),
                ),
                PolicyFit::Kept => Some(
                    "some of its rows were pruned, and the exporter does not confirm that the policy was followed"
                        .to_owned(),
                ),
                PolicyFit::Early(message) => {
                    Some(format!("some of its rows were pruned earlier than the policy allows: {message}"))
                }
                PolicyFit::Unshown(message) => Some(format!("some of its rows were pruned; {message}")),
            }
        } else if !ANSWERED.contains(&known.status.as_str()) {
            Some(format!("it did not answer in full ({})", known.status))
        } else {
            known.stale.clone().or_else(|| known.unproven.clone().filter(|_| question.filter.is_empty()))
        };
    }
    let all_here = verdict.nodes.iter().all(|node| node.missing.is_none());
    let since = verdict.nodes.iter().filter_map(|node| node.complete_since).max();
    verdict.complete_since = since.filter(|_| all_here);
    verdict.complete = all_here && since.is_none();
    verdict.proven = verdict.complete && question.filter.is_empty() && !trust.nodes.is_empty();
    // A node that joined after the manifest was written, or a checkpoint that could not be renewed, makes the bundle incomplete
    // but does not contradict the manifest.
    let named: HashSet<&str> = manifest.nodes.iter().map(|part| part.node_id.as_str()).collect();
    let contradicted = verdict.nodes.iter().any(|node| {
        let named = named.contains(node.node_id.as_str());
        let denied = !ANSWERED.contains(&node.status.as_str()) && node.status != "excluded";
        named
            && (node.missing.is_some() || node.complete_since.is_some())
            && node.stale.is_none()
            && (denied || node.unproven.is_some())
    });
    if manifest.complete && contradicted {
        verdict.find(None, "the manifest states that the bundle is complete, but it is not");
    }
}
