//! A syslog listener on loopback, over UDP and over TCP with both framings (RFC 6587 section 3.4), for messages of RFC 5424 and
//! RFC 3164.
//!
//! While the log cannot be written, a TCP sender waits. A UDP sender cannot be slowed down: messages that arrive while the
//! queue is full are counted, as are those that the kernel drops, and the counts are recorded in the log.

mod drops;
mod framing;
mod listen;
mod message;

pub(super) use listen::{Listeners, read_messages};
pub(super) use message::{line_apart, take_apart};
