//! Tests the contracts in `docs/`: the OpenAPI document is the generated one, an independent script computes the same golden
//! vectors, and the command line keeps its conventions.

use piperoll_format::ids::{ClusterName, Generation, NodeId};
use piperoll_format::mac::{EpochSecret, MacKey, Origin};
use piperoll_tests::{Cluster, piperoll};
use serde_json::Value;

fn docs(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn openapi_is_the_checked_in_file() {
    let made = piperoll_aggregator::openapi_json().to_owned();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(format!("{}/../docs/openapi.json", env!("CARGO_MANIFEST_DIR")), &made).unwrap();
    }
    assert!(
        made == docs("openapi.json"),
        "docs/openapi.json is old; run this test with UPDATE_OPENAPI=1 and read the difference"
    );
}

/// Every documented route exists, and answers only with documented statuses.
#[tokio::test(flavor = "multi_thread")]
async fn openapi_is_served_and_names_what_answers() {
    let cluster = Cluster::start(&["mx1"]).await;
    let served = cluster.get("/api/openapi.json", None).await;
    assert!(served.status == 200 && served.text == docs("openapi.json"), "served is not what is checked in");
    let document: Value = served.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let real = path.replace("{node}", "mx1").replace("{seq}", "0").replace("{name}", "nobody");
        // A tail never ends, so send a request that this route refuses.
        let real = real.replace("/tail", "/tail?from=never");
        for method in methods.as_object().unwrap().keys() {
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let answer = cluster.send(method.clone(), &real, Some(&cluster.token), None).await;
            let code =
                serde_json::from_str::<Value>(&answer.text).ok().and_then(|v| v["code"].as_str().map(str::to_owned));
            let missing = answer.status == 405 || (answer.status == 404 && code.as_deref() == Some("not_found"));
            assert!(!missing, "{method} {path} is documented and does not exist: {}", answer.text);
            let status = answer.status.to_string();
            let documented = methods[&method.as_str().to_lowercase()]["responses"].as_object().unwrap();
            assert!(
                documented.contains_key(&status) || answer.status == 400,
                "{method} {path} answers {status}, undocumented"
            );
        }
    }
    // The response has the required headers, and no headers that reveal internals.
    let run = std::process::Command::new("curl")
        .args(["-sS", "-D", "-", "-o", "/dev/null", "--cacert"])
        .arg(cluster.ca())
        .args(["-H", &format!("Authorization: Bearer {}", cluster.token), &format!("{}/api/v1/nodes", cluster.url)])
        .output()
        .unwrap();
    let headers = String::from_utf8(run.stdout).unwrap();
    assert!(headers.contains("cache-control: no-store"), "{headers}");
    let allowed = [
        "http/2 200",
        "content-type:",
        "cache-control: no-store",
        "content-length:",
        "date:",
        "vary: accept-encoding",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'; sandbox",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-resource-policy: same-origin",
        "permissions-policy: camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ];
    assert_eq!(headers.trim().lines().count(), allowed.len(), "{headers}");
    for line in headers.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(allowed.iter().any(|name| line.to_lowercase().starts_with(name)), "unexpected header {line:?}");
    }
}

#[test]
fn golden_vectors_agree() {
    let vectors: Value = serde_json::from_str(&docs("golden.json")).unwrap();
    for vector in vectors.as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let origin = Origin {
            cluster: text("cluster").parse::<ClusterName>().unwrap(),
            node_id: text("node_id").parse::<NodeId>().unwrap(),
            generation: text("generation").parse::<Generation>().unwrap(),
        };
        assert_eq!(origin.to_text(), text("origin"));
        let secret = EpochSecret::from_hex(text("secret")).unwrap();
        let epoch = u32::try_from(vector["epoch"].as_u64().unwrap()).unwrap();
        let mac = MacKey::derive(&secret, &origin, epoch).mac(text("body").as_bytes());
        assert_eq!(hex::encode(mac), text("mac_hex"));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/golden_vectors.py");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/golden.json");
    let run = std::process::Command::new("python3").args([script, file]).output().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}

#[test]
fn help_has_examples_and_usage_errors_exit_2() {
    let run = |args: &[&str]| std::process::Command::new(piperoll()).args(args).output().unwrap();
    for args in [["query", "--help"], ["export", "--help"], ["node", "append"]] {
        let output = if args[1] == "--help" { run(&args) } else { run(&["node", "append", "--help"]) };
        assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"), "{args:?}");
    }
    assert_eq!(run(&["qurey"]).status.code(), Some(2));
    assert_eq!(run(&["query", "--limt", "3"]).status.code(), Some(2));
    let output = std::process::Command::new(piperoll()).args(["query"]).env_clear().output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && stderr.contains("PIPEROLL_URL"), "{stderr}");
}
