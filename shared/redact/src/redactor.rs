//! Compiled names and patterns of secrets.

use regex::{Regex, RegexBuilder};

use super::mask::BadName;
use super::names::Names;
use super::texts::{Texts, context_names};

/// Memory limit of the compiled trigger pattern, which grows with custom names.
const TRIGGER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Finds secrets and masks them.
///
/// The time for an entry depends on its length, not on its structure: every value is read once, and every context reads a text
/// once. JSON that is nested deeper than [`JSON_DEPTH_MAX`](piperoll_format::limits::JSON_DEPTH_MAX), and the fourth level of
/// JSON text inside JSON text, is masked as a whole instead of being examined.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// Matches every entry that may contain a secret, and few others.
    pub(super) trigger: Regex,
    pub(super) names: Names,
    pub(super) texts: Texts,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[]).expect("an empty list of names is valid")
    }
}

impl Redactor {
    /// Compiles the built-in names and patterns together with the names `more`, in which `*` matches anything.
    ///
    /// # Errors
    /// Fails if one of the names would match everything, nothing, or a path.
    pub fn new(more: &[String]) -> Result<Self, BadName> {
        let names = Names::new(more)?;
        let bad = |_| BadName(more.join(", "));
        // A name may be spelled with escapes, so an entry with a backslash is always examined.
        let trigger = format!(r"(?i)\\|piperoll_secret|{}", Texts::worth(more));
        let trigger = RegexBuilder::new(&trigger).size_limit(TRIGGER_BYTES_MAX).build().map_err(bad)?;
        Ok(Self { trigger, names, texts: Texts::new(more).map_err(bad)? })
    }

    /// Returns a shared redactor without custom names, which is created on first use.
    pub fn shared() -> &'static Self {
        static SHARED: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(Redactor::default);
        &SHARED
    }

    /// Returns whether a value with this name is a secret.
    pub fn is_secret_name(&self, name: &str) -> bool {
        self.names.class(name).is_secret()
    }

    /// Returns the names of the contexts in which secrets are recognized.
    pub fn contexts() -> impl Iterator<Item = &'static str> {
        context_names()
    }
}
