//! Live and archived rows as one log: what a node has pruned is still found, a machine that is gone still answers, and the statement says
//! what is known.

use piperoll_tests::{Answer, Cluster, entry};
use serde_json::Value;

use crate::archive::{directory, on_aggregator, unstarted_cluster, until_archive_is_read, witnessed_after};
use crate::retention::LONG_AGO;
use crate::witness::{report, witnessed};

/// Rows of each node that are old enough to be pruned.
pub(crate) const OLD: usize = 600;

/// A cluster of two nodes with old and new rows. The old rows are archived.
pub(crate) async fn aged_cluster() -> Cluster {
    let mut cluster = old_cluster(false).await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    let run = cluster.run(&["archive", "run", "--now"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    now_with_new_rows(&mut cluster).await;
    cluster
}

/// A cluster of two nodes with old rows only. With `waits`, the nodes prune only archived rows.
pub(crate) async fn old_cluster(waits: bool) -> Cluster {
    let mut cluster = unstarted_cluster(Some(LONG_AGO), waits).await;
    cluster.run_all().await;
    for index in 0..2 {
        let lines: Vec<String> = (0..OLD).map(|n| entry(&format!("old{}", n % 50), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    witnessed(&cluster, "mx1").await;
    witnessed(&cluster, "mx2").await;
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "20", "--reason", "art. 17"]).code, 0);
    witnessed(&cluster, "mx1").await;
    cluster
}

/// Sets the nodes' clocks, and adds new rows.
pub(crate) async fn now_with_new_rows(cluster: &mut Cluster) {
    for index in 0..2 {
        cluster.stop(index);
        cluster.set_clock(index, "+0s");
        cluster.restart(index).await;
        let lines: Vec<String> = (0..40).map(|n| entry(&format!("new{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    witnessed(cluster, "mx1").await;
    witnessed(cluster, "mx2").await;
}

pub(crate) fn prune(cluster: &Cluster, index: usize) {
    let run = cluster.on_node(index, &["prune", "--before", "300d", "--confirm"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

/// The entries of the two nodes in an NDJSON answer, without what a prune adds, and its statement.
pub(crate) async fn everything(cluster: &Cluster, parameters: &str) -> (Vec<Value>, Value) {
    let answer = cluster.page(&format!("from=600d&format=ndjson&node=mx1,mx2&{parameters}")).await;
    let mut rows: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = rows.pop().expect("a final record");
    assert!(last["final"].is_object(), "{last}");
    rows.retain(|row| !row["entry"]["action"].as_str().unwrap_or_default().starts_with("log."));
    rows.iter_mut().for_each(|row| drop(row.as_object_mut().map(|row| row.remove("witnessed"))));
    (rows, last["final"].clone())
}

/// The statement about all rows up to a time, as a stream and page by page, which is proven.
async fn proven(cluster: &Cluster, to: &str) -> Value {
    let stream = cluster.page(&format!("from=600d&to={to}&format=ndjson")).await;
    let last: Value = serde_json::from_str(stream.text.lines().last().unwrap()).unwrap();
    let statement = last["final"].clone();
    assert_eq!((&statement["complete"], &statement["proven"]), (&true.into(), &true.into()), "{statement}");
    let mut cursor = String::new();
    loop {
        let page = cluster.page(&format!("from=600d&to={to}&limit=90{cursor}")).await.json();
        assert_eq!((&page["complete"], &page["proven"]), (&true.into(), &true.into()), "{page}");
        match page["next_cursor"].as_str().filter(|_| page["more"] == true) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return statement,
        }
    }
}

/// All pages of a query, one after the other.
async fn paged(cluster: &Cluster, parameters: &str, limit: usize) -> (Vec<Value>, Vec<Answer>) {
    let (mut rows, mut pages, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let answer = cluster.page(&format!("from=600d&node=mx1,mx2&limit={limit}&{parameters}{cursor}")).await;
        let page = answer.json();
        rows.extend(page["entries"].as_array().unwrap().iter().cloned());
        pages.push(answer);
        match page["next_cursor"].as_str().filter(|_| page["more"] == true) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (rows, pages),
        }
    }
}

fn places(rows: &[Value]) -> Vec<(String, u64)> {
    let place = |row: &Value| {
        let of = if row["entry"].is_object() { &row["entry"] } else { &row["found_at"] };
        let of = if of["seq"].is_null() { &row["erased"] } else { of };
        (of["node_id"].as_str().unwrap_or_default().to_owned(), of["seq"].as_u64().unwrap_or(u64::MAX))
    };
    rows.iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_node_pruned_are_read_from_the_archive() {
    let cluster = aged_cluster().await;
    // Erased after it was archived: its content is still in the archive, but no answer has it.
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "58", "--reason", "art. 17"]).code, 0);
    witnessed(&cluster, "mx1").await;
    let filters = [
        "",
        "user=old7",
        "filter=-user:old7",
        "filter=login is:erased",
        "order=asc",
        "user=nobody",
        "filter=seq:500..650",
    ];
    let mut before = Vec::new();
    for filter in filters {
        before.push(everything(&cluster, filter).await);
    }
    let stats = cluster
        .get("/api/v1/stats?from=600d&by=user&node=mx1,mx2&action=auth.login", Some(&cluster.token))
        .await
        .json();
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    for (filter, (rows, statement)) in filters.iter().zip(&before) {
        let (again, after) = everything(&cluster, filter).await;
        assert_eq!(places(&again), places(rows), "{filter}: {after}");
        assert_eq!(&again, rows, "{filter}");
        assert_eq!(
            (&after["complete"], &after["complete_since"]),
            (&statement["complete"], &statement["complete_since"]),
            "{filter} {after}"
        );
        assert_eq!(after["complete"], true, "{filter} {after}");
        assert_eq!(after["proven"], statement["proven"], "{filter} {after}");
        assert_eq!(after["archives"][0]["status"], "ok", "{after}");
        for limit in [37, 500] {
            let (rows_of_pages, pages) = paged(&cluster, filter, limit).await;
            let mut rows_of_pages = rows_of_pages;
            rows_of_pages.retain(|row| !row["entry"]["action"].as_str().unwrap_or_default().starts_with("log."));
            assert_eq!(places(&rows_of_pages), places(rows), "{filter} by {limit}");
            assert!(pages.iter().all(|page| page.json()["complete"] == true), "{filter} by {limit}");
        }
    }
    // Without a filter, the answer is proven complete, although its rows come from two places.
    let whole = proven(&cluster, "2026-01-01").await;
    let nothing = cluster.page("from=500d&to=450d").await.json();
    assert_eq!((&nothing["count"], &nothing["proven"]), (&0.into(), &true.into()), "{nothing}");
    let report =
        |id: &str| whole["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == id).unwrap().clone();
    assert_eq!(
        (report("mx1")["status"].as_str(), report("mx1")["archived"]["rows"].as_u64()),
        (Some("ok"), Some(512)),
        "{whole}"
    );
    assert!(report("mx2")["archived"].is_null(), "{whole}");
    // Counts, a single row, CSV, a check, and a scope.
    let again = cluster
        .get("/api/v1/stats?from=600d&by=user&node=mx1,mx2&action=auth.login", Some(&cluster.token))
        .await
        .json();
    assert_eq!(again["stats"], stats["stats"], "{again}");
    let row = cluster.get("/api/v1/audit-log/mx1/7", Some(&cluster.token)).await.json();
    assert_eq!(
        (&row["entries"][0]["integrity"], &row["entries"][0]["entry"]["seq"]),
        (&"ok".into(), &7.into()),
        "{row}"
    );
    let erased = cluster.get("/api/v1/audit-log/mx1/20", Some(&cluster.token)).await.json();
    assert_eq!(erased["entries"][0]["integrity"], "erased", "{erased}");
    let csv = cluster.page("from=600d&node=mx1&user=old7&format=csv").await;
    assert_eq!(csv.text.lines().count(), OLD / 50, "one of them was erased: {}", csv.text);
    let gone = cluster.get("/api/v1/audit-log/mx1/58", Some(&cluster.token)).await;
    assert!(gone.json()["entries"][0]["integrity"] == "erased" && !gone.text.contains("old7"), "{}", gone.text);
    let limited = cluster.limited_token("limited", piperoll_protocol::access::Role::Viewer, "user:old7");
    let seen = cluster.get("/api/v1/audit-log?from=600d&node=mx1&limit=1000", Some(&limited)).await.json();
    assert_eq!(seen["count"], OLD / 50 - 1, "{seen}");
    assert!(seen["entries"].as_array().unwrap().iter().all(|row| row["entry"]["user"] == "old7"), "{seen}");
    let shown = cluster.run(&["query", "--from", "600d", "user:old7", "--limit", "5"]);
    assert!(shown.code == 0 && shown.stderr.contains("from archive:main (step 1)"), "{}{}", shown.stdout, shown.stderr);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_gone_still_answers_for_what_is_archived() {
    let mut cluster = aged_cluster().await;
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    let (before, _) = everything(&cluster, "to=300d").await;
    cluster.kill(1);
    for restarted in [false, true] {
        if restarted {
            cluster.kill_aggregator();
            cluster.spawn_aggregator();
            cluster.wait_for_aggregator().await;
            until_archive_is_read(&cluster).await;
        }
        // The archive's rows end 400 days ago, so the range up to that time lies in it, although newer rows were witnessed.
        let to = cluster.page("from=600d&node=mx2&limit=1&filter=user:old49&order=desc").await;
        assert_eq!(to.json()["complete"], false, "rows up to now are not archived: {}", to.text);
        assert!(to.text.contains("were witnessed and are not archived"), "{}", to.text);
        assert_eq!(to.json()["entries"][0]["entry"]["user"], "old49", "{}", to.text);
        let last = to.json()["entries"][0]["entry"]["timestamp"].as_str().unwrap().to_owned();
        let (rows, statement) = everything(&cluster, &format!("to={last}")).await;
        assert_eq!(statement["complete"], true, "{statement}");
        assert!(statement["as_of"].is_string(), "{statement}");
        let node = statement["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx2").unwrap();
        assert_eq!(
            (node["status"].as_str(), node["verdict"].as_str()),
            (Some("archived"), Some("unreachable")),
            "{statement}"
        );
        assert!(statement["completeness"].as_str().unwrap().contains("; as of "), "{statement}");
        let whole = proven(&cluster, &last).await;
        assert!(whole["as_of"].is_string(), "{whole}");
        let wanted: Vec<_> = places(&before).into_iter().filter(|place| places(&rows).contains(place)).collect();
        assert_eq!(places(&rows), wanted);
        assert!(rows.len() > 2 * OLD - 60, "{}", rows.len());
        let (of_pages, pages) = paged(&cluster, &format!("to={last}"), 100).await;
        let of_pages: Vec<Value> = of_pages
            .into_iter()
            .filter(|row| !row["entry"]["action"].as_str().unwrap_or_default().starts_with("log."))
            .collect();
        assert_eq!(places(&of_pages).len(), rows.len());
        assert!(pages.iter().all(|page| page.json()["complete"] == true && page.json()["as_of"].is_string()));
        let shown = cluster.run(&["query", "--from", "600d", "--to", &last, "user:old7", "--limit", "50"]);
        assert!(shown.code == 0 && shown.stderr.contains("COMPLETE AS OF "), "{}{}", shown.stdout, shown.stderr);
    }
    cluster.restart(1).await;
    cluster.wait_until_complete().await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_gone_or_changed_is_named() {
    let cluster = aged_cluster().await;
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    let (whole, _) = everything(&cluster, "").await;
    let folder = directory(&cluster);
    let aside = folder.with_extension("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let (rows, statement) = everything(&cluster, "").await;
    assert_eq!(statement["complete"], false, "{statement}");
    assert_eq!(rows.len(), whole.len() - 511, "the live rows are there, one of the others was erased");
    let node = statement["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
    assert_eq!(node["status"], "pruned", "{statement}");
    assert!(node["reason"].as_str().unwrap().contains("archive:main"), "{statement}");
    assert_ne!(statement["archives"][0]["status"], "ok", "{statement}");
    std::fs::rename(&aside, &folder).unwrap();
    assert_eq!(everything(&cluster, "").await.0, whole);
    // A changed file is not read as rows.
    let mut files = Vec::new();
    for day in std::fs::read_dir(folder.join("data")).unwrap().flatten() {
        files.extend(std::fs::read_dir(day.path()).unwrap().flatten().map(|file| file.path()));
    }
    let file = files.iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("mx1-0-")).unwrap();
    let kept = std::fs::read(file).unwrap();
    let mut changed = kept.clone();
    let (from, to) = (kept.len() / 10, kept.len() / 2);
    changed[from..to].iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(file, changed).unwrap();
    let (rows, statement) = everything(&cluster, "").await;
    assert_eq!(statement["complete"], false, "{statement}");
    assert!(rows.iter().all(|row| whole.contains(row)), "{statement}");
    assert!(statement["archives"][0]["reason"].as_str().unwrap().contains("the archive was changed"), "{statement}");
    std::fs::write(file, kept).unwrap();
    assert_eq!(everything(&cluster, "").await.0, whole);
    cluster.verify_all();
}

/// The machine of mx1 loses its disk and begins another log, which is accepted.
pub(crate) async fn lose_disk(cluster: &mut Cluster) {
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.nodes[0].folder.join("data")).unwrap();
    cluster.restart(0).await;
    let alarm = report(cluster, "mx1", |line| line["verdict"] == "rollback" || line["verdict"] == "fork").await;
    let generation = alarm["generation"].as_str().unwrap();
    let accept = ["nodes", "accept", "mx1", "--new-generation", generation, "--reason", "the disk died"];
    assert_eq!(cluster.run(&accept).code, 0);
    cluster.append(0, &[entry("after", "auth.login")]).await;
    witnessed(cluster, "mx1").await;
}

/// A machine loses its disk and begins another log. The rows of the lost log are in the archive, so nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_lost_disk_is_read_from_the_archive() {
    let mut cluster = unstarted_cluster(None, false).await;
    cluster.run_all().await;
    let lines: Vec<String> = (0..300).map(|n| entry(&format!("lost{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    let (before, _) = everything(&cluster, "").await;
    let mark = crate::witness::now();
    witnessed_after(&cluster, "mx1").await;
    lose_disk(&mut cluster).await;
    for _ in 0..2 {
        let (_, statement) = everything(&cluster, &format!("to={mark}")).await;
        assert_eq!(statement["complete"], true, "{statement}");
        // The node may have recorded rows between the last poll and the loss of its disk.
        let (rows, statement) = everything(&cluster, "").await;
        let node = statement["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
        assert_eq!(
            (&statement["complete"], node["status"].as_str()),
            (&false.into(), Some("superseded")),
            "{statement}"
        );
        assert!(node["reason"].as_str().unwrap().contains("that it recorded after"), "{statement}");
        let lost: Vec<_> = before.iter().filter(|row| !rows.contains(row)).collect();
        assert_eq!(lost.len(), 0, "{lost:?}");
        assert_eq!(rows.iter().filter(|row| row["entry"]["user"] == "after").count(), 1);
        let (of_pages, pages) = paged(&cluster, &format!("action=auth.login&to={mark}"), 45).await;
        assert_eq!(of_pages.len(), 300);
        assert!(pages.iter().all(|page| page.json()["complete"] == true), "{}", pages[0].text);
        let old = before[5]["entry"]["generation"].as_str().unwrap();
        let row = cluster.get(&format!("/api/v1/audit-log/mx1/5?generation={old}"), Some(&cluster.token)).await;
        assert!(row.status == 200 && row.json()["entries"][0]["integrity"] == "ok", "{}", row.text);
        cluster.kill_aggregator();
        cluster.spawn_aggregator();
        cluster.wait_for_aggregator().await;
        witnessed(&cluster, "mx1").await;
        until_archive_is_read(&cluster).await;
    }
    cluster.verify_all();
}

/// With `archive_key`, a row that is gone from a node is in the archive.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_prunes_only_what_the_archive_has() {
    let mut cluster = old_cluster(true).await;
    now_with_new_rows(&mut cluster).await;
    let attempt = |cluster: &Cluster| cluster.on_node(0, &["prune", "--before", "300d", "--confirm"]);
    let early = attempt(&cluster);
    assert!(
        early.stdout.contains("row 0 and all later rows are not known to be in the archive"),
        "{}{}",
        early.stdout,
        early.stderr
    );
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    // A note without the archive's cosignature does not count, wherever it comes from.
    cluster.stop(0);
    let database = rusqlite::Connection::open(cluster.database(0)).unwrap();
    let note: String =
        database.query_row("SELECT note FROM checkpoints WHERE kind = 'mirrored'", [], |row| row.get(0)).unwrap();
    let (kept, last) = note.trim_end().rsplit_once('\n').unwrap();
    assert!(last.contains("/archive/main "), "{note}");
    let set =
        |note: &str| database.execute("UPDATE checkpoints SET note = ?1 WHERE kind = 'mirrored'", [note]).unwrap();
    assert_eq!(set(&format!("{kept}\n")), 1);
    cluster.restart(0).await;
    witnessed(&cluster, "mx1").await;
    let forged = attempt(&cluster);
    assert!(forged.stdout.contains("not known to be in the archive"), "{}{}", forged.stdout, forged.stderr);
    // The next round gives the node the checkpoint again.
    assert_eq!(cluster.run(&["archive", "run"]).code, 0);
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    let (rows, statement) = everything(&cluster, "action=auth.login").await;
    assert_eq!((rows.len(), &statement["complete"]), (2 * (OLD + 40) - 1, &true.into()), "{statement}");
    let bad = std::fs::read_to_string(cluster.nodes[1].folder.join("node.toml")).unwrap();
    let bad = bad.lines().map(|line| if line.starts_with("archive_key") { "archive_key = \"nonsense\"" } else { line });
    let bad = bad.collect::<Vec<_>>().join("\n");
    cluster.stop(1);
    let config = cluster.nodes[1].folder.join("node.toml");
    let good = std::fs::read(&config).unwrap();
    std::fs::write(&config, bad).unwrap();
    let refused = cluster.on_node(1, &["verify"]);
    assert!(refused.stderr.contains("is not the mirror key of an archive"), "{}", refused.stderr);
    std::fs::write(&config, good).unwrap();
    cluster.verify_all();
}

/// A log is restored from an older copy. The archived rows after the copy are those of the lost log: they are neither shown as rows of the
/// restored one, nor do they let the node prune its own.
#[tokio::test(flavor = "multi_thread")]
async fn archived_rows_of_a_log_that_was_rolled_back_are_not_mixed_with_its_own() {
    let mut cluster = old_cluster(true).await;
    cluster.stop(0);
    let copy = cluster.dir.path().join("copy");
    piperoll_tests::copy_log(&cluster.nodes[0].folder.join("data"), &copy);
    cluster.restart(0).await;
    let lines: Vec<String> = (0..600).map(|n| entry(&format!("fork{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    cluster.stop(0);
    piperoll_tests::copy_log(&copy, &cluster.nodes[0].folder.join("data"));
    cluster.restart(0).await;
    let line = report(&cluster, "mx1", |line| line["verdict"] == "rollback").await;
    let accept =
        ["nodes", "accept", "mx1", "--new-generation", line["generation"].as_str().unwrap(), "--reason", "a copy"];
    assert_eq!(cluster.run(&accept).code, 0);
    let lines: Vec<String> = (0..900).map(|n| entry(&format!("own{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    now_with_new_rows(&mut cluster).await;
    let _ = cluster.run(&["archive", "run", "--now"]);
    let attempt = cluster.on_node(0, &["prune", "--before", "300d", "--confirm"]);
    assert!(attempt.stdout.contains("not known to be in the archive"), "{}{}", attempt.stdout, attempt.stderr);
    cluster.kill(0);
    let (rows, statement) = everything(&cluster, "").await;
    assert_eq!(statement["complete"], false, "{statement}");
    assert!(!rows.iter().any(|row| row["entry"]["user"].as_str().is_some_and(|user| user.starts_with("fork"))));
    let node = statement["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
    assert!(node["reason"].as_str().unwrap().contains("a log that was replaced"), "{statement}");
    cluster.restart(0).await;
    cluster.wait_until_answered("mx1").await;
    let (rows, _) = everything(&cluster, "").await;
    assert!(
        rows.iter().filter(|row| row["entry"]["user"].as_str().is_some_and(|user| user.starts_with("own"))).count()
            == 900
    );
    cluster.verify_all();
}

/// Rows that a node pruned before it had an archive are missing only in ranges that reach back to them.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_begins_late_is_whole_from_its_first_row_on() {
    let mut cluster = old_cluster(false).await;
    now_with_new_rows(&mut cluster).await;
    let (before, _) = everything(&cluster, "order=asc").await;
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    let time = |seq: u64| {
        let row = before.iter().find(|row| row["entry"]["node_id"] == "mx1" && row["entry"]["seq"] == seq).unwrap();
        row["entry"]["timestamp"].as_str().unwrap().to_owned()
    };
    let (from, to) = (time(530), time(590));
    cluster.kill(0);
    let page = cluster.page(&format!("from={from}&to={to}&node=mx1&limit=1000")).await.json();
    assert_eq!((&page["complete"], &page["count"]), (&true.into(), &60.into()), "{page}");
    let page = cluster.page(&format!("from=600d&to={to}&node=mx1&limit=1000")).await.json();
    assert_eq!(page["complete"], false, "{page}");
    assert!(page["nodes"].to_string().contains("rows 0 to 511 are not in the archive"), "{page}");
    cluster.restart(0).await;
    cluster.wait_until_answered("mx1").await;
    cluster.verify_all();
}
