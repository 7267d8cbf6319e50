//! Follows the lines that programs append to a file, across rotations of the file.
//!
//! A file is identified by the content that was read from it, not by its name, device or inode: names change when files are
//! rotated, inodes are reused, devices get other numbers at every boot, a file that was truncated in place keeps all three, and
//! many programs begin every file with the same line. So a position is an offset with the digest of everything before it, and
//! positions are stored for the newest files that had the name. In every poll, each file of the family (`family.rs`) is either
//! matched with a stored position or treated as a new file. It therefore does not matter how often, when and how files were
//! rotated, and lines that are appended late to a rotated file are read as well.

mod content;
mod family;
mod follower;
mod known;
mod seen;
#[cfg(test)]
mod tests;

pub use content::unpacked;
pub(super) use follower::{FileConfig, follow};
