//! Which endpoint stands behind the address that a client asked for.
//!
//! Where kube-proxy translates addresses, a pod's socket has the Service's address for its peer, and only the kernel's
//! connection tracking in the host's network namespace knows the endpoint. It forgets a connection soon after its end
//! (`nf_conntrack_tcp_timeout_close`, 10 s), so it is asked at once.
//!
//! A thread of its own asks, because that can wait for a lock: whoever deletes or lists many connections holds it. Nobody
//! waits longer than [`PATIENCE`] for it, and while it is stuck nothing more is asked.

mod message;
mod socket;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::event::address::{Scope, scope};
use message::{Answer, Connection, Wrong};
use socket::Socket;
pub use socket::{PATIENCE, Place, Unable};

/// Connections asked about in a second: each costs the thread that writes the lines some tens of µs.
const MOST_A_SECOND: u32 = 500;
/// How long nobody tries again to open what could not be opened.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// How the connection tracking fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has tried yet.
    Opening,
    /// It is asked.
    Asked(Place),
    /// It cannot be asked.
    Unable(Unable, Place),
}

/// See the module.
pub struct Conntrack {
    tasks: SyncSender<Task>,
    answers: Receiver<Result<Answer, Wrong>>,
    state: Arc<Mutex<State>>,
    is_late: bool,
    tried: Instant,
    rate: Rate,
    left_out: u64,
}

/// What the thread does.
enum Task {
    Open,
    Ask(Connection),
}

impl Conntrack {
    /// Begins to open the connection tracking of a network namespace: the first that can be entered of those given as
    /// `/proc/PID/ns/net`, else our own. It is entered when this returns: that takes rights which the agent gives up later.
    ///
    /// # Errors
    ///
    /// If there can be no thread for that.
    pub fn start(namespaces: Vec<PathBuf>) -> Result<Self> {
        let state = Arc::new(Mutex::new(State::Opening));
        // One task at a time: it is done before the next, or given up.
        let (tasks, given) = sync_channel(1);
        let (told, answers) = sync_channel(1);
        let (entered, has_entered) = sync_channel(1);
        let shared = Arc::clone(&state);
        std::thread::Builder::new()
            .name("conntrack".to_owned())
            .spawn(move || {
                let place = socket::enter(&namespaces);
                // Whoever started this waits for it.
                let _told = entered.send(());
                work(&place, &shared, &given, &told);
            })
            .context("starting the thread that asks the connection tracking")?;
        has_entered.recv().context("the thread that asks the connection tracking ended at once")?;
        Ok(Self { tasks, answers, state, is_late: false, tried: Instant::now(), rate: Rate::default(), left_out: 0 })
    }

    /// How it fares.
    #[must_use]
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// How many connections nobody was asked about since the last time, or without a sensible answer in time.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// The endpoint behind `to`, if that is another, for a connection that `from` opened.
    pub fn endpoint(&mut self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let now = Instant::now();
        if !is_known_to_one(from, to) || !self.can_be_asked(now) {
            return None;
        }
        let answer =
            if self.is_still_late() || !self.rate.allows(now) { None } else { self.ask(Connection { from, to }) };
        if answer.is_none() {
            self.left_out += 1;
        }
        match answer? {
            Answer::Translated(endpoint) => Some(endpoint),
            Answer::Untranslated | Answer::NotTracked => None,
        }
    }

    fn ask(&mut self, connection: Connection) -> Option<Answer> {
        self.tasks.try_send(Task::Ask(connection)).ok()?;
        let answer = self.answers.recv_timeout(PATIENCE);
        self.is_late = matches!(answer, Err(RecvTimeoutError::Timeout));
        answer.ok()?.ok()
    }

    /// What comes after all is the answer to what was given up.
    fn is_still_late(&mut self) -> bool {
        self.is_late = self.is_late && matches!(self.answers.try_recv(), Err(TryRecvError::Empty));
        self.is_late
    }

    /// If not, it is tried again now and then: tracking may begin later than we.
    fn can_be_asked(&mut self, now: Instant) -> bool {
        let can = matches!(*lock(&self.state), State::Asked(_));
        if !can && now.saturating_duration_since(self.tried) >= TRY_AGAIN {
            self.tried = now;
            // A full queue means that it is being tried.
            let _full = self.tasks.try_send(Task::Open);
        }
        can
    }
}

/// The life of the thread.
fn work(place: &Place, state: &Mutex<State>, tasks: &Receiver<Task>, told: &SyncSender<Result<Answer, Wrong>>) {
    let open = || {
        let opened = Socket::open();
        *lock(state) = match &opened {
            Ok(_) => State::Asked(place.clone()),
            Err(unable) => State::Unable(unable.clone(), place.clone()),
        };
        opened.ok()
    };
    let mut socket = open();
    for task in tasks {
        match (task, &mut socket) {
            (Task::Ask(connection), Some(socket)) => {
                if told.send(socket.ask(connection)).is_err() {
                    return;
                }
            }
            (Task::Open, None) => socket = open(),
            // Nobody asks what is not open, nor opens what is.
            (Task::Ask(_), None) | (Task::Open, Some(_)) => {}
        }
    }
}

/// Every network namespace has these addresses, and the tracking of one says nothing about another's.
fn is_known_to_one(from: SocketAddr, to: SocketAddr) -> bool {
    let is_local = |scope| matches!(scope, Scope::Loopback | Scope::LinkLocal);
    from.is_ipv4() == to.is_ipv4() && !is_local(scope(from.ip())) && !is_local(scope(to.ip()))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with the lock")
}

/// At most so many in each second.
#[derive(Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
}

impl Rate {
    fn allows(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= MOST_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_every_namespace_has_is_not_asked_about() {
        let pod = address("10.244.1.5:40000");
        assert!(is_known_to_one(pod, address("10.96.0.10:80")));
        // Some providers give Services public addresses.
        assert!(is_known_to_one(pod, address("34.118.224.1:443")));
        assert!(!is_known_to_one(pod, address("169.254.169.254:80")));
        assert!(!is_known_to_one(pod, address("[fd00::1]:80")));
        assert!(!is_known_to_one(address("127.0.0.1:40000"), address("127.0.0.1:80")));
        assert!(!is_known_to_one(address("[fe80::1]:40000"), address("[fd00::1]:80")));
    }

    #[test]
    fn a_storm_is_bounded_by_the_second() {
        let (mut rate, now) = (Rate::default(), Instant::now());
        let allowed = (0..2 * MOST_A_SECOND).filter(|_| rate.allows(now)).count();
        assert_eq!(allowed, MOST_A_SECOND as usize);
        assert!(!rate.allows(now + Duration::from_millis(999)));
        assert!(rate.allows(now + Duration::from_secs(1)));
    }

    /// The thread's other end in the test's hands: the kernel cannot be made slow at will.
    fn by_hand() -> (Conntrack, Receiver<Task>, SyncSender<Result<Answer, Wrong>>) {
        let (tasks, given) = sync_channel(1);
        let (told, answers) = sync_channel(1);
        let state = Arc::new(Mutex::new(State::Asked(Place::Wanted(PathBuf::new()))));
        let (tried, rate) = (Instant::now(), Rate::default());
        (Conntrack { tasks, answers, state, is_late: false, tried, rate, left_out: 0 }, given, told)
    }

    #[test]
    fn a_slow_answer_is_not_taken_for_that_of_the_next() {
        let (mut conntrack, given, told) = by_hand();
        let (pod, service) = (address("10.244.1.5:40000"), address("10.96.0.10:80"));
        let began = Instant::now();
        assert_eq!(conntrack.endpoint(pod, service), None);
        assert!(began.elapsed() >= PATIENCE);
        // While it is stuck nobody waits.
        for _ in 0..100 {
            assert_eq!(conntrack.endpoint(pod, service), None);
        }
        assert!(began.elapsed() < 20 * PATIENCE, "{:?}", began.elapsed());
        assert_eq!(given.try_iter().count(), 1);
        assert_eq!(conntrack.take_left_out(), 101);

        told.send(Ok(Answer::Translated(address("10.244.2.8:80")))).unwrap();
        let right = address("10.244.2.9:80");
        let answering = std::thread::spawn(move || {
            let _question = given.recv().unwrap();
            told.send(Ok(Answer::Translated(right))).unwrap();
        });
        assert_eq!(conntrack.endpoint(pod, service), Some(right));
        assert_eq!(conntrack.take_left_out(), 0);
        answering.join().unwrap();
    }

    #[test]
    fn an_answer_without_sense_is_counted() {
        let (mut conntrack, _given, told) = by_hand();
        told.send(Err(Wrong::Malformed("cut".to_owned()))).unwrap();
        assert_eq!(conntrack.endpoint(address("10.244.1.5:40000"), address("10.96.0.10:80")), None);
        assert_eq!(conntrack.take_left_out(), 1);
    }

    #[test]
    fn what_cannot_be_asked_is_tried_again_once_in_a_while() {
        let (mut conntrack, given, _told) = by_hand();
        *lock(&conntrack.state) = State::Unable(Unable::NoTracking, Place::Wanted(PathBuf::new()));
        let now = conntrack.tried;
        assert!(!conntrack.can_be_asked(now + TRY_AGAIN / 2));
        assert_eq!(given.try_iter().count(), 0);
        for _ in 0..3 {
            assert!(!conntrack.can_be_asked(now + TRY_AGAIN));
        }
        assert!(matches!(given.try_iter().collect::<Vec<_>>()[..], [Task::Open]));
        assert_eq!(conntrack.take_left_out(), 0, "there is nothing to leave out");
    }
}
