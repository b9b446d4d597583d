//! Facts that outlive the things they describe, in bounded memory.
//!
//! A reset is often the last thing heard of a process, a container or a pod, and
//! reaches us after its `/proc` entry or its cgroup is gone. So a fact stays for
//! a while after it was last confirmed, and the oldest give way when there are
//! too many.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long names stay known after the thing itself vanished. The kernel side
/// keeps closed connections for two minutes; a reset for one of them still has to
/// find its owner, with some time to spare for the way here.
pub(super) const KEEP_NAMES: Duration = Duration::from_secs(180);

/// A map whose entries fade when nobody confirms them.
pub(super) struct Remembered<K, V> {
    entries: HashMap<K, Entry<V>>,
    keep: Duration,
    most: usize,
}

struct Entry<V> {
    value: V,
    confirmed: Instant,
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    /// Keeps entries for `keep` after their last confirmation, and about `most` of them.
    pub(super) fn new(keep: Duration, most: usize) -> Self {
        Self { entries: HashMap::new(), keep, most }
    }

    /// Records that `key` has this value now.
    pub(super) fn confirm(&mut self, key: K, value: V, now: Instant) {
        let confirmed = now;
        self.entries.insert(key, Entry { value, confirmed });
        // An eighth of slack, so that a full map is not searched at every insertion.
        if self.entries.len() > self.most + self.most / 8 {
            self.forget(now);
        }
    }

    /// The value, however old: it stays true of a thing that has vanished.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value if it was confirmed less than `age` ago.
    pub(super) fn get_younger<Q>(&self, key: &Q, age: Duration, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entry = self.entries.get(key)?;
        (now.saturating_duration_since(entry.confirmed) < age).then_some(&entry.value)
    }

    /// Drops what has not been confirmed for too long, then the oldest if there
    /// are still too many. Called after everything that still exists was confirmed,
    /// so that a long pause between two rescans costs nothing that is alive.
    pub(super) fn forget(&mut self, now: Instant) {
        let keep = self.keep;
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.confirmed) < keep);
        let excess = self.entries.len().saturating_sub(self.most);
        if excess == 0 {
            return;
        }
        let mut times: Vec<Instant> = self.entries.values().map(|e| e.confirmed).collect();
        let (older, &mut limit, _) = times.select_nth_unstable(excess - 1);
        // Of those confirmed at that very instant only as many go as are needed:
        // one walk confirms thousands of cgroups at once.
        let mut ties = 1 + older.iter().filter(|time| **time == limit).count();
        self.entries.retain(|_, entry| {
            let tie_goes = entry.confirmed == limit && ties > 0;
            ties -= usize::from(tie_goes);
            entry.confirmed >= limit && !tie_goes
        });
    }

    /// How many entries are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(10);

    #[test]
    fn an_unconfirmed_entry_fades_and_a_confirmed_one_stays() {
        let start = Instant::now();
        let mut map = Remembered::new(KEEP, 8);
        map.confirm("stays", 1, start);
        map.confirm("fades", 2, start);

        map.confirm("stays", 1, start + KEEP);
        assert_eq!(map.get(&"fades"), Some(&2), "nothing goes before forget");
        map.forget(start + KEEP);

        assert_eq!(map.get(&"stays"), Some(&1));
        assert_eq!(map.get(&"fades"), None);
    }

    #[test]
    fn the_oldest_give_way_when_there_are_too_many() {
        let start = Instant::now();
        let mut map = Remembered::new(Duration::from_secs(3600), 16);
        for n in 0..1000_u64 {
            map.confirm(n, (), start + Duration::from_millis(n));
            assert!(map.len() <= 18);
        }
        assert!(map.get(&999).is_some());
        assert!(map.get(&0).is_none());
    }

    #[test]
    fn entries_of_the_same_instant_are_bounded_too() {
        let now = Instant::now();
        let mut map = Remembered::new(KEEP, 16);
        map.confirm(5000, (), now - Duration::from_secs(1));
        for n in 0..17 {
            map.confirm(n, (), now);
        }
        map.forget(now);
        assert_eq!(map.len(), 16);
        assert!(map.get(&5000).is_none(), "the older one goes first");
    }

    #[test]
    fn a_younger_value_can_be_asked_for() {
        let start = Instant::now();
        let mut map = Remembered::new(KEEP, 8);
        map.confirm((), 7, start);
        let second = Duration::from_secs(1);
        assert_eq!(map.get_younger(&(), second, start), Some(&7));
        assert_eq!(map.get_younger(&(), second, start + second), None);
    }
}
