//! Tests the live tail over all nodes: rows arrive in order, and none is lost or sent twice, while nodes die and return.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use piperoll_tests::{Cluster, Event, Tail, entry, place};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// Reads events until `count` entries have arrived.
async fn rows(tail: &mut Tail, count: usize) -> Vec<Event> {
    let (mut events, started) = (Vec::new(), Instant::now());
    while events.iter().filter(|event: &&Event| event.name == "entry").count() < count {
        assert!(started.elapsed() < PATIENCE, "{} of {count} rows came", events.len());
        events.extend(tail.next(Duration::from_secs(6)).await);
    }
    events
}

fn entries(events: &[Event]) -> impl Iterator<Item = &Event> {
    events.iter().filter(|event| event.name == "entry")
}

/// Checks that no row was sent twice, and that all rows are in order, except for those marked as late.
fn in_order(events: &[Event]) {
    let key = |row: &Value| {
        let entry = &row["entry"];
        let text = |field: &str| entry[field].as_str().unwrap().to_owned();
        (text("timestamp"), text("node_id"), entry["seq"].as_u64().unwrap())
    };
    let turned: Vec<_> =
        entries(events).filter(|event| event.data["late"] != true).map(|event| key(&event.data)).collect();
    assert!(turned.is_sorted(), "out of order");
    let mut places = BTreeMap::new();
    for event in entries(events) {
        *places.entry(place(&event.data)).or_insert(0) += 1;
    }
    assert!(places.values().all(|count| *count == 1), "a row came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_comes_twice_while_a_node_dies_and_returns() {
    let mut cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    cluster.wait_until_complete().await;
    let filter = "filter=action:tail.*";
    let mut tail = Tail::open(&cluster, filter, None).await;
    let first = tail.next(PATIENCE).await.unwrap();
    assert_eq!(first.name, "heartbeat");
    let write = |round: usize| (0..20).map(|n| entry(&format!("u{round}-{n}"), "tail.written")).collect::<Vec<_>>();

    // In several rounds, rows of all three nodes arrive completely and in order, and none is late.
    for round in 0..5 {
        for node in 0..3 {
            cluster.append(node, &write(round)).await;
        }
        // Rows that the filter does not match are not sent.
        cluster.append(0, &[entry("nobody", "other.thing")]).await;
    }
    let mut seen = rows(&mut tail, 300).await;
    in_order(&seen);
    assert!(entries(&seen).all(|event| event.data["late"] != true), "nobody was missing");
    assert!(entries(&seen).all(|event| event.data["integrity"] == "ok"));

    // A node dies. Rows of the other nodes still arrive, and the dead node is named.
    cluster.kill(1);
    for round in 5..8 {
        cluster.append(0, &write(round)).await;
        cluster.append(2, &write(round)).await;
    }
    let some = rows(&mut tail, 120).await;
    assert!(entries(&some).all(|event| event.data["entry"]["node_id"] != "mx2"));
    seen.extend(some);
    while !seen.iter().any(|event| event.name == "node" && event.data["node_id"] == "mx2") {
        seen.extend(tail.next(PATIENCE).await);
    }
    // The client disconnects, and resumes at its last position.
    let id = seen.iter().rev().find(|event| !event.id.is_empty()).unwrap().id.clone();
    drop(tail);
    cluster.append(0, &write(8)).await;
    cluster.restart(1).await;
    cluster.append(1, &write(8)).await;
    let mut tail = Tail::open(&cluster, filter, Some(&id)).await;
    seen.extend(rows(&mut tail, 40).await);
    cluster.append(2, &write(9)).await;
    seen.extend(rows(&mut tail, 20).await);

    // A node that hangs is reported as missing too. Once it responds again, its new rows arrive; a row that is out of order is
    // marked as late.
    cluster.signal(2, Signal::SIGSTOP);
    let hung = loop {
        let event = tail.next(PATIENCE).await.unwrap();
        if event.name == "node" {
            break event;
        }
    };
    assert_eq!((hung.data["node_id"].as_str(), hung.data["status"].as_str()), (Some("mx3"), Some("timeout")));
    cluster.append(0, &write(10)).await;
    seen.extend(rows(&mut tail, 20).await);
    cluster.signal(2, Signal::SIGCONT);
    cluster.append(2, &write(11)).await;
    let last = rows(&mut tail, 20).await;
    assert!(last.iter().any(|event| event.name == "node" && event.data["status"] == "ok"), "{last:?}");
    seen.extend(last);
    in_order(&seen);

    // The tail has sent exactly the rows that the logs contain.
    let page = cluster.page("limit=1000&from=1h&order=asc&filter=action:tail.*").await;
    let mut expected = page.places();
    let mut followed: Vec<String> = entries(&seen).map(|event| place(&event.data)).collect();
    expected.sort();
    followed.sort();
    assert_eq!(followed, expected);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_dropped_and_recorded() {
    let cluster = Cluster::start(&["mx1"]).await;
    let mut tail = Tail::open(&cluster, "from=1h&filter=action:tail.*", None).await;
    let long = "x".repeat(3_000);
    let lines: Vec<String> = (0..12_000)
        .map(|n| {
            format!("{{\"category\":\"data\",\"action\":\"tail.flood\",\"user\":\"u{n}\",\"description\":\"{long}\"}}")
        })
        .collect();
    cluster.append(0, &lines).await;
    // From here on, read the tail far more slowly than rows arrive, until the client is dropped.
    let started = Instant::now();
    while cluster.page("from=1h&filter=action:audit.tail_dropped").await.places().is_empty() {
        assert!(started.elapsed() < PATIENCE, "the reader was not dropped");
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Read a little, but far too slowly, so that the tail does not look idle while the test waits for the entry about the
        // drop.
        tail.next(Duration::from_millis(1)).await;
    }
    let mut last = None;
    let mut rows = 1;
    while let Some(event) = tail.next(Duration::from_secs(5)).await {
        rows += usize::from(event.name == "entry");
        last = Some(event);
    }
    let last = last.unwrap();
    assert!(last.name == "dropped" && rows < 12_000, "{rows} rows, then {}", last.name);
    // The client resumes from the position at which it was dropped.
    let mut tail = Tail::open(&cluster, "filter=action:tail.*", Some(&last.id)).await;
    let mut next = tail.next(PATIENCE).await.unwrap();
    while next.name != "entry" {
        next = tail.next(PATIENCE).await.unwrap();
    }
    assert!(next.data["entry"]["seq"].as_u64().unwrap() > 3_000, "{}", next.data["entry"]["seq"]);
}

/// A tail that starts far in the past stays in order: one node alone has more rows than the buffer for a client holds, the client
/// reads slowly, and another node has few matching rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_far_behind_is_read_in_order_however_slowly() {
    const ROWS: usize = 9_000;
    let cluster = Cluster::start(&["mx1", "mx2", "mx3"]).await;
    let long = "x".repeat(3_000);
    let flood =
        |n| format!("{{\"category\":\"data\",\"action\":\"tail.flood\",\"user\":\"u{n}\",\"description\":\"{long}\"}}");
    // Except for its first matching row, all matching rows of the second node are newer than those of the first node.
    cluster.append(1, &[entry("rare", "tail.rare")]).await;
    cluster.append(0, &(0..ROWS).map(flood).collect::<Vec<_>>()).await;
    cluster.append(1, &vec![entry("other", "other.thing"); 20_000]).await;
    cluster.append(1, &(0..500).map(flood).collect::<Vec<_>>()).await;
    let mut tail = Tail::open(&cluster, "from=1h&filter=action:tail.*", None).await;
    let mut events = Vec::new();
    // Read nothing for four seconds, longer than the grace period, and then a few events at a time.
    tokio::time::sleep(Duration::from_secs(4)).await;
    while entries(&events).count() < ROWS + 501 {
        let event = tail.next(PATIENCE).await.expect("another event");
        assert!(event.name != "dropped" && event.name != "node", "{event:?}");
        events.push(event);
        if events.len() % 300 == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(entries(&events).all(|event| event.data["late"] != true), "every row is in order");
    in_order(&events);
    assert_eq!(entries(&events).next().unwrap().data["entry"]["action"], "tail.rare");
    // The tail has caught up, so new rows arrive live.
    cluster.append(2, &[entry("last", "tail.last")]).await;
    assert_eq!(entries(&rows(&mut tail, 1).await).last().unwrap().data["entry"]["action"], "tail.last");
    let dropped = cluster.page("from=1h&filter=action:audit.tail_dropped").await;
    assert!(dropped.places().is_empty(), "{}", dropped.text);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_follows_and_bad_input_is_refused() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    cluster.wait_until_complete().await;
    cluster.append(0, &[entry("alice", "tail.before")]).await;
    let file = cluster.dir.path().join("tail.out");
    let mut following = cluster.command(&["tail", "-n", "1", "-f", "--json", "action:tail.*"]);
    following.stdout(std::fs::File::create(&file).unwrap());
    let mut following = piperoll_tests::Guard(following.spawn().unwrap());
    let wait_for = async |words: &str| {
        let started = Instant::now();
        while !std::fs::read_to_string(&file).unwrap().contains(words) {
            assert!(started.elapsed() < PATIENCE, "{words} did not come: {}", std::fs::read_to_string(&file).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    wait_for("tail.before").await;
    cluster.append(1, &[entry("bob", "tail.during")]).await;
    wait_for("tail.during").await;
    // After a restart of the aggregator, the command resumes and no row is lost.
    cluster.kill_aggregator();
    cluster.append(1, &[entry("bob", "tail.meanwhile")]).await;
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    wait_for("tail.meanwhile").await;
    cluster.kill(0);
    wait_for("\"node_id\":\"mx1\",\"reason\"").await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(following.0.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(following.0.wait().unwrap().code(), Some(3), "a node was missing");
    let text = std::fs::read_to_string(&file).unwrap();
    for action in ["tail.before", "tail.during", "tail.meanwhile"] {
        assert_eq!(text.matches(action).count(), 1, "{text}");
    }

    for (parameters, words) in [
        ("after=mx1", "not a valid tail position"),
        ("limit=4", "a tail accepts from, after and a filter"),
        ("from=yesterdayish", "from"),
        ("filter=user:", "needs a value"),
        ("filter=node:mx9", "not in the roster"),
    ] {
        let answer = cluster.get(&format!("/api/v1/audit-log/tail?{parameters}"), Some(&cluster.token)).await;
        assert!(answer.status == 400 && answer.text.contains(words), "{parameters}: {} {}", answer.status, answer.text);
    }
    assert_eq!(cluster.get("/api/v1/audit-log/tail", None).await.status, 401);
}

/// A node's log is replaced while the client is away: the client first receives the rest of the archived log, read from the
/// folder that it was moved to. Without this folder the tail reports the rows as missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_reads_what_is_left_of_an_earlier_log() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 50).await;
    let users = |events: &[Event]| -> Vec<String> {
        entries(events).map(|event| event.data["entry"]["user"].as_str().unwrap().to_owned()).collect()
    };
    let logins = "filter=action:auth.login";
    cluster.append(0, &[entry("one", "auth.login")]).await;
    let mut first = Tail::open(&cluster, &format!("{logins}&from=1d"), None).await;
    let events = rows(&mut first, 1).await;
    assert_eq!(users(&events), ["one"]);
    let id = entries(&events).last().unwrap().id.clone();
    drop(first);
    cluster.append(0, &[entry("two", "auth.login")]).await;
    cluster.append(1, &[entry("other", "auth.login")]).await;
    crate::witness::witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    let begun = crate::keys::begin_generation(&mut cluster).await;
    let mut resumed = Tail::open(&cluster, logins, Some(&id)).await;
    let events = rows(&mut resumed, 3).await;
    in_order(&events);
    assert_eq!(users(&events), ["two", "other", "next"]);
    assert!(
        events.iter().any(|event| event.data["reason"].as_str().is_some_and(|r| r.contains("the log was replaced")))
    );
    // The current log has more rows now. Resume from every position, in the archived and in the current log.
    cluster.append(0, &[entry("three", "auth.login")]).await;
    assert_eq!(users(&rows(&mut resumed, 1).await), ["three"]);
    let all = ["one", "two", "other", "next", "three"];
    let mut whole = Tail::open(&cluster, &format!("{logins}&from=1d"), None).await;
    let events = rows(&mut whole, all.len()).await;
    in_order(&events);
    assert_eq!(users(&events), all);
    for (at, event) in entries(&events).enumerate() {
        let mut rest = Tail::open(&cluster, logins, Some(&event.id)).await;
        let events = if at + 1 < all.len() { rows(&mut rest, all.len() - at - 1).await } else { Vec::new() };
        in_order(&events);
        assert_eq!(users(&events), all[at + 1..], "after {}", all[at]);
    }
    let is_complete = async |tail: &mut Tail| loop {
        let event = tail.next(PATIENCE).await.unwrap();
        if event.name == "heartbeat" && event.data["watermark"].is_string() {
            return event.data["complete"].clone();
        }
    };
    assert_eq!(is_complete(&mut whole).await, true);
    let old = begun.lines().nth(1).unwrap().rsplit(' ').next().unwrap();
    std::fs::rename(old, format!("{old}.elsewhere")).unwrap();
    piperoll_tests::until("the log is gone", async || {
        (cluster.page("from=1d&filter=node:mx1").await.status_of("mx1") == "superseded").then_some(())
    })
    .await;
    for after in [None, Some(id.as_str())] {
        let mut less = Tail::open(&cluster, &format!("{logins}&from=1d"), after).await;
        let events = rows(&mut less, 3).await;
        let mut shown = users(&events);
        shown.sort();
        assert_eq!(shown, ["next", "other", "three"]);
        let is_said = |event: &Event| event.data["status"] == "superseded" && event.data["node_id"] == "mx1";
        assert!(events.iter().any(is_said), "{events:?}");
        assert_eq!(is_complete(&mut less).await, false);
    }
    cluster.verify_all();
}
