//! Interrupts every durable step of checkpointing and witnessing: a process is killed at any moment, a step is done but not
//! acknowledged, or a step is acknowledged but not done. In the end the verdict is `ok`, no witnessed row is lost, and the
//! evidence verifies.

use std::time::Duration;

use piperoll_tests::{Cluster, Fault, entry};

use crate::witness::{report, witnessed};

async fn evidence_verifies(cluster: &Cluster) {
    cluster.verify_all();
    let trust = cluster.dir.path().join("trust.toml");
    std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
    let path = cluster.dir.path().join("end.tar");
    let _ = std::fs::remove_file(&path);
    let run = cluster.run(&["export", "--bundle", path.to_str().unwrap(), "--reason", "the end of a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = cluster.run(&["verify-bundle", path.to_str().unwrap(), "--trust", trust.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stdout);
}

/// The witness polls and the node signs at short intervals, and both are killed repeatedly.
#[tokio::test(flavor = "multi_thread")]
async fn kills_of_node_and_witness_leave_no_alarm() {
    let mut cluster = Cluster::witnessed(&["mx1"], 10).await;
    for round in 0..16u32 {
        let lines: Vec<String> = (0..90).map(|n| entry(&format!("u{n}"), &format!("round.{round}"))).collect();
        cluster.append(0, &lines).await;
        // Vary the moment of the kill, so that it falls between two writes of one step, or between the witness's and the node's
        // part of a poll.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 37 % 400)).await;
        if round % 2 == 0 {
            cluster.kill(0);
            cluster.restart(0).await;
        } else {
            cluster.kill_aggregator();
            cluster.spawn_aggregator();
            cluster.wait_for_aggregator().await;
        }
    }
    witnessed(&cluster, "mx1").await;
    let alarms = cluster.page("filter=action:audit.witness_verdict%20reason:fork,rollback&limit=50").await.json();
    assert_eq!(alarms["count"], 0, "{alarms}");
    evidence_verifies(&cluster).await;
}

/// The witness stores and cosigns a checkpoint, but the node never receives this cosignature; the cosignatures of later
/// checkpoints still arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_cosignature_that_gets_lost_changes_nothing() {
    let mut cluster = Cluster::witnessed(&["mx1"], 100).await;
    witnessed(&cluster, "mx1").await;
    let before = cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout;
    // From here on, the witness's messages do not reach the node.
    cluster.nodes[0].proxy.set(Fault::Close);
    cluster.nodes[0].proxy.cut();
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    report(&cluster, "mx1", |line| line["verdict"] != "ok").await;
    assert_eq!(cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout, before);
    cluster.nodes[0].proxy.heal();
    witnessed(&cluster, "mx1").await;
    assert_ne!(cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout, before);
    cluster.stop(0);
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    evidence_verifies(&cluster).await;
}

/// Simulates a crash between the two writes of a checkpoint: the database has the checkpoint, but the file next to the database
/// has an older one or is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_half_stored_is_completed() {
    let mut cluster = Cluster::witnessed(&["mx1"], 100).await;
    let beside = cluster.nodes[0].folder.join("data/log.checkpoint");
    witnessed(&cluster, "mx1").await;
    let older = std::fs::read(&beside).unwrap();
    cluster.append(0, &[entry("alice", "auth.login"), entry("bob", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    // The checkpoint is stored in the database only.
    std::fs::write(&beside, &older).unwrap();
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    assert_ne!(std::fs::read(&beside).unwrap(), older);
    cluster.stop(0);
    // An interrupted write left a temporary file and no checkpoint file.
    std::fs::write(beside.with_extension("checkpoint.new"), b"half a no").unwrap();
    std::fs::remove_file(&beside).unwrap();
    cluster.restart(0).await;
    cluster.append(0, &[entry("carol", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    evidence_verifies(&cluster).await;
}

/// A witness that cannot write its state, as on a full disk, cosigns nothing that it has not stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_cannot_store_does_not_cosign() {
    let cluster = Cluster::witnessed(&["mx1"], 100).await;
    witnessed(&cluster, "mx1").await;
    let memory = cluster.aggregator_folder().join("state/witness");
    // A directory with the name of the file to be written makes the write fail for every user, including root.
    while let Err(error) = std::fs::create_dir(memory.join("mx1.json.new")) {
        // The witness is writing this file right now.
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let remembered = std::fs::read_to_string(memory.join("mx1.json")).unwrap();
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    let line = report(&cluster, "mx1", |line| line["verdict"] == "unverifiable").await;
    assert!(line["reason"].as_str().unwrap().contains("cannot store the witness's state"), "{line}");
    assert_eq!(std::fs::read_to_string(memory.join("mx1.json")).unwrap(), remembered);
    let kept = cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout;
    assert!(remembered.contains(kept.lines().nth(2).unwrap()), "the node holds a cosignature that nobody remembers");
    std::fs::remove_dir(memory.join("mx1.json.new")).unwrap();
    witnessed(&cluster, "mx1").await;
    evidence_verifies(&cluster).await;
}
