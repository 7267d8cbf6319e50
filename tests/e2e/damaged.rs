//! State files damaged by a flipped bit, a crash or a full disk: a redundant file is repaired or set aside and does not keep a
//! daemon from starting, and damage to a file that must not be lost is reported.

use piperoll_tests::{Cluster, entry, until};
use rusqlite::Connection;
use serde_json::json;

use crate::witness::witnessed;

/// Returns four damaged versions of a file: empty, truncated, invalid text and all zeros.
fn damages(sound: &[u8]) -> [Vec<u8>; 4] {
    let mut garbled = sound.to_vec();
    garbled[sound.len() / 2] ^= 0x15;
    [Vec::new(), sound[..sound.len() / 2].to_vec(), b"\xff{".to_vec(), vec![0; sound.len()]]
}

#[tokio::test(flavor = "multi_thread")]
async fn side_matters_keep_no_daemon_from_starting() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.poll_every(100);
    let node = cluster.nodes[0].folder.clone();
    let (source, target) = (cluster.dir.path().join("app.log"), cluster.dir.path().join("out.ndjson"));
    let config = std::fs::read_to_string(node.join("node.toml")).unwrap();
    let tables = format!(
        "[[forward]]\nname = \"out\"\nto = \"file://{}\"\n\n[[intake]]\nname = \"app\"\nfile = \"{}\"\nmap = \"app.toml\"\n",
        target.display(),
        source.display()
    );
    let mapping =
        "description = \"test\"\n[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"app.said\"\n";
    std::fs::write(node.join("app.toml"), mapping).unwrap();
    std::fs::write(node.join("node.toml"), format!("{config}\n{tables}")).unwrap();
    let line = |n: usize| json!({ "number": n }).to_string() + "\n";
    std::fs::write(&source, line(1) + &line(2)).unwrap();
    cluster.run_all().await;
    let recorded = async |cluster: &Cluster, count: usize| {
        for _ in 0..300 {
            let found = cluster.on_node(0, &["query", "action:app.said", "--json"]).stdout;
            if found.matches("\"app.said\"").count() >= count {
                assert_eq!(found.matches("\"app.said\"").count(), count, "each once: {found}");
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("not recorded: {}", cluster.log_text("mx1"));
    };
    recorded(&cluster, 2).await;
    let search = json!({ "name": "mine", "parameters": "filter=user:u1" });
    let kept = cluster.send(reqwest::Method::POST, "/api/v1/searches", Some(&cluster.token), Some(search)).await;
    assert!(kept.status < 300, "{}", kept.text);
    let state = cluster.aggregator_folder().join("state");
    let mut lines = 2;
    let files =
        [node.join("data/intake/app.json"), node.join("data/forward/out.json"), node.join("data/witnessed.json")];
    let damaged = [&files[..], &[state.join("searches.json"), state.join("cursor.key")]].concat();
    for n in 0..4 {
        // Each file is written by a thread of its own, some time after the entries are in the log.
        until("every state file is there", async || damaged.iter().all(|path| path.exists()).then_some(())).await;
        cluster.stop(0);
        cluster.stop_aggregator();
        for path in &damaged {
            let sound = std::fs::read(path).unwrap();
            std::fs::write(path, &damages(&sound)[n]).unwrap();
        }
        lines += 1;
        let mut text = std::fs::read_to_string(&source).unwrap();
        text.push_str(&line(lines));
        std::fs::write(&source, text).unwrap();
        cluster.restart(0).await;
        cluster.spawn_aggregator();
        cluster.wait_for_aggregator().await;
        recorded(&cluster, lines).await;
        // Forwarding stops when its state is damaged, because the destination may have been paused. The status reports this.
        let forwards = cluster.on_node(0, &["forward", "list", "--json"]).stdout;
        assert!(forwards.contains("was damaged"), "{forwards}");
        let resumed = cluster.on_node(0, &["forward", "resume", "out"]);
        assert_eq!(resumed.code, 0, "{}", resumed.stderr);
        for path in &files {
            assert!(path.with_extension("json.damaged").exists(), "{} is kept as evidence", path.display());
        }
        let search = json!({ "name": "mine", "parameters": "filter=user:u1" });
        let kept = cluster.send(reqwest::Method::POST, "/api/v1/searches", Some(&cluster.token), Some(search)).await;
        assert!(kept.status < 300, "{}", kept.text);
        witnessed(&cluster, "mx1").await;
    }
    cluster.verify_all();
}

/// The witness's memory must not be lost unnoticed: damage such as a flipped bit is reported, and the aggregator refuses to start
/// with such a file.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_witness_remembers_is_named_when_it_is_damaged() {
    let mut cluster = Cluster::witnessed(&["mx1"], 100).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop_aggregator();
    let memory = cluster.aggregator_folder().join("state/witness/mx1.json");
    let sound = std::fs::read(&memory).unwrap();
    let config = cluster.aggregator_folder().join("aggregator.toml");
    // An empty file is treated like a missing one, which `witness_memory::a_lost_memory_is_found_in_the_own_log` covers.
    let mut damaged: Vec<Vec<u8>> = damages(&sound).into_iter().filter(|bytes| !bytes.is_empty()).collect();
    // Change a field name: if the unknown field were ignored, the file would state that nothing was pinned.
    damaged.push(String::from_utf8(sound.clone()).unwrap().replacen("\"pin\"", "\"pi~\"", 1).into_bytes());
    for bytes in damaged {
        std::fs::write(&memory, bytes).unwrap();
        let refused = cluster.run(&["aggregator", "serve", "--config", config.to_str().unwrap()]);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains("mx1.json") && refused.stderr.contains("from a backup"), "{}", refused.stderr);
    }
    std::fs::write(&memory, &sound).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    witnessed(&cluster, "mx1").await;
    cluster.verify_all();
}

/// The generation in `log.json` is changed: the node cannot know whether `log.json` or `log.db` is wrong, so the message names
/// both.
#[tokio::test(flavor = "multi_thread")]
async fn a_marker_of_another_generation_is_named() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    cluster.stop(0);
    let marker = cluster.nodes[0].folder.join("data/log.json");
    let sound = std::fs::read(&marker).unwrap();
    let text = std::str::from_utf8(&sound).unwrap();
    let digit = text.find("\"generation\":\"").unwrap() + "\"generation\":\"".len();
    let mut damaged = sound.clone();
    damaged[digit] = if damaged[digit] == b'1' { b'0' } else { b'1' };
    std::fs::write(&marker, damaged).unwrap();
    let refused = cluster.on_node(0, &["serve"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("log.json") && refused.stderr.contains("log.db"), "{}", refused.stderr);
    std::fs::write(&marker, sound).unwrap();
    cluster.restart(0).await;
    cluster.verify_all();
}

/// The `meta` table, which identifies the log, is changed while the node runs: every row is still valid, but the node would not
/// find its log at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn the_names_in_a_running_database_are_checked() {
    let cluster = Cluster::start(&["mx1"]).await;
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    let conn = Connection::open(cluster.database(0)).unwrap();
    let trigger: String = conn
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'meta_append_only_update'", [], |row| row.get(0))
        .unwrap();
    conn.execute_batch(&format!(
        "DROP TRIGGER meta_append_only_update; UPDATE meta SET value = '{}' WHERE key = 'generation'; {trigger}",
        "0".repeat(32)
    ))
    .unwrap();
    let run = cluster.on_node(0, &["verify"]);
    assert!(run.code == 4 && run.stdout.contains("in the table `meta`, generation is"), "{}", run.stdout);
}

/// A command that creates a folder can be killed at any time: running the same command again succeeds.
#[test]
fn interrupted_commands_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("c");
    let cluster = cluster.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(piperoll_tests::piperoll()).arg("cluster").args(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["init", cluster, "--name", "test"]).0, 0);
    for (id, args) in [
        ("n1", &["add-node", cluster, "n1", "--address", "127.0.0.1:7443"][..]),
        ("a1", &["add-aggregator", cluster, "a1", "--address", "127.0.0.1:7400"]),
        ("user-kim", &["add-user", cluster, "kim", "--role", "viewer"]),
    ] {
        // State after a kill: a folder with some of its files, and no member of that name.
        let folder = dir.path().join("c/machines").join(id);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("secret.0"), "half").unwrap();
        let (code, words) = run(args);
        assert_eq!(code, 0, "{id}: {words}");
        assert!(words.contains("interrupted"), "{words}");
        let (code, words) = run(args);
        assert_eq!(code, 1, "a member that is known is never made again: {words}");
    }
}
