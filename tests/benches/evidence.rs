//! Measures the cost of tamper evidence, as ratios within one run: `cargo bench --bench evidence -p piperoll-tests`. Prints the
//! figures without checking them. `-- tree`, `-- verify`, `-- bundle` or `-- witness` runs one part.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use piperoll_evidence::bundle::Members;
use piperoll_format::merkle::leaf_hash;
use piperoll_tests::{Cluster, append_in_flight, caller_entry, median, new_entry, new_store, piperoll};
use rusqlite::Connection;

const WRITERS: usize = 128;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const PAIRS: usize = 20;
const VERIFY_ROWS: usize = 300_000;
const BUNDLE_LOG_ROWS: usize = 1_000_000;
const BUNDLE_ROWS: usize = 100_000;
const IDLE_NODES: usize = 100;
const POLL: Duration = Duration::from_secs(2);

fn main() {
    piperoll_net::crypto::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|arg| arg == part);
    runtime.block_on(async {
        if wanted("tree") {
            tree().await;
        }
        if wanted("verify") {
            verify().await;
        }
        if wanted("bundle") {
            bundle().await;
        }
        if wanted("witness") {
            witness().await;
        }
    });
}

/// Measures appends with the tree and a checkpoint every second, and without them.
async fn tree() {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..PAIRS {
        // Each variant runs first in half of the pairs, because the machine's speed drifts.
        let first = appended(round % 2 == 0).await;
        let second = appended(round % 2 != 0).await;
        let (tree, none) = if round % 2 == 0 { (first, second) } else { (second, first) };
        with.push(tree);
        without.push(none);
        ratios.push(tree / none);
    }
    let (without, with, ratio) = (median(without), median(with), median(ratios));
    println!(
        "append, {WRITERS} writers: without tree {without:.0} rows/s, with tree and checkpoints {with:.0}, ratio {ratio:.2} (medians of {PAIRS} pairs)"
    );
}

async fn appended(with_tree: bool) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(&dir.path().join("data"));
    let signing = with_tree.then(|| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                store.checkpoint().await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    });
    if !with_tree {
        store.leave_out_tree().await;
    }
    let rate = append_in_flight(&store, WRITERS, ROUND).await;
    if let Some(signing) = signing {
        signing.abort();
    }
    store.close().await;
    rate
}

/// Compares the full check of a log with one thread that reads the same rows and hashes each once.
async fn verify() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = new_store(&path);
    let via: Arc<str> = Arc::from("socket uid=0");
    for first in (0..VERIFY_ROWS).step_by(1_000) {
        let new_entries = (first..first + 1_000).map(|n| new_entry(&caller_entry(n), &via));
        assert!(store.append(new_entries.collect()).await.iter().all(Result::is_ok));
    }
    let (mut reading, mut checking) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let conn = Connection::open(path.join("log.db")).unwrap();
        let mut statement = conn.prepare("SELECT body, mac FROM entries ORDER BY seq").unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (body, mac) = (row.get_ref(0).unwrap(), row.get_ref(1).unwrap());
            std::hint::black_box(leaf_hash(body.as_bytes().unwrap(), mac.as_bytes().unwrap()));
        }
        reading.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        let mut check = store.check();
        while !check.done() {
            check = store.check_step(check).await.unwrap().0;
        }
        checking.push(started.elapsed().as_secs_f64());
    }
    store.close().await;
    let rate = |seconds: f64| VERIFY_ROWS as f64 / seconds;
    let (reading, checking) = (median(reading), median(checking));
    println!(
        "full verification of {VERIFY_ROWS} rows: {:.0} rows/s; reading and hashing each once: {:.0} rows/s; ratio {:.2}",
        rate(checking),
        rate(reading),
        reading / checking
    );
}

/// Measures how long a bundle of a hundred thousand rows takes to export and to verify.
async fn bundle() {
    let cluster = Cluster::witnessed(&["mx1"], 500).await;
    let lines: Vec<String> = (0..BUNDLE_LOG_ROWS).map(caller_entry).collect();
    cluster.append(0, &lines).await;
    let time = |seq: usize| cluster.row_timestamp(0, seq);
    let (from, to) = (time(BUNDLE_LOG_ROWS / 2), time(BUNDLE_LOG_ROWS / 2 + BUNDLE_ROWS));
    let trust = cluster.dir.path().join("trust.toml");
    std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
    let path = cluster.dir.path().join("b.tar");
    let started = Instant::now();
    let args = ["export", "--bundle", path.to_str().unwrap(), "--reason", "speed", "--from", &from, "--to", &to];
    let run = cluster.run(&args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let made = started.elapsed().as_secs_f64();
    let bytes = std::fs::read(&path).unwrap();
    let proofs = Members::new(&bytes).map(Result::unwrap).filter(|member| member.name.ends_with("/proof"));
    let largest = proofs.map(|member| member.bytes.len()).max().unwrap();
    let program = piperoll().with_file_name("piperoll-verify");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let verified = Command::new(&program).arg(&path).arg("--trust").arg(&trust).output().unwrap();
        times.push(started.elapsed().as_secs_f64());
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    let starting = Instant::now();
    assert!(Command::new(&program).arg("--version").output().unwrap().status.success());
    let starting = starting.elapsed().as_secs_f64();
    println!(
        "bundle of about {BUNDLE_ROWS} of {BUNDLE_LOG_ROWS} rows ({} MB): made in {made:.1} s, verified in {:.2} s; largest proof {largest} bytes; the verifier starts in {:.1} ms",
        bytes.len() / 1_000_000,
        median(times),
        starting * 1_000.0
    );
}

/// Measures the witness on a hundred idle nodes, each polled for its checkpoint in every round.
async fn witness() {
    // Every node has a proxy, and all proxies run in this process, so raise the limit of open files.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let ids: Vec<String> = (0..IDLE_NODES).map(|n| format!("n{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let cluster = Cluster::witnessed(&ids, u32::try_from(POLL.as_millis()).unwrap()).await;
    cluster.wait_until_complete().await;
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
        // utime and stime (proc(5)), which follow the state letter and ten numbers.
        fields[10] + fields[11]
    };
    let pid = cluster.aggregator_pid();
    tokio::time::sleep(POLL * 2).await;
    let (before, rounds) = (ticks(pid), 10);
    tokio::time::sleep(POLL * rounds).await;
    // A clock tick is a hundredth of a second on every Linux that this benchmark runs on.
    let millis = (ticks(pid) - before) as f64 * 10.0 / f64::from(rounds);
    println!("witness round for {IDLE_NODES} idle nodes: {millis:.0} ms of aggregator CPU, its other work included");
}
