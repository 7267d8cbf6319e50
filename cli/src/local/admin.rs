//! Runs `hold`, `confirm-times`, `erase`, `new-generation` and `prune`. Only root or the node's own user may do so, never a remote user.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use piperoll_client::NodeClient;
use piperoll_evidence::bundle::{KeySpan, Membership, NodeTrust, Trust, verify_own_archive};
use piperoll_format::statement::{ArchiveDigest, Hold, HoldRelease, Pruned};
use piperoll_format::terminal::escape;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_node::config::NodeConfig;
use piperoll_node::store::{LogDir, OfflineAdmin, REASON_BYTES_MAX, begin_generation};
use piperoll_protocol::ArchivedRowRef;
use piperoll_protocol::node::{
    ConfirmTimesRequest, ConfirmedTimes, EntryRecorded, EraseRequest, HeldRows, HoldReleaseRequest, HoldRequest,
    PrunePlan, PruneRequest, RetentionStatus, socket_path,
};
use piperoll_query::human_time;
use sha2::{Digest as _, Sha256};

use super::place::{LogAccess, open};
use crate::address::RowAddress;
use crate::args::{HoldCommand, LogArgs, PruneArgs};
use crate::exit::Exit;
use crate::show::{counted, group_digits};

/// Interval at which the progress of a prune is polled.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);

/// Returns the operator's user ID, because no daemon is running that could identify the caller.
fn by() -> String {
    format!("uid={}", nix::unistd::geteuid())
}

fn direct(config: &NodeConfig) -> anyhow::Result<OfflineAdmin> {
    Ok(OfflineAdmin::open(&LogDir::new(&config.data_dir), &config.keys, Arc::new(SystemClock))?)
}

pub(super) async fn hold(command: HoldCommand) -> anyhow::Result<Exit> {
    match command {
        HoldCommand::Add { log, name, from, to, reason } => {
            let now = SystemClock.now();
            let time = |text: &Option<String>| text.as_deref().map(|t| human_time::parse(t, now)).transpose();
            let request = HoldRequest { name, from: time(&from)?, to: time(&to)?, reason };
            let entry = match LogAccess::of_log(&log).await? {
                LogAccess::Socket(client) => {
                    client.admin_post::<EntryRecorded>(socket_path::HOLDS, &request).await?.entry_seq
                }
                LogAccess::Directory(config) => {
                    let HoldRequest { name, from, to, reason } = request.clone();
                    let (from, to) = (from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX));
                    direct(&config)?.add_hold(&Hold { name, from, to, reason, by: by() })?
                }
            };
            outln!("hold {:?} added, recorded as entry {entry}", request.name);
        }
        HoldCommand::Release { log, name, reason } => {
            let entry = match LogAccess::of_log(&log).await? {
                LogAccess::Socket(client) => {
                    let request = HoldReleaseRequest { name: name.clone(), reason };
                    client.admin_post::<EntryRecorded>(socket_path::HOLDS_RELEASE, &request).await?.entry_seq
                }
                LogAccess::Directory(config) => {
                    direct(&config)?.release_hold(&HoldRelease { name: name.clone(), reason, by: by() })?
                }
            };
            outln!("hold {name:?} released, recorded as entry {entry}");
        }
        HoldCommand::List { log, json } => {
            let held: Vec<HeldRows> = match LogAccess::of_log(&log).await? {
                LogAccess::Socket(client) => client.admin_get(socket_path::HOLDS).await?,
                LogAccess::Directory(config) => {
                    let held = direct(&config)?.holds()?.into_iter();
                    held.map(|held| HeldRows { entry_seq: held.entry_seq, hold: held.hold }).collect()
                }
            };
            if json {
                outln!("{}", serde_json::to_string(&held)?);
            } else if held.is_empty() {
                outln!("no holds on this node");
            }
            for HeldRows { entry_seq, hold } in held.iter().filter(|_| !json) {
                outln!("{}  {}", escape(&hold.name), range_words(hold.from, hold.to));
                outln!("    {} (added by {}, entry {entry_seq})", escape(&hold.reason), escape(&hold.by));
            }
        }
    }
    Ok(Exit::Complete)
}

fn range_words(from: Timestamp, to: Timestamp) -> String {
    match (from == Timestamp::MIN, to == Timestamp::MAX) {
        (true, true) => "all rows".to_owned(),
        (false, true) => format!("from {from} on"),
        (true, false) => format!("up to {to}"),
        (false, false) => format!("{from} to {to}"),
    }
}

pub(super) async fn confirm_times(
    args: &crate::args::PlaceArgs,
    reason: Option<String>,
    dry_run: bool,
) -> anyhow::Result<Exit> {
    let LogAccess::Socket(client) = LogAccess::find(args).await? else {
        bail!(
            "the node is not running; start it first: only a running node knows which rows were recorded before it began to track how long rows have been witnessed"
        );
    };
    let request = ConfirmTimesRequest { reason: reason.unwrap_or_default(), dry_run };
    let confirmed = client.admin_post::<ConfirmedTimes>(socket_path::CONFIRM_TIMES, &request).await?;
    let time = |time: Option<Timestamp>| time.map_or_else(|| "unknown".to_owned(), Timestamp::to_text);
    outln!(
        "rows {} to {}, recorded from {} to {} according to their timestamps",
        confirmed.from_seq,
        confirmed.to_seq - 1,
        time(confirmed.oldest),
        time(confirmed.newest)
    );
    match confirmed.entry_seq {
        Some(entry) => outln!("confirmed, recorded as entry {entry}: retention uses these times from now on"),
        None => outln!(
            "nothing was changed; if the clock was right when these rows were recorded, add --reason to confirm these times"
        ),
    }
    Ok(Exit::Complete)
}

/// Returns the holds of the current log, which also protect rows of the archived logs.
async fn present_holds(args: &LogArgs) -> anyhow::Result<Vec<Hold>> {
    let held: Vec<HeldRows> = match LogAccess::find(&args.place).await? {
        LogAccess::Socket(client) => client.admin_get(socket_path::HOLDS).await?,
        LogAccess::Directory(config) => {
            return Ok(direct(&config)?.holds()?.into_iter().map(|held| held.hold).collect());
        }
    };
    Ok(held.into_iter().map(|held| held.hold).collect())
}

pub(super) async fn erase(args: &LogArgs, row: RowAddress, reason: String) -> anyhow::Result<Exit> {
    let place = LogAccess::of_log(args).await?;
    let seq = place.own_row(row).await?;
    let done: EntryRecorded = match place {
        LogAccess::Socket(client) => {
            let request = EraseRequest { seq, reason, archived: None };
            client.admin_post(socket_path::ERASE, &request).await?
        }
        LogAccess::Directory(config) => {
            let holds = if args.generation.is_some() { present_holds(args).await? } else { Vec::new() };
            direct(&config)?.erase(seq, &reason, &by(), &holds)?
        }
    };
    outln!(
        "the content of row {seq} was erased, recorded as entry {}; the row's leaf stays in the tree",
        done.entry_seq
    );
    if !done.wal_emptied {
        errln!(
            "The file log.db-wal still contains it, because a reader is active. A running node empties the file within a second after the reader finishes; a stopped node does so at its next start."
        );
    }
    errln!(
        "Not erased: earlier backups, snapshots, exports and files of pruned rows, and copies of overwritten blocks that the disk itself keeps. If the row is in the cluster's archive, its content is removed there after this entry has been archived."
    );
    Ok(Exit::Complete)
}

/// Records the erasure of a row that only the archive still has.
pub(super) async fn erase_archived(args: &LogArgs, row: ArchivedRowRef, reason: String) -> anyhow::Result<Exit> {
    let seq = row.seq;
    let done: EntryRecorded = match LogAccess::of_log(args).await? {
        LogAccess::Socket(client) => {
            let request = EraseRequest { seq, reason, archived: Some(row) };
            client.admin_post(socket_path::ERASE, &request).await?
        }
        LogAccess::Directory(config) => {
            let holds = if args.generation.is_some() { present_holds(args).await? } else { Vec::new() };
            direct(&config)?.erase_archived(&row, &reason, &by(), &holds)?
        }
    };
    outln!("the erasure of the archived row {seq} was recorded as entry {}", done.entry_seq);
    errln!(
        "Answers no longer show its content. The archive removes it after this entry has been archived: within about a day, or at once with `piperoll archive run --now`."
    );
    Ok(Exit::Complete)
}

pub(super) async fn new_generation(args: &crate::args::PlaceArgs, reason: &str) -> anyhow::Result<Exit> {
    let good = !reason.trim().is_empty() && reason.len() <= REASON_BYTES_MAX;
    ensure!(
        good,
        "--reason must state why the old log is not continued, in 1 to {REASON_BYTES_MAX} bytes; it is recorded"
    );
    let LogAccess::Directory(config) = LogAccess::find(args).await? else {
        bail!("the node is running; stop it first");
    };
    let dir = LogDir::new(&config.data_dir);
    let begun = begin_generation(&dir, &config.keys, Arc::new(SystemClock), reason, &by())?;
    outln!("generation {} started in {}", begun.generation, dir.path().display());
    outln!("the old log is kept unchanged in {}", begun.old.display());
    match &begun.holds {
        Ok(holds) if holds.is_empty() => {}
        Ok(holds) => outln!("holds carried over to the new log: {}", escape(&holds.join(", "))),
        Err(error) => errln!(
            "The holds of the archived log could not be read ({error}). To carry over a hold that is still needed, add it again: piperoll node hold add"
        ),
    }
    outln!(
        "Start the node, then run this command for every aggregator: piperoll nodes accept {} --new-generation {}",
        config.node_id,
        begun.generation
    );
    Ok(Exit::Complete)
}

pub(super) async fn prune(args: PruneArgs) -> anyhow::Result<Exit> {
    let before = human_time::parse(&args.before, SystemClock.now())?;
    let LogAccess::Socket(client) = LogAccess::find(&args.place).await? else {
        bail!(
            "the node is not running; start it first: rows are deleted only after a witness has seen the entry that records the prune"
        );
    };
    let request = PruneRequest { before, to_seq: None, archive: None, confirm: args.confirm };
    let plan: PrunePlan = client.admin_post(socket_path::PRUNE_PLAN, &request).await?;
    say_plan(&plan, before);
    if args.dry_run || plan.to_seq == plan.from_seq {
        return Ok(Exit::Complete);
    }
    if let Some(first) = plan.unconfirmed_from.filter(|_| !args.confirm) {
        bail!(
            "nothing was pruned: the node cannot tell whether the rows from {first} on have been witnessed for 90 days. If the clock was right \
             when they were recorded, and is right now, add --confirm"
        );
    }
    if let (Some(log), true) = (plan.earlier.first(), args.archive.is_some()) {
        bail!(
            "nothing was pruned: the archived log {} would be deleted with these rows, but the archive would not contain it. Export it (piperoll node export \
             --generation {}) and move its folder away, or prune without --archive",
            log.generation,
            log.generation
        );
    }
    let archive = match &args.archive {
        None => None,
        Some(path) => Some(archive(&args, path, &plan)?),
    };
    let request = PruneRequest { before, to_seq: Some(plan.to_seq), archive, confirm: args.confirm };
    let _: Pruned = client.admin_post(socket_path::PRUNE, &request).await?;
    let wait = humantime::parse_duration(&args.wait).context("--wait must be a duration such as 60s")?;
    follow(&client, wait).await
}

fn say_plan(plan: &PrunePlan, before: Timestamp) {
    for limit in &plan.limits {
        outln!("kept: {limit}");
    }
    if let Some(first) = plan.unconfirmed_from {
        outln!("the age of rows from {first} on is known only from their own timestamps: --confirm is required");
    }
    for log in &plan.earlier {
        outln!("the archived log {} ({}) will be deleted too", log.generation, counted(log.rows, "row", "rows"));
    }
    match (plan.oldest, plan.newest) {
        (Some(oldest), Some(newest)) => outln!(
            "to prune: {}, {} to {}, recorded from {oldest} to {newest}",
            counted(plan.to_seq - plan.from_seq, "row", "rows"),
            plan.from_seq,
            plan.to_seq - 1,
        ),
        _ => outln!(
            "nothing to prune before {before}: rows are deleted in whole tiles of 256, and only if all rows of a tile are older than that and witnessed"
        ),
    }
}

/// Writes the rows to a file, reads the file back, and verifies it. Runs before the prune, so that nothing is pruned if this
/// fails.
fn archive(args: &PruneArgs, path: &Path, plan: &PrunePlan) -> anyhow::Result<ArchiveDigest> {
    let config = NodeConfig::load(&args.place.config)?;
    let log = open(&config)?;
    log.archive(path, plan.from_seq, plan.to_seq).context("nothing was pruned: cannot write the archive")?;
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let verdict = verify_own_archive(&bytes, &own_trust(&config));
    if let Some(finding) = verdict.findings.first() {
        bail!("nothing was pruned: the archive {} fails verification: {}", path.display(), finding.what);
    }
    ensure!(verdict.complete, "nothing was pruned: the archive {} is incomplete", path.display());
    outln!("{}: {}, read back and verified", path.display(), counted(verdict.rows, "row", "rows"));
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(ArchiveDigest { name, sha256: hex::encode(Sha256::digest(&bytes)) })
}

/// Returns the keys that are trusted when an archive is verified on this machine: only the node's own public key.
fn own_trust(config: &NodeConfig) -> Trust {
    let public = config.keys.checkpoint.public_bytes();
    let keys = vec![KeySpan { public, generation: None, from_size: 0, to_size: None, until: None }];
    let nodes = vec![NodeTrust { id: config.node_id.clone(), life: Membership::ALWAYS, moved: Vec::new(), keys }];
    Trust {
        cluster: config.cluster.clone(),
        nodes,
        witnesses: Vec::new(),
        exporters: Vec::new(),
        retention: Vec::new(),
        archives: Vec::new(),
    }
}

/// Waits until the rows are deleted. After `wait`, prints what the prune is waiting for and returns.
async fn follow(client: &NodeClient, wait: Duration) -> anyhow::Result<Exit> {
    let deadline = tokio::time::Instant::now() + wait;
    let bar = super::progress_bar();
    loop {
        let status: RetentionStatus = client.admin_get(socket_path::PRUNE).await?;
        bar.set_message(status.doing.clone());
        if let Some(problem) = &status.problem {
            bail!("the prune was recorded, but some rows have not been deleted: {problem}");
        }
        if status.doing == "idle" && status.rows_left == 0 {
            bar.finish_and_clear();
            outln!("pruned; the database file shrank by {} bytes", group_digits(status.bytes_freed));
            return Ok(Exit::Complete);
        }
        if tokio::time::Instant::now() > deadline {
            bar.finish_and_clear();
            outln!(
                "the prune is recorded and the log now starts after these rows; they are deleted once a witness has seen the entry that records the prune (now: {})",
                status.doing
            );
            return Ok(Exit::Incomplete);
        }
        tokio::time::sleep(PROGRESS_PAUSE).await;
    }
}
