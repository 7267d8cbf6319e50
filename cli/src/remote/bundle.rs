//! `piperoll export --bundle` and `--row`: writes evidence that others can verify.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use piperoll_evidence::bundle::{BUNDLE_BYTES_MAX, MANIFEST, Manifest, Members, NodePart, PRUNED_EARLY, read_manifest};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::entry::Prefix;
use piperoll_format::merkle::{Hash, decode_hash, leaf_hash, verify_inclusion};
use piperoll_format::note::Note;
use piperoll_format::row::RowLine;
use piperoll_format::terminal::escape;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::{COMPLETE_SINCE_HEADER, ExportFormat, ExportRequest, IncompleteArg};
use reqwest::Method;
use serde::Deserialize;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use super::question::{self, row_path};
use super::target::Target;
use crate::address::RowAddress;
use crate::args::{IncompleteChoice, RemoteExportArgs};
use crate::exit::Exit;
use crate::show::counted;

/// Requests a bundle, and writes it under a temporary name until it is complete.
pub(super) async fn bundle(args: &RemoteExportArgs, path: &Path, connection: &Connection) -> anyhow::Result<Exit> {
    let reason = args.reason.clone().unwrap_or_default();
    let request = ExportRequest {
        reason,
        format: ExportFormat::Bundle,
        filter: question::filter_without_zone(&args.query)?,
        from: Some(question::time(&args.query.from, &args.query.zone)?),
        to: Some(question::time(&args.query.to, &args.query.zone)?),
        incomplete: match args.incomplete {
            IncompleteChoice::Refuse => IncompleteArg::Refuse,
            IncompleteChoice::Wait => IncompleteArg::Wait,
            IncompleteChoice::Partial => IncompleteArg::Partial,
        },
        wait_seconds: args.wait,
    };
    let mut target = Target::open(Some(path), PathBuf::new())?;
    let bar = crate::local::progress_bar();
    let response = match connection.send(connection.request(Method::POST, "/api/v1/exports").json(&request)).await {
        Ok(Answer::Good(response)) => response,
        Ok(Answer::Unavailable(envelope)) => {
            target.discard();
            errln!("no bundle was created: an expected node is missing (see --incomplete)");
            return Ok(connection.refused(&envelope));
        }
        Err(error) => {
            target.discard();
            return Err(error);
        }
    };
    let since = response.headers().get(COMPLETE_SINCE_HEADER).and_then(|since| since.to_str().ok()).map(str::to_owned);
    let (mut head, mut bytes) = (Vec::new(), 0usize);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk.context("the bundle download was interrupted") {
            Ok(chunk) => chunk,
            Err(error) => {
                target.discard();
                return Err(error);
            }
        };
        bytes += chunk.len();
        ensure!(
            bytes <= BUNDLE_BYTES_MAX,
            "the bundle is larger than {BUNDLE_BYTES_MAX} bytes; request a shorter range"
        );
        if head.len() < HEAD_BYTES_MAX {
            head.extend_from_slice(&chunk);
        }
        target.write(&chunk)?;
        bar.set_position(bytes as u64);
    }
    bar.finish_and_clear();
    let manifest = first_manifest(&head).context("the aggregator sent something other than a bundle")?;
    let name = target.finish(manifest.complete || since.is_some())?;
    Ok(said(&manifest, since.as_deref(), &name))
}

/// Maximum number of bytes at the beginning of the bundle that are kept in order to read the manifest.
const HEAD_BYTES_MAX: usize = 4 * 1024 * 1024;

fn first_manifest(head: &[u8]) -> anyhow::Result<Manifest> {
    let member = Members::new(head).next().context("the response is empty")??;
    ensure!(member.name == MANIFEST, "the response does not begin with a manifest");
    Ok(read_manifest(member.bytes).map_err(anyhow::Error::msg)?.0)
}

/// Prints the result, and returns the exit code. `since` is the time from which, according to the aggregator, the bundle contains
/// all rows; older rows were pruned under the retention policy.
fn said(manifest: &Manifest, since: Option<&str>, name: &str) -> Exit {
    errln!("{} in {name}", counted(manifest.rows, "entry", "entries"));
    for node in manifest.nodes.iter().filter(|node| !["ok", "excluded"].contains(&node.status.as_str())) {
        let reason = node.reason.as_deref().unwrap_or_default();
        errln!("  {}: {} {}", escape(&node.node_id), escape(&node.status), escape(reason));
    }
    if let Some(since) = since {
        let since = escape(since);
        errln!(
            "COMPLETE SINCE {since}: nothing is missing from then on; older entries were pruned after their retention period"
        );
    }
    errln!("verify it with: piperoll verify-bundle {name} --trust trust.toml   (created by `piperoll cluster trust`)");
    let violated = |node: &NodePart| node.status == "invalid" || node.rejected > 0 || node.verdict == PRUNED_EARLY;
    if manifest.nodes.iter().any(violated) {
        Exit::Violation
    } else if manifest.complete || since.is_some() {
        Exit::Complete
    } else {
        Exit::Incomplete
    }
}

#[derive(Deserialize)]
struct OneRow<'a> {
    #[serde(borrow)]
    entries: Vec<RowLine<'a>>,
}

/// Writes `NODE-SEQ.entry` (body and mac, the bytes of the leaf) and `NODE-SEQ.tlog-proof` (C2SP tlog-proof), for any tool
/// that reads these formats.
pub(super) async fn row(connection: &Connection, address: RowAddress) -> anyhow::Result<()> {
    let (node, seq, generation) = address.with_node()?;
    let text = one(connection, &node, &row_path(&node, seq, generation.as_deref(), "")).await?;
    let page: OneRow<'_> = serde_json::from_str(&text).context("cannot parse the row")?;
    let line = page.entries.first().with_context(|| format!("{node} did not return row {seq}"))?;
    if let Some(gone) = &line.erased {
        anyhow::bail!("row {seq} of {node} was {}; that entry holds the row's hash", gone.describe());
    }
    let row = line.to_row();
    ensure!(
        row.integrity == Integrity::Ok,
        "row {seq} of {node} fails verification; `piperoll show {node}/{seq}` shows why"
    );
    // Request the proof from the log that this row is in.
    let prefix =
        Prefix::parse(&row.body).with_context(|| format!("row {seq} of {node} does not state its log's generation"))?;
    let proof = one(connection, &node, &row_path(&node, seq, Some(prefix.generation), "/proof")).await?;
    proves(&proof, seq, &leaf_hash(&row.body, &row.mac), prefix.generation)
        .map_err(|message| anyhow::anyhow!("invalid proof of row {seq} of {node}: {message}"))?;
    let entry = [row.body.as_ref(), row.mac.as_ref()].concat();
    for (extension, bytes) in [("entry", entry.as_slice()), ("tlog-proof", proof.as_bytes())] {
        let log = generation.iter().map(|generation| format!("@{generation}")).collect::<String>();
        let path = PathBuf::from(format!("{node}-{seq}{log}.{extension}"));
        ensure!(!path.exists(), "{} already exists and will not be overwritten", path.display());
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        errln!("{}", path.display());
    }
    Ok(())
}

/// Sends a request about one node, and returns the text of the response.
async fn one(connection: &Connection, node: &str, path: &str) -> anyhow::Result<String> {
    let request = connection.request(Method::GET, path).timeout(PAGE_TIMEOUT);
    match connection.send(request).await? {
        Answer::Good(response) => Ok(response.text().await?),
        Answer::Unavailable(_) => anyhow::bail!("{node} did not answer"),
    }
}

/// Checks that a C2SP tlog-proof connects this leaf to the checkpoint in the proof, and that the checkpoint belongs to the row's
/// log. Does not check the signatures on the checkpoint; the recipient of the files has to do that.
fn proves(proof: &str, seq: u64, leaf: &Hash, generation: &str) -> Result<(), String> {
    let bad = || "not a c2sp.org/tlog-proof".to_owned();
    let (head, note) = proof.split_once("\n\n").ok_or_else(bad)?;
    let mut lines = head.lines();
    let known = lines.next() == Some("c2sp.org/tlog-proof@v1") && lines.next() == Some(&format!("index {seq}"));
    let hashes: Option<Vec<Hash>> = lines.map(decode_hash).collect();
    let note = Note::parse(note).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    let hashes = hashes.filter(|_| known).ok_or_else(bad)?;
    if !checkpoint.origin.ends_with(&format!("/{generation}")) {
        return Err(format!(
            "the proof is for the log {}, but the row belongs to generation {generation}",
            checkpoint.origin
        ));
    }
    verify_inclusion(leaf, seq, checkpoint.size, &hashes, &checkpoint.root).map_err(|error| error.to_string())
}
