//! A syslog listener on loopback: UDP, and TCP with both framings (RFC 6587 section 3.4), messages of RFC 5424 and RFC 3164.
//!
//! Over TCP a sender waits while the log cannot be written. A UDP sender cannot be slowed down: messages that arrive while the
//! queue is full are counted, as are those that the kernel drops, and the counts are recorded in the log.

mod drops;
mod framing;
mod listen;
mod message;

pub(super) use listen::{Listeners, messages};
pub(super) use message::{line_apart, take_apart};
