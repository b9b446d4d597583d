//! What one sink did with the lines it was given: lost, taken, delivered, kept. Its threads write it down, `lost` lines and
//! metrics read it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// How a request to a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has all of it.
    Delivered,
    /// The server has it, but refuses some of its lines for good.
    DeliveredInPart,
    /// The same is sent again.
    Retried,
    /// Sent again in smaller parts, or given up if it was one line.
    Split,
    /// The server wants nothing of this sink, as it is configured.
    Refused,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::DeliveredInPart, Self::Retried, Self::Split, Self::Refused];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::DeliveredInPart => "delivered_in_part",
            Self::Retried => "retried",
            Self::Split => "split",
            Self::Refused => "refused",
        }
    }
}

/// What waits in a sink's spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Lines that were not delivered yet.
    pub lines: u64,
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// So many bytes they may have.
    pub most_disk_bytes: u64,
    /// It is on the disk, not in memory only.
    pub is_on_disk: bool,
}

/// The account of one sink.
#[derive(Debug, Default)]
pub struct Account {
    losses: Mutex<BTreeMap<&'static str, u64>>,
    queued: AtomicU64,
    taken: AtomicU64,
    delivered: AtomicU64,
    requests: [AtomicU64; Outcome::ALL.len()],
    /// Milliseconds since 1970; 0: never.
    last_delivery: AtomicU64,
    is_failing: AtomicBool,
    waiting: Mutex<Option<Waiting>>,
}

impl Account {
    /// Counts lines lost for a cause that `lost` lines may name.
    pub fn lose(&self, cause: &'static str, count: u64) {
        *lock(&self.losses).entry(cause).or_default() += count;
    }

    /// The losses since the last call.
    pub fn take_losses(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut *lock(&self.losses))
    }

    /// A line went into the queue.
    pub fn queued(&self) {
        self.queued.fetch_add(1, Relaxed);
    }

    /// Lines were taken from the queue.
    pub fn took(&self, lines: u64) {
        self.taken.fetch_add(lines, Relaxed);
    }

    /// Lines are where they belong: the server, the file.
    pub fn delivered(&self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.delivered.fetch_add(lines, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_delivery.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A request ended.
    pub fn answered(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Relaxed);
    }

    /// The last try to deliver failed, or did not.
    pub fn fails(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Relaxed);
    }

    /// What is in the spool now.
    pub fn keeps(&self, waiting: Waiting) {
        *lock(&self.waiting) = Some(waiting);
    }

    /// Everything, for metrics.
    #[must_use]
    pub fn read(&self) -> Figures {
        let last = self.last_delivery.load(Relaxed);
        // Taken first: a line that is queued and taken in between must not make the difference negative.
        let taken = self.taken.load(Relaxed);
        Figures {
            in_queue: self.queued.load(Relaxed).saturating_sub(taken),
            delivered: self.delivered.load(Relaxed),
            requests: Outcome::ALL.map(|outcome| (outcome, self.requests[outcome as usize].load(Relaxed))),
            last_delivery_seconds: (last > 0).then_some(last as f64 / 1000.0),
            is_failing: self.is_failing.load(Relaxed),
            waiting: *lock(&self.waiting),
        }
    }
}

/// A reading of an [`Account`].
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Lines in the queue.
    pub in_queue: u64,
    /// Lines delivered.
    pub delivered: u64,
    /// Requests by how they ended.
    pub requests: [(Outcome, u64); Outcome::ALL.len()],
    /// When a line was delivered last, in seconds since 1970.
    pub last_delivery_seconds: Option<f64>,
    /// The last try failed.
    pub is_failing: bool,
    /// What is in the spool, if there is one.
    pub waiting: Option<Waiting>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_can_be_read() {
        let account = Account::default();
        assert_eq!((account.read().last_delivery_seconds, account.read().waiting), (None, None));
        (0..5).for_each(|_| account.queued());
        account.took(3);
        account.delivered(2);
        account.answered(Outcome::Retried);
        account.answered(Outcome::Delivered);
        account.answered(Outcome::Retried);
        account.fails(true);
        account.lose("sink_rejected", 1);
        account.lose("sink_rejected", 2);
        let figures = account.read();
        assert_eq!((figures.in_queue, figures.delivered, figures.is_failing), (2, 2, true));
        let of = |wanted| figures.requests.iter().find(|(outcome, _)| *outcome == wanted).unwrap().1;
        assert_eq!((of(Outcome::Retried), of(Outcome::Delivered), of(Outcome::Split)), (2, 1, 0));
        assert!(figures.last_delivery_seconds.unwrap() > 1e9);
        assert_eq!(account.take_losses(), BTreeMap::from([("sink_rejected", 3)]));
        assert!(account.take_losses().is_empty());
    }
}
