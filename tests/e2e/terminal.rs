//! Snapshot tests of the output in a real terminal of 60, 80, 120 and 200 columns.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use piperoll_tests::Cluster;
use regex::Regex;
use serde_json::json;

const WIDTHS: [u16; 4] = [60, 80, 120, 200];
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A terminal with its own tmux server, which ends when the value is dropped.
struct Terminal {
    server: String,
}

impl Terminal {
    fn is_there() -> bool {
        Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success())
    }

    /// Runs a command as a user would and returns the content of the screen, with colors if requested.
    fn run(cluster: &Cluster, width: u16, args: &[&str], with_colours: bool) -> String {
        let terminal = Self { server: format!("piperoll-{}-{width}", uuid::Uuid::new_v4()) };
        let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        let script =
            format!("'{}' {}; echo \"=$?=\"; exec sleep 60", piperoll_tests::piperoll().display(), quoted.join(" "));
        let mut command = terminal.command();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", &width.to_string(), "-y", "200"]);
        for (name, value) in cluster.command(&[]).get_envs() {
            if let Some(value) = value {
                command.arg("-e").arg(format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
            }
        }
        assert!(command.arg(script).status().unwrap().success());
        let begun = Instant::now();
        loop {
            let mut capture = terminal.command();
            capture.args(["capture-pane", "-p"]);
            if with_colours {
                capture.arg("-e");
            }
            let screen = String::from_utf8(capture.output().unwrap().stdout).unwrap();
            if screen.contains("=0=") || screen.contains("=3=") {
                return screen.trim_end().to_owned() + "\n";
            }
            assert!(begun.elapsed() < WAIT_MAX, "{args:?}: {screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command
            .args(["-L", &self.server])
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR");
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

/// Replaces text that differs between runs with placeholders of the same width.
fn steady(screen: &str) -> String {
    let mut text = screen.to_owned();
    for (pattern, with) in [
        // This sentence depends on how exactly a busy machine could measure the clocks, and whether it has had time to.
        (
            r"the\s+order\s+of\s+rows\s+from\s+different\s+nodes\s+is\s[a-z0-9., \n]*clocks\s+(differ|have\s+not\s+been\s+measured\s+yet)\n",
            "",
        ),
        (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d", "YYYY-MM-DD${1}hh:mm:ss"),
        (r"\d{4}-\d\d-\d\d", "YYYY-MM-DD"),
        (r"\d\d:\d\d:\d\d", "hh:mm:ss"),
        (r"ss\.\d{6}", "ss.uuuuuu"),
        (r"ss\.\d{3}", "ss.mmm"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "00000000-0000-0000-0000-000000000000"),
        (r"\b[0-9a-f]{64}\b", "{mac}"),
        (r"\b[0-9a-f]{44}\n +[0-9a-f]{20}\b", "{mac}"),
        (r"\b[0-9a-f]{32}\b", "{generation or salt}"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

fn check(name: &str, width: u16, screen: &str) {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("e2e/terminal/{name}-{width}.txt"));
    let shown = steady(screen);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &shown).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(shown, expected, "{} differs; if it is better now, run this with UPDATE_GOLDEN=1", golden.display());
}

async fn cluster() -> Cluster {
    let cluster = Cluster::witnessed(&["mx1", "mx2", "mx3"], 200).await;
    let entries = [
        (
            0,
            json!({ "category": "auth", "action": "auth.login", "user": "m.keller", "outcome": "success", "ip_address": "203.0.113.77",
            "user_agent": "Mozilla/5.0", "description": "m.keller signed in" }),
        ),
        (
            1,
            json!({ "category": "config", "action": "user.role.update", "user": "m.keller", "outcome": "denied", "reason": "role_missing",
            "ip_address": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "entity_type": "user", "entity_id": "s.bauer",
            "description": "may not make s.bauer an administrator of the whole installation, because the role that this takes is missing",
            "changes": [{ "field": "role", "old": "user", "new": "admin" }, { "field": "quota.mb", "old": 100, "new": 250 }],
            "details": { "ticket": "OPS-2207", "policy": { "name": "administrators are made by two people", "since": "2026-01-01", "id": 7 } } }),
        ),
        (
            2,
            json!({ "category": "data", "action": "quarantine.release", "user": "s.bauer", "impersonator": "root", "outcome": "success",
            "target": "office@example.org", "occurred_at": "2026-04-01T06:00:00Z", "description": "released message 1482 to its recipient" }),
        ),
        (
            0,
            json!({ "category": "data", "action": "quarantine.view", "user": "al\u{ad}ice", "entity_type": "mail", "entity_id": "1483" }),
        ),
    ];
    for (node, entry) in entries {
        cluster.append(node, &[entry.to_string()]).await;
    }
    for node in ["mx1", "mx2", "mx3"] {
        crate::witness::witnessed(&cluster, node).await;
    }
    cluster.wait_until_complete().await;
    cluster
}

const FILTER: &str = "category:auth,config,data";

#[tokio::test(flavor = "multi_thread")]
async fn answers_look_right_in_every_width() {
    if !Terminal::is_there() {
        println!("SKIPPED: tmux is not installed");
        return;
    }
    let mut cluster = cluster().await;
    let denied = cluster.page("filter=outcome:denied").await.places().remove(0);
    for width in WIDTHS {
        let query = ["query", FILTER, "--from", "1d"];
        let screen = Terminal::run(&cluster, width, &query, false);
        assert!(screen.contains("COMPLETE: 4 rows, 4 of 4 nodes answered"), "{screen}");
        assert!(
            !screen.contains("INTEGRITY") && !screen.contains("VERDICT"),
            "all is well, and that is one sentence\n{screen}"
        );
        check("query", width, &screen);
        check("tail", width, &Terminal::run(&cluster, width, &["tail", "-n", "3", FILTER], false));
        check("show", width, &Terminal::run(&cluster, width, &["show", &denied], false));
        let red = Terminal::run(&cluster, width, &["query", FILTER, "--verbose"], true);
        assert!(
            red.contains("mx3") && !red.contains("\u{1b}[31m") && !red.contains("\u{1b}[1m\u{1b}[31m"),
            "nothing is wrong\n{red}"
        );
    }
    cluster.kill(2);
    for width in WIDTHS {
        let screen = Terminal::run(&cluster, width, &["query", FILTER, "--from", "1d"], false);
        let lines = screen.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lines.contains("NOT COMPLETE: 3 rows, 3 of 4 nodes answered in full; missing: mx3"), "{screen}");
        assert!(lines.contains("UNREACHABLE"), "the node is shown with its reason\n{screen}");
    }
}

/// Without a filter, a table omits entries about reads of the log and reports this; output for programs contains all entries.
#[tokio::test(flavor = "multi_thread")]
async fn own_reads_are_left_out_and_that_is_said() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[piperoll_tests::entry("kim", "auth.login")]).await;
    cluster.wait_until_complete().await;
    for command in ["query", "tail"] {
        let run = cluster.run(&[command, "--table"]);
        assert!(!run.stdout.contains("audit.view") && run.stdout.contains("kim"), "{}", run.stdout);
        assert!(run.stderr.contains("category audit") && run.stderr.contains("--all"), "{}", run.stderr);
        let run = cluster.run(&[command, "--table", "--all"]);
        assert!(run.stdout.contains("audit.view") && !run.stderr.contains("--all"), "{}{}", run.stdout, run.stderr);
        let run = cluster.run(&[command, "--json"]);
        assert!(run.stdout.contains("audit.view") && !run.stderr.contains("--all"), "{}", run.stderr);
        let run = cluster.run(&[command, "--table", "category:audit"]);
        assert!(run.stdout.contains("audit.view") && !run.stderr.contains("--all"), "{}", run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_connection_is_said_in_a_sentence() {
    let cluster = Cluster::start(&["mx1"]).await;
    let other = Cluster::made(&["mx1"], |_| None).await;
    let text = cluster.aggregator_folder().join("aggregator.toml");
    let run = |ca: &std::path::Path, token: &str, url: &str| {
        let output = cluster
            .command(&["query"])
            .env("PIPEROLL_CA", ca)
            .env("PIPEROLL_TOKEN", token)
            .env("PIPEROLL_URL", url)
            .env("HOME", "/nonexistent")
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let good = cluster.ca();
    for (ca, token, url, words) in [
        (text.as_path(), cluster.token.as_str(), cluster.url.as_str(), "contains no PEM certificate"),
        (other.ca().as_path(), cluster.token.as_str(), cluster.url.as_str(), "is that the ca.crt of this cluster?"),
        (good.as_path(), "piperoll_nonsense", cluster.url.as_str(), "unknown or revoked token"),
        (good.as_path(), "", cluster.url.as_str(), "no token or certificate"),
        (good.as_path(), cluster.token.as_str(), "", "no aggregator"),
        (std::path::Path::new(""), cluster.token.as_str(), cluster.url.as_str(), "no CA certificate"),
        (good.as_path(), cluster.token.as_str(), "https://127.0.0.1:1", "127.0.0.1:1"),
    ] {
        let (code, stderr) = run(ca, token, url);
        // An empty variable counts as missing, which is a usage error.
        let expected = if words.starts_with("no ") { 2 } else { 1 };
        assert!(code == expected && stderr.contains(words), "{code} {stderr}");
        assert!(!stderr.contains("UnknownIssuer"), "{stderr}");
    }
    let bare = cluster
        .command(&["query"])
        .env_remove("PIPEROLL_TOKEN")
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(bare.status.code() == Some(2) && stderr.contains("no token or certificate"), "{stderr}");
}

/// `piperoll` authenticates with the certificate that `cluster add-user` creates.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_with_a_certificate() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    let folder =
        cluster.authority().add_user(&"kim".parse().unwrap(), piperoll_protocol::access::Role::Auditor, None).unwrap();
    cluster.stop_aggregator();
    cluster.spawn_aggregator();
    cluster.wait_for_aggregator().await;
    let mut command = cluster.command(&["query", "--json"]);
    command
        .env_remove("PIPEROLL_TOKEN")
        .arg("--cert")
        .arg(folder.join("user.crt"))
        .arg("--key")
        .arg(folder.join("user.key"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = cluster.run(&["query", "--json", "action:audit.view user:kim auth_method:certificate"]);
    assert!(seen.stdout.contains("\"user\":\"kim\""), "{}", seen.stdout);
}

/// An output file that cannot be written is reported before any entry is read, and a refused command leaves no file.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_is_looked_at_first() {
    let cluster = Cluster::start(&["mx1"]).await;
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken.ndjson");
    std::fs::write(&taken, "mine").unwrap();
    let reads = || {
        cluster
            .run(&["query", "--json", "action:audit.export,audit.report"])
            .stdout
            .matches("\"action\":\"audit.")
            .count()
    };
    for args in [&["export"][..], &["report", "brute-force", "--format", "json"]] {
        for (path, words) in
            [(taken.as_path(), "already exists"), (std::path::Path::new("/nonexistent/x.ndjson"), "cannot create")]
        {
            let mut args = args.to_vec();
            let path = path.to_str().unwrap();
            args.extend(["--output", path]);
            let run = cluster.run(&args);
            assert!(run.code == 1 && run.stderr.contains(words), "{args:?}: {} {}", run.code, run.stderr);
        }
    }
    assert_eq!((std::fs::read_to_string(&taken).unwrap().as_str(), reads()), ("mine", 0));
    let report = dir.path().join("report.json");
    let run = cluster.run(&["report", "brute-force", "--format", "json", "--output", report.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let recorded = cluster.run(&["query", "--json", "action:audit.export,audit.report"]).stdout;
    assert!(
        recorded.contains("\"action\":\"audit.report\"") && !recorded.contains("\"action\":\"audit.export\""),
        "{recorded}"
    );
}

/// A full disk or a closed pipe at stdout or stderr ends a command, with a message or silently, but never with a panic.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_cannot_be_written_are_no_panic() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[piperoll_tests::entry("kim", "auth.login")]).await;
    cluster.wait_until_complete().await;
    for node in ["mx1", "agg"] {
        crate::witness::report(&cluster, node, |line| line["verdict"] == "ok").await;
    }
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let commands: [&[&str]; 8] = [
        &["query", "--table"],
        &["query", "--json"],
        &["show", "mx1/1", "--table"],
        &["tail", "--table"],
        &["stats", "--by", "user", "--table"],
        &["nodes", "--table"],
        &["report", "brute-force"],
        &["export", "--output", "-"],
    ];
    for args in commands {
        let output = cluster.command(args).stdout(full()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && !stderr.contains("panicked"),
            "{args:?}: {:?} {stderr}",
            output.status
        );
        let output = cluster.command(args).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: nobody can be told, and the answer was given");
        let script = format!("'{}' {} | true", piperoll_tests::piperoll().display(), args.join(" "));
        let mut piped = Command::new("sh");
        piped.args(["-c", &script]);
        for (name, value) in cluster.command(&[]).get_envs() {
            piped.env(name, value.unwrap_or_default());
        }
        let output = piped.output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{args:?}");
    }
}

/// SIGTERM ends a node and an aggregator within five seconds, even while clients follow them.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_tails() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    let mut tails: Vec<piperoll_tests::Guard> = (0..3)
        .map(|_| {
            let mut command = cluster.command(&["tail", "-f", "--json"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            piperoll_tests::Guard(command.spawn().unwrap())
        })
        .collect();
    piperoll_tests::until("three tails", || async {
        let seen = cluster.run(&["query", "--json", "action:audit.tail"]).stdout;
        (seen.matches("\"action\":\"audit.tail\"").count() >= 3).then_some(())
    })
    .await;
    let begun = Instant::now();
    cluster.stop_aggregator();
    cluster.stop(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "two daemons, five seconds each: {:?}", begun.elapsed());
    tails.clear();
}
