//! What is remembered of an event: that a connection of a process failed, or that the process ended one.
//!
//! With it goes what later tells whether the one can have led to the other: which thread, when, and what had gone over
//! the connection until then.

use jiff::Timestamp;

use crate::{
    diagnosis::code::Code,
    event::{Age, ConnectFailure, Endpoint, Event, Millis, Role, Socket, What, party::Owner},
};

/// One end of a connection at the moment of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What happened.
    pub what: What,
    /// When.
    pub time: Timestamp,
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Network namespace of this end.
    pub netns: Option<u32>,
    /// Who opened the connection, seen from this end.
    pub role: Role,
    /// The connection's age at the event.
    pub age: Option<Age>,
    /// Whose this end is.
    pub owner: Owner,
    /// Whose the other end is and its network namespace, if it was seen on this node.
    pub far: Option<(Owner, Option<u32>)>,
    /// The process (thread group) that the step is of.
    pub pid: u32,
    /// When the connection failed, if that was not the process's own doing, or if it gave up connecting: CLOCK_BOOTTIME,
    /// nanoseconds. What the process does next may be because of it.
    pub failed_ns: Option<u64>,
    /// When the process itself ended the connection, on the same clock. It may have done so because of another one.
    pub ended_ns: Option<u64>,
    /// Name of the connection, once it is known.
    pub connection: Option<String>,
    /// Why, as far as it was judged.
    pub cause: Option<Code>,
    pub(super) threads: Threads,
    pub(super) data: Data,
}

/// Which threads had to do with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Threads {
    /// The one that gave up or ended the connection just then.
    pub did: Option<u32>,
    /// The one that opened it or was the first to read from it.
    pub uses: Option<u32>,
    /// The one that is only known to have accepted it or to have had it open.
    pub holds: Option<u32>,
}

/// What had gone over a connection. Absent is unknown; moments are on CLOCK_BOOTTIME, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Data {
    /// When the connection began, or a moment at which it was there already.
    pub born_ns: Option<u64>,
    /// Whether its birth was seen.
    pub birth_seen: bool,
    /// When the peer's FIN came, if it came first.
    pub peer_fin_ns: Option<u64>,
    /// When data was last received, or the connection established.
    pub received_ns: Option<u64>,
    /// When data was last sent, or the connection established.
    pub sent_ns: Option<u64>,
    /// Payload bytes received.
    pub received: Option<u64>,
    /// Payload bytes sent, retransmissions included.
    pub sent: Option<u64>,
    /// Whether any of them may have been sent twice.
    pub resent: bool,
    /// Payload bytes received and not read.
    pub unread: u64,
    /// Payload bytes written and not sent.
    pub unsent: u64,
    /// By how much a stamp in ticks can be wrong.
    pub blur_ns: u64,
}

impl Step {
    /// What is to be remembered of an event; `None` if nothing comes of it and it comes of nothing.
    #[must_use]
    pub fn of(event: &Event, owner: &Owner) -> Option<Self> {
        let (ended_ns, closer) = ended(event).unzip();
        let pid = closer.map(|(pid, _)| pid).or(event.owner.map(|owner| owner.tgid))?;
        let failed_ns = failed(event).then_some(event.boot_ns);
        if failed_ns.is_none() && ended_ns.is_none() {
            return None;
        }
        let owner_thread = event.owner.filter(|owner| owner.tgid == pid).map(|owner| owner.tid);
        let (uses, holds) = match event.facts.owner_from {
            Some("connect" | "read") => (owner_thread, None),
            Some("accept" | "open") => (None, owner_thread),
            _ => (None, None),
        };
        Some(Self {
            what: event.what,
            time: event.time,
            local: event.local,
            peer: event.peer,
            netns: event.netns,
            role: event.role,
            age: event.age,
            owner: owner.clone(),
            far: None,
            pid,
            failed_ns,
            ended_ns,
            connection: None,
            cause: None,
            threads: Threads { did: closer.map(|(_, tid)| tid), uses, holds },
            data: data(event),
        })
    }

    /// Whether both are of one connection: of the same end, or of either.
    #[must_use]
    pub fn is_of_the_same_connection(&self, other: &Self) -> bool {
        let theirs = (other.local, other.peer);
        theirs == (self.local, self.peer) || theirs == (self.peer, self.local)
    }

    /// Whether this connect was begun after another one to the same address had failed.
    #[must_use]
    pub fn is_another_attempt_at(&self, earlier: &Self) -> bool {
        let are_connects = matches!((self.what, earlier.what), (What::ConnectFailed(_), What::ConnectFailed(_)));
        let began_later = self.data.born_ns.filter(|_| self.data.birth_seen) > earlier.failed_ns;
        are_connects && self.peer == earlier.peer && began_later
    }
}

/// A connection that failed under a process that still used it. Not one that waits to be accepted or was closed before:
/// the process does not learn of that.
fn failed(event: &Event) -> bool {
    let is_held = event.facts.has_file != Some(false);
    let exiting = event.facts.actor.as_ref().is_some_and(|actor| actor.exiting);
    match event.what {
        What::ConnectFailed(_) => !exiting,
        What::ResetReceived | What::TimedOut => is_held,
        // By keepalive, or by an administrator.
        What::Closed => false,
        What::ResetSent => {
            event.socket == Socket::Full
                && event.facts.segment.is_none()
                && event.facts.ended_before == Some(false)
                && is_held
        }
    }
}

/// When and by which thread a process ended the connection: with this reset, or with a FIN before the segment that this
/// reset answers. A process that exits ends all of them at once, and none because of another.
fn ended(event: &Event) -> Option<(u64, (u32, u32))> {
    let facts = &event.facts;
    let (ns, task) = match event.what {
        What::ConnectFailed(ConnectFailure::Abandoned) | What::Closed => (event.boot_ns, facts.actor.as_ref()?),
        What::ResetSent if event.socket == Socket::Full && facts.segment.is_none() => {
            let is_child_of_a_closed_listener =
                facts.has_file == Some(false) && facts.linger_ms.is_none() && facts.shutdown != Some("both");
            if facts.ended_before != Some(true) || is_child_of_a_closed_listener {
                return None;
            }
            // `tcp_send_active_reset` fires its tracepoint behind the sending. Whoever loses the processor in between has
            // reset before others reacted to it, however late the event.
            (facts.closed_ms_ago.map_or(event.boot_ns, |ago| before(event, ago)), facts.actor.as_ref()?)
        }
        What::ResetSent => {
            let fin = facts.first_fin.as_ref().filter(|fin| fin.by == "local")?;
            (before(event, fin.ms_ago), facts.closer.as_ref()?)
        }
        _ => return None,
    };
    (!task.exiting).then_some((ns, (task.pid, task.tid)))
}

fn data(event: &Event) -> Data {
    let (tcp, facts) = (&event.tcp, &event.facts);
    let fin = facts.first_fin.as_ref().filter(|fin| fin.by == "peer");
    Data {
        born_ns: event.age.map(|age| before(event, age.millis)),
        birth_seen: event.age.is_some_and(|age| !age.is_minimum),
        peer_fin_ns: fin.map(|fin| before(event, fin.ms_ago)),
        received_ns: event.idle.rx.map(|idle| before(event, idle)),
        sent_ns: event.idle.tx.map(|idle| before(event, idle)),
        received: tcp.bytes_received,
        sent: tcp.bytes_sent,
        resent: tcp.retransmits != Some(0),
        unread: tcp.unread_bytes.unwrap_or(0).into(),
        unsent: facts.unsent_bytes.unwrap_or(0).into(),
        blur_ns: 2 * nanoseconds(facts.tick_ms.unwrap_or(Millis(4.0))),
    }
}

/// The moment so long before an event.
fn before(event: &Event, ago: Millis) -> u64 {
    event.boot_ns.saturating_sub(nanoseconds(ago))
}

/// A duration in nanoseconds, of which it has the microseconds.
fn nanoseconds(millis: Millis) -> u64 {
    (millis.0 * 1000.0).round() as u64 * 1000
}
