//! Tests the erasure of one row: its content is gone everywhere, every view shows that there was a row, and all other rows remain
//! proven.

use piperoll_tests::{Cluster, entry, until};
use serde_json::{Value, json};

use crate::keys::{begin_generation, trust};
use crate::witness::witnessed;

const SECRET: &str = "Wilhelmine-Sauerbier-4711";

fn holds_secret(cluster: &Cluster) -> Vec<String> {
    let files = std::fs::read_dir(cluster.nodes[0].folder.join("data")).unwrap().map(|file| file.unwrap().path());
    let with = files.filter(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    });
    with.map(|path| path.display().to_string()).collect()
}

/// Builds an entry that contains the secret in several fields. A large body has its own database pages; with `bytes` 0 it shares
/// a page with other rows.
fn secret_entry(bytes: usize) -> String {
    let filler = format!("{SECRET} ").repeat(bytes / SECRET.len());
    json!({ "category": "user", "action": "user.create", "user": SECRET, "id": "0198c0de-0000-7000-8000-00000000abcd",
            "description": SECRET, "details": { "filler": filler } })
    .to_string()
}

fn tombstone(rows: &Value, seq: u64) -> &Value {
    rows["entries"].as_array().unwrap().iter().find(|row| row["found_at"]["seq"] == seq).unwrap_or(&Value::Null)
}

/// Checks that a filter on content counts the erased row without showing it, and that a filter on its position or state shows it.
async fn filters_select_it_by_its_place_alone(cluster: &Cluster, seq: u64) {
    for filter in ["user:u7%20node:mx1", "is:bulk", "subject:u7", "-user:u7", "user:nosuch"] {
        let filtered = cluster.page(&format!("filter={filter}&limit=1000")).await.json();
        let shown = filtered["entries"].as_array().unwrap().iter().any(|row| row["integrity"] == "erased");
        assert!(!shown && filtered["erased"] == 1 && filtered["complete"] == true, "{filter}: {filtered}");
    }
    for filter in ["is:erased", "seq:301", "node:mx1%20seq:300..302", "-seq:1..300", "is:erased,failed"] {
        let filtered = cluster.page(&format!("filter={filter}&limit=1000")).await.json();
        assert_eq!(
            (&tombstone(&filtered, seq)["integrity"], &filtered["erased"]),
            (&json!("erased"), &json!(0)),
            "{filter}"
        );
    }
    for (filter, count) in
        [("-is:erased", 0), ("node:mx1%20-is:erased", 0), ("user:u7%20seq:300", 0), ("user:u7%20seq:301", 1)]
    {
        let filtered = cluster.page(&format!("filter={filter}&limit=1000")).await.json();
        let shown = filtered["entries"].as_array().unwrap().iter().any(|row| row["integrity"] == "erased");
        assert!(!shown && filtered["erased"] == count, "{filter}: {}", filtered["erased"]);
    }
    let behind = cluster.page(&format!("filter=user:u7&from={}", cluster.row_timestamp(0, 303))).await.json();
    assert_eq!(behind["erased"], 0, "outside of the range");
    let limited = cluster.run(&["query", "user:u7", "--table", "--from", "1d", "--limit", "2"]);
    assert!(limited.stderr.contains("1 erased row in this range can no longer be searched"), "{}", limited.stderr);
    let local = cluster.on_node(0, &["query", "user:u7", "--table", "--limit", "2"]);
    assert!(local.stderr.contains("1 erased row in this range can no longer be searched"), "{}", local.stderr);
    let counted = cluster.get("/api/v1/stats?from=1d&filter=user:u7", Some(&cluster.token)).await.json();
    assert_eq!((&counted["stats"]["entries"], &counted["stats"]["erased"]), (&json!(2), &json!(1)), "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_is_gone_and_everything_else_is_as_it_was() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    let lines: Vec<String> = (0..300).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    let secret = secret_entry(20_000);
    cluster.append(0, std::slice::from_ref(&secret)).await;
    cluster.append(0, &lines[..50]).await;
    witnessed(&cluster, "mx1").await;
    assert!(!holds_secret(&cluster).is_empty());
    // The secret entry follows `log.started`, which is row 0, and 300 other entries.
    let seq = 301;
    let run = cluster.on_node(0, &["erase", "--seq", "301", "--reason", "art. 17, request 12"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(holds_secret(&cluster), Vec::<String>::new());
    cluster.kill(0);
    assert_eq!(holds_secret(&cluster), Vec::<String>::new());
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;

    // Every view shows that there was a row, whatever the query, and reports no problem.
    let page = cluster.page("limit=1000&order=asc").await.json();
    let row = tombstone(&page, seq);
    assert_eq!((&row["entry"], &row["integrity"], &row["witnessed"]), (&Value::Null, &"erased".into(), &true.into()));
    assert!(row["reason"].as_str().unwrap().contains("erased under entry 352: art. 17, request 12"), "{row}");
    assert_eq!((&page["complete"], &page["proven"]), (&true.into(), &true.into()), "{}", page["completeness"]);
    let times: Vec<&str> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["entry"]["timestamp"].as_str().or(row["erased"]["timestamp"].as_str()).unwrap())
        .collect();
    assert!(times.is_sorted());
    filters_select_it_by_its_place_alone(&cluster, seq).await;
    let one = cluster.get("/api/v1/audit-log/mx1/301", Some(&cluster.token)).await;
    assert!(one.status == 200 && one.text.contains("erased under entry 352"), "{}", one.text);
    let csv = cluster.page("format=csv&from=1d").await.text;
    assert!(csv.contains("erased under entry 352"), "{csv}");
    let stream = cluster.page("format=ndjson&from=1d").await.text;
    assert!(stream.contains("\"integrity\":\"erased\"") && !stream.contains(SECRET));
    let table = cluster.run(&["query", "--table", "--all", "--from", "1d", "--limit", "400"]);
    assert!(table.code == 0 && table.stdout.contains("erased under entry"), "{}{}", table.stdout, table.stderr);
    let local = cluster.on_node(0, &["show", "301", "--table"]);
    assert!(local.code == 0 && local.stdout.contains("erased under entry 352"), "{}{}", local.stdout, local.stderr);
    assert_eq!(cluster.on_node(0, &["query", "--limit", "1000"]).code, 0);
    let verify = cluster.on_node(0, &["verify"]);
    assert_eq!(verify.code, 0, "{}{}", verify.stdout, verify.stderr);
    assert!(verify.stdout.contains("row 301: erased under entry 352: art. 17"), "{}", verify.stdout);
    let remote = cluster.run(&["verify", "--table"]);
    assert!(remote.code == 0 && remote.stdout.contains("mx1/301: erased under entry 352"), "{}", remote.stdout);

    // The erased row serves as a border row just outside of a range, and as the row after the last one of a page.
    let neighbour = |at: u64| cluster.row_timestamp(0, usize::try_from(at).unwrap());
    for range in [
        format!("from={}", neighbour(302)),
        format!("from=1d&to={}", neighbour(300)),
        format!("order=asc&limit=301&filter=&from={}", neighbour(0)),
        "limit=52".to_owned(),
        "limit=53".to_owned(),
        "limit=54".to_owned(),
    ] {
        let page = cluster.page(&range.replace('+', "%2b")).await.json();
        assert_eq!(
            (&page["complete"], &page["proven"]),
            (&true.into(), &true.into()),
            "{range}: {}",
            page["completeness"]
        );
    }

    // Check evidence with and without a filter.
    let trust = cluster.dir.path().join("trust.toml");
    std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
    for (name, filter) in [("all.tar", ""), ("some.tar", "user:u7")] {
        let path = cluster.dir.path().join(name);
        let path = path.to_str().unwrap();
        let run = cluster.run(&["export", filter, "--bundle", path, "--from", "1d", "--reason", "a test"]);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        let run = cluster.run(&["verify-bundle", path, "--trust", trust.to_str().unwrap(), "--json"]);
        let verdict: Value = serde_json::from_str(&run.stdout).unwrap();
        let node = verdict["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
        let (shown, apart) = if filter.is_empty() { (1, Value::Null) } else { (0, json!(1)) };
        assert_eq!((run.code, &node["erased"], &node["erased_apart"]), (0, &shown.into(), &apart), "{name}: {verdict}");
        assert_eq!(verdict["proven"], filter.is_empty(), "{name}: {verdict}");
    }

    let run = cluster.run(&["export", "--row", "mx1:301"]);
    assert!(run.code == 1 && run.stderr.contains("erased under entry 352"), "{}", run.stderr);

    // The id remains known, so sending the entry again does not restore the erased content.
    let client = piperoll_client::NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let again = client.append_lines((secret + "\n").into_bytes(), false).await.unwrap();
    assert_eq!(again.results[0].status, 409, "{again:?}");
    assert_eq!(holds_secret(&cluster), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_erased_is_refused_and_a_stopped_node_can() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[secret_entry(0), entry("bob", "auth.login")]).await;
    for (args, words) in [
        (["--seq", "99", "--reason", "r"], "no such row: 99"),
        (["--seq", "1", "--reason", " "], "the reason must be"),
        (["--seq", "18446744073709551615", "--reason", "r"], "no such row"),
    ] {
        let run = cluster.on_node(0, &[&["erase"], &args[..]].concat());
        assert_eq!(run.code, 1, "{}", run.stdout);
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    assert_eq!(cluster.on_node(0, &["erase", "--reason", "r"]).code, 2);
    cluster.stop(0);
    let run = cluster.on_node(0, &["erase", "--seq", "1", "--reason", "art. 17"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(holds_secret(&cluster), Vec::<String>::new());
    let run = cluster.on_node(0, &["erase", "--seq", "1", "--reason", "art. 17"]);
    assert!(run.stderr.contains("already erased under entry 4"), "{}", run.stderr);
    let run = cluster.on_node(0, &["erase", "--seq", "4", "--reason", "art. 17"]);
    assert!(run.stderr.contains("records what happened to other rows"), "{}", run.stderr);
    assert_eq!(cluster.on_node(0, &["query", "--limit", "1000"]).code, 0);
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    cluster.verify_all();
    assert_eq!(cluster.page("limit=1000").await.json()["proven"], true);
}

/// Kills the node repeatedly while it erases rows: each row is either intact, or erased with an entry that records the erasure.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_a_row_whole_or_erased() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    let lines: Vec<String> = (0..600).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    for round in 0..10u64 {
        let folder = cluster.nodes[0].folder.clone();
        let erasing = std::thread::spawn(move || {
            for seq in round * 50 + 1..round * 50 + 50 {
                let config = folder.join("node.toml");
                let args =
                    ["node", "erase", "--seq", &seq.to_string(), "--reason", "r", "--config", config.to_str().unwrap()];
                let done = std::process::Command::new(piperoll_tests::piperoll()).args(args).output().unwrap();
                if !done.status.success() {
                    break;
                }
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(100 + round * 23)).await;
        cluster.kill(0);
        erasing.join().unwrap();
        assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
        cluster.restart(0).await;
    }
    witnessed(&cluster, "mx1").await;
    cluster.verify_all();
    let page = cluster.page("limit=1000&order=asc").await.json();
    assert_eq!(page["proven"], true, "{}", page["completeness"]);
    let trust = cluster.dir.path().join("trust.toml");
    std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
    let path = cluster.dir.path().join("end.tar");
    let run =
        cluster.run(&["export", "--bundle", path.to_str().unwrap(), "--from", "1d", "--reason", "the end of a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = cluster.run(&["verify-bundle", path.to_str().unwrap(), "--trust", trust.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stdout);
}

/// A node with two logs has erased rows in both, and every answer counts each of them once.
#[tokio::test(flavor = "multi_thread")]
async fn erased_rows_of_two_logs_are_counted_together() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    let of = |users: [&str; 3]| users.map(|user| entry(user, "auth.login"));
    cluster.append(0, &of(["a1", "a2", "a3"])).await;
    witnessed(&cluster, "mx1").await;
    let erase = |cluster: &Cluster, user: &str| {
        let page = cluster.on_node(0, &["query", &format!("user:{user}"), "--json"]);
        let row: Value = serde_json::from_str(page.stdout.lines().next().unwrap()).unwrap();
        let run = cluster.on_node(0, &["erase", "--seq", &row["entry"]["seq"].to_string(), "--reason", "r"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    };
    erase(&cluster, "a1");
    erase(&cluster, "a2");
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    begin_generation(&mut cluster).await;
    cluster.append(0, &of(["b1", "b2", "b3"])).await;
    erase(&cluster, "b1");
    witnessed(&cluster, "mx1").await;
    let page = until("both logs are known", async || {
        let page = cluster.page("from=1d&filter=user:a3,b3&limit=1000").await.json();
        (page["complete"] == true).then_some(page)
    })
    .await;
    assert_eq!((&page["count"], &page["erased"]), (&json!(2), &json!(3)), "{page:#}");
    let counted = cluster.get("/api/v1/stats?from=1d&filter=user:a3,b3", Some(&cluster.token)).await.json();
    assert_eq!((&counted["stats"]["entries"], &counted["stats"]["erased"]), (&json!(2), &json!(3)), "{counted}");
    let shown = cluster.page("from=1d&filter=is:erased&limit=1000").await.json();
    assert_eq!((&shown["count"], &shown["erased"]), (&json!(3), &json!(0)), "{shown:#}");
    let bundle = cluster.dir.path().join("two.tar").to_str().unwrap().to_owned();
    let made = cluster.run(&["export", "--bundle", &bundle, "--from", "1d", "user:a3,b3", "--reason", "r"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let trust = trust(&cluster, "trust.toml");
    let checked = cluster.run(&["verify-bundle", &bundle, "--trust", &trust, "--json"]);
    let verdict: Value = serde_json::from_str(&checked.stdout).unwrap();
    let node = verdict["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
    assert_eq!((checked.code, &node["erased_apart"]), (0, &json!(3)), "{node:#}");
    cluster.verify_all();
}
