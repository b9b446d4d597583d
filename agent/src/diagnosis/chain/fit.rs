//! Whether the end of one connection of a process can have come of the failure of another one.
//!
//! Nothing in the kernel ties a proxy's two connections together. What speaks for it: the same thread did the one right
//! after the other failed; one connection was accepted and the other opened by the process. What speaks against it: other
//! threads, the wrong order, and data that cannot have gone from the one to the other.

use super::step::{Data, Step};
use crate::event::{Role, What};

/// How long after the failure, where the thread is the same. It takes a fraction of a millisecond, and many where the
/// machine is overloaded; but one event loop does one thing after another.
const SAME_THREAD_NS: u64 = 50_000_000;
/// The same where only the process is known to be.
const SAME_PROCESS_NS: u64 = 20_000_000;
/// The longest of these times.
pub const WINDOW_NS: u64 = SAME_THREAD_NS;
/// How long before: HAProxy closes its client first when its connect timeout has run out, and then the connecting socket.
pub const BEFOREHAND_NS: u64 = 5_000_000;
/// How long a proxy takes at most to pass on what it has read, if it waits for nobody.
const PASSING_NS: u64 = 200_000_000;

/// What speaks for two steps of one process belonging together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// One thread had to do with both; else the threads are not known, or connections wander between them.
    pub same_thread: bool,
    /// One connection was opened, the other accepted by the process; else that was not seen of one of them.
    pub both_roles: bool,
    /// As many bytes had gone over the one as over the other, both ways: a tunnel.
    pub same_bytes: bool,
    /// The connect began when the other connection was there already.
    pub in_order: bool,
    /// That was ended a moment before the connect was given up.
    pub beforehand: bool,
}

impl Fit {
    /// Whether all that can be known speaks for it.
    #[must_use]
    pub const fn is_strong(&self) -> bool {
        self.same_thread && self.both_roles && self.in_order && !self.beforehand
    }
}

/// Whether `second` can have been ended because `first` failed; `None` if not.
#[must_use]
pub fn fit(first: &Step, second: &Step) -> Option<Fit> {
    let (failed_ns, ended_ns) = (first.failed_ns?, second.ended_ns?);
    let both_roles = both_roles(first.role, second.role)?;
    if first.pid != second.pid || first.is_of_the_same_connection(second) || contradict(first, second, failed_ns) {
        return None;
    }
    let same_thread = same_thread(first, second)?;
    let in_time = match ended_ns.checked_sub(failed_ns) {
        Some(after_ns) => after_ns <= if same_thread { SAME_THREAD_NS } else { SAME_PROCESS_NS },
        // Both must have been done by that thread.
        None => first.threads.did == second.threads.did && failed_ns - ended_ns <= BEFOREHAND_NS,
    };
    in_time.then(|| Fit {
        same_thread,
        both_roles,
        same_bytes: same_bytes(&first.data, &second.data),
        in_order: !is_connect(first) || began_later(first, second),
        beforehand: ended_ns < failed_ns,
    })
}

const fn is_connect(step: &Step) -> bool {
    matches!(step.what, What::ConnectFailed(_))
}

/// Whether a connect was begun when the other connection was there already.
fn began_later(connect: &Step, other: &Step) -> bool {
    seen_birth(&connect.data).zip(other.data.born_ns).is_some_and(|(began_ns, born_ns)| began_ns >= born_ns)
}

/// Whether it is known that the process opened the one and accepted the other; `None` if it is known to be otherwise.
const fn both_roles(first: Role, second: Role) -> Option<bool> {
    match (first, second) {
        (Role::Client, Role::Server) | (Role::Server, Role::Client) => Some(true),
        (Role::Client, Role::Client) | (Role::Server, Role::Server) => None,
        _ => Some(false),
    }
}

/// Whether one thread had to do with both; `None` if each connection has a thread of its own.
///
/// Of a connection that failed in softirq the thread that uses it is the one that opened it or read first: true of event
/// loops (Envoy, nginx, Node.js). Where connections wander between threads (Go, thread pools) it says nothing, and shows
/// in a connection that is not ended by the thread that used it.
fn same_thread(first: &Step, second: &Step) -> Option<bool> {
    let ending = second.threads.did;
    let is_at_home = |step: &Step| step.threads.uses.is_some() && step.threads.uses == step.threads.did;
    if first.threads.did.is_some() {
        return if first.threads.did == ending {
            Some(true)
        } else if is_at_home(first) && is_at_home(second) {
            None
        } else {
            Some(false)
        };
    }
    let wanders = second.threads.uses.is_some() && !is_at_home(second);
    match (first.threads.uses, first.threads.holds) {
        (Some(uses), _) if Some(uses) == ending => Some(!wanders),
        (Some(_), _) if is_at_home(second) => None,
        (None, Some(holds)) if Some(holds) == ending => Some(!wanders),
        _ => Some(false),
    }
}

/// Whether times or bytes prove that the one has nothing to do with the other.
fn contradict(first: &Step, second: &Step, failed_ns: u64) -> bool {
    let (data, other) = (&first.data, &second.data);
    if seen_birth(other).is_some_and(|born_ns| born_ns > failed_ns) {
        return true;
    }
    // Its client left first, for instance because it was told of the failure: the close only answers that.
    if second.what == What::Closed && other.peer_fin_ns.is_some() {
        return true;
    }
    match first.what {
        // A proxy stops connecting for a client that has left, and not the other way round.
        What::ConnectFailed(_) => {
            other.peer_fin_ns.is_some_and(|left_ns| left_ns <= failed_ns) || was_at_rest(other, seen_birth(data))
        }
        _ => went_elsewhere(data, other, failed_ns),
    }
}

fn seen_birth(data: &Data) -> Option<u64> {
    data.born_ns.filter(|_| data.birth_seen)
}

/// Whether everything on a connection had been answered long before a connect began: nobody needed one for it.
fn was_at_rest(other: &Data, born_ns: Option<u64>) -> bool {
    let (Some(began_ns), Some(received_ns), Some(sent_ns)) = (born_ns, other.received_ns, other.sent_ns) else {
        return false;
    };
    let answered = other.sent.is_some_and(|sent| sent > 0) && sent_ns + other.blur_ns >= received_ns;
    let last_ns = received_ns.max(sent_ns);
    answered && other.unread == 0 && last_ns + PASSING_NS + other.blur_ns < began_ns
}

/// Whether what went last over the one connection went over the other in neither direction, although there was time and
/// nothing was in the way.
fn went_elsewhere(data: &Data, other: &Data, failed_ns: u64) -> bool {
    let (Some(received_ns), Some(sent_ns)) = (other.received_ns, other.sent_ns) else { return false };
    let used = other.received.is_some_and(|bytes| bytes > 0) || other.sent.is_some_and(|bytes| bytes > 0);
    let in_the_way = other.unread > 0 || other.unsent > 0 || data.unread > 0 || data.unsent > 0;
    let near_ns = PASSING_NS + data.blur_ns + other.blur_ns;
    if !used || in_the_way || received_ns.max(sent_ns) + near_ns >= failed_ns {
        return false;
    }
    // Of a direction in which nothing went, the stamp is that of the connection's beginning.
    let passed = |from: Option<u64>, at: u64, to: Option<u64>, then: Option<u64>| {
        from != Some(0) && to != Some(0) && then.is_none_or(|then| then.abs_diff(at) <= near_ns)
    };
    !passed(other.received, received_ns, data.sent, data.sent_ns)
        && !passed(other.sent, sent_ns, data.received, data.received_ns)
}

/// Whether as many bytes were read from each as were written to the other, and any at all.
fn same_bytes(one: &Data, other: &Data) -> bool {
    let read = |data: &Data| data.received.map(|received| received.saturating_sub(data.unread));
    let written = |data: &Data| data.sent.filter(|_| !data.resent).map(|sent| sent + data.unsent);
    let passed = |from: Option<u64>, to: Option<u64>| from.is_some() && from == to;
    passed(read(one), written(other)) && passed(read(other), written(one)) && read(one).max(read(other)) > Some(0)
}
