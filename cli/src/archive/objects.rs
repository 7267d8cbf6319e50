//! Commands that read the archive's objects themselves.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use piperoll_archive::history::History;
use piperoll_archive::record::{FileRecord, Step};
use piperoll_archive::row::Day;
use piperoll_archive::store::{Address, Store};
use piperoll_archive::verify::{Report, Resume, Scope, verify_resumed};
use piperoll_archive::write::{Writer, initialize};
use piperoll_format::terminal::escape;
use piperoll_net::clock::{Clock as _, SystemClock};
use serde_json::json;

use super::location::{configured, days, open};
use crate::args::{ArchivePlaceArgs, DayArgs};
use crate::exit::{Exit, UsageError};
use crate::local::progress_bar;
use crate::show::counted;

pub(super) async fn init(config: &Path) -> anyhow::Result<Exit> {
    let (config, dir) = configured(config)?;
    let store = Store::open_new(&config.address, config.credentials.as_ref())?;
    if initialize(&store, &config.settings(dir), SystemClock.now()).await? {
        outln!("created the archive {} at {}; the store creates objects atomically", config.id, config.address);
        outln!(
            "Restart the aggregator. It archives each day two hours after it has ended; archive now with `piperoll archive run --now`."
        );
    } else {
        outln!("the archive {} at {} exists already; nothing was changed", config.id, config.address);
    }
    Ok(Exit::Complete)
}

pub(super) async fn accept(config: &Path) -> anyhow::Result<Exit> {
    let (config, dir) = configured(config)?;
    let store = Store::open(&config.address, config.credentials.as_ref())?;
    let head = Writer::open(store, config.settings(dir))?.accept().await?;
    outln!("accepted the archive {} at step {} (SHA-256 {})", config.id, head.number, head.digest);
    Ok(Exit::Complete)
}

pub(super) async fn ls(place: &ArchivePlaceArgs, range: &DayArgs, files: bool, json: bool) -> anyhow::Result<Exit> {
    let (from, to) = days(range)?;
    let place = open(place)?;
    let mut listed = Files::default();
    History::load(&place.store, &place.keys.steps, &place.cluster, &place.keys.id, |step, _| listed.apply(step))
        .await?;
    let (mut rows, mut bytes, mut count) = (0, 0, 0u64);
    let mut lines: Vec<String> = Vec::new();
    for (step, file) in listed.files.iter().flatten().filter(|(_, file)| is_in(file, from, to)) {
        (rows, bytes, count) = (rows + file.rows, bytes + file.bytes, count + 1);
        lines.push(if files {
            address_of(&place.address, &file.name)
        } else if json {
            json!({ "name": file.name, "step": step, "rows": file.rows, "bytes": file.bytes, "sha256": file.sha256 })
                .to_string()
        } else {
            format!("{step:>8} {:>12} {:>12}  {}", file.rows, file.bytes, file.name)
        });
    }
    if !files && !json {
        outln!("{:>8} {:>12} {:>12}  NAME", "STEP", "ROWS", "BYTES");
    }
    for line in lines {
        outln!("{line}");
    }
    if !files && !json {
        outln!("{}, {}, {bytes} bytes", counted(count, "file", "files"), counted(rows, "row", "rows"));
    }
    Ok(Exit::Complete)
}

/// The files that are part of the archive, each with the step that describes it; `None` for a file that was removed.
#[derive(Default)]
struct Files {
    files: Vec<Option<(u64, FileRecord)>>,
    places: HashMap<String, usize>,
}

impl Files {
    fn apply(&mut self, step: &Step) {
        for file in &step.files {
            self.places.insert(file.name.clone(), self.files.len());
            self.files.push(Some((step.number, file.clone())));
        }
        for replaced in &step.replaced {
            if let Some(place) = self.places.remove(&replaced.name) {
                self.places.insert(replaced.file.name.clone(), place);
                self.files[place] = Some((step.number, replaced.file.clone()));
            }
        }
        for name in &step.expired {
            if let Some(place) = self.places.remove(name) {
                self.files[place] = None;
            }
        }
    }
}

fn is_in(file: &FileRecord, from: Option<Day>, to: Option<Day>) -> bool {
    file.runs
        .iter()
        .map(|run| Day::of(run.first))
        .any(|day| from.is_none_or(|from| from <= day) && to.is_none_or(|to| day <= to))
}

/// Address of a file in the form that engines accept.
fn address_of(address: &Address, name: &str) -> String {
    match address {
        Address::Directory(path) => path.join(name).display().to_string(),
        Address::S3 { .. } | Address::Azure { .. } | Address::Gcs { .. } => format!("{address}/{name}"),
    }
}

pub(super) async fn verify(
    place: &ArchivePlaceArgs,
    range: &DayArgs,
    state: Option<&Path>,
    json: bool,
) -> anyhow::Result<Exit> {
    let (from, to) = days(range)?;
    if place.trust.is_none() && place.url.is_none() {
        return Err(
            UsageError("verify needs --trust: the cluster's trust file (piperoll cluster trust)".to_owned()).into()
        );
    }
    let place = open(place)?;
    let trust = place.trust.as_ref().context("no trust file")?;
    let mut resume = state.map(|path| Resume::open(path, &place.keys, SystemClock.now())).transpose()?;
    let bar = progress_bar();
    let scope = Scope { from, to, seen: place.seen };
    let report = verify_resumed(&place.store, trust, &place.keys, scope, resume.as_mut(), |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    let began = resume.as_ref().filter(|_| report.files_resumed > 0).map(|resume| resume.began().to_text());
    if json {
        let mut value = serde_json::to_value(&report)?;
        value["verified"] = report.is_verified().into();
        value["began_at"] = began.into();
        outln!("{value}");
    } else {
        print(&report, began.as_deref());
    }
    if let (Some(resume), Some(path)) = (resume, state) {
        end(resume, path, report.is_read());
    }
    Ok(match (report.is_violated(), report.is_verified()) {
        (true, _) => Exit::Violation,
        (false, false) => Exit::Incomplete,
        (false, true) => Exit::Complete,
    })
}

/// Removes the state of a verification that is complete. One that is not can be continued. The result of the verification does not depend on
/// this.
fn end(resume: Resume, path: &Path, is_complete: bool) {
    match (is_complete, resume.problem().map(str::to_owned)) {
        (true, _) => {
            if let Err(error) = resume.finish() {
                errln!("piperoll: cannot remove {}: {error}; delete it before the next verification", path.display());
            }
        }
        (false, Some(problem)) => {
            errln!("piperoll: cannot write {}: {problem}; the next verification begins where it ends", path.display());
        }
        (false, None) => errln!("piperoll: continue with the same command: {} names what was verified", path.display()),
    }
}

fn print(report: &Report, began: Option<&str>) {
    outln!("archive {} of cluster {}", report.archive, report.cluster);
    match report.head {
        Some(head) => outln!("newest step: {} (SHA-256 {})", head.number, head.digest),
        None => outln!("newest step: none"),
    }
    let days = match (&report.first_day, &report.last_day) {
        (Some(first), Some(last)) => format!(", days {first} to {last}"),
        _ => String::new(),
    };
    outln!(
        "verified: {} of {} in {} of {}, {}{days}",
        report.rows_verified,
        counted(report.rows, "row", "rows"),
        report.files_verified,
        counted(report.files as u64, "file", "files"),
        counted(report.logs as u64, "log", "logs"),
    );
    if let Some(began) = began {
        let files = counted(report.files_resumed as u64, "file", "files");
        outln!("{files} of these were read since {began} by the verification that was interrupted, and not again");
    }
    if report.erased > 0 {
        outln!("erased: {}; only their hashes are left", counted(report.erased, "row", "rows"));
    }
    for gap in &report.gaps {
        outln!("gap: {} were pruned before they were archived", escape(gap));
    }
    for log in &report.expired {
        outln!("removed by the writer: {}; this does not verify how long they were kept", escape(log));
    }
    for name in &report.open {
        outln!("open: {} belongs to a step that is being written, or is about to be deleted", escape(name));
    }
    for finding in &report.findings {
        let kind = serde_json::to_value(finding.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(str::to_owned))
            .unwrap_or_default();
        outln!("FINDING {kind}: {}: {}", escape(&finding.object), escape(&finding.detail));
    }
    let more = report.findings_count - report.findings.len() as u64;
    if more > 0 {
        outln!("and {more} more");
    }
    outln!(
        "{}",
        match (report.is_violated(), report.is_verified(), report.whole) {
            (true, ..) => "VIOLATION: the archive is not what its writer and the nodes signed",
            (false, false, _) =>
                "INCOMPLETE: not everything could be verified, or content that should be gone is still there",
            (false, true, false) =>
                "VERIFIED for the requested days: every row leads to a checkpoint that its node signed and a witness cosigned",
            (false, true, true) =>
                "VERIFIED: every row leads to a checkpoint that its node signed and a witness cosigned",
        }
    );
    if report.head.is_some() && !report.is_violated() {
        outln!(
            "An archive that was rolled back as a whole verifies too: compare the newest step with the newest audit.archive_step entry."
        );
    }
}
