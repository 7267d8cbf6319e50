//! Foreign records into entries, by a small mapping in TOML.

mod map;
pub(crate) mod ordered;

pub(crate) use map::Mapping;
