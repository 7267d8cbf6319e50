//! Command-line arguments.

use std::time::Duration;

pub(crate) const USAGE: &str = "usage: campaign [--seed N] [--minutes M | --seconds S]";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
}

impl Args {
    /// Parses the arguments. The default seed is the current time in seconds; the campaign prints the seed, so every run can be
    /// repeated.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut args = Self { seed: clock.as_secs(), duration: Duration::from_secs(60) };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().ok_or_else(|| format!("{word} needs a number; {USAGE}"))?;
                value.parse::<u64>().map_err(|e| format!("{word} {value}: {e}; {USAGE}"))
            };
            match word.as_str() {
                "--seed" => args.seed = number()?,
                "--minutes" => args.duration = Duration::from_secs(number()?.saturating_mul(60)),
                "--seconds" => args.duration = Duration::from_secs(number()?),
                _ => return Err(format!("unknown argument {word}; {USAGE}")),
            }
        }
        Ok(args)
    }

    /// Returns the command that repeats this run.
    pub(crate) fn command(&self) -> String {
        let release = if cfg!(debug_assertions) { "" } else { "--release " };
        let seconds = self.duration.as_secs();
        format!("cargo run {release}-p piperoll-tests --bin campaign -- --seed {} --seconds {seconds}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Args, String> {
        Args::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments() {
        assert_eq!(parsed("--seed 7 --minutes 2"), Ok(Args { seed: 7, duration: Duration::from_secs(120) }));
        assert_eq!(parsed("--seed 7 --seconds 5").map(|args| args.duration), Ok(Duration::from_secs(5)));
        assert!(parsed("--seed").is_err() && parsed("--seed x").is_err() && parsed("--speed 1").is_err());
    }
}
