//! Tests evidence bundles, which are exported from a real cluster and verified without it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::merkle::{decode_hash, leaf_hash, verify_inclusion};
use piperoll_format::note::{KeyKind, Note, VerifyingKey};
use piperoll_tests::{Cluster, Run, edit, entry};
use serde_json::Value;

use crate::witness::cluster_of;

struct Desk {
    cluster: Cluster,
    trust: PathBuf,
}

/// Starts a cluster with `rows` rows, and writes the trust file that an auditor would have.
async fn desk(rows: usize) -> Desk {
    let cluster = cluster_of(rows).await;
    let trust = cluster.dir.path().join("trust.toml");
    std::fs::write(&trust, cluster.authority().trust().unwrap().to_text()).unwrap();
    Desk { cluster, trust }
}

impl Desk {
    fn path(&self, name: &str) -> PathBuf {
        self.cluster.dir.path().join(name)
    }

    fn export(&self, name: &str, more: &[&str]) -> Run {
        let path = self.path(name);
        let mut args = vec!["export", "--bundle", path.to_str().unwrap(), "--reason", "audit 7"];
        args.extend(more);
        self.cluster.run(&args)
    }

    fn verify(&self, name: &str, more: &[&str]) -> Run {
        let path = self.path(name);
        let mut args = vec!["verify-bundle", path.to_str().unwrap(), "--trust", self.trust.to_str().unwrap()];
        args.extend(more);
        self.cluster.run(&args)
    }
}

/// Runs the standalone verifier as an auditor does: without environment variables or a cluster.
fn verifier(bundle: &Path, trust: Option<&Path>) -> Run {
    let program = piperoll_tests::piperoll().with_file_name("piperoll-verify");
    let mut command = Command::new(program);
    command.env_clear().arg(bundle).arg("--json");
    if let Some(trust) = trust {
        command.arg("--trust").arg(trust);
    }
    Run::from(command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_checked_without_the_cluster() {
    let desk = desk(400).await;
    let run = desk.export("all.tar", &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = desk.verify("all.tar", &[]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("VERIFIED") && run.stdout.contains("Nothing in this range is missing"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("requested by tester: audit 7"), "{}", run.stdout);
    let alone = verifier(&desk.path("all.tar"), Some(&desk.trust));
    assert_eq!(alone.code, 0, "{}{}", alone.stdout, alone.stderr);
    let verdict: Value = serde_json::from_str(&alone.stdout).unwrap();
    assert_eq!((&verdict["outcome"], &verdict["proven"]), (&"verified".into(), &true.into()));
    assert!(verdict["rows"].as_u64().unwrap() > 800, "{verdict}");
    // Without a trust file the bundle is only self-asserted: the verifier reports this and does not exit with 0.
    let alone = verifier(&desk.path("all.tar"), None);
    assert_eq!(alone.code, 1, "{}", alone.stdout);
    assert!(alone.stdout.contains("\"outcome\":\"unchecked\""));
    // The export is recorded as an entry with its reason.
    let entries = desk.cluster.page("filter=action:audit.export").await.json();
    assert_eq!(entries["entries"][0]["entry"]["details"]["words"], "audit 7", "{entries}");
    // Any archive program can open the bundle.
    let listed = Command::new("tar").arg("-tf").arg(desk.path("all.tar")).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    for name in ["manifest", "nodes/mx1/entries", "nodes/agg/checkpoint", "timeline.csv", "report.html", "README.txt"] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_ranges_and_eras() {
    let mut desk = desk(60).await;
    for time in ["+60s", "+0s", "+30s"] {
        desk.cluster.stop(0);
        desk.cluster.set_clock(0, time);
        desk.cluster.restart(0).await;
        let lines: Vec<String> = (0..20).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
        desk.cluster.append(0, &lines).await;
    }
    let middle = desk.cluster.page("filter=node:mx1&order=asc&limit=1000").await.json();
    let time = |n: usize| middle["entries"][n]["entry"]["timestamp"].as_str().unwrap().to_owned();
    assert_eq!(desk.export("eras.tar", &[]).code, 0);
    assert_eq!(desk.verify("eras.tar", &[]).code, 0);
    let (from, to) = (time(40), time(100));
    assert_eq!(desk.export("range.tar", &["--from", &from, "--to", &to]).code, 0);
    let run = desk.verify("range.tar", &["--json"]);
    let verdict: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &verdict["proven"]), (0, &true.into()), "{verdict}");
    assert!(verdict["nodes"][1]["borders"].as_u64().unwrap() >= 2, "{verdict}");
    assert_eq!(desk.export("user.tar", &["user:u3"]).code, 0);
    let run = desk.verify("user.tar", &["--json"]);
    let verdict: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &verdict["proven"], &verdict["complete"]), (0, &false.into(), &true.into()), "{verdict}");
    assert_eq!(verdict["rows"], 5);
    let mx1 = verdict["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
    assert_eq!(mx1["withheld"].as_u64().unwrap() + 4, mx1["size"].as_u64().unwrap(), "{mx1}");
    // Export a single node, and a range without entries.
    assert_eq!(desk.export("mx2.tar", &["node:mx2"]).code, 0);
    assert_eq!(desk.verify("mx2.tar", &[]).code, 0);
    assert_eq!(desk.export("nothing.tar", &["--from", "2020-01-01", "--to", "2020-01-02"]).code, 0);
    let run = desk.verify("nothing.tar", &[]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.contains("VERIFIED: 0 entries"), "{}", run.stdout);
    desk.cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_nodes_are_refused_waited_for_or_named() {
    let mut desk = desk(50).await;
    desk.cluster.kill(1);
    let run = desk.export("refused.tar", &[]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(!desk.path("refused.tar").exists() && !desk.path("refused.tar.part").exists());
    let run = desk.export("part.tar", &["--incomplete", "partial"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(!desk.path("part.tar").exists());
    let run = desk.verify("part_PARTIAL.tar", &[]);
    assert_eq!(run.code, 3, "{}", run.stdout);
    assert!(run.stdout.contains("INCOMPLETE") && run.stdout.contains("missing or incomplete: mx2"), "{}", run.stdout);
    let path = desk.path("waited.tar");
    let args = ["export", "--bundle", path.to_str().unwrap(), "--reason", "r", "--incomplete", "wait", "--wait", "120"];
    let waiting = desk.cluster.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    desk.cluster.restart(1).await;
    let waited = Run::from(waiting.wait_with_output().unwrap());
    assert_eq!(waited.code, 0, "{}", waited.stderr);
    assert_eq!(desk.verify("waited.tar", &[]).code, 0);
    // A node that hangs is reported as missing like any other, and delays the export by no more than the time limit.
    desk.cluster.signal(1, Signal::SIGSTOP);
    let run = desk.export("hanging.tar", &["--incomplete", "partial"]);
    desk.cluster.signal(1, Signal::SIGCONT);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert_eq!(desk.verify("hanging_PARTIAL.tar", &[]).code, 3);
}

/// A row that was edited on a node is exported unchanged, and the verifier rejects the bundle.
#[tokio::test(flavor = "multi_thread")]
async fn violated_rows_are_kept_and_refused() {
    let desk = desk(600).await;
    edit(&desk.cluster.database(0), "UPDATE entries SET body = replace(body, '\"u7\"', '\"x7\"') WHERE seq = 8");
    assert_eq!(desk.export("refused.tar", &[]).code, 4);
    let run = desk.export("part.tar", &["--incomplete", "partial"]);
    assert_eq!(run.code, 4, "{}", run.stderr);
    let run = desk.verify("part_PARTIAL.tar", &[]);
    assert_eq!(run.code, 4, "{}", run.stdout);
    assert!(run.stdout.contains("the exporter found 1 rows without a proof"), "{}", run.stdout);
}

/// Exports one row in a form that any C2SP tool can verify.
#[tokio::test(flavor = "multi_thread")]
async fn one_row_has_a_proof_of_its_own() {
    let desk = desk(300).await;
    let mut command = desk.cluster.command(&["export", "--row", "mx1:123"]);
    let run = Run::from(command.current_dir(desk.cluster.dir.path()).output().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let read = |name: &str| std::fs::read(desk.path(name)).unwrap();
    let (leaf, proof) = (read("mx1-123.entry"), String::from_utf8(read("mx1-123.tlog-proof")).unwrap());
    let (head, note) = proof.split_once("\n\n").unwrap();
    let lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 123"]);
    let hashes: Vec<_> = lines[2..].iter().map(|line| decode_hash(line).unwrap()).collect();
    let note = Note::parse(note).unwrap();
    let origin = note.text().lines().next().unwrap().to_owned();
    let key = desk.cluster.authority().trust().unwrap().by_id()["mx1"].keys[0].public;
    let checkpoint = Checkpoint::open(&note, &VerifyingKey::new(&origin, KeyKind::Log, &key).unwrap()).unwrap();
    let witness = &desk.cluster.authority().trust().unwrap().witnesses[0];
    assert!(note.verify(witness).unwrap() > 0);
    assert_eq!(verify_inclusion(&leaf_hash(&leaf, b""), 123, checkpoint.size, &hashes, &checkpoint.root), Ok(()));
    for (bad, code, words) in
        [("mx1", 2, "write NODE/SEQ"), ("mx9:1", 1, "not in the roster"), ("mx1:99999", 1, "has no row 99999")]
    {
        let run = desk.cluster.run(&["export", "--row", bad]);
        assert!(run.code == code && run.stderr.contains(words), "{bad}: {} {}", run.code, run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_reasons() {
    let desk = desk(5).await;
    let cluster = &desk.cluster;
    let post = async |body: Value| {
        cluster.send(reqwest::Method::POST, "/api/v1/exports", Some(&cluster.token), Some(body)).await
    };
    for (body, words) in [
        (serde_json::json!({}), "a reason is needed"),
        (serde_json::json!({ "reason": "  " }), "the reason must have 1 to"),
        (serde_json::json!({ "reason": "r", "incomplete": "maybe" }), "unknown variant"),
        (serde_json::json!({ "reason": "r", "wait_seconds": 601 }), "at most 600"),
        (serde_json::json!({ "reason": "r", "filter": "user:" }), "user"),
        (serde_json::json!({ "reason": "r", "filter": "node:nobody" }), "not in the roster"),
        (serde_json::json!({ "reason": "r", "from": "yesterdayish" }), "from"),
    ] {
        let answer = post(body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains(words), "{words}: {}", answer.text);
    }
    let viewer = cluster.token("viewer", piperoll_protocol::access::Role::Viewer, None);
    let body = Some(serde_json::json!({ "reason": "r" }));
    assert_eq!(cluster.send(reqwest::Method::POST, "/api/v1/exports", Some(&viewer), body).await.status, 403);
    assert_eq!(cluster.run(&["export", "--bundle", "x.tar"]).code, 2, "a reason is not optional");
    let trust = desk.trust.to_str().unwrap();
    for args in
        [["verify-bundle", "/nowhere.tar", "--trust", trust], ["verify-bundle", trust, "--trust", "/nowhere.toml"]]
    {
        let run = cluster.run(&args);
        assert!(run.code == 1 && run.stderr.contains("/nowhere"), "{}", run.stderr);
    }
    let run = cluster.run(&["verify-bundle", trust, "--trust", trust]);
    assert!(run.code == 2 && run.stdout.starts_with("NOT CHECKED: this file is neither"), "{}", run.stdout);
}
