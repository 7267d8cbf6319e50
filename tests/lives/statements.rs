//! Compares every statement about the cluster with the model.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use piperoll_format::time::Timestamp;
use piperoll_tests::Tail;
use serde_json::Value;

use crate::model::{Expected, Range, Row, State};
use crate::world::{ACTION, World, now};

/// Two days: further ahead than the clock of any node.
const AHEAD_MICROS: i64 = 2 * 86_400 * 1_000_000;
/// Retention period of a new cluster.
const POLICY_MICROS: i64 = 365 * 86_400 * 1_000_000;
const EXIT_INCOMPLETE: i32 = 3;
const EXIT_VIOLATION: i32 = 4;
/// No node answered.
const EXIT_UNREACHABLE: i32 = 5;

/// A bundle from earlier in the life, with its trust file and the exit code of its verification at that time.
pub(crate) struct Bundle {
    path: String,
    code: i32,
    trust: String,
}

/// Maximum time to wait for the next event of a tail.
const TAIL_PATIENCE: Duration = Duration::from_secs(20);
/// Number of heartbeats, which arrive every five seconds, within which a tail must reach the end of every log. If no row is
/// missing, the limit is `TAIL_BEATS_MAX`, which allows for a busy machine.
const TAIL_BEATS: usize = 1;
const TAIL_BEATS_MAX: usize = 8;

type Outcome = Result<(), String>;

/// Rows of an answer: ids of readable rows, each with its number of occurrences, and positions of erased rows.
#[derive(Default)]
struct ReturnedRows {
    ids: HashMap<String, usize>,
    erased: HashSet<(String, u64)>,
}

impl ReturnedRows {
    fn add(&mut self, row: &Value) -> Outcome {
        let place = row.get("found_at").filter(|place| place.is_object()).unwrap_or(&row["entry"]);
        match row["integrity"].as_str() {
            Some("ok") if row["entry"]["action"] == ACTION => {
                *self.ids.entry(row["entry"]["id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
            Some("ok") => {}
            Some("erased") => {
                let node = place["node_id"].as_str().unwrap_or_default().to_owned();
                self.erased.insert((node, place["seq"].as_u64().unwrap_or(u64::MAX)));
            }
            _ => return Err(format!("nobody touched this row: {row}")),
        }
        Ok(())
    }
}

fn text(micros: i64) -> String {
    Timestamp::from_micros(micros).to_text()
}

fn expected(world: &World, range: Range, only: Option<usize>, is_bundle: bool) -> Expected {
    let nodes = (0..world.model.nodes.len()).filter(|node| only.is_none_or(|only| only == *node));
    nodes.map(|node| world.model.expected(node, range, is_bundle)).fold(Expected::Complete, Expected::and)
}

/// Number of statements compared, for each value of `Expected`.
static COUNTS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Returns the counts since the last call.
pub(crate) fn tally() -> String {
    let [complete, incomplete, either] = [0, 1, 2].map(|index| COUNTS[index].swap(0, Ordering::Relaxed));
    format!("{complete} had to be complete, {incomplete} incomplete, {either} either")
}

fn is_true(what: &str, is_complete: bool, expected: Expected, said: &Value) -> Outcome {
    COUNTS[expected as usize].fetch_add(1, Ordering::Relaxed);
    match expected {
        Expected::Complete if !is_complete => Err(format!("{what} is not complete, and nothing is missing: {said}")),
        Expected::Incomplete if is_complete => Err(format!("{what} is called complete, and rows are missing: {said}")),
        _ => Ok(()),
    }
}

/// Returns whether rows younger than the retention policy were pruned, which verification reports as a violation.
fn was_pruned_early(world: &World) -> bool {
    let is_early = |row: &Row| row.state == State::Pruned && row.micros > now() - POLICY_MICROS;
    world.model.rows.iter().any(is_early)
}

/// Checks that every readable row is shown exactly once, and that no other rows are shown.
fn rows_are_true(world: &World, range: Range, only: Option<usize>, is_complete: bool, shown: &ReturnedRows) -> Outcome {
    let by_id: HashMap<&str, &Row> = world.model.rows.iter().map(|row| (row.id.as_str(), row)).collect();
    for (id, count) in &shown.ids {
        let row = by_id.get(id.as_str()).ok_or_else(|| format!("nobody recorded the row {id}"))?;
        if *count > 1 || row.state != State::Here || !range.holds(row) {
            return Err(format!("{row:?} is shown {count} times"));
        }
    }
    for row in world.model.rows.iter().filter(|row| range.holds(row)) {
        let node = &world.model.nodes[row.node];
        let is_readable = (node.is_up || node.is_kept)
            && only.is_none_or(|only| only == row.node)
            && (is_complete || row.log == node.log);
        if !is_readable {
            continue;
        }
        let is_shown = match row.state {
            State::Here => shown.ids.contains_key(&row.id),
            State::Erased => shown.erased.contains(&(world.id(row.node), row.seq)),
            State::Pruned | State::Lost | State::LostUnknown => true,
        };
        if !is_shown {
            return Err(format!("{row:?} can be read and is not shown"));
        }
    }
    Ok(())
}

/// Reads a range as a stream, as pages and on the command line, and counts its rows.
async fn answers(world: &World, range: Range, only: Option<usize>) -> Outcome {
    let expected = expected(world, range, only, false);
    let filter = only.map(|node| format!("node:{}", world.id(node))).unwrap_or_default();
    let (from, to) = (text(range.from), text(range.to));
    let parameters = format!("filter={filter}&from={from}&to={to}");

    let path = format!("/api/v1/audit-log?format=ndjson&order=asc&{parameters}");
    let stream = world.cluster.get(&path, Some(&world.cluster.token)).await;
    let (mut shown, mut end) = (ReturnedRows::default(), Value::Null);
    // Status 503 means that no node answered; the body is then the envelope alone.
    if stream.status == 503 {
        end = stream.json();
    }
    for line in stream.text.lines().filter(|_| stream.status == 200) {
        let line: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
        match line.get("final") {
            Some(last) => end = last.clone(),
            None => shown.add(&line)?,
        }
    }
    let is_complete = end["complete"].as_bool().ok_or_else(|| format!("no final record: {}", stream.text))?;
    is_true("a stream", is_complete, expected, &end)?;
    rows_are_true(world, range, only, is_complete, &shown).map_err(|e| format!("a stream: {e}: {end}"))?;

    let (mut shown, mut cursor, mut all_complete) = (ReturnedRows::default(), String::new(), true);
    let last = loop {
        let page = world.cluster.page(&format!("limit=400&order=asc&{parameters}{cursor}")).await;
        let (status, page) = (page.status, page.json());
        if status == 503 {
            break page;
        }
        for row in page["entries"].as_array().ok_or_else(|| format!("no page: {page}"))? {
            shown.add(row)?;
        }
        all_complete &= page["complete"] == true;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break page,
        }
    };
    all_complete &= last["complete"] == true;
    let head = Value::Array(vec![last["complete"].clone(), last["completeness"].clone(), last["nodes"].clone()]);
    is_true("a read by pages", all_complete, expected, &head)?;
    rows_are_true(world, range, only, all_complete, &shown).map_err(|e| format!("a read by pages: {e}: {head}"))?;

    let path = format!("/api/v1/stats?by=action&filter=action:{ACTION}%20{filter}&from={from}&to={to}");
    let counted = world.cluster.get(&path, Some(&world.cluster.token)).await.json();
    let is_complete = counted["complete"] == true;
    is_true("a count", is_complete, expected, &counted)?;
    if is_complete {
        let right = world
            .model
            .rows
            .iter()
            .filter(|row| row.state == State::Here && range.holds(row) && only.is_none_or(|only| only == row.node));
        let right = right.count() as u64;
        if counted["stats"]["entries"].as_u64() != Some(right) {
            return Err(format!("{right} rows are counted as {counted}"));
        }
    }

    let run = world.cluster.run(&["query", &filter, "--from", &from, "--to", &to, "--limit", "1", "--order", "asc"]);
    let said = Value::String(run.stderr);
    if ![0, EXIT_INCOMPLETE, EXIT_VIOLATION, EXIT_UNREACHABLE].contains(&run.code) {
        return Err(format!("a query ended with {}: {said}", run.code));
    }
    // A page states only whether its own rows are complete and what the nodes report about the range. So the exit code is checked
    // only if the whole range must be complete.
    if expected == Expected::Complete { is_true("a query", run.code == 0, expected, &said) } else { Ok(()) }
}

/// Follows the log from a time in the past until the tail reports that it has reached the end.
async fn tail(world: &World, from: i64) -> Outcome {
    let members = || (0..world.model.nodes.len()).filter(|node| !world.model.nodes[*node].is_retired);
    let expected =
        members().map(|node| world.model.expected_of_tail(node, from)).fold(Expected::Complete, Expected::and);
    let beats_max = if expected == Expected::Complete { TAIL_BEATS_MAX } else { TAIL_BEATS };
    let mut tail = Tail::open(&world.cluster, &format!("from={}", text(from)), None).await;
    let (mut shown, mut beats, mut said) = (ReturnedRows::default(), 0, Value::Null);
    let is_complete = loop {
        let event = tail.next(TAIL_PATIENCE).await.ok_or_else(|| format!("a tail ended: {said}"))?;
        match event.name.as_str() {
            "entry" => shown.add(&event.data)?,
            "heartbeat" => {
                said = event.data;
                beats += 1;
                let is_complete = said["complete"] == true;
                if is_complete || beats > beats_max {
                    break is_complete;
                }
            }
            "node" => {}
            other => return Err(format!("a tail ended with {other}: {}", event.data)),
        }
    };
    is_true("a tail", is_complete, expected, &said)?;
    let range = Range { from, to: now() + AHEAD_MICROS };
    for node in members() {
        rows_are_true(world, range, Some(node), is_complete, &shown).map_err(|e| format!("a tail: {e}: {said}"))?;
    }
    Ok(())
}

/// Exports a range as a bundle, verifies it, and verifies older bundles again.
fn evidence(world: &mut World, range: Range) -> Outcome {
    let (path, trust) = (world.path("bundle.tar"), world.trust());
    let (from, to) = (text(range.from), text(range.to));
    let args = ["export", "--bundle", &path, "--from", &from, "--to", &to, "--incomplete", "partial", "--reason", "x"];
    let run = world.cluster.run(&args);
    let expected = expected(world, range, None, true);
    let said = Value::String(format!("{}{}", run.stdout, run.stderr));
    let is_early = was_pruned_early(world);
    let is_known = |code| [0, EXIT_INCOMPLETE].contains(&code) || (code == EXIT_VIOLATION && is_early);
    if !is_known(run.code) {
        return Err(format!("an export ended with {}: {said}", run.code));
    }
    is_true("an export", run.code == 0, expected, &said)?;
    let path = if run.code == 0 { path } else { partial(&path)? };
    let run = world.cluster.run(&["verify-bundle", &path, "--trust", &trust]);
    let said = Value::String(run.stdout);
    if !is_known(run.code) {
        return Err(format!("a bundle is refused with {}: {said}", run.code));
    }
    is_true("a bundle", run.code == 0, expected, &said)?;
    world.bundles.push(Bundle { path, code: run.code, trust: trust.clone() });
    for bundle in &world.bundles {
        for trust in [&bundle.trust, &trust] {
            let run = world.cluster.run(&["verify-bundle", &bundle.path, "--trust", trust]);
            if run.code != bundle.code {
                return Err(format!("{} said {} and now {}: {}", bundle.path, bundle.code, run.code, run.stdout));
            }
        }
    }
    Ok(())
}

/// Returns the path of the incomplete bundle that was exported in place of `path`.
fn partial(path: &str) -> Result<String, String> {
    let path = std::path::Path::new(path);
    let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let found = files.filter(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with(&stem) && name.contains("PARTIAL")
    });
    found.last().map(|path| path.display().to_string()).ok_or_else(|| format!("no part of {stem}"))
}

async fn logs(world: &World) -> Outcome {
    for (index, node) in world.model.nodes.iter().enumerate() {
        if node.is_retired {
            continue;
        }
        let run = world.cluster.on_node(index, &["verify"]);
        if run.code != 0 {
            return Err(format!(
                "node verify of {} ended with {}: {}{}",
                world.id(index),
                run.code,
                run.stdout,
                run.stderr
            ));
        }
        let line = world.report(index).await.unwrap_or_default();
        let verdict = line["verdict"].as_str().unwrap_or_default();
        if node.is_up && verdict != "ok" {
            return Err(format!("nobody tampered with {}: {line}", world.id(index)));
        }
    }
    Ok(())
}

/// Checks every statement about the current cluster. Follows tails only if `is_followed`, because a tail takes seconds.
pub(crate) async fn check(world: &mut World, between: Range, is_followed: bool) -> Outcome {
    let end = now() + AHEAD_MICROS;
    let clear = world.model.nodes.iter().map(|node| node.clear_from.max(node.present_from)).max().unwrap_or(0);
    let everything = Range { from: 0, to: end };
    for range in [everything, between, Range { from: clear, to: end }] {
        answers(world, range, None).await.map_err(|e| format!("{range:?}: {e}"))?;
    }
    for node in 0..world.model.nodes.len() {
        answers(world, everything, Some(node)).await.map_err(|e| format!("{}: {e}", world.id(node)))?;
    }
    for range in [everything, Range { from: clear, to: end }] {
        evidence(world, range).map_err(|e| format!("{range:?}: {e}"))?;
    }
    if is_followed {
        for from in [0, clear] {
            tail(world, from).await.map_err(|e| format!("from {from}: {e}"))?;
        }
    }
    logs(world).await
}

/// Tests that the checks detect false completeness statements, and rows that are neither `ok` nor `erased`.
#[test]
fn a_false_statement_is_found() {
    let said = Value::Null;
    for (is_complete, expected, holds) in [
        (true, Expected::Complete, true),
        (false, Expected::Complete, false),
        (true, Expected::Incomplete, false),
        (false, Expected::Incomplete, true),
        (true, Expected::Either, true),
        (false, Expected::Either, true),
    ] {
        assert_eq!(is_true("an answer", is_complete, expected, &said).is_ok(), holds, "{is_complete} {expected:?}");
    }
    let mut shown = ReturnedRows::default();
    let row = |integrity: &str| serde_json::json!({ "integrity": integrity, "entry": { "action": ACTION, "id": "a", "node_id": "mx1", "seq": 7 } });
    assert!(shown.add(&row("ok")).is_ok() && shown.add(&row("erased")).is_ok());
    assert_eq!((shown.ids["a"], shown.erased.contains(&("mx1".to_owned(), 7))), (1, true));
    assert!(shown.add(&row("violation")).is_err() && shown.add(&row("unknown_key")).is_err());
}
