//! Names and patterns of secrets, compiled once.

use regex::{Regex, RegexBuilder};

use super::mask::BadName;
use super::names::Names;
use super::texts::{Texts, context_names};

/// Memory of the pattern that says whether an entry is worth a closer look; own names make it larger.
const TRIGGER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Finds secrets and masks them.
///
/// The time for an entry grows with its length and not with its shape: values are read once, each context reads a text once, and
/// nothing is read that is nested deeper than [`JSON_DEPTH_MAX`](piperoll_format::limits::JSON_DEPTH_MAX) or is the fourth JSON inside of another; that is masked whole.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// Matches every entry that could hold something, and few others.
    pub(super) trigger: Regex,
    pub(super) names: Names,
    pub(super) texts: Texts,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[]).expect("no name of its own")
    }
}

impl Redactor {
    /// The built-in names and looks, and `more` names, in which `*` matches anything.
    ///
    /// # Errors
    /// When one of them would match everything, nothing, or a path.
    pub fn new(more: &[String]) -> Result<Self, BadName> {
        let names = Names::new(more)?;
        let bad = |_| BadName(more.join(", "));
        // Behind an escape anything can hide.
        let trigger = format!(r"(?i)\\|piperoll_secret|{}", Texts::worth(more));
        let trigger = RegexBuilder::new(&trigger).size_limit(TRIGGER_BYTES_MAX).build().map_err(bad)?;
        Ok(Self { trigger, names, texts: Texts::new(more).map_err(bad)? })
    }

    /// The one without names of its own; made once.
    pub fn shared() -> &'static Self {
        static SHARED: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(Redactor::default);
        &SHARED
    }

    /// Whether a value under this name is a secret.
    pub fn is_secret_name(&self, name: &str) -> bool {
        self.names.class(name).is_secret()
    }

    /// The contexts in which secrets are known, by name.
    pub fn contexts() -> impl Iterator<Item = &'static str> {
        context_names()
    }
}
