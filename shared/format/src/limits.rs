//! Limits of the log format, each with its unit in its name.

/// Maximum size of the body and mac of one entry together. An entry bundle stores each entry with a 16-bit length prefix (C2SP
/// tlog-tiles, "Log Entries"), so a larger entry could never be proven.
pub const BODY_AND_MAC_BYTES_MAX: usize = 65_535;
/// Maximum length of the reason in a flag, which is text without control characters, quotes or backslashes.
pub const FLAG_REASON_BYTES_MAX: usize = 96;
/// Space reserved in every body for the flags of the node's detection rules: nine flags with the longest names and reasons. An
/// entry must not be refused because a rule flags it.
pub const FLAGS_BYTES_MAX: usize = 1_280;
/// HMAC-SHA256 output.
pub const MAC_BYTES: usize = 32;
/// Maximum number of entries in one append request; the command line splits longer input into several requests.
pub const BATCH_LINES_MAX: usize = 10_000;
/// Maximum size of one append request: larger than any valid entry, and small enough to buffer.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum nesting depth of objects and arrays, including the entry itself.
pub const JSON_DEPTH_MAX: usize = 32;
/// Maximum size of a caller's entry as sent, including white space.
pub const CALLER_ENTRY_BYTES_MAX: usize = 256 * 1024;

/// Maximum size, in bytes of UTF-8, of identifiers that users search for.
pub const IDENTIFIER_BYTES_MAX: usize = 256;
pub const ACTION_BYTES_MAX: usize = 128;
pub const SHORT_WORD_BYTES_MAX: usize = 64;
pub const ENTITY_BYTES_MAX: usize = 512;
pub const TARGET_BYTES_MAX: usize = 1_024;
/// Maximum length of the text form of a DNS name. Addresses have the same limit, because an address may be the name of a service.
pub const DOMAIN_BYTES_MAX: usize = 255;
pub const ADDRESS_BYTES_MAX: usize = 255;
pub const METHOD_BYTES_MAX: usize = 32;
pub const LONG_TEXT_BYTES_MAX: usize = 4_096;
pub const CHANGES_COUNT_MAX: usize = 1_000;
pub const REDACTED_COUNT_MAX: usize = 1_000;

pub const NODE_ID_BYTES_MAX: usize = 63;
pub const CLUSTER_BYTES_MAX: usize = 63;

/// A clock that steps back by at most this much is clamped; a larger step starts a new era.
pub const CLOCK_CLAMP_MICROS_MAX: i64 = 1_000_000;

pub const FILTER_BYTES_MAX: usize = 8_192;
pub const FILTER_TERMS_MAX: usize = 64;
/// Maximum number of parentheses and NOTs around one condition.
pub const FILTER_DEPTH_MAX: usize = 16;
pub const FILTER_VALUES_MAX: usize = 256;
/// Maximum number of substring searches in one filter; each of them scans every text of an entry.
pub const FILTER_TEXTS_MAX: usize = 128;
/// Maximum length of a cursor as text. A cursor holds one head per node; this limit is enough for 1,000 nodes.
pub const CURSOR_BYTES_MAX: usize = 128 * 1024;

/// Number of rows on one page: the default, and the maximum that a caller may request.
pub const PAGE_ROWS_DEFAULT: usize = 50;
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Default range of a query, in days.
pub const RANGE_DEFAULT_DAYS: i64 = 7;

/// Minimum retention: rows younger than this many days are never pruned, not even on an operator's request.
pub const RETENTION_DAYS_MIN: u32 = 90;
/// Number of days for which rows are kept if the configuration does not specify a period.
pub const RETENTION_DAYS_DEFAULT: u32 = 365;
/// Maximum retention: a hundred years. For longer periods, the setting is `forever`.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
