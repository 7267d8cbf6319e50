//! Tests the installed parts: service manager notifications and credentials, the findings of `piperoll doctor`, and that all
//! metrics used by the alert rules and the dashboard exist.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use piperoll_tests::{Cluster, Guard, entry, free_address, piperoll, until};
use serde_json::Value;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_ready_alive_and_stopping_and_hands_keys_over() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let folder = &cluster.nodes[0].folder;
    // As under systemd, the credentials are in a separate folder, and its files look group-readable (mode 0440) because of access
    // lists.
    let credentials = cluster.dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let config = folder.join("node.toml");
    let mut text = std::fs::read_to_string(&config).unwrap();
    for name in ["node.key", "checkpoint.key", "secret.0"] {
        std::fs::rename(folder.join(name), credentials.join(name)).unwrap();
        std::fs::set_permissions(credentials.join(name), std::fs::Permissions::from_mode(0o440)).unwrap();
        text = text.replace(&format!("\"{name}\""), &format!("\"credential:{name}\""));
    }
    std::fs::write(&config, text).unwrap();
    let without = cluster.on_node(0, &["serve"]);
    assert!(without.code == 1 && without.stderr.contains("credential:"), "{}", without.stderr);

    let manager = cluster.dir.path().join("notify");
    let heard = UnixDatagram::bind(&manager).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let child = Command::new(piperoll())
        .args(["node", "serve", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", &manager)
        .env("WATCHDOG_USEC", "400000")
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Guard(child);
    let next = || {
        let mut buffer = [0; 256];
        let length = heard.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(next(), "READY=1");
    // After READY=1 the node accepts entries.
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    kill(Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    while next() != "STOPPING=1" {}
    assert!(daemon.0.wait().unwrap().success());
}

fn doctor(cluster: &Cluster, which: &[&str]) -> (i32, Vec<Value>) {
    let output = Command::new(piperoll())
        .args(["doctor", "--json"])
        .args(which)
        .env_remove("PIPEROLL_NODE_CONFIG")
        .env_remove("PIPEROLL_AGGREGATOR_CONFIG")
        .current_dir(cluster.dir.path())
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    let node = cluster.nodes[0].folder.join("node.toml");
    let aggregator = cluster.aggregator_folder().join("aggregator.toml");
    let (node, aggregator) = (node.to_str().unwrap(), aggregator.to_str().unwrap());
    let both = ["--node", node, "--aggregator", aggregator];
    let bad = |findings: &[Value]| -> Vec<String> {
        let is_bad = |finding: &&Value| finding["verdict"] == "bad";
        findings
            .iter()
            .filter(is_bad)
            .map(|finding| format!("{}: {}", finding["what"].as_str().unwrap(), finding["message"]))
            .collect()
    };
    let (code, findings) = doctor(&cluster, &both);
    assert_eq!((code, bad(&findings)), (0, vec![]), "{findings:?}");
    assert!(findings.len() > 12, "{findings:?}");

    cluster.stop(1);
    let (code, findings) = doctor(&cluster, &both);
    assert!(
        code == 1 && bad(&findings).iter().any(|words| words.starts_with("reaches") && words.contains("mx2")),
        "{findings:?}"
    );
    cluster.stop(0);
    let (code, findings) = doctor(&cluster, &["--node", node]);
    assert!(code == 1 && bad(&findings).iter().any(|words| words.starts_with("daemon")), "{findings:?}");
    // Every bad finding comes with advice.
    assert!(
        findings.iter().all(|finding| finding["verdict"] != "bad" || finding["advice"].is_string()),
        "{findings:?}"
    );
    let data = cluster.nodes[0].folder.join("data");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_, findings) = doctor(&cluster, &["--node", node]);
    assert!(bad(&findings).iter().any(|words| words.starts_with("log") && words.contains("755")), "{findings:?}");
    let key = cluster.nodes[0].folder.join("secret.0");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, findings) = doctor(&cluster, &["--node", node]);
    assert!(code == 1 && bad(&findings).iter().any(|words| words.contains("chmod 600")), "{findings:?}");
    // Install the certificate and key of another machine.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["node.crt", "node.key"] {
        std::fs::copy(cluster.nodes[1].folder.join(name), cluster.nodes[0].folder.join(name)).unwrap();
    }
    let (_, findings) = doctor(&cluster, &["--node", node]);
    assert!(
        bad(&findings).iter().any(|words| words.starts_with("certificate") && words.contains("mx2")),
        "{findings:?}"
    );
}

/// Returns the names of the metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("piperoll_"));
    words.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_alerts_and_the_dashboard_ask_for_exists() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let config = cluster.nodes[0].folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let syslog = free_address();
    let tables = format!(
        "[[forward]]\nname = \"x\"\nto = \"tcp://127.0.0.1:9\"\n[[intake]]\nname = \"y\"\nsyslog = \"{syslog}\"\n"
    );
    std::fs::write(&config, format!("{text}\n{tables}")).unwrap();
    // An aggregator whose archive does not exist: its metrics do.
    let url = format!("file://{}", cluster.dir.path().join("archive").display());
    cluster.authority().add_archive(&"main".parse().unwrap(), &"agg".parse().unwrap(), &url).unwrap();
    cluster.poll_every(250);
    cluster.run_all().await;
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"<34>1 - h a - - - hello", &syslog).unwrap();
    while !cluster.on_node(0, &["query", "via:syslog", "--json"]).stdout.contains("hello") {}
    let node = Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(cluster.nodes[0].folder.join("node.sock"))
        .arg("http://node/metrics")
        .output()
        .unwrap();
    assert_eq!(cluster.page("limit=1").await.status, 200);
    let aggregator = until("the nodes to be witnessed", async || {
        let text = cluster.get("/metrics", None).await.text;
        text.contains("piperoll_aggregator_archive_lag_rows{").then_some(text)
    })
    .await;
    let builder = piperoll_client::Recorder::builder(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let recorder = builder.spool(&cluster.dir.path().join("spool")).open().unwrap();
    let known = metrics_in(&(String::from_utf8(node.stdout).unwrap() + &aggregator + &recorder.metrics_text()));
    let mut asked = BTreeSet::new();
    for file in ["prometheus/alerts.yaml", "grafana/piperoll.json"] {
        asked.extend(metrics_in(&std::fs::read_to_string(Path::new(PACKAGING).join(file)).unwrap()));
    }
    assert!(asked.len() > 15, "{asked:?}");
    let missing: Vec<_> = asked.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?} are asked for, and there is {known:?}");
    serde_json::from_str::<Value>(
        &std::fs::read_to_string(Path::new(PACKAGING).join("grafana/piperoll.json")).unwrap(),
    )
    .unwrap();
}

/// An archive may need 192 MiB more than the aggregator has without one.
#[test]
fn the_archive_raises_the_limit_of_memory_by_what_it_may_need() {
    let number = |file: &str, before: &str, after: &str| -> u64 {
        let text = std::fs::read_to_string(Path::new(PACKAGING).join(file)).unwrap();
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("{before} in {file}"));
        rest.split(after).next().unwrap().parse().unwrap()
    };
    let unit = number("systemd/piperoll-aggregator.service", "MemoryMax=", "M");
    assert_eq!(number("systemd/aggregator-archive.conf", "MemoryMax=", "M"), unit + 192);
    let pod = number("kubernetes/aggregator.yaml", "limits: {memory: ", "Mi}");
    assert_eq!(number("kubernetes/archiver.yaml", "limits: {memory: ", "Mi}"), pod + 192);
}

#[test]
fn completions_and_manual_pages_are_made_of_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(piperoll()).arg("man").arg(dir.path()).output().unwrap();
    assert!(made.status.success());
    for (page, words) in
        [("piperoll.1", "verify-bundle"), ("piperoll-node-forward-pause.1", "reason"), ("piperoll-query.1", "EXAMPLE")]
    {
        let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(
            text.to_uppercase().contains(&words.to_uppercase().replace('-', "\\-"))
                || text.to_uppercase().contains(&words.to_uppercase()),
            "{page}: {text}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(piperoll()).args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(script.stdout).unwrap().contains("verify-bundle"), "{shell}");
    }
}
