//! Runs the demo, one step after another.

use crate::documents::{Document, Documents};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use piperoll_protocol::aggregator::Status;

use super::cluster::DemoCluster;
use super::step::{expect, step};
use super::{archive, history, scenario, tamper};
use crate::args::DemoArgs;
use crate::exit::Exit;
use crate::show::{group_digits, paint};
use piperoll_node::sources::{Mapped, Mapping};
use piperoll_redact::Redactor;

/// Number of entries that one node records before it is the next node's turn.
const LINES_PER_TURN: usize = 5;
/// Time limit for a restarted node to appear in answers again, which happens after the aggregator's next probe.
const RETURN_TIMEOUT: Duration = Duration::from_secs(45);

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<Exit> {
    let temporary = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            None
        }
        None => Some(tempfile::Builder::new().prefix("piperoll-demo-").tempdir()?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("no working directory"),
    };
    // Catch signals from here on, so that a signal at any moment also stops the daemons.
    let mut stop = std::pin::pin!(crate::serve::asked_to_stop()?);
    let mut cluster = tokio::select! {
        started = start(&dir) => started?,
        () = stop.as_mut() => bail!("interrupted"),
    };
    let shown = async {
        load(&cluster, &args).await?;
        show_timeline(&cluster, args.import.is_some()).await?;
        show_tampering(&cluster).await?;
        show_missing_node(&mut cluster).await?;
        history::show_rewritten_history(&mut cluster).await?;
        history::show_evidence(&cluster).await?;
        archive::show_archive(&mut cluster).await
    };
    let shown = tokio::select! {
        shown = shown => shown,
        () = stop.as_mut() => {
            cluster.stop().await;
            bail!("interrupted")
        }
    };
    if let Err(error) = &shown {
        errln!("{}a step did not show the expected result{}: {error:#}", paint::RED, paint::PLAIN);
        errln!("see the daemons' logs in {}", dir.join("logs").display());
        if args.dir.is_none() {
            cluster.print_logs();
        }
    }
    if shown.is_ok() && !args.once {
        print_login_link(&cluster, args.import.is_some()).await?;
        stop.as_mut().await;
    }
    cluster.stop().await;
    shown?;
    paintln!("\n{}Every step showed the expected result.{}", paint::GREEN, paint::PLAIN);
    Ok(Exit::Complete)
}

async fn start(dir: &Path) -> anyhow::Result<DemoCluster> {
    step(1, "A cluster: three nodes and an aggregator, separate processes with mutual TLS 1.3 between them");
    let started = Instant::now();
    let cluster = DemoCluster::start(dir).await?;
    outln!("   {} (ready after {:.1} s)", dir.display(), started.elapsed().as_secs_f64());
    for node in cluster.nodes() {
        outln!("   node {:<4} listens on {} and keeps its own signed log", node.id, node.address);
    }
    outln!("   aggregator   {}", cluster.url());
    Ok(cluster)
}

async fn load(cluster: &DemoCluster, args: &DemoArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let (what, per_node) = match (&args.import, &args.map) {
        (Some(file), Some(map)) => {
            let mapping = Mapping::load(map)?;
            let mut per_node = vec![Vec::new(); 3];
            let mut number = 0;
            for document in Documents::open(file, mapping.join().cloned(), mapping.reads_lines())? {
                let Document { line, text } = document?;
                let text = text.map_err(|problem| anyhow::anyhow!("line {line}: {problem}"))?;
                for outcome in mapping.read(&text, Redactor::shared()).with_context(|| format!("line {line}"))? {
                    if let Mapped::Entry { text, .. } = outcome.result.with_context(|| format!("line {line}"))? {
                        per_node[number % 3].push(text);
                        number += 1;
                    }
                }
            }
            (format!("records of {}", file.display()), per_node)
        }
        _ => ("entries of one working day on a mail cluster, including an intrusion".to_owned(), scenario::day()),
    };
    step(2, &format!("Recording: {what}"));
    let total: usize = per_node.iter().map(Vec::len).sum();
    // Append in small turns, so that the nodes' entries interleave as they do on a real day.
    let turns = per_node.iter().map(|lines| lines.len().div_ceil(LINES_PER_TURN)).max().unwrap_or(0);
    for turn in 0..turns {
        for (node, lines) in cluster.nodes().iter().zip(&per_node) {
            let from = (turn * LINES_PER_TURN).min(lines.len());
            let to = (from + LINES_PER_TURN).min(lines.len());
            node.append(&lines[from..to]).await?;
        }
    }
    for (node, lines) in cluster.nodes().iter().zip(&per_node) {
        outln!(
            "   {:<4} {:>6} entries, each synced to disk before it was acknowledged",
            node.id,
            group_digits(lines.len() as u64)
        );
    }
    outln!("   {} entries in {:.1} s", group_digits(total as u64), started.elapsed().as_secs_f64());
    Ok(())
}

async fn show_timeline(cluster: &DemoCluster, imported: bool) -> anyhow::Result<()> {
    step(
        3,
        if imported {
            "One merged timeline: what was denied on any node?"
        } else {
            "One merged timeline: what did the intruder at 203.0.113.77 do, on any node?"
        },
    );
    let filter = if imported { "is:denied" } else { "ip:203.0.113.0/24 -reason:bad_password" };
    let status = cluster.run(&["query", filter, "--axis", "occurred", "--limit", "12", "--table"], true).await?.0;
    expect(status, Exit::Complete)?;
    let (_, answer) = cluster.query(&["query", filter, "--limit", "12", "--json"]).await?;
    ensure!(answer.envelope.complete && answer.envelope.count > 0, "the timeline is not complete");
    if !imported {
        outln!("\n   Which addresses tried to guess passwords?");
        let counted = ["stats", "--by", "ip_address", "--top", "3", "action:auth.login outcome:failure", "--table"];
        expect(cluster.run(&counted, true).await?.0, Exit::Complete)?;
        outln!("\n   Which forwarding rules were not confirmed by a second person?");
        expect(cluster.run(&["report", "four-eyes"], true).await?.0, Exit::Complete)?;
        let (_, text) = cluster.run(&["report", "four-eyes", "--format", "json"], false).await?;
        ensure!(
            text.contains("2 actions WITHOUT a second person"),
            "the four-eyes report does not list 2 actions without a second person"
        );
    }
    Ok(())
}

async fn show_tampering(cluster: &DemoCluster) -> anyhow::Result<()> {
    let node = &cluster.nodes()[1];
    let edit = tamper::edit(&node.database())?;
    step(4, &format!("Tampering: an attacker with the database file of {}, but without its key, edits a row", node.id));
    outln!("   row {}: {:?} becomes {:?}", edit.seq, edit.before, edit.after);
    let filter = format!("node:{}", node.id);
    let (status, _) =
        cluster.run(&["query", &filter, &format!("seq:{}", edit.seq), "--axis", "occurred", "--table"], true).await?;
    expect(status, Exit::Violation)?;
    let (_, answer) = cluster.query(&["query", &filter, &format!("seq:{}", edit.seq), "--json"]).await?;
    let caught = answer.violations.iter().any(|place| place == &format!("{}/{}", node.id, edit.seq));
    ensure!(caught, "the edited row is not reported: {:?}", answer.violations);
    outln!("\n   The full check on the node itself finds it too:");
    let config = node.config();
    let (status, _) = cluster.run(&["node", "verify", "--config", &config.display().to_string()], true).await?;
    expect(status, Exit::Violation)?;
    edit.undo(&node.database())?;
    let (status, _) = cluster.run(&["node", "verify", "--config", &config.display().to_string()], false).await?;
    expect(status, Exit::Complete)?;
    outln!(
        "   The row is restored and every signature matches again, but the alarm stays until an operator clears it:"
    );
    let generation = history::wait_for(cluster, &node.id, "row_invalid").await?;
    expect(cluster.run(&["nodes", "--table"], true).await?.0, Exit::Violation)?;
    let reason = "the row was restored";
    let accept = ["nodes", "accept", &node.id, "--new-generation", &generation, "--reason", reason];
    expect(cluster.run(&accept, false).await?.0, Exit::Complete)?;
    history::wait_for(cluster, &node.id, "ok").await?;
    outln!("   (an operator cleared it with a reason, which is recorded as an entry)");
    Ok(())
}

async fn show_missing_node(cluster: &mut DemoCluster) -> anyhow::Result<()> {
    step(5, "kill -9 on mx3: the other nodes answer, and the answer names the missing one");
    cluster.kill(2).await?;
    let asked = Instant::now();
    let (status, _) = cluster
        .run(&["query", "category:security,auth", "--axis", "occurred", "--limit", "5", "--table"], true)
        .await?;
    let took = asked.elapsed();
    expect(status, Exit::Incomplete)?;
    let (_, answer) = cluster.query(&["query", "--limit", "5", "--json"]).await?;
    let named: Vec<&str> =
        answer.envelope.nodes.iter().filter(|n| n.status != Status::Ok).map(|n| n.node_id.as_str()).collect();
    ensure!(named == ["mx3"], "the missing nodes are {named:?}, not mx3");
    outln!("   (the command took {} ms)", took.as_millis());

    step(6, "mx3 restarts: the answer is complete again");
    cluster.restart(2).await?;
    let deadline = Instant::now() + RETURN_TIMEOUT;
    loop {
        let (status, answer) = cluster.query(&["query", "--limit", "5", "--json"]).await?;
        if status.code() == Some(Exit::Complete as i32) && answer.envelope.complete {
            break;
        }
        ensure!(Instant::now() < deadline, "mx3 did not answer again in time");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (status, _) = cluster.run(&["query", "node:mx3 category:log", "--limit", "5", "--table"], true).await?;
    expect(status, Exit::Complete)?;
    let (status, _) = cluster.run(&["verify"], false).await?;
    expect(status, Exit::Complete)?;
    outln!("   (`piperoll verify` read every row of every node: all signatures match)");
    Ok(())
}

async fn print_login_link(cluster: &DemoCluster, imported: bool) -> anyhow::Result<()> {
    let (status, address) = cluster.run(&["browse"], false).await?;
    expect(status, Exit::Complete)?;
    paintln!("\n{}The cluster keeps running until Ctrl-C. In a browser:{}", paint::BOLD, paint::PLAIN);
    // The entries were recorded within seconds but occurred over a day, so the page opens with the times of occurrence.
    let day =
        if imported { String::new() } else { format!("%26filter%3D-category:audit%2520occurred:{}", scenario::DAY) };
    let opened = format!("/sign-in?back=%2F%3Faxis%3Doccurred{day}#");
    outln!("   {}", address.trim().replacen("/sign-in#", &opened, 1));
    outln!(
        "   (signs you in once, within five minutes; `piperoll browse` prints another. Your browser does not trust this"
    );
    outln!("   cluster's CA and shows a warning: continue, or make it trust {})", cluster.ca().display());
    paintln!("\n{}In another terminal:{}", paint::BOLD, paint::PLAIN);
    outln!("   export PIPEROLL_URL={}", cluster.url());
    outln!("   export PIPEROLL_CA={}", cluster.ca().display());
    outln!("   export PIPEROLL_TOKEN={}", cluster.token());
    outln!("   piperoll query 'ip:203.0.113.0/24' --limit 20");
    outln!("   piperoll tail -f");
    outln!("   piperoll stats --by ip_address 'action:auth.login outcome:failure'");
    outln!("   piperoll report brute-force");
    outln!("   piperoll nodes");
    outln!(
        "   curl --cacert $PIPEROLL_CA -H \"Authorization: Bearer $PIPEROLL_TOKEN\" \"$PIPEROLL_URL/api/v1/audit-log?user=m.keller&limit=3\""
    );
    Ok(())
}
