//! Tests a full or read-only disk, and a second process: errors are clear, and reads continue.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use piperoll_client::NodeClient;
use piperoll_tests::{Cluster, Interference, entry, piperoll};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    let config = cluster.nodes[0].folder.join("node.toml");
    // Use another port and socket, so that startup fails because of the log's lock and not because of an address already in use.
    let other = cluster.nodes[0].folder.join("other.toml");
    let text =
        std::fs::read_to_string(&config).unwrap().replace(&cluster.nodes[0].listen, &piperoll_tests::free_address());
    std::fs::write(&other, text.replace("node.sock", "other.sock")).unwrap();
    let output = Command::new(piperoll()).args(["node", "serve", "--config"]).arg(&other).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && stderr.contains("in use by another process"), "{stderr}");
    assert_eq!(
        cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]).code,
        0,
        "the first one goes on"
    );
    cluster.stop(0);
    cluster.verify_all();
}

/// Commands that append while the daemon is down wait for each other, and a starting daemon waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn appends_without_a_daemon_and_its_start_wait_for_each_other() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    cluster.stop(0);
    let append = |count: usize| {
        let config = cluster.nodes[0].folder.join("node.toml");
        (0..count)
            .map(|n| {
                let mut command = Command::new(piperoll());
                command.args([
                    "node",
                    "append",
                    "--category",
                    "auth",
                    "--action",
                    "auth.login",
                    "--user",
                    &format!("u{n}"),
                ]);
                command.arg("--config").arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
                piperoll_tests::Guard(command.spawn().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let mut appending = append(12);
    cluster.restart(0).await;
    for guard in &mut appending {
        let status = guard.0.wait().unwrap();
        let mut words = String::new();
        std::io::Read::read_to_string(guard.0.stderr.as_mut().unwrap(), &mut words).unwrap();
        assert!(status.success(), "{words}");
    }
    let found = cluster.on_node(0, &["query", "action:auth.login", "--json"]);
    assert_eq!(found.stdout.matches("\"auth.login\"").count(), 12, "{}", found.stdout);
    cluster.verify_all();
}

/// Fills a file system of a few megabytes, mounted in its own mount namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let data = cluster.nodes[0].folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let probe =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none"]).arg(&data).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no mount namespace may be made here");
        return;
    }
    let script = format!(
        "mount -t tmpfs -o size=3m,mode=0700 none {data} && exec {piperoll} node serve --config {config}",
        data = data.display(),
        piperoll = piperoll().display(),
        config = cluster.nodes[0].folder.join("node.toml").display()
    );
    let process = Command::new("unshare").args(["-m", "sh", "-c", &script]).stderr(Stdio::null()).spawn().unwrap();
    let process = piperoll_tests::Guard(process);
    cluster.wait_for_node(&cluster.nodes[0]).await;
    let client = NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let entry = json!({ "category": "data", "action": "x.write", "details": { "filler": "f".repeat(4_000) } });
    let mut accepted = Vec::new();
    let refusal = loop {
        match client.append(&entry).await {
            Ok(receipt) => accepted.push(receipt),
            Err(error) => break error.to_string(),
        }
        assert!(accepted.len() < 5_000, "the disk never filled");
    };
    assert!(refusal.contains("disk is full"), "{refusal}");
    // Reads still work, and every acknowledged entry is there.
    let run = cluster.on_node(0, &["export", "action:x.write"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count() - 1, accepted.len());
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    // Once space is free, the same process accepts entries again without a restart.
    let pid = process.0.id();
    let grown = Command::new("nsenter")
        .args(["-m", "-t", &pid.to_string(), "mount", "-o", "remount,size=16m", "none"])
        .arg(&data)
        .status()
        .unwrap();
    assert!(grown.success());
    let receipt = client.append(&entry).await.unwrap();
    assert_eq!(receipt.seq, accepted.last().unwrap().seq + 1, "no seq was lost to the refusals");
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);

    // While the disk is read-only, appends are refused with the cause, and reads work.
    let remount = |how: &str| {
        Command::new("nsenter")
            .args(["-m", "-t", &pid.to_string(), "mount", "-o", how, "none"])
            .arg(&data)
            .status()
            .unwrap()
    };
    if remount("remount,ro").success() {
        let refusal = client.append(&entry).await.unwrap_err().to_string();
        assert!(refusal.contains("read-only") || refusal.contains("cannot be written"), "{refusal}");
        assert_eq!(cluster.on_node(0, &["query", "--limit", "3"]).code, 0);
        assert!(remount("remount,rw").success());
    }
    drop(process);
}

/// Commands of a user other than the owner are refused: files of two owners would lock the daemon out of its own log.
#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_owner_is_told_which_user_to_be() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give a directory away");
        return;
    }
    let mut cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.stop(0);
    let data = cluster.nodes[0].folder.join("data");
    nix::unistd::chown(&data, Some(nix::unistd::Uid::from_raw(12_345)), None).unwrap();
    let run = cluster.on_node(0, &["append", "--retry-for", "0s", "--category", "auth", "--action", "auth.login"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("belongs to uid 12345") && run.stderr.contains("sudo -u '#12345'"), "{}", run.stderr);
    assert_eq!(cluster.on_node(0, &["query", "--limit", "1"]).code, 0, "reading is possible");
    nix::unistd::chown(&data, Some(nix::unistd::Uid::from_raw(0)), None).unwrap();
}

/// Keys and secrets that others could read are refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_secret_is_no_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    for name in ["secret.0", "node.key"] {
        let path = cluster.nodes[0].folder.join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let output = Command::new(piperoll())
            .args(["node", "serve", "--config"])
            .arg(cluster.nodes[0].folder.join("node.toml"))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && stderr.contains("chmod 600"), "{stderr}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// After a disk failed on writes or syncs and recovered, every acknowledged entry is in the log exactly once, and the same
/// process accepts entries again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_and_comes_back_heals_without_a_restart() {
    if !Interference::is_possible() {
        eprintln!("SKIPPED: no strace, or it may not look into other processes here");
        return;
    }
    let cluster = Cluster::witnessed(&["mx1"], 100).await;
    let client = NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
    let mut acknowledged = Vec::new();
    for inject in [
        "pwrite64:error=EIO:when=3+",
        "fsync,fdatasync:error=EIO",
        "fsync,fdatasync:error=EDQUOT",
        "pwrite64:error=ENOSPC",
    ] {
        let mut refused = 0;
        {
            let _interference = Interference::with(cluster.pid(0), inject).unwrap();
            for n in 0..20 {
                let id = uuid::Uuid::now_v7().to_string();
                let line = json!({ "id": id, "category": "data", "action": "x.write", "user": format!("u{n}") });
                match client.append(&line).await {
                    Ok(receipt) => acknowledged.push(receipt.id.to_string()),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 0, "{inject}: nothing failed");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let line = json!({ "category": "data", "action": "x.write", "user": "after" });
            match client.append(&line).await {
                Ok(receipt) => {
                    acknowledged.push(receipt.id.to_string());
                    break;
                }
                Err(error) => assert!(Instant::now() < deadline, "{inject}: never good again: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let verified = cluster.on_node(0, &["verify"]);
        assert_eq!(verified.code, 0, "{inject}: {}{}", verified.stdout, verified.stderr);
    }
    let found = cluster.on_node(0, &["query", "action:x.write", "--json", "--limit", "1000"]).stdout;
    for id in &acknowledged {
        assert_eq!(found.matches(id.as_str()).count(), 1, "{id}");
    }
    crate::witness::witnessed(&cluster, "mx1").await;
    cluster.verify_all();
}
