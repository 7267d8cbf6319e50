//! Bit sets of the rows of one block.

/// A set of rows of one block; each row is represented by its position in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Set {
    words: Vec<u64>,
    rows: usize,
}

impl Set {
    pub(super) fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(64)], rows }
    }

    /// Number of rows in the block, including the rows that are not in the set.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the set of rows `from..rows`.
    pub(super) fn from(from: usize, rows: usize) -> Self {
        let mut set = Self::none(rows);
        set.insert_range(from, rows);
        set
    }

    /// Returns the set of rows whose item satisfies the predicate `fits`; `items` has one item per row.
    pub(super) fn of<T: Copy>(rows: usize, items: &[T], fits: impl Fn(T) -> bool) -> Self {
        let mut set = Self::none(rows);
        for (word, items) in set.words.iter_mut().zip(items[..rows.min(items.len())].chunks(64)) {
            *word = items.iter().enumerate().fold(0, |word, (bit, item)| word | u64::from(fits(*item)) << bit);
        }
        set
    }

    pub(super) fn insert(&mut self, row: usize) {
        if row < self.rows {
            self.words[row / 64] |= 1 << (row % 64);
        }
    }

    pub(super) fn insert_range(&mut self, from: usize, to: usize) {
        let to = to.min(self.rows);
        if from >= to {
            return;
        }
        let (first, last) = (from / 64, (to - 1) / 64);
        let (begin, end) = (u64::MAX << (from % 64), u64::MAX >> (63 - (to - 1) % 64));
        if first == last {
            self.words[first] |= begin & end;
            return;
        }
        self.words[first] |= begin;
        self.words[first + 1..last].fill(u64::MAX);
        self.words[last] |= end;
    }

    pub(in crate::store) fn contains(&self, row: usize) -> bool {
        row < self.rows && self.words[row / 64] >> (row % 64) & 1 == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(super) fn and(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
        self
    }

    pub(super) fn or(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self
    }

    /// Removes the rows that are in `other`.
    pub(super) fn but(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
        self
    }

    pub(super) fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns the number of rows of the set in `from..to`.
    pub(super) fn count(&self, from: usize, to: usize) -> u64 {
        let mut range = Self::none(self.rows);
        range.insert_range(from, to);
        self.words.iter().zip(&range.words).map(|(word, range)| u64::from((word & range).count_ones())).sum()
    }

    /// Calls `take` with the item of each row in the set; `items` has one item per row. Returns false if there are fewer items
    /// than rows.
    pub(super) fn pick<T: Copy>(&self, items: &[T], mut take: impl FnMut(T)) -> bool {
        for (word, items) in self.words.iter().zip(items.chunks(64)) {
            if *word == u64::MAX && items.len() == 64 {
                items.iter().for_each(|item| take(*item));
                continue;
            }
            let mut word = *word;
            while word != 0 {
                let Some(item) = items.get(word.trailing_zeros() as usize) else { return false };
                take(*item);
                word &= word - 1;
            }
        }
        items.len() >= self.rows
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// Returns the first row of the set at or after `from`.
    pub(in crate::store) fn next(&self, from: usize) -> Option<usize> {
        let mut at = from / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (from % 64));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some(at * 64 + word.trailing_zeros() as usize)
    }

    /// Returns the last row of the set before `to`.
    pub(in crate::store) fn previous(&self, to: usize) -> Option<usize> {
        let last = to.min(self.rows).checked_sub(1)?;
        let mut at = last / 64;
        let mut word = self.words[at] & (u64::MAX >> (63 - last % 64));
        while word == 0 {
            at = at.checked_sub(1)?;
            word = self.words[at];
        }
        Some(at * 64 + 63 - word.leading_zeros() as usize)
    }

    /// Returns the set in its stored form: one bit per row, lowest row first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.rows.div_ceil(8));
        bytes
    }

    pub(super) fn from_bytes(rows: usize, bytes: &[u8]) -> Self {
        let mut set = Self::none(rows);
        for (at, byte) in bytes.iter().enumerate().take(rows.div_ceil(8)) {
            set.words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        if !rows.is_multiple_of(64)
            && let Some(last) = set.words.last_mut()
        {
            *last &= u64::MAX >> (64 - rows % 64);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares the operations of `Set` with those of a set of numbers.
        #[test]
        fn is_a_set(
            rows in 1usize..300,
            one in prop::collection::btree_set(0usize..300, 0..60),
            two in prop::collection::btree_set(0usize..300, 0..60),
            at in 0usize..310,
        ) {
            let keep = |set: &BTreeSet<usize>| set.iter().copied().filter(|row| *row < rows).collect::<BTreeSet<_>>();
            let (one, two) = (keep(&one), keep(&two));
            let all: Vec<usize> = (0..rows).collect();
            let set = |rows_in: &BTreeSet<usize>| Set::of(rows, &all, |row| rows_in.contains(&row));
            let members = |set: &Set| set.iter().collect::<BTreeSet<_>>();
            let (a, b) = (set(&one), set(&two));
            prop_assert_eq!(members(&a), one.clone());
            prop_assert_eq!(a.len(), one.len() as u64);
            prop_assert_eq!(a.count(at / 2, at), one.range(at / 2..at).count() as u64);
            prop_assert_eq!(members(&a.clone().and(&b)), &one & &two);
            prop_assert_eq!(members(&a.clone().or(&b)), &one | &two);
            prop_assert_eq!(members(&a.clone().but(&b)), &one - &two);
            prop_assert_eq!(a.next(at), one.range(at..).next().copied());
            prop_assert_eq!(a.previous(at), one.range(..at).next_back().copied());
            let mut picked = Vec::new();
            prop_assert!(a.pick(&all, |row| picked.push(row)));
            prop_assert_eq!(picked, one.iter().copied().collect::<Vec<_>>());
            let too_few = a.pick(&all[1..], |_| {});
            prop_assert!(!too_few);
            prop_assert_eq!(&Set::from_bytes(rows, &a.to_bytes()), &a);
            prop_assert_eq!(members(&Set::from(at, rows)), (at..rows).collect::<BTreeSet<_>>());
            let mut range = a.clone();
            range.insert_range(at / 2, at);
            prop_assert_eq!(members(&range), (at / 2..at.min(rows)).chain(one).collect::<BTreeSet<_>>());
        }
    }
}
