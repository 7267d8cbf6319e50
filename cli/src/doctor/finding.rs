//! Findings of `piperoll doctor`, with advice.

use serde::Serialize;

/// Result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// The check could not determine whether there is a problem.
    Unknown,
    /// The subject works, but not as well as it should, or will stop working soon.
    Warning,
    Bad,
}

/// Result of one check, with its subject and advice.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// `node mx1`, `machine`, …
    pub(super) about: String,
    pub(super) what: &'static str,
    pub(super) verdict: Verdict,
    pub(super) message: String,
    /// Advice on what to do; `None` if there is no problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    /// Returns the finding as a line of `doctor --json`. For one release, `message` is also written under its former name,
    /// `words`.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_value(self)?;
        line["words"] = self.message.as_str().into();
        serde_json::to_string(&line)
    }
}

/// Findings about one daemon.
pub(super) struct Findings {
    pub(super) about: String,
    pub(super) all: Vec<Finding>,
}

impl Findings {
    pub(super) fn new(about: impl Into<String>) -> Self {
        Self { about: about.into(), all: Vec::new() }
    }

    pub(super) fn ok(&mut self, what: &'static str, message: impl Into<String>) {
        self.add(what, Verdict::Ok, message, None);
    }

    pub(super) fn unknown(&mut self, what: &'static str, message: impl Into<String>) {
        self.add(what, Verdict::Unknown, message, None);
    }

    pub(super) fn warn(&mut self, what: &'static str, message: impl Into<String>, advice: &str) {
        self.add(what, Verdict::Warning, message, Some(advice));
    }

    pub(super) fn bad(&mut self, what: &'static str, message: impl Into<String>, advice: &str) {
        self.add(what, Verdict::Bad, message, Some(advice));
    }

    fn add(&mut self, what: &'static str, verdict: Verdict, message: impl Into<String>, advice: Option<&str>) {
        let (about, advice) = (self.about.clone(), advice.map(str::to_owned));
        self.all.push(Finding { about, what, verdict, message: message.into(), advice });
    }
}
