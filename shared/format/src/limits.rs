//! Every limit of the log format, with its unit in its name.

/// Body plus mac of one entry. An RFC 6962 tile bundle stores an entry behind a 16-bit length
/// (C2SP tlog-tiles, "Log Entries"), so a larger entry could never be proved.
pub const BODY_AND_MAC_BYTES_MAX: usize = 65_535;
/// Why an entry was flagged, in words; control characters, quotes and backslashes are not among them.
pub const FLAG_REASON_BYTES_MAX: usize = 96;
/// Set aside in every body for what the node's rules may have to say: eight flags with the longest names and reasons. What a
/// caller sends must not be refused because it stands out.
pub const FLAGS_BYTES_MAX: usize = 1_280;
/// HMAC-SHA256 output.
pub const MAC_BYTES: usize = 32;
/// Entries in one append request; the command line splits longer input.
pub const BATCH_LINES_MAX: usize = 10_000;
/// One append request as a whole. Larger than any legal batch line, small enough to buffer.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Objects and arrays inside each other, counting the entry itself.
pub const JSON_DEPTH_MAX: usize = 32;
/// A caller's entry as sent, white space included.
pub const CALLER_ENTRY_BYTES_MAX: usize = 256 * 1024;

/// Characters (bytes of UTF-8) in identifiers that people search for.
pub const IDENTIFIER_BYTES_MAX: usize = 256;
pub const ACTION_BYTES_MAX: usize = 128;
pub const SHORT_WORD_BYTES_MAX: usize = 64;
pub const ENTITY_BYTES_MAX: usize = 512;
pub const TARGET_BYTES_MAX: usize = 1_024;
/// Longest text form of a DNS name; also the room for an address that is a service's name.
pub const DOMAIN_BYTES_MAX: usize = 255;
pub const ADDRESS_BYTES_MAX: usize = 255;
pub const METHOD_BYTES_MAX: usize = 32;
pub const LONG_TEXT_BYTES_MAX: usize = 4_096;
pub const CHANGES_COUNT_MAX: usize = 1_000;
pub const REDACTED_COUNT_MAX: usize = 1_000;

pub const NODE_ID_BYTES_MAX: usize = 63;
pub const CLUSTER_BYTES_MAX: usize = 63;

/// A clock that steps back by at most this much is clamped; more starts a new era.
pub const CLOCK_CLAMP_MICROS_MAX: i64 = 1_000_000;

pub const FILTER_BYTES_MAX: usize = 8_192;
pub const FILTER_TERMS_MAX: usize = 64;
/// Brackets and NOTs around one condition.
pub const FILTER_DEPTH_MAX: usize = 16;
pub const FILTER_VALUES_MAX: usize = 256;
/// Texts that one filter looks for in others: each costs a look through every text of an entry.
pub const FILTER_TEXTS_MAX: usize = 128;
/// A cursor holds one head per node; 1,000 nodes fit.
pub const CURSOR_BYTES_MAX: usize = 128 * 1024;

/// Rows on one page: what a caller gets without asking, and the most it may ask for.
pub const PAGE_ROWS_DEFAULT: usize = 50;
pub const PAGE_ROWS_MAX: usize = 1_000;
/// The range of a query that names none.
pub const RANGE_DEFAULT_DAYS: i64 = 7;

/// Days that no prune goes below, whoever asks.
pub const RETENTION_DAYS_MIN: u32 = 90;
/// Days that rows are kept when the configuration does not say.
pub const RETENTION_DAYS_DEFAULT: u32 = 365;
/// A hundred years; more is `forever`.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
