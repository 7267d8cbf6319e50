//! Tests the pages in a real Chromium against a real cluster. Screenshots are kept in `target/screenshots`.
//!
//! Without Chromium and its driver, certutil or axe-core these tests report that they were skipped; where `CI` is set they fail.

#![allow(clippy::unwrap_used, reason = "tests")]

mod driver;
mod evidence;
mod injection;
mod live;
mod logs;
mod safety;
mod session;
mod timeline;
