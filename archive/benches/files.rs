//! Measures the files of an archive: `cargo bench --bench files -p piperoll-archive`. Prints how many rows are archived, decoded and verified in
//! a second, and how long a reader needs for the newest 50 rows that a filter selects. `PIPEROLL_FILES_NODES`, `PIPEROLL_FILES_DAYS` and
//! `PIPEROLL_FILES_ROWS` set the number of nodes, days, and rows of a node in a day; the default is one file of 300,000 rows. If
//! `PIPEROLL_ARCHIVE_PYTHON` names a Python with the module `duckdb`, DuckDB answers the same questions on the same files.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::Command;
use std::time::Instant;

use common::logs::{BEGIN_MICROS, Bench, Logs, data_files, whole_log};
use piperoll_archive::file::DecodeError;
use piperoll_archive::file::decode::decode;
use piperoll_archive::read::{LogScan, Reader};
use piperoll_archive::row::{ArchivedRow, Content, LogId};
use piperoll_format::entry::CallerEntry;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;
use tokio::sync::mpsc;

const ROUNDS: usize = 7;
const DAY_MICROS: i64 = 86_400_000_000;
const STEP_ROWS_MAX: u64 = 10_000_000;
/// Rows of a page.
const PAGE_ROWS: usize = 50;
/// The rows begin at 22:00.
const UNTIL_MIDNIGHT_MICROS: i64 = 2 * 3_600_000_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn entry(node: &str, number: u64) -> CallerEntry {
    let entry = serde_json::json!({
        "category": "data", "action": if number.is_multiple_of(3) { "message.read" } else { "message.update" },
        "user": format!("user{}", number * 7919 % 5_000), "outcome": "success",
        "ip_address": format!("10.{}.{}.{}", number % 7, number % 251, number * 31 % 253),
        "entity_type": "message", "entity_id": entity_id(node, number),
        "session": format!("{:x}", (number / 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "description": format!("message {number} was opened in the folder inbox of the mailbox {}", number % 900),
        "details": { "folder": "inbox", "bytes": number * 37 % 90_000, "subject": format!("report {}", number % 1_000) },
    });
    CallerEntry::parse(entry.to_string().as_bytes()).unwrap()
}

fn entity_id(node: &str, number: u64) -> String {
    format!("{node}-{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_003)
}

#[tokio::main]
async fn main() {
    let (nodes, days) = (number("PIPEROLL_FILES_NODES", 1), number("PIPEROLL_FILES_DAYS", 1));
    let rows = number("PIPEROLL_FILES_ROWS", 300_000);
    let (mut bench, logs) = (Bench::new().await, Logs::new());
    let names: Vec<String> = (0..nodes).map(|node| format!("n{node}")).collect();
    let ids: Vec<LogId> = names.iter().map(|node| logs.add(node, 1)).collect();
    let pause = DAY_MICROS / i64::try_from(rows).unwrap();
    let mut archiving = 0.0;
    for day in 0..days {
        for (node, id) in names.iter().zip(&ids) {
            for number in day * rows..(day + 1) * rows {
                // The first rows of all logs are at midnight, so that a day has one file.
                let pause = if number == 0 { UNTIL_MIDNIGHT_MICROS } else { pause };
                logs.push(id, &entry(node, number), "socket uid=0", pause, 0);
            }
        }
        bench.now = Timestamp::from_micros(BEGIN_MICROS + i64::try_from(day + 2).unwrap() * DAY_MICROS);
        let started = Instant::now();
        bench.archive_all(&logs, STEP_ROWS_MAX).await;
        archiving += started.elapsed().as_secs_f64();
        forget_contents(&logs);
    }
    let all = nodes * days * rows;
    let files = data_files(bench.objects.path());
    println!("{all} rows in {} files; archiving: {:.0} rows/s", files.len(), all as f64 / archiving);
    let (started, mut decoded) = (Instant::now(), 0);
    for file in &files {
        decode::<DecodeError>(file, |_| {
            decoded += 1;
            Ok(())
        })
        .unwrap();
    }
    println!("decode: {:.0} rows/s", f64::from(decoded) / started.elapsed().as_secs_f64());
    drop(files);
    for _ in 0..3 {
        let started = Instant::now();
        let report = bench.verify(&logs).await;
        assert!(report.is_verified() && report.rows_verified == all, "{report:?}");
        println!("verify: {:.0} rows/s", all as f64 / started.elapsed().as_secs_f64());
    }
    let started = Instant::now();
    let reader = bench.reader().await;
    println!("reading the steps: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let entity = entity_id(&names[0], 7);
    let named = format!("message/{entity}");
    let questions = [("user", "user", "user777"), ("ip_address", "ip", "10.3.100.77"), ("entity_id", "entity", &named)];
    for (name, key, value) in questions {
        let filter = Filter::parse_pair(key, value, bench.now).unwrap();
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            found = newest(&reader, &ids, &filter).await.len();
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let first = times[0];
        times.sort_by(f64::total_cmp);
        let ours = times[ROUNDS / 2];
        print!("newest {found} by {name}: {ours:.1} ms (first {first:.1} ms)");
        match duckdb(&bench, name, value.strip_prefix("message/").unwrap_or(value), found) {
            Some(theirs) => println!("; DuckDB {theirs:.1} ms; ratio {:.2}", ours / theirs),
            None => println!(),
        }
    }
}

/// Replaces rows that were archived by their leaves, because all rows would need too much memory.
fn forget_contents(logs: &Logs) {
    for log in logs.0.lock().unwrap().values_mut() {
        log.rows.iter_mut().filter(|row| !row.is_erased()).for_each(|row| {
            row.content = Content::Erased { leaf: row.leaf() };
        });
    }
}

/// The newest rows of all logs that a filter selects.
async fn newest(reader: &Reader, logs: &[LogId], filter: &Filter) -> Vec<ArchivedRow> {
    let mut sources = Vec::new();
    for log in logs {
        let range = whole_log(log, Order::Desc, filter.clone());
        let mut scan = LogScan::new(reader.clone(), range).unwrap();
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(row) = scan.next().await.unwrap() {
                if send.send(row).await.is_err() {
                    break;
                }
            }
        });
        sources.push(receive);
    }
    let mut heads = Vec::new();
    for source in &mut sources {
        heads.push(source.recv().await);
    }
    let mut rows = Vec::new();
    while rows.len() < PAGE_ROWS {
        let best = heads.iter().enumerate().filter_map(|(at, row)| Some((row.as_ref()?.timestamp, at))).max();
        let Some((_, at)) = best else { break };
        let next = sources[at].recv().await;
        rows.extend(std::mem::replace(&mut heads[at], next));
    }
    rows
}

/// Median time of the same question in DuckDB, in milliseconds.
fn duckdb(bench: &Bench, column: &str, value: &str, found: usize) -> Option<f64> {
    let python = std::env::var_os("PIPEROLL_ARCHIVE_PYTHON")?;
    let program = format!(
        r#"
import duckdb, statistics, time
rows = "read_parquet('{}/data/*/*.parquet')"
times = []
for _ in range({ROUNDS}):
    begin = time.perf_counter()
    found = duckdb.sql(f"SELECT body FROM {{rows}} WHERE {column} = '{value}' ORDER BY timestamp DESC, node_id DESC, seq DESC LIMIT {PAGE_ROWS}").fetchall()
    times.append((time.perf_counter() - begin) * 1e3)
    assert len(found) == {found}, len(found)
print(statistics.median(times))
"#,
        bench.objects.path().display()
    );
    let output = Command::new(python).args(["-c", &program]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap())
}
