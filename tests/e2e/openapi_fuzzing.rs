//! Checks the HTTP API against its OpenAPI document, with valid and invalid requests that schemathesis (PyPI) generates from it.

use std::process::Command;

use piperoll_tests::{Cluster, entry};

/// Environment variable that names the schemathesis program, which `scripts/test` installs in a virtual environment.
const PROGRAM_VARIABLE: &str = "PIPEROLL_SCHEMATHESIS";
/// Number of requests generated for each operation and phase.
const EXAMPLES: &str = "25";

#[tokio::test(flavor = "multi_thread")]
async fn no_request_made_from_the_document_gets_an_answer_that_is_not_in_it() {
    let Ok(program) = std::env::var(PROGRAM_VARIABLE) else {
        assert!(std::env::var_os("CI").is_none(), "{PROGRAM_VARIABLE} does not name schemathesis");
        eprintln!("SKIPPED: {PROGRAM_VARIABLE} does not name schemathesis");
        return;
    };
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.run_all().await;
    cluster.append(0, &[entry("alice", "auth.login"), entry("bob", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let fuzz = |more: &[&str]| {
        let run = Command::new(&program)
            .args(["run", &format!("{}/api/openapi.json", cluster.url), "--url", &cluster.url])
            .args(["--tls-verify", cluster.ca().to_str().unwrap()])
            .args(["--max-examples", EXAMPLES, "--seed", "1", "--no-color", "--suppress-health-check", "all"])
            // The tail never ends; `tail.rs` tests it.
            .args(["--exclude-path", "/api/v1/audit-log/tail"])
            .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"])
            .args(more)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(cluster.dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
        said
    };
    let said = fuzz(&[
        "--phases",
        "examples,coverage,fuzzing",
        "--header",
        &format!("Authorization: Bearer {}", cluster.token),
    ]);
    println!("{}", said.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
    // The same requests without authentication.
    fuzz(&["--phases", "coverage"]);
    cluster.verify_all();
}
