//! Logs in memory, and a store that fails at a chosen operation.

#![allow(dead_code, unreachable_pub, reason = "not every test program uses every helper")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub mod faulty;
pub mod logs;
