//! What `/proc` and sock_diag told of connections older than the agent, for records that come without a process.
//!
//! The kernel side cannot be given it: its table is keyed by addresses of sockets, which userspace never learns. Instead a
//! record carries its socket's cookie. Nothing is ever added, a connection leaves with its process, and a cookie is never
//! given out again: what is found here cannot be another connection's.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_common::{
    connection::{Task, owner_from},
    event::{Event, flag},
};

use super::{Open, stat};

/// How long what was read of a process is used again: one process's resets come in bursts.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often processes are looked at that no record asks for.
pub const SWEEP_PAUSE: Duration = Duration::from_secs(5);

/// Connections and their holders.
#[derive(Debug, Default)]
pub struct Seeds {
    proc_root: PathBuf,
    /// By cookie.
    connections: Vec<Open>,
    holders: Vec<Holder>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Holder {
    /// As it was last seen.
    process: Task,
    read: Option<Instant>,
    /// It had ended at the last sweep.
    ended: bool,
}

impl Seeds {
    /// Of `connections`, whose holders are indices into `processes`.
    pub(super) fn new(proc_root: PathBuf, mut connections: Vec<Open>, processes: Vec<Task>) -> Self {
        connections.sort_unstable_by_key(|connection| connection.cookie);
        connections.shrink_to_fit();
        let holders = processes.into_iter().map(|process| Holder { process, read: None, ended: false }).collect();
        Self { proc_root, connections, holders, swept: None }
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Names the process in a record for which no hook has seen one.
    pub fn complete(&mut self, record: &mut Event) {
        self.complete_at(record, Instant::now());
    }

    /// Forgets what belonged to processes that have ended, now and then.
    ///
    /// Who ends closes its connections, and is then seen by the hooks. What stays open was handed on to a process that
    /// nobody knows.
    pub fn sweep(&mut self) {
        self.sweep_at(Instant::now());
    }

    fn complete_at(&mut self, record: &mut Event, now: Instant) {
        let known = record.flags & flag::CONNECTION != 0 && record.connection.owner_from != owner_from::NONE;
        if known || record.flags & flag::FACTS == 0 || record.facts.cookie == 0 {
            return;
        }
        let Ok(index) = self.connections.binary_search_by_key(&record.facts.cookie, |open| open.cookie) else {
            return;
        };
        let Some(holder) = self.holders.get_mut(self.connections[index].holder as usize) else { return };
        if holder.read.is_none_or(|read| now.saturating_duration_since(read) >= READ_AGAIN_AFTER) {
            // Gone a moment after a reset is what became of whoever got it; gone for longer, see `sweep`.
            holder.look_again(&self.proc_root);
            holder.read = Some(now);
        }
        record.connection.owner = holder.process;
        record.connection.owner_from = owner_from::OPEN;
        record.flags |= flag::CONNECTION;
    }

    fn sweep_at(&mut self, now: Instant) {
        let due = self.swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP_PAUSE);
        if self.is_empty() || !due {
            return;
        }
        self.swept = Some(now);
        // Those that had ended by the last sweep, and not by this one: what these did at last may not have been read yet.
        let holders = &self.holders;
        self.connections.retain(|open| holders.get(open.holder as usize).is_some_and(|holder| !holder.ended));
        if self.is_empty() {
            *self = Self { swept: self.swept, ..Self::default() };
        }
        for holder in self.holders.iter_mut().filter(|holder| !holder.ended) {
            holder.ended = !holder.look_again(&self.proc_root);
        }
    }

    /// The pid of a connection's holder.
    #[cfg(test)]
    pub(super) fn holder(&mut self, cookie: u64) -> Option<u32> {
        let mut record = Event { flags: flag::FACTS, ..Event::default() };
        record.facts.cookie = cookie;
        self.complete(&mut record);
        (record.connection.owner.tgid != 0).then_some(record.connection.owner.tgid)
    }
}

impl Holder {
    /// Whether it still runs; its name is then the present one.
    fn look_again(&mut self, proc_root: &Path) -> bool {
        let same = |found: &stat::Stat| found.task.start_boottime_ns == self.process.start_boottime_ns;
        match stat::read(proc_root, self.process.tgid).filter(same) {
            Some(found) => {
                self.process.comm = found.task.comm;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const COOKIE: u64 = 4711;

    /// A `/proc` with one process, 300, that can be replaced.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fs::create_dir(fake.0.path().join("300")).unwrap();
            fake.write("java", 50);
            fake
        }

        fn write(&self, name: &str, start: u64) {
            let text = format!("300 ({name}) S 1 300 300 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0");
            fs::write(self.0.path().join("300/stat"), text).unwrap();
        }

        fn end(&self) {
            fs::remove_file(self.0.path().join("300/stat")).unwrap();
        }

        fn seeds(&self) -> Seeds {
            let connections = [COOKIE, 9].map(|cookie| Open { cookie, inode: 1, holder: 0 }).to_vec();
            let process = stat::read(self.0.path(), 300).unwrap().task;
            Seeds::new(self.0.path().to_owned(), connections, vec![process])
        }
    }

    fn record(cookie: u64) -> Event {
        let mut record = Event { flags: flag::FACTS | flag::CONNECTION, ..Event::default() };
        record.facts.cookie = cookie;
        record
    }

    #[test]
    fn a_record_without_a_process_gets_the_holder() {
        let fake = Fake::new();
        let mut seeds = fake.seeds();
        let mut record = record(COOKIE);
        seeds.complete(&mut record);
        assert_eq!((record.connection.owner.tgid, record.connection.owner_from), (300, owner_from::OPEN));
        assert_eq!(&record.connection.owner.comm[..5], b"java\0");
        // Not followed, for lack of room.
        let mut unfollowed = Event { flags: flag::FACTS, ..record };
        unfollowed.connection = agent_common::connection::Connection::NONE;
        seeds.complete(&mut unfollowed);
        assert_eq!((unfollowed.connection.owner.tgid, unfollowed.flags), (300, flag::FACTS | flag::CONNECTION));
    }

    #[test]
    fn what_a_hook_has_seen_stays() {
        let mut seeds = Fake::new().seeds();
        let mut seen = record(COOKIE);
        seen.connection.owner.tgid = 100;
        seen.connection.owner_from = owner_from::READ;
        seeds.complete(&mut seen);
        assert_eq!(seen.connection.owner.tgid, 100);
    }

    #[test]
    fn another_connection_is_nobodys() {
        let mut seeds = Fake::new().seeds();
        for mut other in [record(0), record(COOKIE + 1), Event { flags: 0, ..record(COOKIE) }] {
            let before = other;
            seeds.complete(&mut other);
            assert_eq!(other, before);
        }
    }

    #[test]
    fn a_process_goes_by_the_name_it_has_now() {
        let fake = Fake::new();
        let mut seeds = fake.seeds();
        let now = Instant::now();
        fake.write("jshell", 50);
        for (later, name) in [(Duration::ZERO, b"jshell\0"), (Duration::from_millis(900), b"jshell\0")] {
            let mut record = record(COOKIE);
            seeds.complete_at(&mut record, now + later);
            assert_eq!(&record.connection.owner.comm[..7], name);
            fake.write("other", 50);
        }
        let mut record = record(COOKIE);
        seeds.complete_at(&mut record, now + READ_AGAIN_AFTER);
        assert_eq!(&record.connection.owner.comm[..6], b"other\0");
    }

    #[test]
    fn whoever_ends_at_the_reset_is_still_named_and_forgotten_later() {
        let fake = Fake::new();
        let mut seeds = fake.seeds();
        let now = Instant::now();
        seeds.sweep_at(now);
        fake.end();
        let mut last = record(COOKIE);
        seeds.complete_at(&mut last, now);
        assert_eq!(last.connection.owner.tgid, 300);
        seeds.sweep_at(now + SWEEP_PAUSE / 2);
        assert_eq!(seeds.len(), 2);
        // The agent stood still as it ended, and has not read yet what it did at last.
        seeds.sweep_at(now + SWEEP_PAUSE);
        let mut unread = record(COOKIE);
        seeds.complete_at(&mut unread, now + SWEEP_PAUSE);
        assert_eq!(unread.connection.owner.tgid, 300);
        seeds.sweep_at(now + 2 * SWEEP_PAUSE);
        assert_eq!((seeds.len(), seeds.holders.len()), (0, 0));
        assert_eq!(seeds.holder(COOKIE), None);
    }

    #[test]
    fn a_pid_given_to_another_process_is_an_end() {
        let fake = Fake::new();
        let mut seeds = fake.seeds();
        fake.write("java", 51);
        let now = Instant::now();
        seeds.sweep_at(now);
        seeds.sweep_at(now + SWEEP_PAUSE);
        assert!(seeds.is_empty());
    }
}
