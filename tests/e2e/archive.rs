//! The archive between real processes: a cluster archives to a directory and to a bucket, its writer is killed, its objects are
//! changed, and the verifier, which has public keys only, says what is true.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use piperoll_protocol::access::Role;
use piperoll_tests::{Cluster, Guard, Run, entry, piperoll, until};
use serde_json::Value;

use crate::buckets::{S3, SECRET_KEY};
use crate::witness::witnessed;

/// A cluster of two nodes that is going to have an archive at `url`.
pub(crate) async fn cluster_with_archive(url: impl Fn(&Cluster) -> String, credentials: Option<&str>) -> Cluster {
    let mut cluster = Cluster::made(&["mx1", "mx2"], |_| None).await;
    cluster.poll_every(250);
    add_archive(&cluster, &url(&cluster));
    let config = cluster.aggregator_folder().join("aggregator.toml");
    if let Some(credentials) = credentials {
        let mut table: toml::Table = std::fs::read_to_string(&config).unwrap().parse().unwrap();
        table["archive"].as_table_mut().unwrap().insert("credentials".to_owned(), "archive.credentials".into());
        std::fs::write(&config, table.to_string()).unwrap();
        let path = cluster.aggregator_folder().join("archive.credentials");
        std::fs::write(&path, credentials).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    cluster.run_all().await;
    for index in 0..2 {
        let lines: Vec<String> = (0..400).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    for node in ["mx1", "mx2"] {
        witnessed(&cluster, node).await;
    }
    cluster
}

pub(crate) fn directory(cluster: &Cluster) -> PathBuf {
    cluster.dir.path().join("archive")
}

pub(crate) fn in_directory(cluster: &Cluster) -> String {
    format!("file://{}", directory(cluster).display())
}

/// Runs a command whose first argument after the words is the cluster directory.
pub(crate) fn archive_command(cluster: &Cluster, words: &[&str], args: &[&str]) -> Run {
    let dir = cluster.authority_dir();
    Command::new(piperoll()).args(words).arg(dir).args(args).stdin(Stdio::null()).output().unwrap().into()
}

pub(crate) fn trust_file(cluster: &Cluster) -> PathBuf {
    let trust = archive_command(cluster, &["cluster", "trust"], &[]);
    assert_eq!(trust.code, 0, "{}", trust.stderr);
    let path = cluster.dir.path().join("trust.toml");
    std::fs::write(&path, trust.stdout).unwrap();
    path
}

/// Runs `piperoll archive` on the aggregator's machine.
pub(crate) fn on_aggregator(cluster: &Cluster, args: &[&str]) -> Run {
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let mut command = Command::new(piperoll());
    command.arg("archive").args(args).arg("--config").arg(config).stdin(Stdio::null()).output().unwrap().into()
}

/// Verifies as an auditor does: with the address and the trust file, but without the cluster.
pub(crate) fn verify(url: &str, trust: &Path, more: &[&str]) -> Run {
    let mut command = Command::new(piperoll());
    command.args(["archive", "verify", "--url", url, "--trust"]).arg(trust).args(more);
    command.stdin(Stdio::null()).output().unwrap().into()
}

pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path(), extension));
        } else if entry.path().extension().is_some_and(|known| known == extension) {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_cluster_is_archived_and_an_auditor_verifies_it() {
    let cluster = cluster_with_archive(in_directory, None).await;
    // Without `init`, there is no archive.
    let early = cluster.run(&["archive", "run", "--now"]);
    assert_eq!(early.code, 1, "{}", early.stdout);
    assert!(early.stderr.contains("cannot open the archive at file://"), "{}", early.stderr);
    let made = on_aggregator(&cluster, &["init"]);
    assert!(made.code == 0 && made.stdout.contains("created the archive main"), "{}{}", made.stdout, made.stderr);
    assert!(on_aggregator(&cluster, &["init"]).stdout.contains("exists already"));

    let run = cluster.run(&["archive", "run", "--now", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(run["steps"], serde_json::json!([1]));
    assert!(run["rows"].as_u64().unwrap() > 800, "{run}");
    // Rows of a day that has not ended are not due without --now.
    let idle = cluster.run(&["archive", "run"]);
    assert!(idle.code == 0 && idle.stdout.contains("nothing was due"), "{}{}", idle.stdout, idle.stderr);

    let status = cluster.run(&["archive", "status"]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    for words in ["verdict: ok", "newest step: 1", "mx1", "mx2", "agg"] {
        assert!(status.stdout.contains(words), "{words}: {}", status.stdout);
    }
    let trust = trust_file(&cluster);
    let good = verify(&in_directory(&cluster), &trust, &[]);
    assert_eq!(good.code, 0, "{}{}", good.stdout, good.stderr);
    assert!(good.stdout.contains("VERIFIED: every row leads to a checkpoint"), "{}", good.stdout);

    // The step is recorded in the aggregator's own log, once.
    let recorded = cluster.get("/api/v1/audit-log?action=audit.archive_step&format=ndjson", Some(&cluster.token)).await;
    let lines: Vec<&str> = recorded.text.lines().filter(|line| line.contains("audit.archive_step")).collect();
    assert_eq!(lines.len(), 1, "{}", recorded.text);
    // A second step archives that entry, and the verifier then knows of the first step from the archive itself.
    until("the entry to be witnessed", async || {
        let run = cluster.run(&["archive", "run", "--now", "--json"]);
        let run: Value = serde_json::from_str(&run.stdout).unwrap();
        (run["rows"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let list = on_aggregator(&cluster, &["ls", "--files"]);
    let listed: Vec<&str> = list.stdout.lines().collect();
    assert_eq!(listed.len(), files(&directory(&cluster), "parquet").len(), "{}", list.stderr);
    assert!(listed.iter().all(|file| Path::new(file).exists()), "{listed:?}");
    assert_eq!(verify(&in_directory(&cluster), &trust, &[]).code, 0);

    // The state of a verification is removed when it is complete. One that others could have written is refused.
    let state = cluster.dir.path().join("verification").display().to_string();
    let resumed = verify(&in_directory(&cluster), &trust, &["--resume", &state]);
    assert!(resumed.code == 0 && !Path::new(&state).exists(), "{}{}", resumed.stdout, resumed.stderr);
    std::fs::write(&state, "{}\n").unwrap();
    for (mode, words) in [(0o644, "only its owner"), (0o600, "is not the state of a verification of this archive")] {
        std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let refused = verify(&in_directory(&cluster), &trust, &["--resume", &state]);
        assert!(refused.code == 1 && refused.stderr.contains(words), "{}{}", refused.stdout, refused.stderr);
    }

    // Every change is a violation, and the report names the object.
    let file = &files(&directory(&cluster), "parquet")[0];
    let kept = std::fs::read(file).unwrap();
    let mut changed = kept.clone();
    changed[kept.len() / 2] ^= 1;
    std::fs::write(file, changed).unwrap();
    let bad = verify(&in_directory(&cluster), &trust, &[]);
    assert_eq!(bad.code, 4, "{}", bad.stdout);
    assert!(bad.stdout.contains("FINDING file: data/day=") && bad.stdout.contains("SHA-256"), "{}", bad.stdout);
    std::fs::write(file, kept).unwrap();
    assert_eq!(verify(&in_directory(&cluster), &trust, &[]).code, 0);

    // A removed step is a rollback for the writer and for its own verification.
    let newest = directory(&cluster).join("steps/00000002");
    let kept = std::fs::read(&newest).unwrap();
    std::fs::remove_file(&newest).unwrap();
    let trust_text = trust.display().to_string();
    let own = on_aggregator(&cluster, &["verify", "--trust", &trust_text]);
    assert!(own.code == 4 && own.stdout.contains("FINDING rollback: steps/00000002"), "{}{}", own.stdout, own.stderr);
    let refused = cluster.run(&["archive", "run", "--now"]);
    assert!(refused.code == 1 && refused.stderr.contains("rollback of the archive"), "{}", refused.stderr);
    let status = cluster.run(&["archive", "status"]);
    assert!(status.code == 4 && status.stdout.contains("verdict: rollback"), "{}", status.stdout);
    std::fs::write(&newest, kept).unwrap();
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 1, "the finding stays");
    let accepted = on_aggregator(&cluster, &["accept"]);
    assert!(accepted.code == 0 && accepted.stdout.contains("at step 2"), "{}{}", accepted.stdout, accepted.stderr);
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    let page = cluster.get("/metrics", None).await.text;
    assert!(page.contains("piperoll_aggregator_archive_step{archive=\"main\"} "), "{page}");
    let config = cluster.aggregator_folder().join("aggregator.toml").display().to_string();
    let doctor = cluster.run(&["doctor", "--aggregator", &config]);
    assert!(doctor.stdout.contains("main at file://"), "{}{}", doctor.stdout, doctor.stderr);
    cluster.verify_all();
}

#[tokio::test]
async fn bad_input_is_refused_with_a_reason() {
    let cluster = cluster_with_archive(in_directory, None).await;
    let trust = trust_file(&cluster);
    for (args, code, words) in [
        (vec!["verify", "--url", "/srv/x"], 2, "is not the address of an archive"),
        (vec!["verify", "--url", "file:///nowhere"], 2, "--url also needs --trust"),
        (vec!["ls", "--from", "yesterday-ish"], 2, "is not a valid date"),
        (vec!["ls", "--from", "2026-04-02", "--to", "2026-04-01"], 2, "is before --from"),
        (vec!["verify"], 2, "verify needs --trust"),
    ] {
        let run = on_aggregator(&cluster, &args);
        assert!(run.code == code && run.stderr.contains(words), "{args:?}: {} {}", run.code, run.stderr);
    }
    let nowhere = verify("file:///nowhere/at/all", &trust, &[]);
    assert!(
        nowhere.code == 1 && nowhere.stderr.contains("cannot open the archive at file:///nowhere"),
        "{}",
        nowhere.stderr
    );
    // Only an admin may run a round, and the route says that there is no archive where there is none.
    let viewer = cluster.token("eyes", Role::Viewer, None);
    let denied = cluster.send(reqwest::Method::POST, "/api/v1/archive/run", Some(&viewer), None).await;
    assert_eq!(denied.status, 403, "{}", denied.text);
    assert_eq!(cluster.get("/api/v1/archive", Some(&viewer)).await.status, 200);
    // A second archive of the same aggregator, and an unknown aggregator.
    for (aggregator, words) in [("agg", "writes the archive main already"), ("nobody", "nobody")] {
        let args = ["second", "--aggregator", aggregator, "--url", "file:///srv/second"];
        let run = archive_command(&cluster, &["cluster", "add-archive"], &args);
        assert!(run.code == 1 && run.stderr.contains(words), "{}", run.stderr);
    }
    // Keys that others can read are refused, and so is an address with a secret, which is not repeated.
    let key = cluster.aggregator_folder().join("archive.key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = on_aggregator(&cluster, &["init"]);
    assert!(open.code == 1 && open.stderr.contains("chmod 600"), "{}", open.stderr);
    let secret = verify("s3://AKIA:hunter2@bucket", &trust, &[]);
    assert!(secret.code == 2 && !secret.stderr.contains("hunter2"), "{}", secret.stderr);
}

/// The writer is killed again and again while it archives. In the end every row is there once, and nothing has to be cleaned up.
#[tokio::test]
async fn a_killed_writer_continues_where_it_was() {
    let mut cluster = cluster_with_archive(in_directory, None).await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    for round in 0..6u64 {
        for index in 0..2 {
            let lines: Vec<String> = (0..300).map(|n| entry(&format!("k{n}"), "auth.login")).collect();
            cluster.append(index, &lines).await;
        }
        for node in ["mx1", "mx2"] {
            witnessed(&cluster, node).await;
        }
        let mut running = Guard(
            cluster.command(&["archive", "run", "--now"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(),
        );
        tokio::time::sleep(Duration::from_millis(7 * round * round)).await;
        cluster.kill_aggregator();
        let _ = running.0.wait();
        cluster.spawn_aggregator();
        cluster.wait_for_aggregator().await;
    }
    for node in ["mx1", "mx2"] {
        witnessed(&cluster, node).await;
    }
    let run = cluster.run(&["archive", "run", "--now"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let trust = trust_file(&cluster);
    let good = verify(&in_directory(&cluster), &trust, &["--json"]);
    let report: Value = serde_json::from_str(&good.stdout).unwrap();
    assert_eq!((good.code, &report["verified"]), (0, &Value::Bool(true)), "{report}");
    // What engines see that list the folder: as many rows as the archive has.
    let listed = on_aggregator(&cluster, &["ls", "--files"]);
    let named = listed.stdout.lines().count();
    assert_eq!(named, files(&directory(&cluster), "parquet").len(), "files that no step names");
    // Each step is recorded once.
    let newest = report["head"]["number"].as_u64().unwrap();
    let recorded = cluster.get("/api/v1/audit-log?action=audit.archive_step&format=ndjson", Some(&cluster.token)).await;
    let count = recorded.text.lines().filter(|line| line.contains("\"action\":\"audit.archive_step\"")).count();
    assert_eq!(count as u64, newest, "{}", recorded.text);
    cluster.verify_all();
}

/// A node that is down is named, its rows come later, and the others are archived without it.
#[tokio::test]
async fn a_node_that_is_down_is_named_and_comes_later() {
    let mut cluster = cluster_with_archive(in_directory, None).await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    cluster.kill(1);
    let run = cluster.run(&["archive", "run", "--now"]);
    assert!(run.code == 3 && run.stdout.contains("MISSING mx2:"), "{}{}", run.stdout, run.stderr);
    let status = cluster.run(&["archive", "status", "--json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["missing"][0]["node_id"], "mx2", "{status}");
    cluster.restart(1).await;
    cluster.wait_until_complete().await;
    until("mx2 to be archived", async || {
        let run = cluster.run(&["archive", "run", "--now"]);
        (run.code == 0).then_some(())
    })
    .await;
    let trust = trust_file(&cluster);
    assert_eq!(verify(&in_directory(&cluster), &trust, &[]).code, 0);
    cluster.verify_all();
}

#[tokio::test]
async fn a_cluster_archives_to_a_bucket() {
    let Some(s3) = S3::start().await else { return };
    let url = "s3://audit/prod";
    let mut cluster = cluster_with_archive(|_| url.to_owned(), Some(&s3.credentials())).await;
    let made = on_aggregator(&cluster, &["init"]);
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    let run = cluster.run(&["archive", "run", "--now"]);
    assert!(run.code == 0 && run.stdout.contains("archived "), "{}{}", run.stdout, run.stderr);
    let trust = trust_file(&cluster);
    let credentials = cluster.aggregator_folder().join("archive.credentials").display().to_string();
    let good = verify(url, &trust, &["--credentials", &credentials]);
    assert_eq!(good.code, 0, "{}{}", good.stdout, good.stderr);
    let list = on_aggregator(&cluster, &["ls", "--files"]);
    assert!(list.stdout.starts_with("s3://audit/prod/data/day="), "{}{}", list.stdout, list.stderr);

    // The store is killed: the round fails with a reason that has no secret, and no row is lost.
    drop(s3);
    cluster.append(0, &[entry("later", "auth.login")]).await;
    witnessed(&cluster, "mx1").await;
    let failed = cluster.run(&["archive", "status"]);
    assert_eq!(failed.code, 0, "{}", failed.stderr);
    for text in [&run.stdout, &run.stderr, &good.stdout, &cluster.log_text("agg")] {
        assert!(!text.contains(SECRET_KEY), "a secret: {text}");
    }
    let page = cluster.get("/metrics", None).await.text;
    assert!(!page.contains(SECRET_KEY));
    cluster.stop_aggregator();
    cluster.verify_all();
}

/// Adds the archive `main` at `url`. Returns the line for `[retention]` of a node that waits for it.
pub(crate) fn add_archive(cluster: &Cluster, url: &str) -> String {
    let added = archive_command(cluster, &["cluster", "add-archive"], &["main", "--aggregator", "agg", "--url", url]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let key = added.stdout.lines().find(|line| line.starts_with("archive_key = "));
    key.expect("the archive's key").to_owned()
}

/// A cluster of mx1 and mx2 with an archive in a directory, which keep their rows for ever. With `waits`, they prune only archived rows.
/// Nothing is started yet.
pub(crate) async fn unstarted_cluster(clock: Option<&str>, waits: bool) -> Cluster {
    let cluster = Cluster::made(&["mx1", "mx2"], |_| clock.map(str::to_owned)).await;
    cluster.poll_every(100);
    let key = add_archive(&cluster, &in_directory(&cluster));
    let retention = if waits { format!("keep = \"forever\"\n{key}") } else { "keep = \"forever\"".to_owned() };
    for node in &cluster.nodes {
        let config = node.folder.join("node.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("keep = \"365d\"", &retention)).unwrap();
    }
    cluster
}

/// Waits until the aggregator has read the archive's steps after a start.
pub(crate) async fn until_archive_is_read(cluster: &Cluster) {
    until("the archive's steps to be read", async || {
        let status = cluster.get("/api/v1/archive", Some(&cluster.token)).await.json();
        (status["last_round_at"].is_string()).then_some(())
    })
    .await;
}

/// Waits until a node has been witnessed more than a second from now, so that an archive can answer for it up to now.
pub(crate) async fn witnessed_after(cluster: &Cluster, node: &str) {
    use piperoll_net::clock::{Clock as _, SystemClock};
    let after = SystemClock.now().plus_micros(1_000_000).to_text();
    crate::witness::report(cluster, node, |line| line["witnessed_at"].as_str() > Some(after.as_str())).await;
}
