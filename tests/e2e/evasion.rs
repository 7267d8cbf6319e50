//! Attempts to hide a row, to act without being recorded, or to lock out other users.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use piperoll_tests::{Answer, Cluster, Guard, edit, entry, piperoll};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

/// Time limit for waiting. The daemon closes a silent connection after some seconds, so a connection that is still open after
/// this time will never be closed.
const PATIENCE: Duration = Duration::from_secs(60);

async fn cluster_of(ids: &[&str], rows: usize) -> Cluster {
    let cluster = Cluster::start(ids).await;
    for index in 0..ids.len() {
        let lines: Vec<String> = (0..rows).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    cluster
}

/// Reads all pages. Returns every row address of `mx1` on them, and whether any page reported that it is not complete.
async fn places_by_page(cluster: &Cluster, parameters: &str) -> (Vec<String>, bool) {
    let (mut places, mut said, mut cursor) = (Vec::new(), false, String::new());
    loop {
        let answer = cluster.page(&format!("limit=10&{parameters}{cursor}")).await;
        let json = answer.json();
        said |= json["complete"] == false;
        places.extend(answer.places().into_iter().filter(|place| place.starts_with("mx1/")));
        match json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (places, said),
        }
    }
}

/// The time column is not covered by a signature: whatever its value, every row is on exactly one page, in both orders.
#[tokio::test(flavor = "multi_thread")]
async fn an_edited_time_hides_no_row_from_pages() {
    let cluster = cluster_of(&["mx1", "mx2"], 40).await;
    let head: u64 = 40;
    let year = 365 * 86_400 * 1_000_000_i64;
    for (what, sql) in [
        ("into the future", format!("UPDATE entries SET ts = ts + {year} WHERE seq = 12")),
        ("to the beginning of time", "UPDATE entries SET ts = 0 WHERE seq = 35".to_owned()),
        ("first and last", format!("UPDATE entries SET ts = ts + {year} WHERE seq IN (0, {head})")),
        ("a run of bodies", "UPDATE entries SET body = 'x' WHERE seq BETWEEN 20 AND 31".to_owned()),
    ] {
        edit(&cluster.database(0), &sql);
        for order in ["asc", "desc"] {
            for filter in ["", "&filter=-user:nobody"] {
                let (places, said) = places_by_page(&cluster, &format!("order={order}&from=0001-01-01{filter}")).await;
                let expected: BTreeSet<String> = (0..=head).map(|seq| format!("mx1/{seq}")).collect();
                assert_eq!(places.len(), expected.len(), "{what}, {order}{filter}: {places:?}");
                assert_eq!(places.into_iter().collect::<BTreeSet<_>>(), expected, "{what}, {order}{filter}");
                assert!(said, "{what}, {order}{filter}: nobody said that a row fails");
            }
        }
    }
}

/// Plants values that the table's columns do not allow, an impossible body length, and sequence numbers that no log reaches.
#[tokio::test(flavor = "multi_thread")]
async fn planted_values_are_named_and_break_nothing() {
    let mut cluster = cluster_of(&["mx1", "mx2"], 20).await;
    let database = cluster.database(0);
    edit(&database, "UPDATE entries SET body = printf('%.*c', 1300000, 'x') WHERE seq = 4");
    let answer = cluster.page("limit=1000").await;
    assert_eq!(answer.status_of("mx1"), "invalid", "{}", answer.node("mx1"));
    assert_eq!(answer.node("mx1")["rows"], 21, "the rows around it all come");
    assert_eq!(answer.node("mx1")["invalid"], 1);

    // A row above the head of a running node: queries do not reach it, but the full verification does.
    edit(&database, "INSERT INTO entries SELECT 5000, ts, era, epoch, mac, body FROM entries WHERE seq = 6");
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("higher than that of the newest row"), "{}{}", run.stdout, run.stderr);
    edit(&database, "DELETE FROM entries WHERE seq = 5000");
    edit(
        &database,
        "INSERT INTO entries SELECT 9223372036854775807, ts, era, epoch, mac, body FROM entries WHERE seq = 6",
    );
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("numbered below 0 or above"), "{}", run.stdout);
    cluster.stop(0);
    let run = cluster.on_node(0, &["query", "--json", "--limit", "100"]);
    assert_eq!((run.code, run.stdout.lines().count()), (4, 23), "{}", run.stderr);
    cluster.restart(0).await;
    // The rows differ from those that were signed, so the node appends nothing more, not even the entry about its start.
    assert_eq!(cluster.page("limit=1000").await.node("mx1")["rows"], 22, "21 rows and a stop");
    edit(&database, "DELETE FROM entries WHERE seq = 9223372036854775807");
    cluster.stop(0);

    // Columns that hold text instead of a number, written while the table is temporarily not STRICT.
    let conn = Connection::open(&database).unwrap();
    conn.execute_batch(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'entries';",
    )
    .unwrap();
    drop(conn);
    edit(&database, "UPDATE entries SET ts = 'noon', era = 'x' WHERE seq = 7");
    let conn = Connection::open(&database).unwrap();
    conn.execute_batch(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = sql || ' STRICT' WHERE name = 'entries';",
    )
    .unwrap();
    drop(conn);
    let run = cluster.on_node(0, &["verify", "--json"]);
    assert!(run.code == 4 && run.stdout.contains("\"seq\":7"), "{}{}", run.stdout, run.stderr);
    cluster.restart(0).await;
    assert_eq!(cluster.page("limit=1000").await.node("mx1")["rows"], 22);
}

/// The last row determines where the log continues, so every part of the row must be valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_last_row_was_edited_takes_nothing() {
    let mut cluster = cluster_of(&["mx1"], 5).await;
    cluster.stop(0);
    let database = cluster.database(0);
    let pristine = cluster.dir.path().join("pristine.db");
    Connection::open(&database).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    std::fs::copy(&database, &pristine).unwrap();
    for (sql, words) in [
        ("UPDATE entries SET ts = 4102444800000000 WHERE seq = 6", "time column"),
        ("UPDATE entries SET seq = 1000000 WHERE seq = 6", "a different position"),
        ("UPDATE entries SET era = 4294967295 WHERE seq = 6", "era column"),
        ("UPDATE entries SET era = -1 WHERE seq = 6", "era column"),
    ] {
        edit(&database, sql);
        cluster.restart(0).await;
        let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
        assert!(run.code == 1 && run.stderr.contains(words), "{sql}: {}", run.stderr);
        cluster.stop(0);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        std::fs::copy(&pristine, &database).unwrap();
    }
    // Another program's database at this path is left untouched.
    std::fs::remove_dir_all(cluster.nodes[0].folder.join("data")).unwrap();
    std::fs::create_dir(cluster.nodes[0].folder.join("data")).unwrap();
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)").unwrap();
    let output = Command::new(piperoll())
        .args(["node", "serve", "--config"])
        .arg(cluster.nodes[0].folder.join("node.toml"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("another program"), "{output:?}");
    let kept: i64 = Connection::open(&database).unwrap().query_row("SELECT x FROM mine", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, 1);
}

/// Whatever an application writes into `details`, it is not mistaken for the node's own entry about a clean stop.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_fake_a_clean_stop() {
    let mut cluster = cluster_of(&["mx1"], 1).await;
    let fake = json!({ "category": "data", "action": "x.y",
        "details": { "a": 1, "category": "log", "action": "log.stopped", "via": "node" } });
    cluster.append(0, &[fake.to_string()]).await;
    cluster.kill(0);
    cluster.restart(0).await;
    let run = cluster.on_node(0, &["query", "action:log.*", "--json"]);
    assert!(run.stdout.contains("\"last_stop\":\"unclean\"") && run.stdout.contains("log.gap"), "{}", run.stdout);
    cluster.verify_all();
}

/// A client that connects and sends nothing is disconnected.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed() {
    let cluster = cluster_of(&["mx1"], 1).await;
    let path = cluster.nodes[0].folder.join("node.sock");
    let mut unix = UnixStream::connect(&path).unwrap();
    let mut tcp = std::net::TcpStream::connect(cluster.url.trim_start_matches("https://")).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let closed = |read: std::io::Result<usize>| match read {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(closed(unix.read(&mut [0; 8])), "the socket keeps a silent connection");
    assert!(closed(tcp.read(&mut [0; 8])), "the aggregator keeps a silent connection");
    // A batch that is announced but never arrives is aborted too, and no part of it is recorded.
    let mut stalled = UnixStream::connect(&path).unwrap();
    stalled.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        "POST /v1/entries HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 9999\r\n\r\n{";
    stalled.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stalled.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    cluster.verify_all();
}

/// A query about nodes that do not exist, or with a filter too large for the nodes, fails instead of returning an empty answer.
#[tokio::test(flavor = "multi_thread")]
async fn misleading_queries_are_refused() {
    let cluster = cluster_of(&["mx1", "mx2"], 3).await;
    let code = |answer: &Answer| (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned());
    for parameters in ["node=mx9", "node=mx1,mx33", "filter=-node:mx9"] {
        assert_eq!(code(&cluster.page(parameters).await), (400, "no_such_node".to_owned()), "{parameters}");
    }
    let many = (0..65).map(|n| format!("user=u{n}")).collect::<Vec<_>>().join("&");
    assert_eq!(code(&cluster.page(&many).await), (400, "bad_filter".to_owned()));
    // Filter for a text in `ip:` that could be taken for a hexadecimal number, and for a value with a space.
    let service = json!({ "category": "auth", "action": "x", "ip_address": "dead", "user": "Alice B" }).to_string();
    cluster.append(0, &[service]).await;
    assert_eq!(cluster.page("filter=ip:%22dead%22").await.json()["count"], 1);
    assert_eq!(cluster.page("user=Alice%20B").await.json()["count"], 1);
    let run = cluster.on_node(0, &["query", "occurred:7d..", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// A limit ends a stream early, but violations in the rows before the limit are still reported.
#[tokio::test(flavor = "multi_thread")]
async fn violations_count_wherever_they_show() {
    let cluster = cluster_of(&["mx1", "mx2"], 30).await;
    edit(&cluster.database(1), "UPDATE entries SET body = replace(body, 'u2', 'u3') WHERE seq = 3");
    let answer = cluster.page("format=ndjson&order=asc&limit=40&from=0001-01-01&filter=node:mx1,mx2").await;
    let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    let mx2 = last["final"]["nodes"].as_array().unwrap().iter().find(|n| n["node_id"] == "mx2").unwrap().clone();
    assert_eq!(
        (&last["final"]["complete"], &mx2["status"], &mx2["invalid"]),
        (&json!(false), &json!("invalid"), &json!(1))
    );

    // A deleted row: the lookup by address, the export, and the node itself all report it.
    edit(&cluster.database(0), "DELETE FROM entries WHERE seq = 12");
    let run = cluster.run(&["show", "mx1/12"]);
    assert!(run.code == 4 && !run.stderr.contains("nothing is missing"), "{}", run.stderr);
    assert_eq!(cluster.on_node(0, &["show", "12"]).code, 4);
    let file = cluster.dir.path().join("out.csv");
    let run = cluster.run(&["export", "--from", "0001-01-01", "--format", "csv", "--output", file.to_str().unwrap()]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert!(file.with_file_name("out_PARTIAL.csv").exists(), "{}", run.stderr);
    let again = cluster.run(&["export", "--from", "0001-01-01", "--format", "csv", "--output", file.to_str().unwrap()]);
    assert_eq!(again.code, 4, "{}", again.stderr);
    assert!(file.with_file_name("out_PARTIAL-2.csv").exists(), "{}", again.stderr);
}

/// Concurrent changes to tokens all take effect, and each is recorded, even if the caller disconnects.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_never_lost_nor_unrecorded() {
    let cluster = cluster_of(&["mx1"], 1).await;
    let one = async |n: usize| {
        let body = Some(json!({ "name": format!("t{n}"), "role": "viewer" }));
        cluster.send(Method::POST, "/api/v1/tokens", Some(&cluster.token), body).await.status
    };
    let all: Vec<u16> = futures::future::join_all((0..40).map(one)).await;
    assert!(all.iter().all(|status| *status == 201), "{all:?}");
    // Disconnect at various times between sending the request and receiving the answer.
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(&std::fs::read(cluster.ca()).unwrap()).unwrap())
        .build()
        .unwrap();
    for n in 0..60_u64 {
        let request = client
            .post(format!("{}/api/v1/tokens", cluster.url))
            .bearer_auth(&cluster.token)
            .json(&json!({ "name": format!("gone{n}"), "role": "viewer" }));
        let _ = tokio::time::timeout(Duration::from_micros(300 + n * 150), request.send()).await;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stored = cluster.get("/api/v1/tokens", Some(&cluster.token)).await.json();
        let made = stored.as_array().unwrap().len();
        let entries = cluster.page("filter=action:audit.token_create%20outcome:success&limit=1000").await;
        // The test's own token was written to the token file before the daemon started, so it has no entry.
        if entries.json()["count"] == made - 1 {
            assert!(made > 40, "{made}");
            return;
        }
        assert!(Instant::now() < deadline, "{made} tokens, {} entries", entries.json()["count"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `append -` records a line as soon as it is written to the pipe, and `query` ends quietly when the program that reads its
/// output closes the pipe.
#[tokio::test(flavor = "multi_thread")]
async fn pipes_do_what_pipes_do() {
    let cluster = cluster_of(&["mx1"], 300).await;
    let mut child = Command::new(piperoll())
        .args(["node", "append", "-", "--config"])
        .arg(cluster.nodes[0].folder.join("node.toml"))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let _child = Guard(child);
    writeln!(input, "{}", entry("piped", "auth.login")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while cluster.page("user=piped").await.json()["count"] != 1 {
        assert!(Instant::now() < deadline, "the line is not recorded while the pipe is open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(input);
    let script = format!("{} query --json --limit 300 | head -n 1", piperoll().display());
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("PIPEROLL_URL", &cluster.url)
        .env("PIPEROLL_CA", cluster.ca())
        .env("PIPEROLL_TOKEN", &cluster.token)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("panicked"), "{stderr}");
}

/// A closed standard output does not abort any command midway. If standard output is full (such as `/dev/full`), every command
/// fails with an error.
#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_no_crash() {
    let cluster = cluster_of(&["mx1"], 3).await;
    let (folder, config) = (cluster.authority_dir(), cluster.nodes[0].folder.join("node.toml"));
    let (folder, config) = (folder.to_str().unwrap(), config.to_str().unwrap());
    let reason = ["--from", "2020-01-01", "--reason", "r"];
    let commands: [&[&str]; 9] = [
        &["cluster", "list", folder],
        &["cluster", "trust", folder],
        &[&["cluster", "membership", folder, "mx1"][..], &reason].concat(),
        &["cluster", "retention", folder, "--keep-days", "400"],
        &[&["node", "hold", "add", "case-1", "--to", "2021-01-01", "--config", config][..], &reason].concat(),
        &["node", "hold", "list", "--config", config],
        &["nodes"],
        &["stats", "--by", "user"],
        &["query", "--json"],
    ];
    for command in commands {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        // Each command runs twice, so in the second run its changes are already present.
        for (stdout, codes) in [(Stdio::from(closed), [Some(0), None]), (Stdio::from(full), [Some(1), Some(1)])] {
            let output = cluster.command(command).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(codes.contains(&output.status.code()), "{command:?}: {:?} {stderr}", output.status);
            assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
        }
    }
    assert!(cluster.on_node(0, &["hold", "list"]).stdout.contains("case-1"));
    assert!(cluster.run(&["cluster", "list", folder]).stdout.contains("member from 2020-01-01"));
}

/// If the daemon closes the connection while entries are being sent, none of them is recorded and the command fails. The command
/// must not treat this like a broken pipe on standard output, which is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_up_has_recorded_nothing() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let socket = cluster.dir.path().join("hangs-up.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client's further writes fail because the socket is closed.
            drop(stream);
        }
    });
    let input = cluster.dir.path().join("entries.ndjson");
    std::fs::write(&input, (entry("alice", "auth.login") + "\n").repeat(20_000)).unwrap();
    let (socket, input) = (socket.to_str().unwrap(), input.to_str().unwrap());
    for command in [
        &["node", "append", "--retry-for", "1s", "--socket", socket, input][..],
        &["node", "query", "--socket", socket],
    ] {
        let run = cluster.run(command);
        assert!(run.code != 0 && !run.stderr.is_empty(), "{command:?}: {} {}", run.code, run.stderr);
    }
}
