//! Tests reports: their findings over all nodes, every output format, and that they name missing nodes.

use piperoll_tests::{Cluster, Run};
use serde_json::{Value, json};

fn line(fields: Value) -> String {
    let mut entry = json!({ "category": "auth", "action": "auth.login", "outcome": "success" });
    for (name, value) in fields.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry.to_string()
}

fn report(cluster: &Cluster, args: &[&str]) -> (Run, Value) {
    let mut all = vec!["report"];
    all.extend(args);
    all.extend(["--format", "json"]);
    let run = cluster.run(&all);
    let json = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr));
    (run, json)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_report_finds_what_there_is_and_names_who_is_missing() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    // The password guessing is spread over both nodes; each node alone sees too few attempts to detect it.
    for node in 0..2 {
        let guess =
            |n: usize| line(json!({ "outcome": "failure", "user": format!("u{n}"), "ip_address": "203.0.113.9" }));
        cluster.append(node, &(0..6).map(guess).collect::<Vec<_>>()).await;
    }
    let rule = |action: &str, user: &str, entity: &str| {
        line(
            json!({ "category": "config", "action": action, "user": user, "entity_type": "mailbox", "entity_id": entity }),
        )
    };
    let inside = json!({ "user": "u3", "ip_address": "203.0.113.9" });
    let evil = json!({ "user": "u9", "ip_address": "192.0.2.1", "description": "<script>alert(1)</script> to Office@Example.org" });
    let acted = json!({ "user": "boss", "impersonator": "u3", "action": "mail.read", "target": "office@example.org" });
    cluster.append(1, &[line(inside), line(evil), line(acted)]).await;
    cluster.append(0, &[rule("forwarding.create", "u1", "a@x"), rule("forwarding.create", "u1", "b@x")]).await;
    cluster.append(1, &[rule("forwarding.approve", "u2", "a@x"), rule("forwarding.approve", "u1", "b@x")]).await;
    cluster.append(0, &[rule("forwarding.create", "u1", "c@x")]).await;
    cluster.wait_until_complete().await;

    let (run, guessed) = report(&cluster, &["brute-force", "--failures", "12"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows = guessed["tables"][0]["rows"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["failures"], &rows[0]["nodes"]),
        (1, &json!("12"), &json!("mx1, mx2")),
        "{guessed}"
    );
    assert!(rows[0]["got_in"].as_str().unwrap().starts_with("YES: u3"), "{guessed}");
    assert_eq!((&guessed["alarming"], &guessed["final"]["complete"]), (&json!(true), &json!(true)));
    let (_, none) = report(&cluster, &["brute-force", "--failures", "13"]);
    assert_eq!(none["tables"][0]["rows"], json!([]));

    let (_, eyes) = report(&cluster, &["four-eyes"]);
    let verdicts: Vec<_> =
        eyes["tables"][0]["rows"].as_array().unwrap().iter().map(|row| (&row["entity"], &row["verdict"])).collect();
    let expected = [("mailbox/a@x", "confirmed"), ("mailbox/b@x", "SAME PERSON"), ("mailbox/c@x", "open")];
    for (found, (entity, verdict)) in verdicts.iter().zip(expected) {
        assert_eq!(found, &(&json!(entity), &json!(verdict)), "{eyes}");
    }
    assert_eq!(verdicts.len(), 3);
    let rules = cluster.dir.path().join("rules.toml");
    let text = "[[rule]]\nname = 'own'\naction = 'forwarding.*'\nconfirm = 'mail.read'\nwindow = '1ms'";
    std::fs::write(&rules, text).unwrap();
    let (_, own) = report(&cluster, &["four-eyes", "--rules", rules.to_str().unwrap()]);
    assert!(own["headline"].as_str().unwrap().starts_with("5 actions WITHOUT"), "{own}");

    let (_, access) = report(&cluster, &["access", "u3"]);
    assert_eq!(access["headline"], "4 entries from 2 addresses.", "{access}");
    assert_eq!(access["tables"][2]["rows"][0]["who"], "acted as boss", "{access}");

    let (_, subject) = report(&cluster, &["subject", "office@example.org"]);
    let named: Vec<_> = subject["tables"][0]["rows"].as_array().unwrap().iter().map(|row| &row["named_as"]).collect();
    assert_eq!(named, ["description", "target"], "{subject}");

    // The page for printing must not run scripts.
    let html = cluster.dir.path().join("subject.html");
    let args = ["report", "subject", "office@example.org", "--format", "html", "--output", html.to_str().unwrap()];
    assert_eq!(cluster.run(&args).code, 0);
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("&#60;script&#62;") && !page.contains("<script>"), "{page}");
    assert!(page.contains("Who answered") && page.contains("mx2") && !page.contains("NOT COMPLETE"));
    let again = cluster.run(&args);
    assert!(again.code == 1 && again.stderr.contains("will not be overwritten"), "{}", again.stderr);

    cluster.kill(1);
    let table = cluster.run(&["report", "brute-force", "--failures", "6"]);
    assert_eq!(table.code, 3, "{}", table.stderr);
    assert!(table.stdout.contains("NOT COMPLETE") && table.stdout.contains("203.0.113.9"), "{}", table.stdout);
    assert!(table.stderr.contains("mx2"), "{}", table.stderr);

    for (args, code, words) in [
        (&["brute-force", "--window", "soon"][..], 1, "not a duration"),
        (&["four-eyes", "--rules", "/nowhere/rules.toml"], 1, "/nowhere/rules.toml"),
        (&["access", "u3", "--from", "yesterdayish"], 2, "yesterdayish"),
    ] {
        let run = cluster.run(&[&["report"], args].concat());
        assert!(run.code == code && run.stderr.contains(words), "{args:?}: {} {}", run.code, run.stderr);
    }
}
