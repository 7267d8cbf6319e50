//! Tests sources other than the socket with real input: messages of logger, a journal, and rotated files.

mod append;
mod boots;
mod files;
mod syslog;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use piperoll_tests::{Cluster, free_address, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const JOURNAL_WRITER: &str = "/usr/lib/systemd/systemd-journal-remote";

fn configure(cluster: &Cluster, tables: &str) {
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{tables}")).unwrap();
}

fn entries(cluster: &Cluster, filter: &str) -> Vec<Value> {
    let run = cluster.on_node(0, &["query", filter, "--limit", "5000", "--order", "asc", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let rows = run.stdout.lines().filter(|line| line.starts_with("{\"entry\""));
    rows.map(|line| serde_json::from_str::<Value>(line).unwrap()["entry"].clone()).collect()
}

fn wait_for(cluster: &Cluster, filter: &str, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let found = entries(cluster, filter);
        if found.len() >= count {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{filter}: {} of {count}: {found:?}", found.len());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn logger(address: &str, options: &[&str], message: &str) {
    let (host, port) = address.rsplit_once(':').unwrap();
    let status = Command::new("logger")
        .args(["--server", host, "--port", port, "--tag", "billing", "--priority", "auth.notice"])
        .args(options)
        .arg("--")
        .arg(message)
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_logger_sends_becomes_entries_of_lower_trust() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let address = free_address();
    configure(&cluster, &format!("[[intake]]\nname = \"legacy\"\nsyslog = \"{address}\"\n"));
    cluster.run_all().await;
    logger(&address, &["--tcp", "--rfc5424"], "over tcp, password=hunter2-planted");
    logger(&address, &["--tcp", "--rfc5424", "--octet-count"], "counted octets");
    logger(&address, &["--tcp", "--rfc3164"], "the old form");
    logger(&address, &["--udp", "--rfc5424"], "a datagram");
    logger(&address, &["--tcp", "--rfc5424", "--size", "32768"], &"long ".repeat(4_000));
    let found = wait_for(&cluster, "category:integration", 5);
    assert_eq!(found.len(), 5, "{found:?}");
    for entry in &found {
        assert_eq!(entry["via"], "syslog legacy", "{entry}");
    }
    let with = |text: &str| {
        found.iter().find(|entry| entry.to_string().contains(text)).unwrap_or_else(|| panic!("{text}: {found:?}"))
    };
    for text in ["over tcp", "counted octets", "the old form", "a datagram"] {
        let entry = with(text);
        assert_eq!(entry["action"], "syslog.billing", "{entry}");
        assert_eq!(entry["details"]["facility"], "auth", "{entry}");
        assert_eq!(entry["peer_address"], "127.0.0.1", "{entry}");
    }
    assert!(with("counted octets")["occurred_at"].is_string(), "a time with its zone is one");
    assert!(with("the old form").get("occurred_at").is_none(), "a time without zone and year is not");
    // Text that is too long for its field is shortened there and kept in full in `details`.
    let long = with("long long");
    let description = long["description"].as_str().unwrap();
    assert_eq!((&long["action"], description.len()), (&json!("syslog.billing"), 4_096), "{long}");
    assert!(
        description.ends_with('\u{2026}') && long["details"]["message"].as_str().unwrap().len() >= 20_000 - 1,
        "{long}"
    );
    let bytes = std::fs::read(cluster.database(0)).unwrap();
    assert!(!bytes.windows(15).any(|window| window == b"hunter2-planted"), "a secret reached the database");
    cluster.verify_all();
}

/// Formats one journal entry in the export format.
fn journal_entry(number: u64, message: &str) -> String {
    format!(
        "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=4f3d7c2b1a0e4d5f8c9b0a1f2e3d4c5b\n_SYSTEMD_UNIT=ssh.service\n\
         MESSAGE={message}\n_HOSTNAME=h\n_PID={number}\n\n",
        1_776_000_000_000_000_u64 + number * 1_000_000
    )
}

fn write_journal(folder: &Path, name: &str, entries: &str) {
    let mut writer = Command::new(JOURNAL_WRITER)
        .arg(format!("--output={}", folder.join(name).display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(entries.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_in_the_journal_arrive_once_across_crashes() {
    if !Path::new(JOURNAL_WRITER).exists() {
        println!("SKIPPED: nothing here writes journals (apt-get install systemd-journal-remote)");
        return;
    }
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let journal = cluster.dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let table = "[[intake]]\nname = \"ssh\"\njournald = \"ssh.service\"\njournal_directory = \"../../../journal\"\nmap = \"sshd\"\n";
    configure(&cluster, table);
    let message = |number: u64| match number % 3 {
        0 => format!("Accepted publickey for user-{number} from 192.0.2.7 port 50022 ssh2"),
        1 => format!("Failed password for invalid user user-{number} from 2001:db8::7 port 1 ssh2"),
        _ => "Server listening on 0.0.0.0 port 22.".to_owned(),
    };
    let part =
        |from: u64, to: u64| (from..to).map(|number| journal_entry(number, &message(number))).collect::<String>();
    write_journal(&journal, "a.journal", &part(0, 300));
    cluster.run_all().await;
    wait_for(&cluster, "category:auth", 200);
    for round in 1..3 {
        write_journal(&journal, &format!("b{round}.journal"), &part(round * 300, (round + 1) * 300));
        cluster.kill(0);
        cluster.restart(0).await;
    }
    let found = wait_for(&cluster, "category:auth", 600);
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &found {
        assert_eq!(entry["via"], "journald ssh", "{entry}");
        *times.entry(entry["user"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(times.len(), 600);
    let again = |user: &str| found.iter().filter(|entry| entry["user"] == user).cloned().collect::<Vec<_>>();
    let twice = times.iter().find(|(_, times)| **times != 1).map(|(user, _)| again(user));
    assert!(twice.is_none(), "recorded more than once: {twice:#?}");
    let failed = found.iter().find(|entry| entry["user"] == "user-301").unwrap();
    assert_eq!((&failed["outcome"], &failed["ip_address"]), (&json!("failure"), &json!("2001:db8::7")), "{failed}");
    assert_eq!(failed["occurred_at"], "2026-04-12T13:25:01.000000Z");
    cluster.verify_all();
}

fn kubernetes(number: u64) -> String {
    let event = json!({ "kind": "Event", "auditID": format!("a-{number}"), "stage": "ResponseComplete", "verb": "delete",
        "user": { "username": "alice" }, "sourceIPs": ["192.0.2.7"], "objectRef": { "resource": "pods", "name": format!("pod-{number}") },
        "responseStatus": { "code": 200 }, "requestReceivedTimestamp": "2026-04-12T13:20:00.123456Z" });
    format!("{event}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_rotated_file_arrive_once_across_crashes() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let file = cluster.dir.path().join("audit.log");
    configure(
        &cluster,
        &format!("[[intake]]\nname = \"k8s\"\nfile = \"{}\"\nmap = \"kubernetes-audit\"\n", file.display()),
    );
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let part = |from: u64, to: u64| (from..to).map(kubernetes).collect::<String>();
    append(&part(0, 200));
    append("this is no JSON\n");
    cluster.run_all().await;
    wait_for(&cluster, "entity:pods", 200);
    // Half a line is written before a crash and the rest after it: this is one record.
    let line = kubernetes(200);
    append(&line[..40]);
    cluster.kill(0);
    append(&line[40..]);
    cluster.restart(0).await;
    append(&part(201, 300));
    // The file is rotated while the node is down, and again while it is running.
    cluster.kill(0);
    append(&part(300, 350));
    std::fs::rename(&file, file.with_extension("log.1")).unwrap();
    append(&part(350, 400));
    cluster.restart(0).await;
    wait_for(&cluster, "entity:pods", 400);
    std::fs::rename(&file, file.with_extension("log.2")).unwrap();
    append(&part(400, 450));
    let found = wait_for(&cluster, "entity:pods", 450);
    let names: Vec<&str> = found.iter().map(|entry| entry["entity_name"].as_str().unwrap()).collect();
    let wanted: Vec<String> = (0..450).map(|number| format!("pod-{number}")).collect();
    assert_eq!(names, wanted, "each once, in order");
    assert!(found.iter().all(|entry| entry["via"] == "file k8s" && entry["action"] == "k8s.pods.delete"));
    let odd = entries(&cluster, "action:intake.unmapped");
    assert_eq!(odd.len(), 1, "{odd:?}");
    assert_eq!(odd[0]["details"]["record"], "this is no JSON");
    assert!(
        entries(&cluster, "action:log.gap").iter().all(|gap| gap["details"]["cause"] == "unclean stop"),
        "nothing was lost"
    );
    // The file is truncated in place: a gap entry reports that lines may be missing.
    std::fs::write(&file, kubernetes(450)).unwrap();
    wait_for(&cluster, "entity:pods", 451);
    let is_cut = |gap: &Value| gap["details"]["cause"].as_str().unwrap().contains("was truncated");
    until("the cut is said", async || entries(&cluster, "action:log.gap").iter().any(is_cut).then_some(())).await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_come_in_is_said_before_the_start() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for (table, words) in [
        ("name = \"x\"\nsyslog = \"0.0.0.0:5514\"", "other machines can reach"),
        ("name = \"x\"", "exactly one of"),
        ("name = \"x\"\nfile = \"a\"\nmap = \"sshd\"\nsyslog = \"127.0.0.1:1\"", "exactly one of"),
        ("name = \"x\"\nfile = \"a\"", "`map` is missing"),
        ("name = \"x\"\nfile = \"a\"\nmap = \"nothing\"", "kubernetes-audit"),
        ("name = \"x\"\njournald = \"--vacuum-size=1\"\nmap = \"sshd\"", "is not a valid unit name"),
        ("name = \"a b\"\nfile = \"a\"\nmap = \"sshd\"", "letters, digits"),
    ] {
        std::fs::write(&config, format!("{text}\n[[intake]]\n{table}\n")).unwrap();
        let run = cluster.on_node(0, &["serve"]);
        assert!(run.code == 1 && run.stderr.contains(words), "{table}: {}", run.stderr);
    }
}
