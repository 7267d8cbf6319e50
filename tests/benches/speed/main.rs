//! Measures speed as ratios within one run: `cargo bench --bench speed -p piperoll-tests`. Prints the figures without checking
//! them.
//!
//! Compares three pairs: durable append with all features on and plain SQLite; a merged, verified export and `sqlite3` dumping
//! the three tables one after the other; the first page of three nodes and that of the slowest node alone.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

mod append;

use std::process::{Command, Stdio};
use std::time::Instant;

use piperoll_tests::{Cluster, caller_entry, median, piperoll};

const ROUNDS: usize = 3;
const EXPORT_ROWS_PER_NODE: usize = 200_000;
const PAGES: usize = 200;

fn main() {
    piperoll_net::crypto::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // `cargo bench … -- append` or `-- read` runs only that half.
    let wanted = |half: &str| {
        let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        asked.is_empty() || asked.iter().any(|arg| arg == half)
    };
    runtime.block_on(async {
        if wanted("append") {
            append::run().await;
        }
        if wanted("read") {
            read().await;
        }
    });
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
