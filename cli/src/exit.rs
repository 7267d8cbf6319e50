//! What the exit code says; the same for every reading command.

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Complete and verified.
    Complete = 0,
    /// Could not run.
    Failed = 1,
    /// Not asked in a way that can be answered.
    Usage = 2,
    /// An expected node did not answer in full.
    Incomplete = 3,
    /// A signature, a gap, or a file that is not ours. Outranks incomplete.
    Violation = 4,
    /// No node answered.
    Nothing = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
