//! The diagnosis stage: why.
//!
//! * [`code`]: the closed set of causes; [`cause`]: one answer, with its evidence;
//! * [`rules`]: what an event shows by itself; [`kernel_reason`]: what the kernel says against it;
//! * [`join`]: both ends of one connection on this node;
//! * [`ended`]: connections that were being reset when something else came for them;
//! * [`chain`]: what a process went through just before, which ties a proxy's two sides together;
//! * [`pitfalls`]: what misleads, and the tests that hold it;
//! * [`limits`]: idle limits learned from quiet closes; [`timeouts`]: those that products document.
//!
//! Each end of a reset waits up to [`join::PATIENCE_NS`] for the other, which may be on this node, too: the sender knows more,
//! and each names the other. Who certainly has a sender on this node waits for it up to [`join::CERTAIN_PATIENCE_NS`], and
//! until all has come. And what a process may do something about waits as long for that to happen as one end for the other.

pub mod cause;
pub mod chain;
pub mod code;
pub mod ended;
pub mod join;
pub mod kernel_reason;
pub mod limits;
pub mod pitfalls;
pub mod rules;
pub mod timeouts;

use std::collections::VecDeque;

use crate::event::{ConnectFailure, Event, What, link::Link, party::Owner};

use self::{
    cause::Cause,
    chain::{
        hold::{Held, Hold},
        links::links,
        recent::{Before, Recent, StepId},
    },
    code::Code,
    ended::RecentlyEnded,
    join::{End, Expired, Join, Pair, Seen, connection_id},
    limits::Limits,
    timeouts::Timeouts,
};

/// An event with its owner and its cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosed {
    /// What happened.
    pub event: Event,
    /// Whose it is.
    pub owner: Owner,
    /// Why.
    pub cause: Cause,
    /// The other end, if it is on this node and was seen as well.
    pub other: Option<Box<OtherEnd>>,
    /// Whoever has the peer's address, as far as that is known without having seen the other end.
    pub peer: Owner,
    /// See [`connection_id`].
    pub connection: Option<String>,
    /// What a proxy on this node did on its other side, before and after.
    pub chain: Vec<Link>,
}

/// The other end of a connection, as a line about this one tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherEnd {
    /// What happened there.
    pub event: Event,
    /// Whose it is.
    pub owner: Owner,
    /// Why, as that end's own line says it.
    pub code: Code,
}

impl OtherEnd {
    fn of(end: &End, code: Code) -> Box<Self> {
        Box::new(Self { event: end.event.clone(), owner: end.owner.clone(), code })
    }
}

/// What the end that sent a reset did, for judging the one that received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Why it did.
    pub cause: Cause,
    /// Its process, if known.
    pub process: Option<String>,
}

impl Sent {
    /// A reset that was sent for this cause from an end of this owner.
    #[must_use]
    pub fn new(cause: &Cause, owner: &Owner) -> Self {
        Self { cause: cause.clone(), process: owner.process.as_ref().map(|process| process.comm.clone()) }
    }
}

/// What the rules may ask beyond the event itself.
pub struct Context<'a> {
    /// The local process's name, if known.
    pub process: Option<&'a str>,
    /// What this process went through just before and ended the connection for.
    pub before: Option<Before<'a>>,
    /// Idle limits learned on this node.
    pub limits: &'a dyn Limits,
    /// Documented timeouts.
    pub timeouts: &'a Timeouts,
    /// The end that sent the reset is on this node, and this is what it did.
    pub sender: Option<&'a Sent>,
    /// The end that receives the reset which this one sent is on this node.
    pub receiver: Option<&'a Event>,
    /// Nobody on this node sent it, although the peer's address is this node's own.
    pub sender_missing: bool,
}

/// The other end of the connection, as far as it is on this node.
#[derive(Default)]
struct Other<'a> {
    sender: Option<&'a Sent>,
    receiver: Option<&'a Event>,
    missing: bool,
}

/// The stage.
pub struct Diagnosis {
    join: Join,
    recent: Recent,
    hold: Hold,
    ended: RecentlyEnded,
    /// Both ends of a reset for a connection that nobody knew, until it is certain that nobody was just ending it.
    unsure: VecDeque<Pair>,
    limits: Box<dyn Limits + Send>,
    timeouts: Timeouts,
}

impl Diagnosis {
    /// With idle limits learned by `limits` and documented `timeouts`, where these senders are `seen`.
    #[must_use]
    pub fn new(limits: Box<dyn Limits + Send>, timeouts: Timeouts, seen: Seen) -> Self {
        Self {
            join: Join::new(seen),
            recent: Recent::default(),
            hold: Hold::default(),
            ended: RecentlyEnded::default(),
            unsure: VecDeque::new(),
            limits,
            timeouts,
        }
    }

    /// Takes an event; each but a quiet close becomes a line in time.
    pub fn take(&mut self, event: Event, owner: Owner) {
        let step = self.recent.note(&event, &owner);
        let end = End { event, owner, cause: None, step };
        let pair = match end.event.what {
            What::ResetReceived | What::ConnectFailed(ConnectFailure::Refused) => self.join.received(end),
            What::ResetSent => {
                let cause = self.judge(&end, Other::default());
                self.learn(end.step, &cause, connection_id(&end.event).as_deref());
                self.ended.note(&end.event, Sent::new(&cause, &end.owner));
                self.join.sent(End { cause: Some(cause), ..end })
            }
            What::ConnectFailed(_) | What::TimedOut => {
                let alone = self.alone(end, false);
                self.hold.push(alone);
                None
            }
            // It is remembered, and that is all.
            What::Closed => None,
        };
        match pair {
            Some(pair) if pair.sender_is_told => {
                let late = self.late(pair);
                self.hold.push(late);
            }
            Some(pair) if self.is_unsure(&pair) => self.unsure.push_back(pair),
            Some(pair) => {
                let both = self.both(pair);
                self.hold.push(both);
            }
            None => {}
        }
    }

    /// Everything that happened before `until_ns` (CLOCK_BOOTTIME, nanoseconds) was taken, but for what was lost of it.
    pub fn complete(&mut self, until_ns: u64) {
        self.join.complete(until_ns);
    }

    /// Events that happened before `until_ns` (CLOCK_BOOTTIME, nanoseconds) were lost.
    pub fn lost(&mut self, until_ns: u64) {
        self.join.lost(until_ns);
    }

    /// Appends to `out` what has waited long enough at `boot_ns`.
    pub fn expire(&mut self, boot_ns: u64, out: &mut Vec<Diagnosed>) {
        while let Some(Expired { end, sender_missing }) = self.join.expired(boot_ns) {
            let alone = self.alone(end, sender_missing);
            self.hold.push(alone);
        }
        let patient = |pair: &Pair| boot_ns.saturating_sub(pair.sender.event.boot_ns) < join::PATIENCE_NS;
        while let Some(pair) = self.unsure.pop_front_if(|pair| !patient(pair)) {
            let both = self.both(pair);
            self.hold.push(both);
        }
        while let Some(held) = self.hold.due(boot_ns) {
            let held = self.judged_anew(held);
            let chain = links(&self.recent, &held.steps());
            out.extend(held.lines.into_iter().map(|(line, _)| Diagnosed { chain: chain.clone(), ..line }));
        }
    }

    /// Appends everything that still waits.
    pub fn finish(&mut self, out: &mut Vec<Diagnosed>) {
        while let Some(Expired { end, sender_missing }) = self.join.left() {
            let alone = self.alone(end, sender_missing);
            self.hold.push(alone);
        }
        self.expire(u64::MAX, out);
    }

    fn is_unsure(&self, pair: &Pair) -> bool {
        let unknown = pair.sender.cause.as_ref().is_some_and(|cause| cause.code == Code::ConnectionUnknown);
        unknown && self.ended.before(&pair.sender.event).is_none()
    }

    /// An end whose other end is elsewhere, or was not seen.
    fn alone(&mut self, end: End, sender_missing: bool) -> Held {
        let cause = match end.event.what {
            What::ResetSent if self.ended.before(&end.event).is_some() => ended::aftermath(&end.event),
            _ => self.judge(&end, Other { missing: sender_missing, ..Other::default() }),
        };
        let connection = connection_id(&end.event);
        self.learn(end.step, &cause, connection.as_deref());
        let because = self.because(end.step);
        let line = Diagnosed {
            event: end.event,
            owner: end.owner,
            cause,
            other: None,
            peer: Owner::default(),
            connection,
            chain: Vec::new(),
        };
        Held { lines: vec![(line, end.step)], because }
    }

    /// Both ends; the sender first, because the receiver mostly has its cause.
    fn both(&mut self, Pair { sender, receiver, .. }: Pair) -> Held {
        let ended = self.ended.before(&sender.event);
        let cause = match ended {
            Some(_) => ended::aftermath(&sender.event),
            None => self.judge(&sender, Other { receiver: Some(&receiver.event), ..Other::default() }),
        };
        let sent = ended.cloned().unwrap_or_else(|| Sent::new(&cause, &sender.owner));
        let received = self.judge(&receiver, Other { sender: Some(&sent), ..Other::default() });
        // Where addresses are translated the ends would find different names.
        let connection = connection_id(&sender.event);
        self.learn(sender.step, &cause, connection.as_deref());
        self.learn(receiver.step, &received, connection.as_deref());
        for (end, other) in [(&sender, &receiver), (&receiver, &sender)] {
            if let Some(step) = end.step {
                self.recent.learn_far_end(step, &other.owner, other.event.netns, other.step);
            }
        }
        let because = self.because(sender.step);
        let (near, far) = (OtherEnd::of(&sender, cause.code), OtherEnd::of(&receiver, received.code));
        let lines = [(sender, cause, far), (receiver, received, near)].map(|(end, cause, other)| {
            let (other, connection) = (Some(other), connection.clone());
            (
                Diagnosed {
                    event: end.event,
                    owner: end.owner,
                    cause,
                    other,
                    peer: Owner::default(),
                    connection,
                    chain: Vec::new(),
                },
                end.step,
            )
        });
        Held { lines: lines.into(), because }
    }

    /// The end that received what the other end's line has told of.
    fn late(&mut self, pair: Pair) -> Held {
        let step = pair.receiver.step;
        let mut lines = self.both(pair).lines;
        lines.retain(|(line, _)| line.event.what != What::ResetSent);
        Held { lines, because: self.because(step) }
    }

    /// Lines that have waited, judged once more if it turned out meanwhile what the connection was ended for.
    fn judged_anew(&mut self, held: Held) -> Held {
        let step = held.lines.first().and_then(|(_, step)| *step);
        // What was forgotten in a storm is not known any better than it was.
        match step.and_then(|step| self.recent.explanation(step)) {
            Some(known) if known != held.because => {}
            _ => return held,
        }
        let end =
            |(line, step): (Diagnosed, Option<StepId>)| End { event: line.event, owner: line.owner, cause: None, step };
        let mut ends = held.lines.into_iter().map(end);
        match (ends.next(), ends.next()) {
            (Some(sender), Some(receiver)) => self.both(Pair { sender, receiver, sender_is_told: false }),
            (Some(alone), None) => self.alone(alone, false),
            (None, _) => Held { lines: Vec::new(), because: None },
        }
    }

    fn because(&self, step: Option<StepId>) -> Option<StepId> {
        self.recent.explanation(step?).flatten()
    }

    /// What was found out about an event, for the lines it is linked with.
    fn learn(&mut self, step: Option<StepId>, cause: &Cause, connection: Option<&str>) {
        if let Some(step) = step {
            self.recent.learn(step, cause.code, connection);
        }
    }

    fn judge(&self, end: &End, other: Other<'_>) -> Cause {
        let context = Context {
            process: end.owner.process.as_ref().map(|process| process.comm.as_str()),
            before: end.step.and_then(|step| self.recent.before(step)),
            limits: self.limits.as_ref(),
            timeouts: &self.timeouts,
            sender: other.sender,
            receiver: other.receiver,
            sender_missing: other.missing,
        };
        rules::judge(&end.event, &context)
    }
}
