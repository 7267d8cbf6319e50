//! Speed, as ratios inside one run: `cargo bench --bench speed -p piperoll-tests`. Figures, not tests.
//!
//! Durable append against plain SQLite inserts of the same bytes in the same batches; merged and verified
//! export against `sqlite3` dumping the three tables one after the other; the first page of three nodes
//! against the slowest node alone.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use piperoll_tests::{Cluster, append_in_flight, caller_entry, median, new_store, piperoll};
use rusqlite::Connection;

const WRITERS: [usize; 4] = [1, 16, 128, 1_024];
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const EXPORT_ROWS_PER_NODE: usize = 200_000;
const PAGES: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // `cargo bench … -- append` or `-- read` runs one half.
    let wanted = |half: &str| {
        let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        asked.is_empty() || asked.iter().any(|arg| arg == half)
    };
    runtime.block_on(async {
        if wanted("append") {
            append().await;
        }
        if wanted("read") {
            read().await;
        }
    });
}

async fn append() {
    println!("durable append, rows/s (median of {ROUNDS} rounds of {} s, alternating)", ROUND.as_secs());
    println!("{:>8} {:>12} {:>12} {:>7}", "writers", "sqlite", "piperoll", "ratio");
    for writers in WRITERS {
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(plain_sqlite(writers));
            ours.push(our_store(writers).await);
        }
        let (plain, ours) = (median(plain), median(ours));
        println!("{writers:>8} {plain:>12.0} {ours:>12.0} {:>7.2}", ours / plain);
    }
}

/// Body and mac into one table, one commit per batch; the floor.
fn plain_sqlite(batch: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let conn = Connection::open(dir.path().join("plain.db")).unwrap();
    conn.execute_batch("PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; CREATE TABLE entries (seq INTEGER PRIMARY KEY, mac BLOB, body TEXT) STRICT").unwrap();
    // The node's fields in front make a body about 250 bytes longer than the caller's text.
    let (body, mac) = (format!("{:250}{}", "", caller_entry(7)), [7u8; 32]);
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < ROUND {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = conn.prepare_cached("INSERT INTO entries (mac, body) VALUES (?1, ?2)").unwrap();
        for _ in 0..batch {
            insert.execute((&mac[..], &body)).unwrap();
        }
        drop(insert);
        conn.execute_batch("COMMIT").unwrap();
        rows += batch;
    }
    rows as f64 / started.elapsed().as_secs_f64()
}

async fn our_store(writers: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(&dir.path().join("data"));
    let rate = append_in_flight(&store, writers, ROUND).await;
    store.close().await;
    rate
}

async fn read() {
    let cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    for index in 0..3 {
        let lines: Vec<String> = (0..EXPORT_ROWS_PER_NODE).map(caller_entry).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    let total = 3 * EXPORT_ROWS_PER_NODE;

    let timed = |work: &dyn Fn()| {
        median(
            (0..ROUNDS)
                .map(|_| {
                    let t = Instant::now();
                    work();
                    t.elapsed().as_secs_f64()
                })
                .collect(),
        )
    };
    let dump = timed(&|| {
        for index in 0..3 {
            let status = Command::new("sqlite3")
                .arg(cluster.database(index))
                .arg("SELECT seq, hex(mac), body FROM entries ORDER BY seq")
                .stdout(Stdio::null())
                .status();
            assert!(status.unwrap().success());
        }
    });
    let export = timed(&|| {
        let status = Command::new(piperoll())
            .args(["export", "--output", "-"])
            .env("PIPEROLL_URL", &cluster.url)
            .env("PIPEROLL_CA", cluster.ca())
            .env("PIPEROLL_TOKEN", &cluster.token)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    });
    println!("\nexport of {total} rows");
    println!("  sqlite3 dumping three tables one after the other: {:>9.0} rows/s", total as f64 / dump);
    println!(
        "  piperoll, merged and verified over mTLS:          {:>9.0} rows/s, ratio {:.2}",
        total as f64 / export,
        dump / export
    );

    let mut pages: Vec<f64> = Vec::new();
    let mut slowest: Vec<f64> = Vec::new();
    for _ in 0..PAGES {
        let answer = cluster.page("limit=50").await;
        pages.push(answer.took.as_secs_f64() * 1_000.0);
        let alone = ["mx1", "mx2", "mx3"].map(|id| answer.node(id)["took_ms"].as_f64().unwrap());
        slowest.push(alone.into_iter().fold(0.0, f64::max));
    }
    let (page, node) = (median(pages), median(slowest));
    println!(
        "\nfirst page of 50 over {PAGES} requests, median: {page:.1} ms; the slowest node alone {node:.1} ms; the difference holds the synced entry about the request"
    );
}
