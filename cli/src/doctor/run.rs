//! Runs the checks of `piperoll doctor` and prints their findings.

use std::path::Path;

use super::finding::{Finding, Verdict};
use super::{aggregator, machine, node};
use piperoll_format::terminal::escape;

use crate::args::DoctorArgs;
use crate::exit::Exit;
use crate::show::paint;

const NODE_CONFIG: &str = "/etc/piperoll/node.toml";
const AGGREGATOR_CONFIG: &str = "/etc/piperoll/aggregator.toml";

pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let named = args.node.is_some() || args.aggregator.is_some();
    // Check the installed configurations, unless a configuration is named on the command line.
    let installed = |path: &str| (!named && Path::new(path).exists()).then(|| path.into());
    let node = args.node.or_else(|| installed(NODE_CONFIG));
    let aggregator = args.aggregator.or_else(|| installed(AGGREGATOR_CONFIG));
    anyhow::ensure!(
        node.is_some() || aggregator.is_some(),
        "neither {NODE_CONFIG} nor {AGGREGATOR_CONFIG} exists; pass a configuration with --node or --aggregator"
    );
    let mut findings = machine::check().await;
    if let Some(config) = &node {
        findings.extend(node::check(config).await);
    }
    if let Some(config) = &aggregator {
        findings.extend(aggregator::check(config).await);
    }
    for finding in &findings {
        match args.json {
            true => outln!("{}", finding.to_json()?),
            false => print(finding),
        }
    }
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    if !args.json {
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (bad, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
        errln!("{} checks: {bad} failed, {warnings} warnings", findings.len());
    }
    Ok(if worst == Verdict::Bad { Exit::Failed } else { Exit::Complete })
}

fn print(finding: &Finding) {
    let (color, word) = match finding.verdict {
        Verdict::Ok => (paint::GREEN, "ok"),
        Verdict::Unknown => (paint::DIM, "?"),
        Verdict::Warning => (paint::YELLOW, "watch"),
        Verdict::Bad => (paint::RED, "BAD"),
    };
    let plain = paint::PLAIN;
    paintln!("{color}{word:<5}{plain} {:<18} {:<13} {}", finding.about, finding.what, escape(&finding.message));
    if let Some(advice) = &finding.advice {
        paintln!("{:38} do: {}", "", escape(advice));
    }
}
