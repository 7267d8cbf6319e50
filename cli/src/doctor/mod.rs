//! `piperoll doctor`: looks at everything on this machine that a daemon needs, and says what to do about what is wrong.

mod aggregator;
mod machine;
mod node;

use std::path::Path;

use piperoll_shared::log::terminal::escape;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::exit::Exit;
use crate::show::paint;

const NODE_CONFIG: &str = "/etc/piperoll/node.toml";
const AGGREGATOR_CONFIG: &str = "/etc/piperoll/aggregator.toml";

/// What was concluded about one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Nothing says whether it is right.
    Unknown,
    /// It works, and will not for long, or not as well as it should.
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    /// `node mx1`, `machine`, …
    about: String,
    what: &'static str,
    verdict: Verdict,
    words: String,
    /// What to do, unless it is all right.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Findings about one daemon.
struct Findings {
    about: String,
    all: Vec<Finding>,
}

impl Findings {
    fn new(about: impl Into<String>) -> Self {
        Self { about: about.into(), all: Vec::new() }
    }

    fn ok(&mut self, what: &'static str, words: impl Into<String>) {
        self.add(what, Verdict::Ok, words, None);
    }

    fn unknown(&mut self, what: &'static str, words: impl Into<String>) {
        self.add(what, Verdict::Unknown, words, None);
    }

    fn warn(&mut self, what: &'static str, words: impl Into<String>, advice: &str) {
        self.add(what, Verdict::Warning, words, Some(advice));
    }

    fn bad(&mut self, what: &'static str, words: impl Into<String>, advice: &str) {
        self.add(what, Verdict::Bad, words, Some(advice));
    }

    fn add(&mut self, what: &'static str, verdict: Verdict, words: impl Into<String>, advice: Option<&str>) {
        let (about, advice) = (self.about.clone(), advice.map(str::to_owned));
        self.all.push(Finding { about, what, verdict, words: words.into(), advice });
    }
}

pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let named = args.node.is_some() || args.aggregator.is_some();
    // Whatever is installed here, unless something is named.
    let installed = |path: &str| (!named && Path::new(path).exists()).then(|| path.into());
    let node = args.node.or_else(|| installed(NODE_CONFIG));
    let aggregator = args.aggregator.or_else(|| installed(AGGREGATOR_CONFIG));
    anyhow::ensure!(
        node.is_some() || aggregator.is_some(),
        "there is neither {NODE_CONFIG} nor {AGGREGATOR_CONFIG}; name a configuration with --node or --aggregator"
    );
    let mut findings = machine::look().await;
    if let Some(config) = &node {
        findings.extend(node::look(config).await);
    }
    if let Some(config) = &aggregator {
        findings.extend(aggregator::look(config).await);
    }
    for finding in &findings {
        match args.json {
            true => outln!("{}", serde_json::to_string(finding)?),
            false => print(finding),
        }
    }
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    if !args.json {
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (bad, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
        errln!("{} things were looked at: {bad} bad, {warnings} to watch", findings.len());
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
    paintln!("{color}{word:<5}{plain} {:<18} {:<13} {}", finding.about, finding.what, escape(&finding.words));
    if let Some(advice) = &finding.advice {
        paintln!("{:38} do: {}", "", escape(advice));
    }
}
