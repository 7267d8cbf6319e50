//! Tests followed files, which are written and rotated as programs and logrotate do it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use piperoll_tests::Cluster;

use super::{configure, entries, wait_for};

const MAP: &str = "[field.category]\nconstant = \"data\"\n[field.action]\npointer = \"/action\"\n[field.request_id]\npointer = \"/n\"\n";
const HEAD: &str = "{\"action\":\"app.start\"}";

fn line(number: u32) -> String {
    format!("{{\"action\":\"x.y\",\"n\":\"{number}\"}}")
}

fn append(path: &Path, lines: &[String]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
}

fn begun(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    std::iter::once(HEAD.to_owned()).chain(numbers.map(line)).collect()
}

async fn following(names: &[&str]) -> (Cluster, PathBuf) {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let logs = cluster.dir.path().canonicalize().unwrap().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(cluster.nodes[0].folder.join("app.toml"), MAP).unwrap();
    for name in names {
        let path = logs.join(format!("{name}.log"));
        configure(
            &cluster,
            &format!("[[intake]]\nname = \"{name}\"\nfile = \"{}\"\nmap = \"app.toml\"\n", path.display()),
        );
    }
    (cluster, logs)
}

/// Returns the line numbers in log order, with 0 for the first line of each file.
fn numbers(cluster: &Cluster, name: &str) -> Vec<u32> {
    let found = entries(cluster, &format!("via:\"file {name}\" action:x.y,app.start"));
    found.iter().map(|entry| entry["request_id"].as_str().map_or(0, |number| number.parse().unwrap())).collect()
}

fn gaps(cluster: &Cluster) -> Vec<String> {
    let causes =
        entries(cluster, "action:log.gap").into_iter().map(|gap| gap["details"]["cause"].as_str().unwrap().to_owned());
    causes.filter(|cause| cause != "unclean stop").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_begin_with_the_same_line_are_told_apart() {
    let (mut cluster, logs) = following(&["a", "b"]).await;
    let (a, b) = (logs.join("a.log"), logs.join("b.log"));
    append(&a, &begun(1..=2));
    append(&b, &begun(1..=2));
    cluster.run_all().await;
    wait_for(&cluster, "via:file action:x.y,app.start", 6);
    // The file is copied and truncated in place, and is longer than before when the node checks it again.
    std::fs::copy(&a, logs.join("a.log.1")).unwrap();
    std::fs::write(&a, begun(11..=16).join("\n") + "\n").unwrap();
    wait_for(&cluster, "via:\"file a\" action:x.y,app.start", 10);
    // While the node is down, write more lines and rotate the file, three times, with compression as logrotate does it.
    cluster.stop(0);
    append(&b, &[line(3), line(4)]);
    std::fs::rename(&b, logs.join("b.log.3")).unwrap();
    append(&b, &begun(5..=9));
    std::fs::rename(&b, logs.join("b.log.2")).unwrap();
    append(&b, &begun(10..=12));
    std::fs::rename(&b, logs.join("b.log.1")).unwrap();
    append(&b, &begun(13..=13));
    for packed in ["b.log.3", "b.log.2"] {
        assert!(Command::new("gzip").arg(logs.join(packed)).status().unwrap().success());
    }
    cluster.restart(0).await;
    wait_for(&cluster, "via:\"file b\" action:x.y,app.start", 17);
    assert_eq!(numbers(&cluster, "a"), [0, 1, 2, 0, 11, 12, 13, 14, 15, 16]);
    assert_eq!(numbers(&cluster, "b"), [0, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9, 0, 10, 11, 12, 0, 13]);
    assert_eq!(gaps(&cluster), Vec::<String>::new());
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_late_to_a_rotated_file_arrives() {
    let (mut cluster, logs) = following(&["a"]).await;
    let path = logs.join("a.log");
    append(&path, &begun(1..=2));
    cluster.run_all().await;
    wait_for(&cluster, "action:x.y", 2);
    let mut late = OpenOptions::new().append(true).open(&path).unwrap();
    std::fs::rename(&path, logs.join("a.log.1")).unwrap();
    append(&path, &begun(3..=3));
    wait_for(&cluster, "action:x.y", 3);
    // The node already reads the new file, but a line that is added to the rotated file must still be recorded.
    writeln!(late, "{}", line(4)).unwrap();
    wait_for(&cluster, "action:x.y", 4);
    cluster.kill(0);
    writeln!(late, "{}", line(5)).unwrap();
    append(&path, &[line(6)]);
    cluster.restart(0).await;
    wait_for(&cluster, "action:x.y", 6);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut found = numbers(&cluster, "a");
    found.sort_unstable();
    assert_eq!(found, [0, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(gaps(&cluster), Vec::<String>::new());
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_costs_only_itself_and_keeps_its_hash() {
    use sha2::Digest as _;
    let (mut cluster, logs) = following(&["a"]).await;
    let path = logs.join("a.log");
    let long = format!("{{\"action\":\"x.y\",\"n\":\"1\",\"pad\":\"{}\"}}", "v".repeat(400_000));
    append(&path, &[HEAD.to_owned(), long.clone(), line(2)]);
    cluster.run_all().await;
    wait_for(&cluster, "action:x.y", 1);
    let odd = wait_for(&cluster, "action:intake.unmapped", 1);
    assert_eq!(odd[0]["details"]["bytes"], long.len());
    assert_eq!(odd[0]["details"]["sha256"], hex::encode(sha2::Sha256::digest(&long)));
    assert_eq!(numbers(&cluster, "a"), [0, 2]);
    cluster.verify_all();
}
