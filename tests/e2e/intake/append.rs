//! `piperoll node append` as programs and operators use it.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use piperoll_tests::{Cluster, piperoll};

use super::{entries, wait_for};

fn appending(cluster: &Cluster, args: &[&str]) -> Child {
    Command::new(piperoll())
        .args(["node", "append"])
        .args(args)
        .env("PIPEROLL_NODE_CONFIG", cluster.nodes[0].folder.join("node.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn line(number: u32) -> String {
    format!("{{\"category\":\"data\",\"action\":\"steady.line\",\"request_id\":\"{number}\"}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_pauses_is_recorded_as_it_comes_and_over_a_restart() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.run_all().await;
    let mut child = appending(&cluster, &["-"]);
    let mut input = child.stdin.take().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    // Write a line every 5 ms, so that a batch is never ended by a pause.
    let writer = std::thread::spawn(move || {
        let mut number = 0;
        while stopped.recv_timeout(Duration::from_millis(5)).is_err() {
            number += 1;
            input.write_all(line(number).as_bytes()).unwrap();
        }
        number
    });
    wait_for(&cluster, "action:steady.line", 50);
    cluster.kill(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.restart(0).await;
    let before = entries(&cluster, "action:steady.line").len();
    wait_for(&cluster, "action:steady.line", before + 50);
    cluster.stop(0);
    cluster.restart(0).await;
    stop.send(()).unwrap();
    let written = writer.join().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let plain = said.replace(',', "");
    assert!(plain.contains(&format!("{written} recorded 0 duplicate 0 refused")), "{written}: {said}");
    let found = entries(&cluster, "action:steady.line");
    let numbers: Vec<u32> = found.iter().map(|entry| entry["request_id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=written).collect::<Vec<_>>(), "each once, in order");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_that_cannot_be_recorded_fails_alone() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.run_all().await;
    let mut child = appending(&cluster, &["-"]);
    let mut input = child.stdin.take().unwrap();
    let huge = format!(
        "{{\"category\":\"data\",\"action\":\"steady.line\",\"description\":\"{}\"}}\n",
        "x".repeat(80_000_000)
    );
    let writer = std::thread::spawn(move || {
        for part in ["\u{feff}".to_owned() + &line(1), huge, "no JSON\n".to_owned(), line(4)] {
            input.write_all(part.as_bytes()).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("2 recorded, 0 duplicate, 2 refused"), "{said}");
    assert!(said.contains("line 2: not recorded: 80000") && said.contains("line 3: not recorded"), "{said}");
    assert_eq!(entries(&cluster, "action:steady.line").len(), 2);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn details_keep_numbers_and_order_as_they_were_typed() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.run_all().await;
    let typed = "{\"b\":1.50,\n \"a\":12345678901234567890123,\"c\":1E2}";
    let run = cluster.on_node(0, &["append", "--category", "data", "--action", "n.n", "--details", typed]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let shown = cluster.on_node(0, &["query", "action:n.n", "--json"]).stdout;
    assert!(shown.contains("{\"b\":1.50,\"a\":12345678901234567890123,\"c\":1E2}"), "{shown}");
    let bad = cluster.on_node(0, &["append", "--category", "data", "--action", "n.n", "--details", "{"]);
    assert!(bad.code != 0 && bad.stderr.contains("--details is not JSON"), "{}", bad.stderr);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_appends_and_a_starting_daemon_wait_for_each_other() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let begun = Instant::now();
    let mut appends = Vec::new();
    // Each command opens the log briefly, while the daemon is started and stopped in between.
    for round in 0..4 {
        for number in 0..4 {
            let user = format!("u{round}-{number}");
            appends.push(appending(&cluster, &["--category", "data", "--action", "wait.turn", "--user", &user]));
        }
        cluster.spawn(0);
        cluster.wait_for_node(&cluster.nodes[0]).await;
        cluster.stop(0);
    }
    for append in appends {
        let output = append.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(entries(&cluster, "action:wait.turn").len(), 16, "after {:?}", begun.elapsed());
    cluster.verify_all();
}
