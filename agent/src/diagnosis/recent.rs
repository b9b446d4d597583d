//! What processes went through just before: a connect that died or a reset received, which a proxy passes on to its
//! other side.
//!
//! Paired by thread where the thread is known, because one event loop handles both sides, else by process.

use std::collections::VecDeque;

use crate::event::{ConnectFailure, Event, Millis, What};

/// How long such an event can explain another in the same thread. Passing it on takes a fraction of a millisecond, and
/// many where the machine is overloaded; but one event loop does one thing after another.
const SAME_THREAD_NS: u64 = 50_000_000;
/// The same where only the process is known.
const SAME_PROCESS_NS: u64 = 20_000_000;
/// How many are kept: enough for the busiest proxy's last milliseconds.
const MOST: usize = 4096;

/// A connect that failed, or a reset received.
#[derive(Clone, Debug, PartialEq)]
pub struct Before {
    boot_ns: u64,
    pid: u32,
    /// Thread that gave up the connect; `None` for what came in softirq.
    tid: Option<u32>,
    /// The failed connect's or reset connection's age.
    pub age: Option<Millis>,
    /// Its peer, as text.
    pub peer: String,
    /// How the connect failed; `None` of a reset.
    pub connect: Option<ConnectFailure>,
    local: (std::net::IpAddr, Option<u16>),
}

impl Before {
    /// How long before `event` it was.
    #[must_use]
    pub fn ago(&self, event: &Event) -> Millis {
        Millis::from_ns(event.boot_ns.saturating_sub(self.boot_ns))
    }
}

/// The last such events, newest last.
#[derive(Debug, Default)]
pub struct Recent {
    events: VecDeque<Before>,
}

impl Recent {
    /// Notes an event that may explain a later one.
    pub fn note(&mut self, event: &Event) {
        let connect = match event.what {
            What::ConnectFailed(failure) => Some(failure),
            What::ResetReceived => None,
            What::ResetSent | What::TimedOut => return,
        };
        let Some(pid) = event.owner.map(|owner| owner.tgid) else { return };
        if self.events.len() == MOST {
            self.events.pop_front();
        }
        self.events.push_back(Before {
            boot_ns: event.boot_ns,
            pid,
            tid: event.facts.actor.as_ref().map(|actor| actor.tid),
            age: event.age.map(|age| age.millis),
            peer: event.peer.to_string(),
            connect,
            local: (event.local.ip, event.local.port),
        });
    }

    /// The connect that failed in the same thread (or process, if it ended in softirq) right before `event`.
    #[must_use]
    pub fn failed_connect(&self, event: &Event) -> Option<&Before> {
        self.before(event, true)
    }

    /// The reset that the same process received on another connection right before `event`.
    #[must_use]
    pub fn received_reset(&self, event: &Event) -> Option<&Before> {
        self.before(event, false)
    }

    fn before(&self, event: &Event, is_connect: bool) -> Option<&Before> {
        let actor = event.facts.actor.as_ref()?;
        let ago = |before: &Before| event.boot_ns.saturating_sub(before.boot_ns);
        self.events.iter().rev().take_while(|before| ago(before) <= SAME_THREAD_NS).find(|before| {
            before.connect.is_some() == is_connect
                    && before.boot_ns <= event.boot_ns
                    && before.pid == actor.pid
                    && match before.tid {
                        Some(tid) => tid == actor.tid,
                        None => ago(before) <= SAME_PROCESS_NS,
                    }
                    // Neither this connection nor its other end, which may be in the same process.
                    && before.local != (event.local.ip, event.local.port)
                    && before.local != (event.peer.ip, event.peer.port)
        })
    }
}
