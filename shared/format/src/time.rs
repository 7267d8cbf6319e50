//! Time in the log: microseconds since 1970 UTC, written as RFC 3339 with six fraction digits.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z, within the years 0000 to 9999 so that the text form is always 27 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A time that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: {advice}")]
pub struct TimeError {
    /// Beginning of the text that could not be read.
    pub text: String,
    /// Advice on what to write instead.
    pub advice: &'static str,
}

/// Message that lists the accepted forms of a time.
pub const TIME_ADVICE: &str =
    "write RFC 3339 (2026-04-15T08:00:00Z), a date (2026-04-15), `now`, or an age such as 7d, 24h, 15m";

const TEXT_BYTES: usize = 27;
/// Maximum length of a duration as typed, and maximum number of digits in each of its numbers.
const DURATION_BYTES_MAX: usize = 64;
const DURATION_DIGITS_MAX: usize = 9;
const MICROS_MIN: i64 = -62_167_219_200_000_000;
const MICROS_MAX: i64 = 253_402_300_799_999_999;

impl Timestamp {
    pub const TEXT_BYTES: usize = TEXT_BYTES;
    pub const MIN: Self = Self(MICROS_MIN);
    pub const MAX: Self = Self(MICROS_MAX);

    /// Clamps to the years that RFC 3339 can write.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(MICROS_MIN, MICROS_MAX))
    }

    pub fn micros(self) -> i64 {
        self.0
    }

    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.0.saturating_sub(micros))
    }

    pub fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// Reads RFC 3339; fractions finer than microseconds are truncated.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        DateTime::parse_from_rfc3339(text)
            .map(|t| Self::from_micros(t.timestamp_micros()))
            .map_err(|_| TimeError { advice: TIME_ADVICE, text: text.to_owned() })
    }

    pub fn to_chrono(self) -> DateTime<Utc> {
        Utc.timestamp_micros(self.0).single().unwrap_or_default()
    }

    /// Text form `2026-04-15T08:00:00.000000Z`, always 27 bytes.
    pub fn to_text(self) -> String {
        self.to_chrono().to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// Reads exactly the form that [`Timestamp::to_text`] writes and nothing else. Used for signed bytes, in which each instant
    /// must have only one spelling.
    pub fn parse_exact(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_BYTES || text[26] != b'Z' {
            return None;
        }
        let digits = |from: usize, to: usize| -> Option<u32> {
            text[from..to].iter().try_fold(0u32, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u32::from(b - b'0')))
        };
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.')];
        if separators.iter().any(|(at, byte)| text[*at] != *byte) {
            return None;
        }
        let year = i32::try_from(digits(0, 4)?).ok()?;
        let date = NaiveDate::from_ymd_opt(year, digits(5, 7)?, digits(8, 10)?)?;
        let time = date.and_hms_micro_opt(digits(11, 13)?, digits(14, 16)?, digits(17, 19)?, digits(20, 26)?)?;
        Some(Self(time.and_utc().timestamp_micros()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

/// Parses a duration as users type it: `15m`, `1h 30m`. Long numbers are refused before parsing, because the sum of the largest
/// ones overflows inside the `humantime` parser.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    (text.len() <= DURATION_BYTES_MAX && digits <= DURATION_DIGITS_MAX)
        .then(|| humantime::parse_duration(text).ok())
        .flatten()
}

/// Formats a duration for people: `5 min`, `1 day`, `1 h 30 min`.
pub fn span(duration: Duration) -> String {
    let text = humantime::format_duration(duration).to_string();
    let words = text.split(' ').map(|word| {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = &word[digits.len()..];
        format!("{digits} {}", if unit == "m" { "min" } else { unit })
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_form_is_exact_and_sorts_like_time(a in MICROS_MIN..MICROS_MAX, b in MICROS_MIN..MICROS_MAX) {
            let (a, b) = (Timestamp::from_micros(a), Timestamp::from_micros(b));
            prop_assert_eq!(a.to_text().len(), TEXT_BYTES);
            prop_assert_eq!(Timestamp::parse_exact(a.to_text().as_bytes()), Some(a));
            prop_assert_eq!(Timestamp::parse_rfc3339(&a.to_text()).ok(), Some(a));
            prop_assert_eq!(a.cmp(&b), a.to_text().cmp(&b.to_text()));
        }
    }

    #[test]
    fn other_spellings_are_not_exact() {
        for text in [
            "2026-04-15T08:00:00.000000+00:00",
            "2026-04-15 08:00:00.000000Z",
            "2026-02-30T08:00:00.000000Z",
            "2026-04-15T08:00:60.000000Z",
            "2026-04-15t08:00:00.000000Z",
        ] {
            assert_eq!(Timestamp::parse_exact(text.as_bytes()), None, "{text}");
        }
    }
}
