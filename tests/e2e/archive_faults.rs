//! Faults between the archive's writer and its store: they cost time, never rows, and no finding stays because of them.

use std::process::Stdio;
use std::time::Duration;

use piperoll_tests::{Cluster, Fault, FaultProxy, Guard, entry};
use serde_json::Value;

use crate::archive::{cluster_with_archive, on_aggregator, trust_file, verify};
use crate::buckets::{S3, SECRET_KEY};
use crate::witness::witnessed;

const URL: &str = "s3://audit/faults";
/// Rows that are recorded between two rounds.
const BATCH: usize = 60;

async fn append(cluster: &Cluster, round: usize) {
    let lines: Vec<String> = (0..BATCH).map(|n| entry(&format!("r{round}n{n}"), "faults.row")).collect();
    cluster.append(round % 2, &lines).await;
    witnessed(cluster, ["mx1", "mx2"][round % 2]).await;
}

/// Begins a round in the background.
fn begin_round(cluster: &Cluster) -> Guard {
    Guard(cluster.command(&["archive", "run", "--now"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Archives what is left, without a fault, and verifies everything. Every row is there once.
async fn finish(cluster: &mut Cluster, s3: &S3, rounds: usize) {
    for node in ["mx1", "mx2"] {
        witnessed(cluster, node).await;
    }
    let run = cluster.run(&["archive", "run", "--now"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let status = cluster.run(&["archive", "status"]);
    assert!(status.code == 0 && status.stdout.contains("verdict: ok"), "{}{}", status.stdout, status.stderr);
    let direct = cluster.dir.path().join("direct.credentials");
    std::fs::write(&direct, s3.credentials()).unwrap();
    std::fs::set_permissions(&direct, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let trust = trust_file(cluster);
    let good = verify(URL, &trust, &["--json", "--credentials", &direct.display().to_string()]);
    let report: Value = serde_json::from_str(&good.stdout).unwrap_or_default();
    assert_eq!((good.code, &report["verified"]), (0, &Value::Bool(true)), "{report} {}", good.stderr);
    assert_eq!(report["open"], serde_json::json!([]), "{report}");
    // Without the nodes, the archive has the rows.
    for node in 0..2 {
        crate::archive::witnessed_after(cluster, ["mx1", "mx2"][node]).await;
    }
    for node in 0..2 {
        cluster.kill(node);
    }
    let found = cluster.page("filter=action:faults.row%20node:mx1,mx2&from=1d&limit=1000").await.json();
    let users: std::collections::BTreeSet<&str> =
        found["entries"].as_array().unwrap().iter().map(|row| row["entry"]["user"].as_str().unwrap()).collect();
    assert_eq!((found["count"].as_u64(), users.len()), (Some((rounds * BATCH) as u64), rounds * BATCH), "{found}");
    for node in 0..2 {
        cluster.restart(node).await;
    }
    assert!(!cluster.log_text("agg").contains(SECRET_KEY), "a secret");
    cluster.verify_all();
}

/// The network to the store fails in every way, also in the middle of a round.
#[tokio::test(flavor = "multi_thread")]
async fn network_faults_cost_time_but_no_row() {
    let Some(s3) = S3::start().await else { return };
    let proxy = FaultProxy::start(&s3.address);
    let mut cluster = cluster_with_archive(|_| URL.to_owned(), Some(&s3.credentials_at(&proxy.address))).await;
    let made = on_aggregator(&cluster, &["init"]);
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    let faults = [
        Fault::Close,
        Fault::Garbage,
        Fault::CutAfter(300),
        Fault::CutAfter(3_000),
        Fault::CutAfter(12_000),
        Fault::Corrupt,
        Fault::Corrupt,
        Fault::Trickle,
        Fault::Silent,
        Fault::Delay(Duration::from_millis(40)),
    ];
    let mut failures = 0;
    for (round, fault) in faults.iter().enumerate() {
        append(&cluster, round).await;
        let is_in_the_middle = round % 2 == 1;
        if !is_in_the_middle {
            proxy.set(fault.clone());
        }
        let mut running = begin_round(&cluster);
        tokio::time::sleep(Duration::from_millis(if is_in_the_middle { 120 } else { 900 })).await;
        proxy.set(fault.clone());
        tokio::time::sleep(Duration::from_millis(900)).await;
        // Nobody has to do anything but wait until the network works again.
        proxy.heal();
        proxy.cut();
        let ended = running.0.wait().unwrap();
        failures += usize::from(!ended.success());
    }
    assert!(failures > 0, "no round noticed a fault");
    finish(&mut cluster, &s3, faults.len()).await;
}

/// The store is killed in the middle of rounds, and starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_costs_no_row() {
    let Some(mut s3) = S3::start().await else { return };
    let mut cluster = cluster_with_archive(|_| URL.to_owned(), Some(&s3.credentials())).await;
    let made = on_aggregator(&cluster, &["init"]);
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    const ROUNDS: usize = 2;
    for round in 0..ROUNDS {
        append(&cluster, round).await;
        let mut running = begin_round(&cluster);
        tokio::time::sleep(Duration::from_millis(60 * (round as u64 + 1))).await;
        s3.kill();
        s3.restart().await;
        let _ = running.0.wait();
    }
    finish(&mut cluster, &s3, ROUNDS).await;
}
