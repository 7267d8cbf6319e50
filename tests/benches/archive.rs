//! Measures the archive, as ratios within one run: `cargo bench --bench archive -p piperoll-tests`. Prints the figures without checking them.
//! `PIPEROLL_ARCHIVE_ROWS` sets the number of rows of each of the three nodes. If `PIPEROLL_ARCHIVE_PYTHON` names a Python with the module
//! `duckdb`, DuckDB answers the same questions on the same files.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use piperoll_client::NodeClient;
use piperoll_tests::{Cluster, Run, median, piperoll, until};
use serde_json::Value;

const ROWS_DEFAULT: usize = 200_000;
const CHUNK: usize = 5_000;
const ROUNDS: usize = 7;
/// Time for which entries are recorded while nothing is archived.
const APPENDS_ALONE: Duration = Duration::from_secs(5);
const NODES: [&str; 3] = ["mx1", "mx2", "mx3"];

#[tokio::main]
async fn main() {
    let rows: usize = std::env::var("PIPEROLL_ARCHIVE_ROWS").map_or(ROWS_DEFAULT, |text| text.parse().unwrap());
    let mut cluster = Cluster::made(&NODES, |_| None).await;
    cluster.poll_every(1_000);
    let folder = cluster.dir.path().join("archive");
    let url = format!("file://{}", folder.display());
    let authority = cluster.authority_dir().display().to_string();
    let added: Run = Command::new(piperoll())
        .args(["cluster", "add-archive", &authority, "main", "--aggregator", "agg", "--url", &url])
        .output()
        .unwrap()
        .into();
    assert_eq!(added.code, 0, "{}", added.stderr);
    cluster.run_all().await;
    let config = cluster.aggregator_folder().join("aggregator.toml").display().to_string();
    let made: Run = Command::new(piperoll()).args(["archive", "init", "--config", &config]).output().unwrap().into();
    assert_eq!(made.code, 0, "{}", made.stderr);
    record(&cluster, rows).await;

    let live = export(&cluster).await;
    print_peak(&cluster, "after the live export");
    let alone = appends(&cluster, async || tokio::time::sleep(APPENDS_ALONE).await).await;
    let started = Instant::now();
    let (mut run, mut took) = (Value::Null, 0.0);
    let during = appends(&cluster, async || {
        let mut command = cluster.command(&["archive", "run", "--now", "--json"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        took = started.elapsed().as_secs_f64();
        run = serde_json::from_slice(&output.stdout).unwrap();
    })
    .await;
    println!("appends of one client: {alone:.0}/s, {during:.0}/s while archiving, ratio {:.2}", during / alone);
    print_peak(&cluster, "after archiving");
    let archived = run["rows"].as_u64().unwrap() as f64;
    println!("archiving: {:.0} rows/s ({archived} rows in {took:.1} s)", archived / took);
    // The entries that were recorded meanwhile.
    settled(&cluster).await;
    let rest = cluster.run(&["archive", "run", "--now", "--json"]);
    let rest: Value = serde_json::from_str(&rest.stdout).unwrap();
    let archived = archived + rest["rows"].as_u64().unwrap() as f64;
    let stored: u64 = (0..NODES.len()).map(|node| signed_bytes(&cluster.database(node))).sum();
    let bytes: u64 = parquet_files(&folder).iter().map(|file| file.metadata().unwrap().len()).sum();
    println!("size: {:.3} of body and mac ({:.0} bytes a row)", bytes as f64 / stored as f64, bytes as f64 / archived);

    let trust: Run = Command::new(piperoll()).args(["cluster", "trust", &authority]).output().unwrap().into();
    let trust_file = cluster.dir.path().join("trust.toml");
    std::fs::write(&trust_file, trust.stdout).unwrap();
    let started = Instant::now();
    let verify: Run = Command::new(piperoll())
        .args(["archive", "verify", "--url", &url, "--trust"])
        .arg(&trust_file)
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into();
    assert_eq!(verify.code, 0, "{}{}", verify.stdout, verify.stderr);
    println!("archive verify: {:.0} rows/s", archived / started.elapsed().as_secs_f64());

    // Without their nodes, all rows come from the archive.
    let to = now_text();
    let after = later_text();
    until("the nodes to be witnessed", async || {
        let nodes = cluster.get("/api/v1/nodes", Some(&cluster.token)).await.json();
        let is_seen = |node: &Value| node["witnessed_at"].as_str() > Some(after.as_str());
        nodes["nodes"].as_array()?.iter().all(is_seen).then_some(())
    })
    .await;
    let by_user =
        |order: &str| format!("/api/v1/audit-log?from=1d&to={to}&user=user777&limit=50&order={order}&node=mx1,mx2,mx3");
    let live_page = ask(&cluster, &by_user("desc")).await;
    for node in 0..NODES.len() {
        cluster.kill(node);
    }
    let archived_export = export_to(&cluster, &to).await;
    println!(
        "verified export: {archived_export:.0} rows/s archived, {live:.0} live, ratio {:.2}",
        archived_export / live
    );
    let first = Instant::now();
    cluster.get(&by_user("desc"), Some(&cluster.token)).await;
    let cold = first.elapsed();
    let page = ask(&cluster, &by_user("desc")).await;
    println!(
        "newest 50 by user: {page:.1} ms archived (first {:.1} ms), {live_page:.1} ms live",
        cold.as_secs_f64() * 1e3
    );
    if let Some(duckdb) = duckdb(&folder) {
        println!("newest 50 by user, DuckDB: {duckdb:.1} ms; ratio {:.2}", page / duckdb);
    }
    print_peak(&cluster, "in the end");
}

fn print_peak(cluster: &Cluster, when: &str) {
    let memory = std::fs::read_to_string(format!("/proc/{}/status", cluster.aggregator_pid())).unwrap();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("aggregator {when}: {peak}");
}

/// Entries per second that one client records, one after the other, until `work` ends.
async fn appends(cluster: &Cluster, work: impl AsyncFnOnce()) -> f64 {
    let client = NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let entry =
        serde_json::json!({ "category": "auth", "action": "auth.login", "user": "appender", "outcome": "success" });
    let started = Instant::now();
    let count = std::cell::Cell::new(0_u32);
    let appending = async {
        loop {
            client.append(&entry).await.unwrap();
            count.set(count.get() + 1);
        }
    };
    tokio::select! {
        () = appending => {}
        () = work() => {}
    }
    f64::from(count.get()) / started.elapsed().as_secs_f64()
}

fn now_text() -> String {
    use piperoll_net::clock::{Clock as _, SystemClock};
    SystemClock.now().to_text()
}

/// A second from now: an archive answers up to a second before the node was last witnessed.
fn later_text() -> String {
    use piperoll_net::clock::{Clock as _, SystemClock};
    SystemClock.now().plus_micros(1_000_000).to_text()
}

async fn record(cluster: &Cluster, rows: usize) {
    for (node, id) in NODES.iter().enumerate() {
        let client = NodeClient::new(&cluster.nodes[node].folder.join("node.sock")).unwrap();
        for chunk in 0..rows.div_ceil(CHUNK) {
            let line = |n: usize| {
                let number = chunk * CHUNK + n;
                serde_json::json!({
                    "category": "data", "action": if number.is_multiple_of(3) { "message.read" } else { "message.update" },
                    "user": format!("user{}", number * 7919 % 5_000), "outcome": "success",
                    "ip_address": format!("10.{}.{}.{}", number % 7, number % 251, number * 31 % 253),
                    "entity_type": "message", "entity_id": format!("{id}-{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    "session": format!("{:x}", (number / 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                    "description": format!("message {number} was opened in the folder inbox of the mailbox {}", number % 900),
                    "details": { "folder": "inbox", "bytes": number * 37 % 90_000, "subject": format!("report {}", number % 1_000) },
                })
                .to_string()
            };
            let lines: Vec<String> = (0..CHUNK.min(rows - chunk * CHUNK)).map(line).collect();
            client.append_lines((lines.join("\n") + "\n").into_bytes(), false).await.unwrap();
        }
    }
    settled(cluster).await;
}

async fn settled(cluster: &Cluster) {
    until("all rows to be witnessed", async || {
        let nodes = cluster.get("/api/v1/nodes", Some(&cluster.token)).await.json();
        let is_settled = |node: &Value| node["unwitnessed"] == 0 || node["node_id"] == "agg";
        nodes["nodes"].as_array()?.iter().all(is_settled).then_some(())
    })
    .await;
}

fn signed_bytes(database: &Path) -> u64 {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.query_row("SELECT sum(length(body) + length(mac)) FROM entries", [], |row| row.get(0)).unwrap()
}

async fn export(cluster: &Cluster) -> f64 {
    export_to(cluster, &now_text()).await
}

/// Rows per second of a complete export without a filter.
async fn export_to(cluster: &Cluster, to: &str) -> f64 {
    let started = Instant::now();
    let answer =
        cluster.get(&format!("/api/v1/audit-log?format=ndjson&order=asc&from=1d&to={to}"), Some(&cluster.token)).await;
    let took = started.elapsed().as_secs_f64();
    let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["final"]["complete"], &last["final"]["proven"]), (&true.into(), &true.into()), "{last}");
    last["final"]["count"].as_f64().unwrap() / took
}

/// Median time of a page, in milliseconds.
async fn ask(cluster: &Cluster, path: &str) -> f64 {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let page = cluster.get(path, Some(&cluster.token)).await.json();
        times.push(started.elapsed().as_secs_f64() * 1e3);
        assert_eq!((&page["complete"], &page["count"]), (&true.into(), &50.into()), "{page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    median(times)
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let days = std::fs::read_dir(folder.join("data")).unwrap().flatten();
    days.flat_map(|day| std::fs::read_dir(day.path()).unwrap().flatten().map(|file| file.path())).collect()
}

/// Median time of the same page in DuckDB, in milliseconds.
fn duckdb(folder: &Path) -> Option<f64> {
    let python = std::env::var_os("PIPEROLL_ARCHIVE_PYTHON")?;
    let program = format!(
        r#"
import duckdb, statistics, time
rows = "read_parquet('{}/data/*/*.parquet')"
times = []
for _ in range({ROUNDS}):
    begin = time.perf_counter()
    found = duckdb.sql(f"SELECT body FROM {{rows}} WHERE user = 'user777' ORDER BY timestamp DESC, node_id DESC, seq DESC LIMIT 50").fetchall()
    times.append((time.perf_counter() - begin) * 1e3)
    assert len(found) == 50
print(statistics.median(times))
"#,
        folder.display()
    );
    let output = Command::new(python).args(["-c", &program]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap())
}
