//! Tests machines whose clocks are so wrong that certificates appear invalid: every side reports a wrong clock as the only cause.

use std::time::Duration;

use piperoll_tests::{ClockShim, Cluster, entry, piperoll, until};

use crate::keys::cluster_command;

const DAY_SECONDS: i64 = 86_400;

/// Collects the reasons that the aggregator gives for a node over at least 4 seconds.
async fn reasons(cluster: &Cluster, node: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    for _ in 0..20 {
        let page = cluster.page("limit=1").await;
        assert_ne!(page.status_of(node), "ok", "{}", page.text);
        reasons.push(page.node(node)["reason"].as_str().unwrap_or_default().to_owned());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_wrong_clock_is_named_as_that() {
    let mut cluster = Cluster::made(&["mx1", "mx2"], |_| None).await;
    if !ClockShim::can_reach(piperoll()) {
        eprintln!("SKIPPED: the program is linked statically, so no library can move its clock");
        return;
    }
    let shim = ClockShim::compiled(cluster.dir.path()).expect("a C compiler, which building needs too");
    let clock = cluster.dir.path().join("clock");
    ClockShim::set(&clock, 0).unwrap();
    cluster.nodes[0].environment.extend(shim.environment(&clock));
    cluster.run_all().await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.wait_until_complete().await;
    // Set the clock to a time before any certificate was issued, and to a time after all of them have expired.
    for (days, words) in [(-40, "which is in the past"), (8_000, "days ago by this machine's clock")] {
        cluster.stop(0);
        ClockShim::set(&clock, days * DAY_SECONDS).unwrap();
        cluster.restart(0).await;
        let all = reasons(&cluster, "mx1").await;
        let is_named = |reason: &&String| reason.contains("the clocks differ") && reason.contains("piperoll doctor");
        assert!(all.iter().all(|reason| is_named(&reason)), "{days} days: {all:#?}");
        // `piperoll doctor` on that machine reports the wrong clock.
        let doctor = std::process::Command::new(piperoll())
            .args(["doctor", "--node"])
            .arg(cluster.nodes[0].folder.join("node.toml"))
            .envs(shim.environment(&clock))
            .output()
            .unwrap();
        let said = String::from_utf8(doctor.stdout).unwrap();
        assert!(said.contains(words), "{days} days: {said}");
        ClockShim::set(&clock, 0).unwrap();
        until("the node is back", async || (cluster.page("limit=1").await.status_of("mx1") == "ok").then_some(()))
            .await;
    }
}

/// A command on a user's machine with a wrong clock reports the wrong clock, and tells the user to correct it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_a_machine_with_a_wrong_clock_says_so() {
    if !ClockShim::can_reach(piperoll()) {
        eprintln!("SKIPPED: the program is linked statically, so no library can move its clock");
        return;
    }
    let cluster = Cluster::start(&["mx1"]).await;
    let shim = ClockShim::compiled(cluster.dir.path()).expect("a C compiler, which building needs too");
    let clock = cluster.dir.path().join("clock");
    let query = |days: i64| {
        ClockShim::set(&clock, days * DAY_SECONDS).unwrap();
        let output = cluster.command(&["query"]).envs(shim.environment(&clock)).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (days, words) in [
        (-40, "is not valid yet according to this machine's clock"),
        (8_000, "has expired according to this machine's clock"),
    ] {
        let (code, stderr) = query(days);
        assert!(
            code == 1 && stderr.contains(words) && stderr.contains("set the clock"),
            "{days} days: {code} {stderr}"
        );
    }
    let (code, stderr) = query(0);
    assert_eq!(code, 0, "{stderr}");
}

/// If the aggregator's certificate is revoked, every answer reports this reason; clocks play no part in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_aggregator_is_told_so_every_time() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    cluster.wait_until_complete().await;
    let run = cluster_command(&cluster, &["revoke", "agg"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    cluster.stop(0);
    cluster.restart(0).await;
    let all = reasons(&cluster, "mx1").await;
    let is_named = |reason: &String| reason.contains("the node refused our certificate (CertificateRevoked)");
    assert!(all.iter().all(is_named), "{all:#?}");
}
