//! Content that was erased, and rows that were kept for as long as required, leave the archive; everything else stays provable.

use piperoll_tests::{ClockShim, Cluster, entry, piperoll};
use serde_json::Value;

use crate::archive::{cluster_with_archive, directory, files, in_directory, on_aggregator, trust_file, verify};
use crate::archive_engines::{code_block, python};
use crate::archive_reading::{OLD, aged_cluster, everything, prune};
use crate::buckets::{AZURITE_KEY, Azurite, S3};
use crate::witness::witnessed;

const DAY_SECONDS: i64 = 24 * 3_600;

fn archived_now(cluster: &Cluster) -> Value {
    let run = cluster.run(&["archive", "run", "--now", "--json"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn verified(cluster: &Cluster) -> Value {
    let run = verify(&in_directory(cluster), &trust_file(cluster), &["--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &report["verified"]), (0, &true.into()), "{report:#}");
    report
}

/// The rows of the archive's files, as an engine sees them that lists the folder.
fn contents(cluster: &Cluster) -> Vec<String> {
    let mut bodies = Vec::new();
    for file in files(&directory(cluster), "parquet") {
        let bytes = bytes::Bytes::from(std::fs::read(file).unwrap());
        piperoll_archive::file::decode::decode::<piperoll_archive::file::DecodeError>(&bytes, |decoded| {
            if let piperoll_archive::row::Content::Entry { body, .. } = decoded.row.content {
                bodies.push(String::from_utf8(body.to_vec()).unwrap());
            }
            Ok(())
        })
        .unwrap();
    }
    bodies
}

/// A row that is still on its node, and one that only the archive has, are erased. Both leave the archive's files.
#[tokio::test(flavor = "multi_thread")]
async fn erased_rows_leave_the_archive() {
    let cluster = aged_cluster().await;
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    let (before, _) = everything(&cluster, "").await;
    // mx1/7 was pruned; mx2/70 is still there.
    assert_eq!(cluster.on_node(1, &["erase", "--seq", "70", "--reason", "art. 17"]).code, 0);
    let plain = cluster.on_node(0, &["erase", "--seq", "7", "--reason", "art. 17"]);
    assert!(plain.code != 0 && plain.stderr.contains("--archived-row"), "{}", plain.stderr);
    let row = cluster.run(&["archive", "row", "mx1/7"]);
    assert_eq!(row.code, 0, "{}", row.stderr);
    let address = row.stdout.trim().to_owned();
    for (bad, words) in [
        (address.replacen("mx1", "mx9", 1), "of another log"),
        (address.replacen("/7/", "/599/", 1), "is still in this log"),
        (address.replacen("/7/", "/07/", 1), "is not the address of an archived row"),
    ] {
        let run = cluster.on_node(0, &["erase", "--archived-row", &bad, "--reason", "art. 17"]);
        assert!(run.code != 0 && run.stderr.contains(words), "{bad}: {}", run.stderr);
    }
    let hold = ["hold", "add", "case", "--from", "600d", "--to", "300d", "--reason", "court"];
    assert_eq!(cluster.on_node(0, &hold).code, 0);
    let held = cluster.on_node(0, &["erase", "--archived-row", &address, "--reason", "art. 17"]);
    assert!(held.code != 0 && held.stderr.contains("under the hold"), "{}", held.stderr);
    assert_eq!(cluster.on_node(0, &["hold", "release", "case", "--reason", "closed"]).code, 0);
    let erased = cluster.on_node(0, &["erase", "--archived-row", &address, "--reason", "art. 17"]);
    assert!(erased.code == 0 && erased.stdout.contains("was recorded as entry"), "{}{}", erased.stdout, erased.stderr);
    // Answers do not have the content from now on, although the archive still does.
    let shown = cluster.get("/api/v1/audit-log/mx1/7", Some(&cluster.token)).await;
    assert_eq!(shown.json()["entries"][0]["integrity"], "erased", "{}", shown.text);
    let text = |seq: u64, node: &str| {
        format!("\"node_id\":\"{node}\",\"generation\":\"{}\",\"seq\":{seq},", generation(&before, node))
    };
    let has = |seq: u64, node: &str| contents(&cluster).iter().any(|body| body.contains(&text(seq, node)));
    assert!(has(7, "mx1") && has(70, "mx2"));
    witnessed(&cluster, "mx1").await;
    witnessed(&cluster, "mx2").await;
    let run = archived_now(&cluster);
    assert!(run["steps"].as_array().unwrap().len() >= 2, "rows, then the replacement: {run}");
    assert!(!has(7, "mx1") && !has(70, "mx2"), "the content is gone");
    assert!(has(8, "mx1") && has(71, "mx2"), "the other rows are there");
    let report = verified(&cluster);
    // mx1/20 was erased before it was archived.
    assert_eq!((&report["erased"], report["open"].as_array().unwrap().len()), (&3.into(), 0), "{report:#}");
    let status = cluster.run(&["archive", "status"]);
    assert!(status.code == 0 && !status.stdout.contains("NOT "), "{}", status.stdout);
    let (after, statement) = everything(&cluster, "").await;
    assert_eq!((&statement["complete"], after.len()), (&true.into(), before.len()), "{statement}");
    let gone = |rows: &[Value]| rows.iter().filter(|row| row["integrity"] == "erased").count();
    assert_eq!(gone(&after), gone(&before) + 2);
    let listed = on_aggregator(&cluster, &["ls", "--files"]);
    assert_eq!(listed.stdout.lines().count(), files(&directory(&cluster), "parquet").len(), "{}", listed.stdout);
    // A declaration that does not fit to its row erases nothing, and is named.
    let row = cluster.run(&["archive", "row", "mx1/9"]).stdout.trim().to_owned();
    let last = row.len() - 1;
    let other = format!("{}{}", &row[..last], if row.ends_with('0') { '1' } else { '0' });
    assert_eq!(cluster.on_node(0, &["erase", "--archived-row", &other, "--reason", "a mistake"]).code, 0);
    witnessed(&cluster, "mx1").await;
    archived_now(&cluster);
    let status = cluster.run(&["archive", "status"]);
    assert!(status.code == 3 && status.stdout.contains("NOT REMOVED row 9 of mx1/"), "{}", status.stdout);
    cluster.verify_all();
}

/// Number of a node's rows that the archive has with their content.
fn rows_of(cluster: &Cluster, node: &str) -> usize {
    let of_node = format!("\"node_id\":\"{node}\"");
    contents(cluster).iter().filter(|body| body.contains(&of_node)).count()
}

fn generation(rows: &[Value], node: &str) -> String {
    let row = rows.iter().find(|row| row["entry"]["node_id"] == node).unwrap();
    row["entry"]["generation"].as_str().unwrap().to_owned()
}

/// With `keep`, old rows leave the archive: not those under a hold, and not before they have been archived for as long.
#[tokio::test(flavor = "multi_thread")]
async fn rows_leave_the_archive_when_they_were_kept_long_enough() {
    if !ClockShim::can_reach(piperoll()) {
        eprintln!("SKIPPED: the program is linked statically, so no library can move its clock");
        return;
    }
    let mut cluster = aged_cluster().await;
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    let config = cluster.aggregator_folder().join("aggregator.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for (keep, words) in [("2h", "keep must be at least 1d"), ("soon", "neither \"forever\" nor a duration")] {
        std::fs::write(&config, text.replace("[archive]", &format!("[archive]\nkeep = \"{keep}\""))).unwrap();
        let bad = on_aggregator(&cluster, &["ls"]);
        assert!(bad.code != 0 && bad.stderr.contains(words), "{}", bad.stderr);
    }
    let retention = cluster.aggregator_folder().join("roster.toml");
    let with_policy = std::fs::read_to_string(&retention).unwrap();
    let days = with_policy.lines().any(|line| line.starts_with("keep_days"));
    std::fs::write(&config, text.replace("[archive]", "[archive]\nkeep = \"1d\"")).unwrap();
    if days {
        let bad = on_aggregator(&cluster, &["ls"]);
        assert!(
            bad.code != 0 && bad.stderr.contains("is shorter than the cluster's retention policy"),
            "{}",
            bad.stderr
        );
        let lines = with_policy.lines().map(|line| if line.starts_with("keep_days") { "keep_days = 1" } else { line });
        std::fs::write(&retention, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let hold = ["hold", "add", "case", "--from", "600d", "--to", "300d", "--reason", "court"];
    assert_eq!(cluster.on_node(1, &hold).code, 0);
    let shim = ClockShim::compiled(cluster.dir.path()).expect("a C compiler, which building needs too");
    let clock = cluster.dir.path().join("clock");
    ClockShim::set(&clock, 0).unwrap();
    cluster.aggregator_environment.extend(shim.environment(&clock));
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    let before = contents(&cluster).len();
    archived_now(&cluster);
    assert!(contents(&cluster).len() >= before, "the rows are old, but have been archived only now");
    assert!(rows_of(&cluster, "mx1") > OLD && rows_of(&cluster, "mx2") > OLD);
    cluster.stop_aggregator();
    ClockShim::set(&clock, 3 * DAY_SECONDS).unwrap();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    cluster.wait_until_answered("mx2").await;
    // Only this machine's clock says that the rows are old enough.
    let run = cluster.run(&["archive", "run"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let status = cluster.run(&["archive", "status"]);
    assert!(status.code == 3 && status.stdout.contains("this machine's clock differs"), "{}", status.stdout);
    for index in 0..2 {
        cluster.stop(index);
        cluster.set_clock(index, &format!("+{}s", 3 * DAY_SECONDS));
        cluster.restart(index).await;
    }
    // An aggregator remembers its measurements of the nodes' clocks for a while.
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    witnessed(&cluster, "mx1").await;
    cluster.wait_until_answered("mx2").await;
    let run = cluster.run(&["archive", "run"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    // Both nodes' old rows are in the same files, so the hold on mx2 keeps those of mx1 too.
    let status = cluster.run(&["archive", "status"]);
    assert!(status.code == 3 && status.stdout.contains("NOT REMOVED rows under a hold"), "{}", status.stdout);
    assert!(rows_of(&cluster, "mx1") > OLD);
    assert_eq!(cluster.on_node(1, &["hold", "release", "case", "--reason", "closed"]).code, 0);
    let run = cluster.run(&["archive", "run"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(
        rows_of(&cluster, "mx1") < OLD && rows_of(&cluster, "mx2") < OLD,
        "{} {}",
        rows_of(&cluster, "mx1"),
        rows_of(&cluster, "mx2")
    );
    let report = verified(&cluster);
    assert!(!report["expired"].as_array().unwrap().is_empty(), "{report:#}");
    assert!(cluster.run(&["archive", "status"]).stdout.contains("verdict: ok"));
    let by_hand = cluster.dir.path().join("verify_archive.py");
    std::fs::write(&by_hand, code_block("python", "verify_archive.py")).unwrap();
    let (folder, trust) = (directory(&cluster).display().to_string(), trust_file(&cluster).display().to_string());
    if let Some(run) = python(&by_hand, &[&folder, &trust]) {
        assert!(run.code == 0 && run.stdout.contains(" steps lead to checkpoints"), "{}{}", run.stdout, run.stderr);
    }
    // What is gone is named, and what is left is found.
    let page = cluster.page("from=600d&node=mx1&limit=1000").await.json();
    assert_eq!(page["complete"], false, "{page}");
    assert!(page["nodes"].to_string().contains("archive:main: the archive has no rows of this log"), "{page}");
    let recorded = cluster.page("action=audit.archive_step&format=ndjson").await.text;
    assert!(recorded.contains("whose rows were kept for as long as required"), "{recorded}");
    cluster.stop_aggregator();
    ClockShim::set(&clock, 0).unwrap();
    cluster.verify_all();
}

/// A bucket that keeps all versions of its objects: none with the content is left.
#[tokio::test(flavor = "multi_thread")]
async fn no_version_of_erased_content_is_left_in_a_bucket() {
    let Some(s3) = S3::start().await else { return };
    s3.keep_versions();
    let url = "s3://audit/prod";
    let cluster = cluster_with_archive(|_| url.to_owned(), Some(&s3.credentials())).await;
    let made = on_aggregator(&cluster, &["init"]);
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    archived_now(&cluster);
    let data = |stored: Vec<String>| stored.into_iter().filter(|path| path.contains("/data/")).collect::<Vec<_>>();
    let before = data(s3.stored().await);
    assert!(!before.is_empty());
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "9", "--reason", "art. 17"]).code, 0);
    witnessed(&cluster, "mx1").await;
    archived_now(&cluster);
    let after = data(s3.stored().await);
    let left: Vec<&String> = before.iter().filter(|path| after.contains(path)).collect();
    assert!(left.len() < before.len(), "{left:?}");
    let listed = on_aggregator(&cluster, &["ls", "--files"]);
    let names: Vec<&str> = listed.stdout.lines().filter_map(|line| line.strip_prefix(url)).collect();
    let is_part = |path: &&String| names.iter().any(|name| path.contains(name));
    assert_eq!(after.iter().filter(|path| !is_part(path)).collect::<Vec<_>>(), Vec::<&String>::new());
    let credentials = cluster.aggregator_folder().join("archive.credentials").display().to_string();
    let good = verify(url, &trust_file(&cluster), &["--credentials", &credentials]);
    assert!(good.code == 0 && good.stdout.contains("erased: 1 row"), "{}{}", good.stdout, good.stderr);
    let mut cluster = cluster;
    cluster.stop_aggregator();
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_archives_to_azure() {
    let Some(azurite) = Azurite::start().await else { return };
    let url = "az://audit/prod";
    let mut cluster = cluster_with_archive(|_| url.to_owned(), Some(&azurite.credentials())).await;
    let made = on_aggregator(&cluster, &["init"]);
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    archived_now(&cluster);
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "9", "--reason", "art. 17"]).code, 0);
    for round in 0..2 {
        cluster.append(round, &[entry("later", "auth.login")]).await;
        witnessed(&cluster, "mx1").await;
        witnessed(&cluster, "mx2").await;
        archived_now(&cluster);
    }
    let credentials = cluster.aggregator_folder().join("archive.credentials").display().to_string();
    let good = verify(url, &trust_file(&cluster), &["--credentials", &credentials]);
    assert!(good.code == 0 && good.stdout.contains("erased: 1 row"), "{}{}", good.stdout, good.stderr);
    let page = cluster.get("/metrics", None).await.text;
    for text in [&good.stdout, &good.stderr, &page, &cluster.log_text("agg")] {
        assert!(!text.contains(AZURITE_KEY), "a secret: {text}");
    }
    cluster.stop_aggregator();
    cluster.verify_all();
}
