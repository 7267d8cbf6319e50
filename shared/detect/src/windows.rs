//! Counts recent events in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};

/// Maximum number of keys in one half of a memory. When the young half is full, it becomes the old half and the previous old half
/// is forgotten, so at most twice this number of keys is remembered, at about 100 bytes each.
const KEYS_MAX: usize = 100_000;

/// Maximum number of event times in one half of a rule's memory, 8 bytes each. A high threshold reduces the number of keys.
const TIMES_MAX: usize = 4_000_000;
const KEYS_MIN: usize = 1_000;

/// Key in its stored form: 64 bits of a hash that no outsider can predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

/// Values by key. The keys that have gone without an update for the longest time are forgotten first.
#[derive(Debug)]
pub(super) struct Memory<V> {
    keys_max: usize,
    hasher: RandomState,
    young: HashMap<Key, V>,
    old: HashMap<Key, V>,
}

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self { keys_max: KEYS_MAX, hasher: RandomState::new(), young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V> Memory<V> {
    pub(super) fn key(&self, of: impl Hash) -> Key {
        Key(self.hasher.hash_one(of))
    }

    pub(super) fn get(&self, key: Key) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    /// Returns the value of a key, creating it if there is none.
    pub(super) fn entry(&mut self, key: Key, new: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(new);
            if self.young.len() >= self.keys_max {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(key, value);
        }
        self.young.entry(key).or_insert_with(|| unreachable!("inserted just now"))
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}

/// Event times of one key within one time slice, in ascending order. A slice is as long as the window.
type Times = Vec<i64>;

/// Counts events within a window that ends at the event being counted; times may arrive in any order.
#[derive(Debug)]
pub(super) struct Window {
    micros: i64,
    /// Maximum number of event times in a slice, enough to determine whether the threshold is reached.
    times_max: usize,
    slices: Memory<Times>,
}

/// One counted time, with the information that [`Window::take_back`] needs to undo it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    key: Key,
    time: i64,
    /// The time that was removed to make room for this one.
    evicted: Option<i64>,
}

impl Window {
    /// Creates a window of `micros` microseconds, whose counts are exact up to `enough`.
    pub(super) fn new(micros: i64, enough: usize) -> Self {
        let times_max = enough.saturating_add(1);
        let keys_max = (TIMES_MAX / times_max).clamp(KEYS_MIN, KEYS_MAX);
        Self { micros: micros.max(1), times_max, slices: Memory { keys_max, ..Memory::default() } }
    }

    /// Counts one event, and returns the number of events within the window that ends with it. The result is exact up to
    /// `enough`.
    pub(super) fn count(&mut self, of: impl Hash + Copy, time: i64) -> (usize, Counted) {
        let slice = time.div_euclid(self.micros);
        let (key, before) = (self.slices.key((of, slice)), self.slices.key((of, slice - 1)));
        let since = time.saturating_sub(self.micros);
        let within = |times: &Times| times.partition_point(|t| *t <= time) - times.partition_point(|t| *t <= since);
        let earlier = self.slices.get(before).map_or(0, within);
        let max = self.times_max;
        let times = self.slices.entry(key, Vec::new);
        let at = times.partition_point(|t| *t <= time);
        times.insert(at, time);
        let count = earlier + within(times);
        // If the slice is full, remove the oldest time, because later events are counted together with the newest times.
        let evicted = (times.len() > max).then(|| times.remove(0));
        (count, Counted { key, time, evicted })
    }

    /// Undoes one call of [`Self::count`].
    pub(super) fn take_back(&mut self, counted: Counted) {
        let times = self.slices.entry(counted.key, Vec::new);
        if let Some(evicted) = counted.evicted {
            times.insert(0, evicted);
        }
        if let Ok(at) = times.binary_search(&counted.time) {
            times.remove(at);
        }
        if times.is_empty() {
            self.slices.remove(counted.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_lies_in_the_window_in_any_order() {
        let mut window = Window::new(100, 5);
        assert_eq!(window.count("a", 1_000).0, 1);
        assert_eq!(window.count("a", 1_050).0, 2);
        assert_eq!(window.count("b", 1_050).0, 1);
        assert_eq!(window.count("a", 1_099).0, 3);
        assert_eq!(window.count("a", 1_101).0, 3, "the first one is out by now");
        assert_eq!(window.count("a", 500).0, 1, "an import from long ago is counted among its own");
        let (count, counted) = window.count("a", 1_102);
        assert_eq!(count, 4);
        window.take_back(counted);
        assert_eq!(window.count("a", 1_102).0, 4);
    }

    #[test]
    fn memory_stays_bounded() {
        let mut window = Window::new(100, 5);
        for time in 0..1_000 {
            window.count("a", 1_000 + time % 100);
        }
        assert!(window.slices.young.values().all(|times| times.len() <= 7));
        assert!(window.count("a", 1_099).0 >= 5);
        let mut memory: Memory<u8> = Memory::default();
        for n in 0..3 * KEYS_MAX {
            let key = memory.key(n);
            *memory.entry(key, || 0) = 1;
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * KEYS_MAX);
    }
}
