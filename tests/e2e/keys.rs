//! Key changes while the log continues, and after a break-in: earlier evidence stays valid, and signatures by stolen keys are rejected.

use std::time::Duration;

use piperoll_format::mac::{EpochSecret, MacKey, Origin};
use piperoll_tests::{Cluster, entry, until};
use serde_json::Value;

use crate::witness::{report, witnessed};

pub(crate) fn cluster_command(cluster: &Cluster, args: &[&str]) -> piperoll_tests::Run {
    let dir = cluster.authority_dir();
    let mut all = vec!["cluster", args[0], dir.to_str().unwrap()];
    all.extend(&args[1..]);
    cluster.run(&all)
}

pub(crate) async fn restart_all(cluster: &mut Cluster) {
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.stop(0);
    cluster.restart(0).await;
}

pub(crate) fn trust(cluster: &Cluster, name: &str) -> String {
    let path = cluster.dir.path().join(name);
    std::fs::write(&path, cluster.authority().trust().unwrap().to_text()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Exports everything and verifies it against a trust file. Returns the verifier's exit code and output.
fn evidence(cluster: &Cluster, name: &str, trust: &str) -> (i32, String) {
    let path = cluster.dir.path().join(name);
    let path = path.to_str().unwrap();
    let run = cluster.run(&["export", "--bundle", path, "--from", "1d", "--reason", "a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    verified(cluster, path, trust)
}

fn verified(cluster: &Cluster, path: &str, trust: &str) -> (i32, String) {
    let run = cluster.run(&["verify-bundle", path, "--trust", trust]);
    (run.code, run.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_seals_from_its_place_on() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    let lines: Vec<String> = (0..20).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    let run = cluster_command(&cluster, &["rotate-mac", "mx1"]);
    assert!(run.code == 0 && run.stdout.contains("epoch 1 of mx1"), "{}{}", run.stdout, run.stderr);
    assert_eq!(cluster_command(&cluster, &["rotate-mac", "nobody"]).code, 1);
    let config = std::fs::read_to_string(cluster.nodes[0].folder.join("node.toml")).unwrap();
    assert!(config.contains("# HMAC secrets by epoch") && config.contains("file = \"secret.1\""), "{config}");
    restart_all(&mut cluster).await;
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;

    // The last row of the old epoch and the first row of the new one have the same details, but MACs of different secrets.
    let conn = rusqlite::Connection::open(cluster.database(0)).unwrap();
    let rows: Vec<(u64, u32, String)> = conn
        .prepare("SELECT seq, epoch, body FROM entries WHERE body LIKE '%log.key_rotated%' ORDER BY seq")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let first = rows[1].0;
    assert_eq!(rows.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), [(first - 1, 0), (first, 1)]);
    let details = |body: &str| serde_json::from_str::<Value>(body).unwrap()["details"].clone();
    assert_eq!(details(&rows[0].2), details(&rows[1].2));
    assert_eq!(details(&rows[0].2)["first_seq"], first);
    let page = cluster.page("limit=1000").await.json();
    assert_eq!((&page["complete"], &page["proven"]), (&true.into(), &true.into()), "{page}");
    cluster.verify_all();
    let file = trust(&cluster, "trust.toml");
    assert_eq!(evidence(&cluster, "a.tar", &file).0, 0);

    // An attacker who holds the secret of an old epoch cannot use it to forge rows of the new one.
    cluster.stop(0);
    let old = std::fs::read_to_string(cluster.nodes[0].folder.join("secret.0")).unwrap();
    let generation: String =
        conn.query_row("SELECT value FROM meta WHERE key = 'generation'", [], |r| r.get(0)).unwrap();
    let origin = Origin {
        cluster: "test".parse().unwrap(),
        node_id: "mx1".parse().unwrap(),
        generation: generation.parse().unwrap(),
    };
    let key = MacKey::derive(&EpochSecret::from_hex(&old).unwrap(), &origin, 0);
    let victim = first + 5;
    let body: String = conn.query_row("SELECT body FROM entries WHERE seq = ?1", [victim], |row| row.get(0)).unwrap();
    let forged = body.replace("auth.login", "auth.logon");
    assert_ne!(body, forged);
    let guard: String = conn
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'entries_append_only_update'", [], |row| row.get(0))
        .unwrap();
    conn.execute_batch("DROP TRIGGER entries_append_only_update").unwrap();
    let mac = key.mac(forged.as_bytes());
    conn.execute("UPDATE entries SET body = ?1, mac = ?2, epoch = 0 WHERE seq = ?3", (&forged, &mac[..], victim))
        .unwrap();
    conn.execute_batch(&guard).unwrap();
    drop(conn);
    let run = cluster.on_node(0, &["verify"]);
    assert_eq!(run.code, 4, "{}", run.stdout);
    assert!(run.stdout.contains(&format!("row {victim}: the row is sealed under an epoch")), "{}", run.stdout);
    cluster.restart(0).await;
    cluster.wait_until_answered("mx1").await;
    let page = cluster.page("limit=1000&filter=user:nobody").await.json();
    let row = &page["entries"][0];
    assert_eq!((&row["integrity"], &row["found_at"]["seq"]), (&"violation".into(), &victim.into()), "{page}");

    // If the `[[secrets]]` table of the newest epoch is missing from the configuration, the node refuses to append.
    cluster.stop(0);
    let config_path = cluster.nodes[0].folder.join("node.toml");
    let config = std::fs::read_to_string(&config_path).unwrap();
    let cut = config.find("\n[[secrets]]\nepoch = 1").unwrap();
    let end = config[cut..].find("secret.1\"\n").unwrap() + cut + "secret.1\"\n".len();
    std::fs::write(&config_path, format!("{}{}", &config[..cut], &config[end..])).unwrap();
    cluster.restart(0).await;
    let status = cluster.on_node(0, &["status", "--table"]).stdout;
    assert!(status.contains("REFUSED"), "{status}");
}

/// The node is killed repeatedly while it switches to a new secret. Before that, the command that creates the secret was
/// interrupted too.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_interrupted_is_finished() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    // Files left by an unfinished rotation: the command creates them again and uses none of their contents.
    let folder = cluster.nodes[0].folder.clone();
    let stray = "ab".repeat(32);
    for path in [cluster.authority_dir().join("secrets/mx1.1"), folder.join("secret.1")] {
        std::fs::write(&path, &stray).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let config = folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[[secrets]]\nepoch = 1\nfile = \"secret.1\"\n")).unwrap();
    assert_eq!(cluster_command(&cluster, &["rotate-mac", "mx1"]).code, 0);
    let text = std::fs::read_to_string(&config).unwrap();
    assert_eq!(text.matches("secret.1").count(), 1, "{text}");
    let secret = std::fs::read_to_string(folder.join("secret.1")).unwrap();
    assert_ne!(secret, stray);
    for copy in [cluster.authority_dir().join("secrets/mx1.1"), cluster.aggregator_folder().join("secrets/mx1.1")] {
        assert_eq!(std::fs::read_to_string(copy).unwrap(), secret);
    }
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.stop(0);
    for round in 0..12u64 {
        cluster.spawn(0);
        tokio::time::sleep(Duration::from_millis(4 + round * 6)).await;
        cluster.kill(0);
        assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    }
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    let said = cluster.page("filter=action:log.key_rotated&from=1d").await.json();
    assert_eq!(said["count"], 2, "{said}");
    cluster.verify_all();
    let file = trust(&cluster, "trust.toml");
    assert_eq!(evidence(&cluster, "end.tar", &file).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_key_is_taken_over_at_a_witnessed_checkpoint() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let before = trust(&cluster, "before.toml");
    assert_eq!(evidence(&cluster, "before.tar", &before).0, 0);
    let note = cluster.dir.path().join("both.note");
    let note_path = note.to_str().unwrap().to_owned();
    std::fs::write(&note, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
    let finish = ["rotate-key", "mx1", "--finish", note_path.as_str()];
    assert!(cluster_command(&cluster, &finish).stderr.contains("no next key"));
    let run = cluster_command(&cluster, &["rotate-key", "mx1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(cluster_command(&cluster, &["rotate-key", "mx1"]).stderr.contains("already has a next key"));
    // A checkpoint without the new key's signature does not finish the rotation.
    let run = cluster_command(&cluster, &finish);
    assert!(run.code == 1 && run.stderr.contains("checkpoint rejected"), "{}", run.stderr);
    restart_all(&mut cluster).await;
    witnessed(&cluster, "mx1").await;
    std::fs::write(&note, cluster.on_node(0, &["checkpoint"]).stdout).unwrap();
    let run = cluster_command(&cluster, &finish);
    assert!(run.code == 1 && run.stderr.contains("no witness"), "{}", run.stderr);
    std::fs::write(&note, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
    // While both keys sign, auditors with the old trust file see no difference.
    assert_eq!(evidence(&cluster, "both.tar", &before).0, 0);
    let run = cluster_command(&cluster, &finish);
    assert_eq!(run.code, 0, "{}", run.stderr);
    restart_all(&mut cluster).await;
    cluster.append(0, &[entry("bob", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let after = trust(&cluster, "after.toml");
    assert_eq!(evidence(&cluster, "after.tar", &after).0, 0);
    let path = |name: &str| cluster.dir.path().join(name).to_str().unwrap().to_owned();
    // Older evidence also verifies with the new trust file; newer evidence does not verify with the old one, which is out of date.
    assert_eq!(verified(&cluster, &path("before.tar"), &after).0, 0);
    assert_eq!(verified(&cluster, &path("both.tar"), &after).0, 0);
    let (code, words) = verified(&cluster, &path("after.tar"), &before);
    assert_eq!(code, 4, "{words}");
    let said = cluster.page("filter=action:log.checkpoint_key_rotated&from=1d").await.json();
    assert_eq!(said["count"], 1, "{said}");
    let alarms = cluster.page("filter=action:audit.witness_verdict%20reason:fork,rollback&limit=50").await.json();
    assert_eq!(alarms["count"], 0, "{alarms}");
    cluster.verify_all();
}

/// Checks that the archived log is read from its folder next to the new log: answers contain its witnessed rows, in order and
/// proven.
async fn read_from_beside(cluster: &Cluster) {
    let mut page = cluster.page("from=1d&order=asc").await;
    for _ in 0..300 {
        if page.json()["complete"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        page = cluster.page("from=1d&order=asc").await;
    }
    let json = page.json();
    assert_eq!((&json["complete"], &json["proven"]), (&true.into(), &true.into()), "{}", page.text);
    let of_mx1 = |json: &Value| -> Vec<String> {
        let rows = json["entries"].as_array().unwrap().iter().filter(|row| row["entry"]["node_id"] == "mx1");
        rows.map(|row| format!("{}/{}", row["entry"]["generation"], row["entry"]["seq"])).collect()
    };
    let all = of_mx1(&json);
    let old = all.iter().filter(|place| place.split('/').next() == all[0].split('/').next()).count();
    assert!((2..all.len()).contains(&old), "rows of both logs: {all:?}");
    assert_eq!(page.node("mx1")["rows"].as_u64().unwrap(), all.len() as u64);
    // Reading page by page in both orders gives the same rows.
    for order in ["asc", "desc"] {
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = cluster.page(&format!("from=1d&filter=node:mx1&order={order}&limit=2{cursor}")).await.json();
            assert_eq!(page["complete"], true, "{page}");
            paged.extend(of_mx1(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if order == "desc" {
            paged.reverse();
        }
        assert_eq!(paged, all, "{order}");
    }
    let counted = cluster.get("/api/v1/stats?from=1d&filter=user:alice", Some(&cluster.token)).await.json();
    assert_eq!((&counted["complete"], &counted["stats"]["entries"]), (&true.into(), &1.into()), "{counted}");
    let stream = cluster.page("from=1d&format=ndjson").await.text;
    assert!(stream.contains("\"user\":\"alice\"") && stream.contains("\"complete\":true"), "{stream}");
    let run = cluster.run(&["verify", "--table"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    rows_of_both_logs_have_addresses(cluster, &json);
}

/// Checks that rows of two logs with the same sequence number are kept apart: each is shown, proven and exported under its own
/// address, and never in place of the other.
fn rows_of_both_logs_have_addresses(cluster: &Cluster, page: &Value) {
    let rows = page["entries"].as_array().unwrap().iter().map(|row| &row["entry"]);
    let mut first: Vec<&Value> = rows.filter(|entry| entry["node_id"] == "mx1" && entry["seq"] == 0).collect();
    first.dedup_by_key(|entry| entry["generation"].clone());
    assert_eq!(first.len(), 2, "{page}");
    let folder = cluster.dir.path().join("rows");
    for entry in &first {
        let generation = entry["generation"].as_str().unwrap();
        let shown = cluster.run(&["show", &format!("mx1/0@{generation}"), "--json"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let line: Value = serde_json::from_str(shown.stdout.lines().next().unwrap()).unwrap();
        assert_eq!(&line["entry"], *entry);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let mut export = cluster.command(&["export", "--row", &format!("mx1:0@{generation}")]);
        assert!(export.current_dir(&folder).output().unwrap().status.success());
        let proof = std::fs::read_to_string(folder.join(format!("mx1-0@{generation}.tlog-proof"))).unwrap();
        assert!(proof.contains(&format!("test/mx1/{generation}\n")), "{proof}");
        let bytes = std::fs::read(folder.join(format!("mx1-0@{generation}.entry"))).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains(generation));
    }
    // An address without a generation refers to the current log.
    let shown = cluster.run(&["show", "mx1/0", "--json"]).stdout;
    let line: Value = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
    assert_eq!(&line["entry"], first[1]);
    for (address, words) in [
        (format!("mx1/0@{}", "0".repeat(32)), "no log of generation"),
        ("mx1/0@x".to_owned(), "32 hexadecimal digits"),
        ("mx1@x".to_owned(), "is not a valid row address"),
    ] {
        let refused = cluster.run(&["show", &address]);
        assert!(refused.code != 0 && refused.stderr.contains(words), "{address}: {}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_break_in_a_new_generation_begins_with_new_keys() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let before = trust(&cluster, "before.toml");
    assert_eq!(evidence(&cluster, "before.tar", &before).0, 0);
    let frozen = cluster.dir.path().join("frozen.note");
    std::fs::write(&frozen, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
    let run = cluster.on_node(0, &["new-generation", "--reason", "r"]);
    assert!(run.code == 1 && run.stderr.contains("stop it first"), "{}", run.stderr);
    cluster.stop(0);
    let stolen = std::fs::read(cluster.nodes[0].folder.join("checkpoint.key")).unwrap();
    let run = cluster_command(&cluster, &["new-generation", "mx1", "--frozen", frozen.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = cluster.on_node(0, &["new-generation", "--reason", "break-in of 21 November"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    let generation = words[1].to_owned();
    let old = run.stdout.lines().nth(1).unwrap().rsplit(' ').next().unwrap().to_owned();
    assert!(std::path::Path::new(&old).join("log.db").exists(), "{old}");
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.restart(0).await;
    // The witness does not accept another log in place of the known one, whatever keys the other log uses.
    let line = report(&cluster, "mx1", |line| line["verdict"] == "rollback").await;
    assert!(line["reason"].as_str().unwrap().contains(&generation), "{line}");
    let run = cluster.run(&["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "new keys"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    cluster.append(0, &[entry("bob", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let after = trust(&cluster, "after.toml");
    read_from_beside(&cluster).await;
    let moved = std::path::Path::new(&old).with_extension("elsewhere").to_str().unwrap().to_owned();
    std::fs::rename(&old, &moved).unwrap();
    let old = moved;
    for _ in 0..300 {
        if cluster.page("from=1d").await.status_of("mx1") == "superseded" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The rows of the previous generation are missing, so no answer and no bundle over its time range is complete. The
    // aggregator, the exporter and the offline verifier all report this.
    let page = cluster.page("from=1d").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx1")), (false.into(), "superseded".to_owned()));
    let bundle = |name: &str, from: &str, incomplete: &str| {
        let path = cluster.dir.path().join(name).to_str().unwrap().to_owned();
        let args = ["export", "--bundle", &path, "--from", from, "--reason", "a test", "--incomplete", incomplete];
        cluster.run(&args)
    };
    assert_eq!(bundle("refused.tar", "1d", "refuse").code, 3);
    assert_eq!(bundle("after.tar", "1d", "partial").code, 3);
    let partial = cluster.dir.path().join("after_PARTIAL.tar").to_str().unwrap().to_owned();
    let (code, said) = verified(&cluster, &partial, &after);
    assert!(code == 3 && said.contains("superseded"), "{said}");
    // A range that begins later is complete and proven.
    let since = crate::witness::now();
    cluster.append(0, &[entry("carol", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(bundle("since.tar", &since, "refuse").code, 0);
    let path = cluster.dir.path().join("since.tar").to_str().unwrap().to_owned();
    assert_eq!(verified(&cluster, &path, &after).0, 0);
    let path = cluster.dir.path().join("before.tar").to_str().unwrap().to_owned();
    assert_eq!(verified(&cluster, &path, &after).0, 0);
    // An aggregator without memory of the previous generation learns of that generation from the log itself.
    cluster.stop_aggregator();
    let memory = cluster.aggregator_folder().join("state/witness");
    std::fs::rename(&memory, memory.with_extension("gone")).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    // The aggregator's own log reveals that its memory was lost. The loss is reported until an operator accepts it with a reason.
    let again = report(&cluster, "mx1", |line| line["verdict"] == "first_seen_again").await;
    assert!(again["reason"].as_str().unwrap().contains("is missing from the state directory"), "{again}");
    let run = cluster.run(&["nodes", "--table"]);
    assert_eq!(run.code, 3, "{}{}", run.stdout, run.stderr);
    let generation = again["generation"].as_str().unwrap().to_owned();
    let accepted = cluster.run(&["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "a new disk"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
    witnessed(&cluster, "mx1").await;
    let page = cluster.page("from=1d").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx1")), (false.into(), "superseded".to_owned()));
    assert_eq!(cluster.page(&format!("from={since}")).await.json()["complete"], true);
    let said = cluster.page("filter=action:log.generation_begun&from=1d").await.json();
    let details = &said["entries"][0]["entry"]["details"];
    assert_eq!(details["reason"], "break-in of 21 November", "{said}");
    assert!(details["previous"]["witnessed_rows"].as_u64().unwrap() > 1, "{said}");
    cluster.verify_all();

    // Signatures made with the stolen key are no longer accepted, neither in the new log nor after the end of the old one.
    cluster.stop(0);
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let now = text.lines().find(|line| line.starts_with("checkpoint_key")).unwrap();
    let key_file = now.split('"').nth(1).unwrap();
    std::fs::write(cluster.nodes[0].folder.join(key_file), stolen).unwrap();
    let data = cluster.nodes[0].folder.join("data");
    std::fs::rename(&data, data.with_extension("aside")).unwrap();
    std::fs::rename(&old, &data).unwrap();
    cluster.restart(0).await;
    report(&cluster, "mx1", |line| line["verdict"] == "unverifiable").await;
}

/// Begins a new log on a stopped node, starts the node, and accepts the log. Returns the output of `new-generation`.
pub(crate) async fn begin_generation(cluster: &mut Cluster) -> String {
    let run = cluster.on_node(0, &["new-generation", "--reason", "a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let begun = run.stdout;
    let generation = begun.split_whitespace().nth(1).unwrap().to_owned();
    accept_generation(cluster, &generation).await;
    begun
}

/// Starts a node whose log was replaced, and accepts the new log.
pub(crate) async fn accept_generation(cluster: &mut Cluster, generation: &str) {
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.restart(0).await;
    report(cluster, "mx1", |line| line["verdict"] == "rollback" && !line["alarm"]["presented"].is_null()).await;
    let run = cluster.run(&["nodes", "accept", "mx1", "--new-generation", generation, "--reason", "a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    cluster.append(0, &[entry("next", "auth.login")]).await;
    witnessed(cluster, "mx1").await;
}

/// Three logs and three keys: a signature that was made while its key was in use stays valid forever, in every log.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_an_earlier_log_outlives_changes_of_keys() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let file = trust(&cluster, "trust.toml");
    assert_eq!(evidence(&cluster, "first.tar", &file).0, 0);
    let first = report(&cluster, "mx1", |_| true).await["generation"].as_str().unwrap().to_owned();
    // Begin the second log under the same key, and then rotate the key.
    cluster.stop(0);
    begin_generation(&mut cluster).await;
    let note = cluster.dir.path().join("both.note").to_str().unwrap().to_owned();
    assert_eq!(cluster_command(&cluster, &["rotate-key", "mx1"]).code, 0);
    restart_all(&mut cluster).await;
    until("both keys signed", async || {
        witnessed(&cluster, "mx1").await;
        std::fs::write(&note, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
        (cluster_command(&cluster, &["rotate-key", "mx1", "--finish", &note]).code == 0).then_some(())
    })
    .await;
    restart_all(&mut cluster).await;
    witnessed(&cluster, "mx1").await;
    // The first log is signed with a key that the node no longer has. Its rows are verified all the same.
    let verify = cluster.on_node(0, &["verify", "--generation", &first]);
    assert!(verify.code == 0 && verify.stderr.contains("a key that has since been replaced"), "{}", verify.stderr);
    let verify = cluster.on_node(0, &["verify", "--generation", &first, "--json"]);
    assert!(verify.stdout.contains(r#""is_unsigned":true"#), "{}", verify.stdout);
    let since = crate::witness::now();
    cluster.append(0, &[entry("bob", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let path = |name: &str| cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let args = ["export", "--bundle", &path("second.tar"), "--from", &since, "--reason", "a test"];
    assert_eq!(cluster.run(&args).code, 0);
    let file = trust(&cluster, "trust.toml");
    for bundle in ["first.tar", "second.tar"] {
        let (code, said) = verified(&cluster, &path(bundle), &file);
        assert_eq!(code, 0, "{bundle}: {said}");
    }
    // Begin the third log with new keys, as after a break-in.
    std::fs::write(&note, cluster.on_node(0, &["checkpoint", "--witnessed"]).stdout).unwrap();
    cluster.stop(0);
    assert_eq!(cluster_command(&cluster, &["new-generation", "mx1", "--frozen", &note]).code, 0);
    begin_generation(&mut cluster).await;
    let path = |name: &str| cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let file = trust(&cluster, "trust.toml");
    for bundle in ["first.tar", "second.tar"] {
        let (code, said) = verified(&cluster, &path(bundle), &file);
        assert_eq!(code, 0, "{bundle}: {said}");
    }
    cluster.verify_all();
}
