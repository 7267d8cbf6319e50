//! Tests forwarding to an HTTP server that fails in various ways, and to a file that is rotated.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use piperoll_tests::{Cluster, entry, free_address};
use serde_json::Value;

use super::{assert_whole_and_in_order, configure, status, wait_for, wait_until_all_arrived};

const TOKEN: &str = "webhook-token-that-nobody-may-see";

#[derive(Default)]
struct Received {
    lines: Vec<String>,
    requests: u64,
    denied: u64,
}

async fn take(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: String) -> StatusCode {
    let number = {
        let mut received = received.lock().unwrap();
        received.requests += 1;
        if headers["authorization"] != format!("Bearer {TOKEN}") {
            received.denied += 1;
            return StatusCode::UNAUTHORIZED;
        }
        received.requests
    };
    assert!(headers.contains_key("idempotency-key"));
    match number % 5 {
        0 => return StatusCode::INTERNAL_SERVER_ERROR,
        1 => tokio::time::sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    if body.lines().count() > 100 {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    received.lock().unwrap().lines.extend(body.lines().map(str::to_owned));
    // The lines are stored, but sometimes the response reports an error, so that they are sent again.
    if number % 7 == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::NO_CONTENT }
}

fn seqs(lines: &[String]) -> Vec<u64> {
    let seq = |line: &String| serde_json::from_str::<Value>(line).unwrap()["entry"]["seq"].as_u64().unwrap();
    lines.iter().map(seq).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_refuses_gets_every_entry_and_pausing_is_recorded() {
    let received = Arc::new(Mutex::new(Received::default()));
    let address = free_address();
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let app = axum::Router::new().route("/hook", post(take)).with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let mut cluster = Cluster::made(&["mx1", "mx2"], |_| None).await;
    let table = format!(
        "[[forward]]\nname = \"hook\"\nto = \"http://{address}/hook?key=planted-in-the-query\"\ntoken = \"hook.token\"\n"
    );
    configure(&cluster, 0, &table);
    let token_file = cluster.nodes[0].folder.join("hook.token");
    let mut file =
        std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&token_file).unwrap();
    writeln!(file, "a wrong one").unwrap();
    cluster.run_all().await;
    let failing = wait_for(&cluster, 0, "hook", "failing", |status| !status["problem"].is_null());
    assert!(failing["problem"].as_str().unwrap().contains("401"), "{failing}");
    // `piperoll nodes` reports the problem.
    let nodes = cluster.run(&["nodes", "--table"]);
    assert!(nodes.stdout.contains("mx1 forwards to hook") && nodes.stdout.contains("401"), "{}", nodes.stdout);
    assert!(!nodes.stdout.contains("planted-in-the-query"), "{}", nodes.stdout);
    std::fs::write(&token_file, TOKEN).unwrap();
    let lines: Vec<String> = (0..1_500).map(|n| entry(&format!("user-{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    let done = wait_until_all_arrived(&cluster, 0, "hook");
    assert!(done["errors"].as_u64() > Some(0), "{done}");
    assert_whole_and_in_order(&seqs(&received.lock().unwrap().lines), done["next_seq"].as_u64().unwrap());

    // While the destination is paused, nothing arrives, and the log records who paused it. The pause survives a restart.
    let refused = cluster.on_node(0, &["forward", "pause", "hook", "--reason", " "]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    let unknown = cluster.on_node(0, &["forward", "pause", "nobody", "--reason", "x"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("configured: hook"), "{}", unknown.stderr);
    let paused = cluster.on_node(0, &["forward", "pause", "hook", "--reason", "the receiver moves"]);
    assert_eq!(paused.code, 0, "{}", paused.stderr);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = received.lock().unwrap().lines.len();
    cluster.stop(0);
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    cluster.append(0, &[entry("while-paused", "auth.login")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(received.lock().unwrap().lines.len(), before, "nothing arrives while it is held back");
    let paused = status(&cluster, 0, "hook")["paused"].to_string();
    assert!(paused.contains("the receiver moves") && paused.contains("uid="), "{paused}");
    assert_eq!(cluster.on_node(0, &["forward", "resume", "hook"]).code, 0);
    let done = wait_until_all_arrived(&cluster, 0, "hook");
    assert_whole_and_in_order(&seqs(&received.lock().unwrap().lines), done["next_seq"].as_u64().unwrap());
    for action in ["log.forward_paused", "log.forward_resumed"] {
        let found = cluster.on_node(0, &["query", &format!("action:{action}"), "--json"]);
        let entry: Value = serde_json::from_str(found.stdout.lines().next().unwrap()).unwrap();
        assert!(entry["entry"]["details"]["by"].as_str().unwrap().starts_with("uid="), "{entry}");
    }
    // Removing a destination from the configuration is recorded in the log.
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.split("[[forward]]").next().unwrap()).unwrap();
    cluster.stop(0);
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    let found = cluster.on_node(0, &["query", "action:log.forward_removed", "--json"]);
    assert!(found.stdout.contains("\"name\":\"hook\""), "{}", found.stdout);
    // Secrets from the configuration appear in no entry, log line or metric.
    let log = cluster.log_text("mx1");
    let everything = cluster.on_node(0, &["export"]).stdout;
    for planted in [TOKEN, "planted-in-the-query"] {
        assert!(!log.contains(planted) && !everything.contains(planted), "{planted}");
    }
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_rotated_away_and_a_killed_node_lose_no_line() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let out = cluster.dir.path().join("out.ndjson");
    configure(&cluster, 0, &format!("[[forward]]\nname = \"lines\"\nto = \"file://{}\"\n", out.display()));
    // The file ends with a line that a crash truncated.
    std::fs::write(&out, "{\"cut").unwrap();
    cluster.run_all().await;
    for round in 0..3 {
        let lines: Vec<String> = (0..500).map(|n| entry(&format!("r{round}-{n}"), "auth.login")).collect();
        cluster.append(0, &lines).await;
        if round == 1 {
            wait_until_all_arrived(&cluster, 0, "lines");
            std::fs::rename(&out, out.with_extension("1")).unwrap();
        }
        cluster.kill(0);
        cluster.restart(0).await;
    }
    let done = wait_until_all_arrived(&cluster, 0, "lines");
    let mut lines: Vec<String> = Vec::new();
    for path in [out.with_extension("1"), out] {
        lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
    }
    assert_eq!(lines.remove(0), "{\"cut", "what was there stays as it was");
    assert_whole_and_in_order(&seqs(&lines), done["next_seq"].as_u64().unwrap());
    let metrics = cluster.nodes[0].folder.join("node.sock");
    let metrics = std::process::Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(metrics)
        .arg("http://x/metrics")
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    assert!(metrics.contains("piperoll_node_forward_lag_rows{name=\"lines\"} 0"), "{metrics}");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_handed_on_to_is_said_before_the_start() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for (table, words) in [
        ("name = \"a b\"\nto = \"tcp://h:1\"", "letters, digits"),
        ("name = \"x\"\nto = \"udp://h:514\"", "unsupported"),
        ("name = \"x\"\nto = \"h:514\"", "use tls://"),
        ("name = \"x\"\nto = \"tcp://h\"", "host:port"),
        ("name = \"x\"\nto = \"tls://h:6514\"", "`ca` is missing"),
        ("name = \"x\"\nto = \"tcp://h:514\"\nca = \"ca.pem\"", "does not apply"),
        ("name = \"x\"\nto = \"tcp://h:514\"\nsize_max = 480", "6144"),
        ("name = \"x\"\nto = \"https://user:secret@h/p\"", "a user or password"),
        ("name = \"x\"\nto = \"http://example.org/p\"", "only for this machine"),
        ("name = \"x\"\nto = \"file://relative\"", "absolute path"),
        ("name = \"x\"\nto = \"tcp://h:514\"\nfilter = \"colour:red\"", "filter"),
        ("name = \"x\"\nto = \"tcp://h:514\"\nconfirm_every = \"1d\"", "confirm_every"),
        (
            "name = \"x\"\nto = \"tcp://h:1\"\n[[forward]]\nname = \"x\"\nto = \"tcp://h:2\"",
            "duplicate destination name",
        ),
    ] {
        std::fs::write(&config, format!("{text}\n[[forward]]\n{table}\n")).unwrap();
        let run = cluster.on_node(0, &["serve"]);
        assert!(run.code == 1 && run.stderr.contains(words), "{table}: {}", run.stderr);
        assert!(!run.stderr.contains("user:secret"), "{}", run.stderr);
    }
}
