//! Bad input gets a clear error, the node keeps running, and no valid entry is lost.

use std::io::Write as _;
use std::process::{Command, Stdio};

use piperoll_client::NodeClient;
use piperoll_tests::{Cluster, Run, entry, piperoll};
use serde_json::{Value, json};

/// Runs `piperoll node append -` with these bytes on standard input.
fn append_stdin(cluster: &Cluster, bytes: &[u8]) -> Run {
    let mut child = Command::new(piperoll())
        .args(["node", "append", "-", "--config"])
        .arg(cluster.nodes[0].folder.join("node.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    output.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_refused_say_why_and_where() {
    let cluster = Cluster::start(&["mx1"]).await;
    let rows_before = cluster.page("node=mx1").await.json()["count"].as_u64().unwrap();
    let too_long = json!({ "category": "auth", "action": "a", "details": { "x": "y".repeat(66_000) } }).to_string();
    let deep = format!(r#"{{"category":"auth","action":"a","details":{}1{}}}"#, "{\"a\":".repeat(200), "}".repeat(200));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (too_long.into_bytes(), "more than the limit of 64255"),
        (vec![b'x'; 300_000], "more than the limit of 262144"),
        (b"{\"category\":\"auth\",\"action\":\"a\",\"user\":\"\xff\xfe\"}".to_vec(), "UTF-8"),
        (b"{\"category\":\"auth\",\"action\":\"a\",\"user\":\"x\0y\"}".to_vec(), "control character"),
        (br#"{"category":"auth","action":"a","user":"x\u0000y"}"#.to_vec(), "U+0000"),
        (deep.into_bytes(), "levels of nesting"),
        (br#"{"category":"auth","action":"a","details":{"a":1,"a":2}}"#.to_vec(), "occurs twice"),
        (br#"{"category":"auth","action":"a","details":{"n":1e}}"#.to_vec(), "expected a digit"),
        (br#"{"category":"log","action":"log.started"}"#.to_vec(), "reserved for the node itself"),
        (br#"{"category":"auth","action":"a","node_id":"mx2"}"#.to_vec(), "set by the node"),
        (br#"["category"]"#.to_vec(), "JSON object"),
        (b"not json".to_vec(), "expected true, false or null"),
    ];
    let mut lines = Vec::new();
    for (bytes, words) in &cases {
        let run = append_stdin(&cluster, bytes);
        assert_eq!(run.code, 1, "{words}");
        assert!(run.stderr.contains("line 1: not recorded") && run.stderr.contains(words), "{words}: {}", run.stderr);
        lines.extend_from_slice(bytes);
        lines.push(b'\n');
        lines.extend_from_slice(entry("good", "auth.login").as_bytes());
        lines.push(b'\n');
    }
    // If the same lines are sent in one batch, every good line is recorded and every bad line is reported.
    let run = append_stdin(&cluster, &lines);
    assert!(
        run.stderr.contains(&format!("{} recorded, 0 duplicate, {} refused", cases.len(), cases.len())),
        "{}",
        run.stderr
    );
    let rows = cluster.page("node=mx1&from=0001-01-01").await.json()["count"].as_u64().unwrap();
    assert_eq!(rows, rows_before + cases.len() as u64);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_with_one_bad_one() {
    let cluster = Cluster::start(&["mx1"]).await;
    let client = NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let good = entry("bulk", "data.write") + "\n";
    let refused = client.append_lines(good.repeat(10_001).into_bytes(), false).await.unwrap_err().to_string();
    assert!(refused.contains("at most 10000 lines"), "{refused}");

    let mut lines = good.repeat(1_000_000).into_bytes();
    let middle = good.len() * 500_000;
    lines[middle] = b'X';
    let run = append_stdin(&cluster, &lines);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("999,999 recorded, 0 duplicate, 1 refused"), "{}", run.stderr);
    assert!(run.stderr.contains("line 500001: not recorded"), "{}", run.stderr);
    let status = cluster.on_node(0, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["head_seq"], 999_999);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_keep_every_digit_and_ids_are_idempotent() {
    let cluster = Cluster::start(&["mx1"]).await;
    let client = NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let id = "0198c0de-0000-4000-8000-00000000abcd";
    let line = |user: &str| {
        format!(
            r#"{{"id":"{id}","category":"data","action":"x.write","user":"{user}","details":{{"n":123456789012345678901234567890.10e+400,"z":-0.0}}}}"#
        )
    };
    let first = client.append_lines(line("alice").into_bytes(), false).await.unwrap();
    assert_eq!(first.results[0].status, 201);
    let again = client.append_lines(line("alice").into_bytes(), false).await.unwrap();
    assert_eq!((again.results[0].status, &again.results[0].receipt), (200, &first.results[0].receipt));
    let other = client.append_lines(line("mallory").into_bytes(), false).await.unwrap();
    assert_eq!(other.results[0].status, 409);
    // The same applies within one batch: the same entry is a duplicate, and other content under its id is refused.
    let both = client.append_lines(format!("{}\n{}\n", line("alice"), line("eve")).into_bytes(), false).await.unwrap();
    assert_eq!(both.results.iter().map(|r| r.status).collect::<Vec<_>>(), [200, 409]);

    let run = cluster.on_node(0, &["query", "--json", "--order", "asc"]);
    assert!(
        run.stdout.contains(r#""details":{"n":123456789012345678901234567890.10e+400,"z":-0.0}"#),
        "{}",
        run.stdout
    );
    let conflicts = run.stdout.lines().filter(|line| line.contains("\"action\":\"audit.id_conflict\"")).count();
    assert_eq!(conflicts, 2, "every reuse with other content is an entry");
    assert!(!run.stdout.contains("mallory"), "what was refused is not recorded");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_are_refused_say_why() {
    let cluster = Cluster::start(&["mx1"]).await;
    let lines: Vec<String> = (0..30).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    cluster.wait_until_complete().await;
    let cursor = cluster.page("limit=5&category=auth").await.json()["next_cursor"].as_str().unwrap().to_owned();
    let mut forged = cursor.clone();
    forged.replace_range(40..41, if &cursor[40..41] == "A" { "B" } else { "A" });
    for (parameters, code, words) in [
        ("filter=user:a%20usr:b", "bad_filter", "character 8"),
        ("filter=%22open", "bad_filter", "never closed"),
        ("ip=10.0.0.0/99", "bad_filter", "10.0.0.0/99"),
        ("from=noon", "bad_range", "noon"),
        ("from=2026-02-01&to=2026-01-01", "bad_range", "is after"),
        ("limit=0", "bad_parameter", "1 to 1000"),
        ("limit=5000", "bad_parameter", "1 to 1000"),
        ("order=up", "bad_parameter", "asc or desc"),
        ("format=xml", "bad_parameter", "csv"),
        ("order=asc&order=desc", "bad_parameter", "duplicate parameter"),
        ("colour=red", "bad_parameter", "colour"),
        ("cursor=AAAA", "bad_cursor", "damaged"),
        (&format!("limit=5&category=auth&cursor={forged}"), "bad_cursor", "damaged"),
        (&format!("limit=5&category=data&cursor={cursor}"), "cursor_of_another_query", "another query"),
        (&format!("limit=5&category=auth&order=asc&cursor={cursor}"), "cursor_of_another_query", "another query"),
    ] {
        let answer = cluster.page(parameters).await;
        assert_eq!(answer.status, 400, "{parameters}: {}", answer.text);
        assert_eq!(answer.json()["code"], code, "{parameters}: {}", answer.text);
        assert!(answer.json()["detail"].as_str().unwrap().contains(words), "{parameters}: {}", answer.text);
    }
    assert_eq!(cluster.page(&format!("limit=5&category=auth&cursor={cursor}")).await.status, 200);
    // An invalid query is a usage error, wherever it is detected.
    for (args, words) in [
        (&["query", "usr:bob"][..], "unknown key \"usr\""),
        (&["query", "--limit", "0"], "--limit must be 1 to"),
        (&["query", "--limit", "many"], "invalid value"),
        (&["query", "--from", "soonish"], "soonish"),
        (&["stats", "--from", "1d", "--to", "2d"], "is after"),
        (&["export", "usr:bob", "--output", "-"], "unknown key"),
    ] {
        let run = cluster.run(args);
        assert!(run.code == 2 && run.stderr.contains(words), "{args:?}: {} {}", run.code, run.stderr);
    }
    assert_eq!(cluster.on_node(0, &["query", "usr:bob"]).code, 2);
    assert_eq!(cluster.on_node(0, &["query", "--from", "soonish"]).code, 2);
}

/// Text from entries is always escaped before it is printed to a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn control_characters_do_not_reach_the_terminal() {
    let cluster = Cluster::start(&["mx1"]).await;
    let evil = json!({ "category": "auth", "action": "auth.login", "user": "eve", "description": "\u{1b}[2J\u{1b}[31mgone\r\n\u{202e}txt" });
    cluster.append(0, &[evil.to_string()]).await;
    cluster.wait_until_complete().await;
    for run in [
        cluster.run(&["query", "user:eve", "--table"]),
        cluster.run(&["show", "mx1/1", "--table"]),
        cluster.on_node(0, &["tail", "--table"]),
        cluster.on_node(0, &["show", "1", "--table"]),
    ] {
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stdout.contains("\\u{1b}[2J"), "{}", run.stdout);
        assert!(!run.stdout.contains('\u{1b}') && !run.stdout.contains('\u{202e}') && !run.stdout.contains('\r'));
    }
}
