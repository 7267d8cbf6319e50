//! Runs `verify` and `status` on a node.

use std::io::IsTerminal as _;

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use piperoll_format::terminal::escape;
use piperoll_node::config::NodeConfig;
use piperoll_node::store::LogDir;
use piperoll_protocol::node::{NodeStatus, RetentionStatus, VerifyLine};

use super::place::{LogAccess, open};
use crate::args::{LogArgs, OutputArgs};
use crate::exit::Exit;
use crate::show::{counted, group_digits, paint};

/// Verifies the current log and the archived logs, or only the archived log of the generation in `args`. Names each bad row.
pub(super) async fn run(args: &LogArgs, output: OutputArgs) -> anyhow::Result<Exit> {
    let place = LogAccess::of_log(args).await?;
    if args.generation.is_some() {
        return walk(&place, output, true).await;
    }
    let mut worst = walk(&place, output, false).await?;
    for (generation, aside) in LogAccess::asides(&args.place) {
        let found = walk(&aside, output, true).await.unwrap_or_else(|error| {
            errln!("cannot check the archived log of generation {generation}: {error:#}");
            Exit::Incomplete
        });
        worst = if worst as u8 >= found as u8 { worst } else { found };
    }
    Ok(worst)
}

async fn walk(place: &LogAccess, output: OutputArgs, aside: bool) -> anyhow::Result<Exit> {
    let mut replaced_key = 0;
    let mut lines = place.verify().await?;
    let bar = progress_bar();
    while let Some(line) = lines.next().await? {
        let parsed: VerifyLine = serde_json::from_slice(&line)?;
        if output.json {
            outln!("{}", String::from_utf8_lossy(&line));
        }
        match parsed {
            VerifyLine::Progress { checked, of } => {
                bar.set_length(of);
                bar.set_position(checked);
            }
            VerifyLine::Erased { seq, entry_seq, reason } => {
                if !output.json {
                    bar.suspend(|| outln!("row {seq}: erased under entry {entry_seq}: {}", escape(&reason)));
                }
            }
            // In an archived log, this is expected if the key has been replaced since.
            VerifyLine::Finding(finding) if aside && finding.is_unsigned => replaced_key += 1,
            VerifyLine::Finding(finding) => {
                if !output.json {
                    let row = finding.seq.map_or_else(|| "log".to_owned(), |seq| format!("row {seq}"));
                    let kind = serde_json::to_string(&finding.kind).unwrap_or_default();
                    bar.suspend(|| {
                        paintln!(
                            "{}VIOLATION{} {row}: {} [{}]",
                            paint::RED,
                            paint::PLAIN,
                            escape(&finding.detail),
                            kind.trim_matches('"')
                        );
                    });
                }
            }
            VerifyLine::Final(summary) => {
                bar.finish_and_clear();
                let range = match (summary.first_seq, summary.last_seq) {
                    (Some(first), Some(last)) => format!("rows {first} to {last}"),
                    _ => "no rows".to_owned(),
                };
                let mut head = format!(
                    "{} generation {}: {} checked, {range}",
                    summary.node_id,
                    summary.generation,
                    group_digits(summary.rows)
                );
                if let Some(to) = summary.pruned {
                    head.push_str(&format!(", rows below {to} pruned (the tree's root is unchanged)"));
                }
                if summary.erased > 0 {
                    head.push_str(&format!(", {} erased", group_digits(summary.erased)));
                }
                if summary.unindexed > 0 {
                    let rows = group_digits(summary.unindexed);
                    head.push_str(&format!(", {rows} rows in no index block (searches read these rows directly)"));
                }
                if replaced_key > 0 {
                    head.push_str(
                        ", its checkpoints not checked because they are signed with a key that has since been replaced",
                    );
                }
                if summary.findings == replaced_key {
                    errln!(
                        "{head}: {}all signatures match, no gap, the tree and {} match{}",
                        paint::GREEN,
                        if replaced_key > 0 { "its rows" } else { "its checkpoints" },
                        paint::PLAIN
                    );
                    errln!(
                        "Not detected by this check: an older log restored together with its checkpoints; only a witness detects that (`piperoll nodes`)."
                    );
                    return Ok(Exit::Complete);
                }
                let unlisted = summary.findings - summary.listed;
                let rest = if unlisted > 0 { format!(", {unlisted} of them not listed") } else { String::new() };
                errln!("{head}: {}{} findings{}{rest}", paint::RED, group_digits(summary.findings), paint::PLAIN);
                return Ok(Exit::Violation);
            }
        }
    }
    Err(anyhow!("the check was interrupted; its result is inconclusive"))
}

/// Creates a progress bar, which is hidden if standard error is not a terminal.
pub(crate) fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} rows, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

pub(super) async fn status(args: &LogArgs, output: OutputArgs, health: bool) -> anyhow::Result<Exit> {
    let place = LogAccess::of_log(args).await?;
    let status = match (&place, health) {
        (LogAccess::Socket(client), true) => {
            client.health().await?;
            return Ok(Exit::Complete);
        }
        (LogAccess::Directory(_), true) => bail!("the node is not running"),
        (LogAccess::Socket(client), false) => client.status().await?,
        (LogAccess::Directory(config), false) => return directory_status(config, output),
    };
    if output.as_json() {
        outln!("{}", serde_json::to_string(&status)?);
    } else {
        print_status(&status);
    }
    Ok(if status.read_fault.is_some() { Exit::Violation } else { Exit::Complete })
}

fn print_status(status: &NodeStatus) {
    let put = |name: &str, value: String| outln!("{name:>14}  {}", escape(&value));
    let number = |n: Option<u64>| n.map_or("-".to_owned(), group_digits);
    put("node", format!("{} of cluster {}", status.node_id, status.cluster));
    put("generation", status.generation.to_string());
    put("daemon", format!("running since {}, version {}", status.started_at, status.version));
    put("head", number(status.head_seq));
    put("oldest", number(status.oldest_seq));
    if let Some(pruned) = &status.pruned {
        put(
            "pruned",
            format!(
                "rows below {}, the newest from {}, as recorded in entry {}",
                group_digits(pruned.to_seq),
                pruned.newest,
                pruned.entry_seq
            ),
        );
    }
    put("last entry", status.last_timestamp.map_or("-".to_owned(), |t| t.to_string()));
    put(
        "database",
        format!(
            "{} bytes, {} bytes free on its disk",
            group_digits(status.database_bytes),
            group_digits(status.disk_free_bytes)
        ),
    );
    if let Some(index) = &status.index {
        let (rows, of) = (group_digits(index.rows), group_digits(index.of));
        put("index", format!("{rows} of {of} rows, {} bytes in {} files", group_digits(index.bytes), index.blocks));
    }
    if let Some(retention) = &status.retention {
        put("retention", retention_words(retention));
        if let Some(why) = &retention.late_because {
            put("", format!("{} days late: {why}", retention.late_days));
        }
        if let Some(problem) = &retention.problem {
            put("", format!("PROBLEM: {problem}"));
        }
    }
    put("certificate", status.certificate_not_after.map_or("-".to_owned(), |t| format!("ends {t}")));
    put("appends", status.write_fault.clone().map_or("accepted".to_owned(), |fault| format!("REFUSED: {fault}")));
    for source in &status.intake {
        put("source", format!("{} is not being read: {}", source.name, source.problem));
    }
    if status.reader_panics > 0 {
        put("reads", format!("{} ended in a panic; see the daemon's log", status.reader_panics));
    }
    put("file", status.read_fault.clone().map_or("as expected".to_owned(), |fault| format!("NOT TRUSTED: {fault}")));
}

fn retention_words(retention: &RetentionStatus) -> String {
    let keep = retention.keep_days.map_or("for ever".to_owned(), |days| format!("for {days} days"));
    let mut message = format!("rows are kept {keep}");
    if let Some(size_max) = retention.size_max {
        let used = group_digits(retention.used_bytes);
        message.push_str(&format!(", {used} of at most {} bytes used", group_digits(size_max)));
    }
    if !retention.holds.is_empty() {
        message.push_str(&format!(", held by {}", retention.holds.join(", ")));
    }
    if retention.rows_left == 0 && retention.doing == "waiting for a witness" {
        message.push_str("; waiting for a witness");
    }
    if retention.rows_left > 0 {
        message.push_str(&format!(
            "; {}, {} left to delete",
            retention.doing,
            counted(retention.rows_left, "row", "rows")
        ));
    }
    message
}

/// Prints the status from the files while no daemon runs. The JSON has the same field names as that of a running node.
fn directory_status(config: &NodeConfig, output: OutputArgs) -> anyhow::Result<Exit> {
    let log = open(config)?;
    let extent = log.extent()?;
    if output.as_json() {
        let status = serde_json::json!({
            "node_id": config.node_id, "cluster": config.cluster, "generation": log.generation(), "running": false,
            "database": LogDir::new(&config.data_dir).database(), "oldest_seq": extent.oldest_seq,
            "head_seq": extent.head_seq, "last_timestamp": extent.last_timestamp, "read_fault": log.fault(),
        });
        outln!("{status}");
        return Ok(if log.fault().is_some() { Exit::Violation } else { Exit::Complete });
    }
    let number = |n: Option<u64>| n.map_or("-".to_owned(), group_digits);
    outln!("{:>14}  {} of cluster {}", "node", config.node_id, config.cluster);
    outln!("{:>14}  {}", "generation", log.generation());
    outln!("{:>14}  not running; read from {}", "daemon", LogDir::new(&config.data_dir).database().display());
    outln!("{:>14}  {}", "head", number(extent.head_seq));
    outln!("{:>14}  {}", "last entry", extent.last_timestamp.map_or("-".to_owned(), |t| t.to_string()));
    match log.fault() {
        None => Ok(Exit::Complete),
        Some(fault) => {
            outln!("{:>14}  NOT TRUSTED: {fault}", "file");
            Ok(Exit::Violation)
        }
    }
}
