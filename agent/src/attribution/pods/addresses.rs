//! What has which address, as objects come, change and go.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::attribution::remembered::KEEP_NAMES;

/// The cluster of the largest size Kubernetes speaks of has 150 000 pods; the rest is for those that have gone.
const MOST_OBJECTS: usize = 300_000;
/// How often those that have gone are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// Objects of one kind by their addresses. One that has gone is remembered while a late reset can need it, unless another
/// has its address by now.
#[derive(Debug)]
pub struct Addresses<T> {
    /// By the object's namespace and name, or whatever else it is unique by.
    objects: HashMap<String, Vec<IpAddr>>,
    by_address: HashMap<IpAddr, Vec<Holder<T>>>,
    swept: Instant,
}

#[derive(Debug)]
struct Holder<T> {
    key: String,
    value: T,
    gone: Option<Instant>,
}

impl<T> Default for Addresses<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), by_address: HashMap::new(), swept: Instant::now() }
    }
}

impl<T: Clone + PartialEq> Addresses<T> {
    /// The object has these addresses from now on, each with its value.
    pub fn put(&mut self, key: &str, held: Vec<(IpAddr, T)>) {
        self.sweep(Instant::now());
        if held.is_empty() || (self.objects.len() >= MOST_OBJECTS && !self.objects.contains_key(key)) {
            return self.remove(key);
        }
        let addresses: Vec<IpAddr> = held.iter().map(|(address, _)| *address).collect();
        let old = self.objects.insert(key.to_owned(), addresses.clone()).unwrap_or_default();
        for address in old.into_iter().filter(|address| !addresses.contains(address)) {
            self.mark_gone(key, address);
        }
        for (address, value) in held {
            let holders = self.by_address.entry(address).or_default();
            holders.retain(|holder| holder.gone.is_none() && holder.key != key);
            holders.push(Holder { key: key.to_owned(), value, gone: None });
        }
    }

    /// The object is no more.
    pub fn remove(&mut self, key: &str) {
        for address in self.objects.remove(key).unwrap_or_default() {
            self.mark_gone(key, address);
        }
    }

    /// Only these are left.
    pub fn keep_only(&mut self, is_left: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.objects.keys().filter(|key| !is_left(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// What has the address, or had it last. None if more than one has it: nobody is guessed.
    pub fn get(&self, address: IpAddr, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        let holders = self.by_address.get(&address)?;
        let mut meant = holders.iter().map(|holder| &holder.value).filter(|value| is_meant(value));
        let first = meant.next()?;
        meant.all(|other| other == first).then(|| first.clone())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    fn mark_gone(&mut self, key: &str, address: IpAddr) {
        for holder in self.by_address.get_mut(&address).into_iter().flatten().filter(|holder| holder.key == key) {
            holder.gone.get_or_insert_with(Instant::now);
        }
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        self.by_address.retain(|_, holders| {
            holders.retain(|holder| holder.gone.is_none_or(|gone| now.saturating_duration_since(gone) < KEEP_NAMES));
            !holders.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 1, 2, last])
    }

    fn get(addresses: &Addresses<&'static str>, last: u8) -> Option<&'static str> {
        addresses.get(address(last), |_| true)
    }

    #[test]
    fn an_address_that_is_given_out_again_is_the_new_ones() {
        let mut addresses = Addresses::default();
        addresses.put("a", vec![(address(1), "first")]);
        addresses.remove("a");
        assert_eq!(get(&addresses, 1), Some("first"), "a late reset may need it");
        addresses.put("b", vec![(address(1), "second")]);
        assert_eq!(get(&addresses, 1), Some("second"));
    }

    #[test]
    fn two_with_one_address_are_nobody() {
        let mut addresses = Addresses::default();
        addresses.put("a", vec![(address(1), "first")]);
        addresses.put("b", vec![(address(1), "second")]);
        assert_eq!(get(&addresses, 1), None);
        assert_eq!(addresses.get(address(1), |name| *name == "first"), Some("first"));
    }

    #[test]
    fn an_object_that_moved_has_its_new_address() {
        let mut addresses = Addresses::default();
        addresses.put("a", vec![(address(1), "first")]);
        addresses.put("a", vec![(address(2), "first")]);
        assert_eq!((get(&addresses, 1), get(&addresses, 2)), (Some("first"), Some("first")));
        addresses.sweep(Instant::now() + KEEP_NAMES + SWEEP);
        assert_eq!((get(&addresses, 1), get(&addresses, 2)), (None, Some("first")));
    }

    #[test]
    fn what_a_new_list_does_not_have_has_gone() {
        let mut addresses = Addresses::default();
        addresses.put("a", vec![(address(1), "first")]);
        addresses.put("b", vec![(address(2), "second")]);
        addresses.keep_only(|key| key == "b");
        assert_eq!(addresses.len(), 1);
        addresses.sweep(Instant::now() + KEEP_NAMES + SWEEP);
        assert_eq!((get(&addresses, 1), get(&addresses, 2)), (None, Some("second")));
    }
}
