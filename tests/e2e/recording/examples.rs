//! Tests that the examples run, and that the code shown in the README is the same code.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use piperoll_client::NodeClient;
use piperoll_tests::{Cluster, Guard, free_address, piperoll};
use serde_json::{Value, json};

use super::{entries, one_node, socket};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the code blocks of one kind in the README's section about recording.
fn snippets(kind: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme.split("\n## Record from your application\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let fence = format!("```{kind}\n");
    section.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn run(cluster: &Cluster, program: &str, args: &[&str]) -> Value {
    let output =
        Command::new(program).args(args).env("PIPEROLL_SOCKET", socket(cluster)).current_dir(root()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {stdout}{stderr}");
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_and_the_readmes_snippets_record_what_they_say() {
    let cluster = one_node().await;
    let shell = run(&cluster, "examples/record.sh", &[]);
    let python = run(&cluster, "python3", &["examples/record.py"]);
    let [from_shell] = snippets("sh").try_into().unwrap();
    let shown_shell = run(&cluster, "sh", &["-ec", &from_shell]);
    let [from_python] = snippets("python").try_into().unwrap();
    let shown_python = run(&cluster, "python3", &["-c", &from_python]);
    let log = entries(&cluster, "-category:log");
    let ids: Vec<&Value> = log.iter().map(|entry| &entry["id"]).collect();
    assert_eq!(ids, [&shell["id"], &python["id"], &shown_shell["id"], &shown_python["id"]]);
    assert_eq!(log[1]["details"]["password"], "***");

    let example = std::fs::read_to_string(root().join("examples/axum_service.rs")).unwrap();
    let [shown] = snippets("rust").try_into().unwrap();
    let middle = example.split("// README: begin\n").nth(1).unwrap().split("// README: end").next().unwrap();
    assert_eq!(shown.trim(), middle.trim(), "the README shows what is compiled");
    let mut service = Command::new(piperoll().with_file_name("axum-service"))
        .args([socket(&cluster), cluster.dir.path().join("spool")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(service.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let input = service.stdin.take();
    let mut service = Guard(service);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for quota in [100, 110] {
        let body = json!({ "quota_mb": quota, "relay": "smtp.example.org", "relay_password": "hunter2" });
        let request = client.put(format!("{}/domains/example.org", url.trim())).header("x-user", "alice");
        let request = request.header("content-type", "application/json").body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    drop(input);
    assert!(service.0.wait().unwrap().success());
    let updates = entries(&cluster, "action:domain.update");
    assert_eq!(updates.len(), 2);
    assert_eq!(updates[1]["description"], "changed quota_mb from 100 to 110");
    assert_eq!(updates[1]["changes"], json!([{ "field": "quota_mb", "old": 100, "new": 110 }]));
    assert_eq!((&updates[1]["user"], &updates[1]["ip_address"]), (&json!("alice"), &json!("127.0.0.1")));
    assert!(!updates.iter().any(|entry| entry.to_string().contains("hunter2")));
    assert_eq!(entries(&cluster, "action:service.start").len(), 1);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_records_over_https_with_a_token_and_does_nothing_else() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let config = cluster.nodes[0].folder.join("node.toml");
    let address = free_address();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[http]\nlisten = \"0.0.0.0:7403\"\n")).unwrap();
    let refused = cluster.on_node(0, &["status"]);
    assert!(refused.stderr.contains("other machines can reach"), "{}", refused.stderr);
    std::fs::write(&config, format!("{text}\n[http]\nlisten = \"{address}\"\n")).unwrap();
    cluster.spawn(0);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    let made = cluster.on_node(0, &["token", "create", "billing"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let token = made.stdout.trim().to_owned();
    assert_eq!(cluster.on_node(0, &["token", "create", "billing"]).code, 1, "the name is taken");
    assert!(cluster.on_node(0, &["token", "list"]).stdout.starts_with("billing"));
    let ca = std::fs::read(cluster.ca()).unwrap();
    let over_https = NodeClient::over_https(&address, &ca, &token).unwrap();
    let entry = json!({ "category": "data", "action": "invoice.create", "user": "billing" });
    over_https.append(&entry).await.unwrap();
    let log = entries(&cluster, "action:invoice.create");
    assert_eq!(log[0]["via"], "http token=billing");

    let https =
        reqwest::Client::builder().no_proxy().tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap());
    let https = https.build().unwrap();
    for (path, token, status) in [
        ("/v1/status", Some(&*token), 404),
        ("/v1/scan", Some(&*token), 404),
        ("/v1/prune", Some(&*token), 404),
        ("/healthz", Some(&*token), 200),
        ("/healthz", None, 401),
        ("/healthz", Some("prl_wrong"), 401),
    ] {
        let mut request = https.get(format!("https://{address}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{path} {token:?}");
    }
    assert_eq!(cluster.on_node(0, &["token", "revoke", "billing"]).code, 0);
    let refused = over_https.append(&entry).await.unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
    assert_eq!(entries(&cluster, "action:recording.*").len(), 2, "both changes of the tokens are entries");
    cluster.verify_all();
}
