//! Tests membership changes of a cluster: nodes join and leave, and earlier evidence stays valid.

use std::time::Duration;

use piperoll_tests::{Cluster, Run, edit, entry, until};
use serde_json::Value;

use crate::witness::{now, report, witnessed};

fn cluster_command(cluster: &Cluster, name: &str, more: &[&str]) -> Run {
    let dir = cluster.authority_dir();
    cluster.run(&[&["cluster", name, dir.to_str().unwrap()], more].concat())
}

fn trust(cluster: &Cluster) -> String {
    let path = cluster.dir.path().join("trust.toml");
    std::fs::write(&path, cluster_command(cluster, "trust", &[]).stdout).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn restart_aggregator(cluster: &mut Cluster) {
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.wait_until_answered("mx1").await;
}

/// Waits for the entry about a membership change and returns it.
async fn change(cluster: &Cluster, action: &str, node: &str) -> Value {
    for _ in 0..300 {
        let page = cluster.page(&format!("filter=action:{action}%20entity:node/{node}&from=1d")).await.json();
        if let Some(row) = page["entries"].as_array().and_then(|rows| rows.first()) {
            return row["entry"].clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no {action} about {node}");
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_and_leaving_change_nothing_about_older_evidence() {
    let mut cluster = Cluster::witnessed(&["mx1"], 50).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let bundle = cluster.dir.path().join("before.tar").to_str().unwrap().to_owned();
    let run = cluster.run(&["export", "--bundle", &bundle, "--from", "1d", "--reason", "a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let before = now();

    let added = cluster_command(&cluster, "add-node", &["mx9", "--address", "127.0.0.1:1"]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let verified = cluster.run(&["verify-bundle", &bundle, "--trust", &trust(&cluster)]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    restart_aggregator(&mut cluster).await;
    change(&cluster, "cluster.node_joined", "mx9").await;
    // The node was never started: it counts as missing from the moment it joined, but not before.
    let page = cluster.page("from=1d").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx9")), (false.into(), "unreachable".to_owned()));
    let page = cluster.page(&format!("from=1d&to={before}")).await;
    assert_eq!(
        (page.json()["complete"].clone(), page.status_of("mx9")),
        (true.into(), "excluded".to_owned()),
        "{}",
        page.text
    );

    let retired = cluster_command(&cluster, "retire", &["mx9"]);
    assert_eq!(retired.code, 0, "{}", retired.stderr);
    restart_aggregator(&mut cluster).await;
    change(&cluster, "cluster.node_retired", "mx9").await;
    let page = cluster.page("from=1d").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx9")), (false.into(), "retired".to_owned()));
    let since = now();
    cluster.append(0, &[entry("bob", "auth.login")]).await;
    let page = cluster.page(&format!("from={since}")).await.json();
    assert_eq!((&page["complete"], &page["expected"]), (&true.into(), &2.into()), "{page}");

    // Changing a membership date needs a reason, and everyone who verifies a bundle sees the change.
    let moved = cluster_command(&cluster, "retire", &["mx9", "--at", "2030-01-01"]);
    assert!(moved.code == 1 && moved.stderr.contains("the reason for the change with --reason"), "{}", moved.stderr);
    let reason = ["mx9", "--until", &before, "--from", "2000-01-01", "--reason", "it was never started"];
    let moved = cluster_command(&cluster, "membership", &reason);
    assert_eq!(moved.code, 0, "{}", moved.stderr);
    let verified = cluster.run(&["verify-bundle", &bundle, "--trust", &trust(&cluster)]);
    assert!(verified.code == 3 && verified.stdout.contains("member_from of mx9 was moved"), "{}", verified.stdout);
    let listed = cluster_command(&cluster, "list", &[]).stdout;
    assert!(listed.contains("member from 2000-01-01"), "{listed}");
    cluster.verify_all();

    // A membership date cannot hide witnessed rows: here an operator sets the dates as if mx1 had left before its rows were
    // recorded.
    let slip = ["mx1", "--from", "2000-01-01", "--until", "2020-01-01", "--reason", "a slip"];
    let moved = cluster_command(&cluster, "membership", &slip);
    assert_eq!(moved.code, 0, "{}", moved.stderr);
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    let page = cluster.page("from=1d").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx1")), (false.into(), "retired".to_owned()));
    assert!(page.node("mx1")["reason"].as_str().unwrap().contains("were witnessed"), "{}", page.text);
    let trust = std::fs::read_to_string(trust(&cluster)).unwrap();
    assert!(trust.contains("a slip"), "{trust}");
}

/// After a node has left, the aggregator reads the node's rows from its folder. They are proven in answers and in evidence.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_node_that_left_is_read() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 50).await;
    for node in 0..2 {
        cluster.append(node, &vec![entry("alice", "auth.login"); 30]).await;
        witnessed(&cluster, ["mx1", "mx2"][node]).await;
    }
    // The folder also contains an archived log of the node.
    cluster.stop(1);
    let begun = cluster.on_node(1, &["new-generation", "--reason", "a test"]);
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    let generation = begun.stdout.split_whitespace().nth(1).unwrap();
    cluster.restart(1).await;
    report(&cluster, "mx2", |line| line["verdict"] == "rollback" && !line["alarm"]["presented"].is_null()).await;
    let accept = ["nodes", "accept", "mx2", "--new-generation", generation, "--reason", "a test"];
    assert_eq!(cluster.run(&accept).code, 0);
    cluster.append(1, &vec![entry("bob", "auth.login"); 5]).await;
    witnessed(&cluster, "mx2").await;
    let since = now();
    cluster.append(1, &vec![entry("carol", "auth.login"); 5]).await;
    witnessed(&cluster, "mx2").await;
    cluster.stop(1);
    assert_eq!(cluster_command(&cluster, "retire", &["mx2"]).code, 0);
    restart_aggregator(&mut cluster).await;
    let page = cluster.page("from=1d&limit=1000").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx2")), (false.into(), "retired".to_owned()));

    // A folder that does not exist is named in the answer and does not prevent the start.
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let plain = std::fs::read_to_string(&config).unwrap();
    let folder = cluster.dir.path().join("handed-over");
    let table = format!("\n[[retired]]\nnode = \"mx2\"\nfolder = \"{}\"\n", folder.display());
    std::fs::write(&config, plain + &table).unwrap();
    restart_aggregator(&mut cluster).await;
    let page = cluster.page("from=1d&limit=1000").await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx2")), (false.into(), "retired".to_owned()));
    assert!(page.node("mx2")["reason"].as_str().unwrap().contains("its folder: "), "{}", page.text);

    std::fs::rename(&cluster.nodes[1].folder, &folder).unwrap();
    let before = std::fs::read_dir(folder.join("data")).unwrap().count();
    restart_aggregator(&mut cluster).await;
    let page = until("all of it is read", async || {
        let page = cluster.page("from=1d&limit=1000").await;
        (page.json()["complete"] == true).then_some(page)
    })
    .await;
    assert_eq!((page.json()["proven"].clone(), page.status_of("mx2")), (true.into(), "ok".to_owned()), "{}", page.text);
    let of_mx2 = |user: &str| {
        let rows = page.json()["entries"].as_array().unwrap().clone();
        rows.iter().filter(|row| row["entry"]["node_id"] == "mx2" && row["entry"]["user"] == user).count()
    };
    assert_eq!((of_mx2("alice"), of_mx2("bob"), of_mx2("carol")), (30, 5, 5), "rows of both logs");
    let stats = cluster.get("/api/v1/stats?from=1d&filter=user:bob", Some(&cluster.token)).await.json();
    assert_eq!((&stats["complete"], &stats["stats"]["entries"]), (&true.into(), &5.into()), "{stats}");
    assert_eq!(cluster.run(&["query", "--from", "1d", "--limit", "1000"]).code, 0);
    assert_eq!(cluster.run(&["verify"]).code, 0);
    let line = report(&cluster, "mx2", |line| line["roster_status"] == "retired").await;
    assert_eq!((&line["verdict"], &line["status"]), (&"ok".into(), &"ok".into()), "{line}");
    assert!(line["reason"].as_str().unwrap().contains("reads its log from the configured folder"), "{line}");
    let path = cluster.dir.path().join("after.tar").to_str().unwrap().to_owned();
    let run = cluster.run(&["export", "--bundle", &path, "--from", &since, "--reason", "a test"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let verified = cluster.run(&["verify-bundle", &path, "--trust", &trust(&cluster)]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    assert_eq!(std::fs::read_dir(folder.join("data")).unwrap().count(), before, "nothing is written there");
    // A folder that is a copy of a member's folder is not read while the node is a member.
    the_folder_of_a_member_is_not_read(&mut cluster).await;
    let folder = folder.clone();
    // The log in the folder is verified like any other log.
    let sql = "UPDATE entries SET body = replace(body, 'carol', 'mario') WHERE body LIKE '%carol%'";
    edit(&folder.join("data/log.db"), sql);
    let page = cluster.page(&format!("from={since}&limit=1000")).await;
    assert_eq!((page.json()["complete"].clone(), page.status_of("mx2")), (false.into(), "invalid".to_owned()));
}

/// Checks that the aggregator queries a node that is a member, even if a folder is configured for it, and that a folder that
/// lacks rows is detected.
async fn the_folder_of_a_member_is_not_read(cluster: &mut Cluster) {
    let copy = cluster.dir.path().join("copy");
    cluster.stop(0);
    let copied = std::process::Command::new("cp").arg("-r").arg(&cluster.nodes[0].folder).arg(&copy).status().unwrap();
    assert!(copied.success());
    cluster.restart(0).await;
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let plain = std::fs::read_to_string(&config).unwrap();
    let table = format!("\n[[retired]]\nnode = \"mx1\"\nfolder = \"{}\"\n", copy.display());
    std::fs::write(&config, format!("{plain}{table}")).unwrap();
    restart_aggregator(cluster).await;
    cluster.append(0, &[entry("dave", "auth.login")]).await;
    let page = cluster.page("from=1d&filter=user:dave%20node:mx1").await.json();
    assert_eq!((&page["count"], &page["complete"]), (&1.into(), &true.into()), "{page}");
    witnessed(cluster, "mx1").await;
    // Once the node has left, any rows up to its last sequence number that are not in the folder count as missing.
    cluster.stop(0);
    assert_eq!(cluster_command(cluster, "retire", &["mx1", "--last-seq", "100"]).code, 0);
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    let page = until("the copy is read", async || {
        let page = cluster.page("from=1d&filter=node:mx1").await;
        (page.json()["nodes"].is_array() && page.status_of("mx1") == "invalid").then_some(page)
    })
    .await;
    assert!(
        page.node("mx1")["reason"].as_str().unwrap().contains("according to the roster the node's last row is 100"),
        "{}",
        page.text
    );
    // Configure a node twice, and a node that is not in the roster.
    for (node, words) in [("mx1", "is named twice"), ("mx7", "is not in the roster")] {
        let table = table.replace("mx1", node);
        std::fs::write(&config, format!("{plain}\n{table}{}", if node == "mx1" { &table } else { "" })).unwrap();
        let refused = cluster.run(&["aggregator", "serve", "--config", config.to_str().unwrap()]);
        assert!(refused.code == 1 && refused.stderr.contains(words), "{}", refused.stderr);
    }
    std::fs::write(&config, plain).unwrap();
}

/// The last rows of a killed node are not signed. Evidence from its folder does not claim that the signed rows are all rows of
/// the log.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_killed_node_proves_no_more_than_was_signed() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 50).await;
    cluster.append(1, &[entry("alice", "auth.login")]).await;
    witnessed(&cluster, "mx2").await;
    let since = now();
    cluster.append(1, &[entry("bob", "auth.login")]).await;
    cluster.kill(1);
    let conn = rusqlite::Connection::open(cluster.database(1)).unwrap();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    let (rows, signed) = (count("SELECT max(seq) + 1 FROM entries"), count("SELECT max(size) FROM checkpoints"));
    drop(conn);
    if signed == rows {
        eprintln!("SKIPPED: the last row was signed before the kill");
        return;
    }
    assert_eq!(cluster_command(&cluster, "retire", &["mx2"]).code, 0);
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let plain = std::fs::read_to_string(&config).unwrap();
    let folder = cluster.nodes[1].folder.display().to_string();
    std::fs::write(&config, format!("{plain}\n[[retired]]\nnode = \"mx2\"\nfolder = \"{folder}\"\n")).unwrap();
    restart_aggregator(&mut cluster).await;
    let line = report(&cluster, "mx2", |line| line["verdict"] == "unverifiable" && line["status"] == "ok").await;
    assert!(line["reason"].as_str().unwrap().contains("rows were signed"), "{line}");
    // The rows can be read, and the evidence is not reported as complete.
    let page = cluster.page(&format!("from={since}&filter=user:bob")).await.json();
    assert_eq!(page["count"], 1, "{page}");
    // Wait until the checkpoint is older than its maximum age.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let to = now();
    let path = cluster.dir.path().join("killed.tar").to_str().unwrap().to_owned();
    let args =
        ["export", "--bundle", &path, "--from", &since, "--to", &to, "--reason", "a test", "--incomplete", "partial"];
    let exported = cluster.run(&args);
    assert!([0, 3].contains(&exported.code), "{}", exported.stderr);
    let made = std::path::Path::new(&path).exists();
    let path = if made { path } else { path.replace(".tar", "_PARTIAL.tar") };
    let verified = cluster.run(&["verify-bundle", &path, "--trust", &trust(&cluster)]);
    assert_eq!(verified.code, 3, "{}", verified.stdout);
}
