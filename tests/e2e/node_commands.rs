//! The on-node commands, with the daemon running and stopped.

use piperoll_tests::{Cluster, entry};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn commands_give_the_same_with_and_without_the_daemon() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    let lines: Vec<String> = (0..20).map(|n| entry(&format!("u{}", n % 4), "auth.login")).collect();
    cluster.append(0, &lines).await;
    let commands: [&[&str]; 5] = [
        &["query", "user:u1,u2", "-category:config", "--json"],
        &["query", "--order", "asc", "--limit", "7", "--json"],
        &["show", "3", "--json"],
        &["tail", "-n", "4", "--json"],
        &["export", "user:u3", "--format", "csv"],
    ];
    let upper = |run: piperoll_tests::Run| {
        assert_eq!(run.code, 0, "{}", run.stderr);
        // Skip the final line, because the number of scanned rows in it increases when `log.stopped` is recorded.
        run.stdout.lines().filter(|line| !line.starts_with("{\"final\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    let through_socket: Vec<_> = commands.iter().map(|args| upper(cluster.on_node(0, args))).collect();
    let direct: Vec<_> =
        commands.iter().map(|args| upper(cluster.on_node(0, &[args, &["--direct"][..]].concat()))).collect();
    assert_eq!(through_socket, direct, "beside a running daemon");
    assert_eq!(cluster.on_node(0, &["status", "--health"]).code, 0);

    cluster.stop(0);
    let down: Vec<_> = commands.iter().map(|args| upper(cluster.on_node(0, args))).collect();
    for (index, args) in commands.iter().enumerate() {
        if !["tail"].contains(&args[0]) {
            assert_eq!(through_socket[index], down[index], "{args:?} with the daemon down");
        }
    }
    assert_eq!(cluster.on_node(0, &["status", "--health"]).code, 1);
    assert!(cluster.on_node(0, &["status", "--table"]).stdout.contains("not running"));
    let status: Value = serde_json::from_str(&cluster.on_node(0, &["status"]).stdout).unwrap();
    assert_eq!((&status["running"], &status["head_seq"]), (&false.into(), &21.into()), "{status}");

    // Append while the daemon is down. At its next start, the daemon still recognizes that its last stop was clean.
    let run = cluster.on_node(
        0,
        &["append", "--category", "auth", "--action", "auth.login", "--user", "offline", "--entity", "mail/7"],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    let receipt: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(receipt["seq"], 22, "behind log.stopped");
    cluster.restart(0).await;
    let run = cluster.on_node(0, &["query", "via:node", "--limit", "1", "--json"]);
    assert!(run.stdout.contains("\"last_stop\":\"clean\""), "{}", run.stdout);
    let run = cluster.on_node(0, &["query", "user:offline entity:mail/7 via:cli", "--json"]);
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    assert_eq!(cluster.on_node(0, &["show", "999"]).code, 1);
    cluster.verify_all();
}

/// `tail -f` shows new entries that match its filter.
#[tokio::test(flavor = "multi_thread")]
async fn followed_logs_show_new_entries() {
    let cluster = Cluster::start(&["mx1"]).await;
    let tail = std::process::Command::new(piperoll_tests::piperoll())
        .args(["node", "tail", "-f", "-n", "1", "--json", "user:watched", "--config"])
        .arg(cluster.nodes[0].folder.join("node.toml"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut tail = piperoll_tests::Guard(tail);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for n in 0..3 {
        cluster.append(0, &[entry("watched", &format!("step.{n}")), entry("other", "noise")]).await;
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    let lines = tokio::task::spawn_blocking(move || {
        use std::io::BufRead as _;
        let out = std::io::BufReader::new(tail.0.stdout.take().unwrap());
        let lines: Vec<String> = out.lines().take(3).map(Result::unwrap).collect();
        lines
    })
    .await
    .unwrap();
    for (n, line) in lines.iter().enumerate() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["entry"]["action"], format!("step.{n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_named_in_every_form_that_is_printed_somewhere() {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    cluster.append(0, &[entry("alice", "auth.login"), entry("bob", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let shown = |run: piperoll_tests::Run| {
        assert_eq!(run.code, 0, "{}", run.stderr);
        let line = run.stdout.lines().next().unwrap().to_owned();
        serde_json::from_str::<Value>(&line).unwrap()["entry"].clone()
    };
    let own: Vec<Value> =
        ["1", "mx1/1", "mx1:1"].map(|row| shown(cluster.on_node(0, &["show", row, "--json"]))).to_vec();
    let merged: Vec<Value> = ["mx1/1", "mx1:1"].map(|row| shown(cluster.run(&["show", row, "--json"]))).to_vec();
    for entry in own.iter().chain(&merged) {
        assert_eq!((&entry["node_id"], &entry["seq"], &entry["user"]), (&"mx1".into(), &1.into(), &"alice".into()));
    }
    // The address of another node's row does not select the row with the same number on this node.
    for (run, words) in [
        (cluster.on_node(0, &["show", "mx2/1"]), "this is node mx1"),
        (cluster.on_node(0, &["erase", "--seq", "mx2/1", "--reason", "request 1"]), "this is node mx1"),
        (cluster.on_node(0, &["show", "mx1"]), "write NODE/SEQ"),
        (cluster.run(&["show", "1"]), "no node given"),
        (cluster.run(&["show", "mx1/x"]), "write NODE/SEQ"),
        (cluster.run(&["judge", "mx1", "reviewed", "--reason", "r"]), "write NODE/SEQ"),
    ] {
        assert!(run.code == 2 && run.stderr.contains(words), "{words}: {} {}", run.code, run.stderr);
    }
    let erased = cluster.on_node(0, &["erase", "--seq", "mx1:2", "--reason", "request 2"]);
    assert_eq!(erased.code, 0, "{}", erased.stderr);
    cluster.verify_all();
}
