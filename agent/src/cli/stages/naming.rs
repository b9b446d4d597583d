//! Lines that wait a moment for the name of a pod which has just started.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    attribution::Attributor,
    diagnosis::Diagnosed,
    event::{
        Age, Endpoint, Event,
        address::{Scope, scope},
        party::{Backend, Owner},
    },
};

/// As many as a storm makes in the longest wait at a rate that nobody reads; the next are written without waiting.
const MOST_WAITING: usize = 4096;
/// How often it is looked whether a name has come.
const LOOK: Duration = Duration::from_millis(20);

/// The lines that wait. One that waits is overtaken by those that need not.
pub struct Naming {
    longest: Duration,
    waiting: VecDeque<(Instant, Diagnosed)>,
    looked: Instant,
}

impl Naming {
    /// Lets each line wait for `longest` at most.
    pub fn new(longest: Duration) -> Self {
        Self { longest, waiting: VecDeque::new(), looked: Instant::now() }
    }

    /// Appends the line to `out`, unless it is worth waiting.
    pub fn take(&mut self, mut line: Diagnosed, attributor: &mut Attributor, out: &mut Vec<Diagnosed>) {
        let is_room = self.waiting.len() < MOST_WAITING && !self.longest.is_zero();
        if is_complete(&mut line, attributor) || !is_room {
            out.push(line);
        } else {
            self.waiting.push_back((Instant::now() + self.longest, line));
        }
    }

    /// Appends to `out` what has its names by now, or has waited long enough.
    pub fn expire(&mut self, attributor: &mut Attributor, out: &mut Vec<Diagnosed>) {
        let now = Instant::now();
        if self.waiting.is_empty() || now.saturating_duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        for (deadline, mut line) in std::mem::take(&mut self.waiting) {
            if is_complete(&mut line, attributor) {
                out.push(line);
            } else if deadline <= now {
                attributor.give_up(&line.owner);
                let others = line.chain.iter().flat_map(|link| [&link.local.owner, &link.peer.owner]);
                for owner in others.chain(line.other.as_ref().map(|other| &other.owner)) {
                    attributor.give_up(owner);
                }
                out.push(line);
            } else {
                self.waiting.push_back((deadline, line));
            }
        }
    }

    /// Appends everything that still waits, with the names there are.
    pub fn finish(&mut self, attributor: &mut Attributor, out: &mut Vec<Diagnosed>) {
        out.extend(self.waiting.drain(..).map(|(_, mut line)| {
            is_complete(&mut line, attributor);
            line
        }));
    }

    /// How long to wait for other work before it is time to look again.
    pub fn pause(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(LOOK)
    }
}

/// Names all ends as far as possible; whether nothing is missing that may come.
fn is_complete(line: &mut Diagnosed, attributor: &mut Attributor) -> bool {
    let mut complete = attributor.complete(&mut line.owner);
    let backend = line.event.backend.map(|backend| Box::new(named(backend, &line.event, attributor)));
    match &mut line.other {
        Some(other) => complete &= attributor.complete(&mut other.owner),
        None => line.peer = whoever_has(line.event.peer, line.event.time, line.event.age, attributor),
    }
    line.peer.backend = backend;
    for link in &mut line.chain {
        complete &= attributor.complete(&mut link.local.owner);
        if link.peer.netns.is_some() {
            complete &= attributor.complete(&mut link.peer.owner);
        } else {
            link.peer.owner = whoever_has(link.peer.endpoint, link.time, link.age, attributor);
        }
    }
    complete
}

/// Whoever has the peer's address of a connection of this age. On loopback everybody has it.
fn whoever_has(peer: Endpoint, time: Timestamp, age: Option<Age>, attributor: &Attributor) -> Owner {
    if scope(peer.ip) == Scope::Loopback {
        return Owner::default();
    }
    attributor.peer(peer.ip, peer.port, began(time, age))
}

/// The endpoint behind the peer's address, and whose it is.
fn named(endpoint: SocketAddr, event: &Event, attributor: &Attributor) -> Backend {
    let (ip, port) = (endpoint.ip(), endpoint.port());
    let Owner { pod, workload, node, .. } = attributor.peer(ip, Some(port), began(event.time, event.age));
    Backend { ip: ip.to_string(), port, pod, workload, node }
}

fn began(time: Timestamp, age: Option<Age>) -> Option<Timestamp> {
    let age = age.map(|age| jiff::SignedDuration::from_micros((age.millis.0 * 1000.0) as i64))?;
    time.checked_sub(age).ok()
}
