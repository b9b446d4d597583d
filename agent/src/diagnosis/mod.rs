//! The diagnosis stage: why.
//!
//! * [`code`]: the closed set of causes; [`cause`]: one answer, with its evidence;
//! * [`rules`]: what an event shows by itself; [`kernel_reason`]: what the kernel says against it;
//! * [`join`]: both ends of one connection on this node;
//! * [`ended`]: connections that were being reset when something else came for them;
//! * [`recent`]: what a process went through just before, which ties a proxy's two sides together;
//! * [`pitfalls`]: what misleads, and the tests that hold it;
//! * [`limits`]: idle limits learned from quiet closes; [`timeouts`]: those that products document.
//!
//! A connect that failed by itself and a timeout leave at once. Each end of a reset waits up to [`join::PATIENCE_NS`] for
//! the other, which may be on this node, too: the sender knows more, and each names the other.

pub mod cause;
pub mod code;
pub mod ended;
pub mod join;
pub mod kernel_reason;
pub mod limits;
pub mod pitfalls;
pub mod recent;
pub mod rules;
pub mod timeouts;

use std::collections::VecDeque;

use crate::event::{Event, What, party::Owner};

use self::{
    cause::Cause,
    code::Code,
    ended::RecentlyEnded,
    join::{End, Join, Pair, connection_id},
    limits::Limits,
    recent::Recent,
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
    /// See [`connection_id`].
    pub connection: Option<String>,
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
    fn of(diagnosed: &Diagnosed) -> Box<Self> {
        let Diagnosed { event, owner, cause, .. } = diagnosed;
        Box::new(Self { event: event.clone(), owner: owner.clone(), code: cause.code })
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
    /// The sender's side of a diagnosed reset.
    #[must_use]
    pub fn of(diagnosed: &Diagnosed) -> Self {
        let process = diagnosed.owner.process.as_ref().map(|process| process.comm.clone());
        Self { cause: diagnosed.cause.clone(), process }
    }
}

/// What the rules may ask beyond the event itself.
pub struct Context<'a> {
    /// The local process's name, if known.
    pub process: Option<&'a str>,
    /// What this process went through just before.
    pub recent: &'a Recent,
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
    ended: RecentlyEnded,
    /// Both ends of a reset for a connection that nobody knew, until it is certain that nobody was just ending it.
    unsure: VecDeque<Pair>,
    limits: Box<dyn Limits + Send>,
    timeouts: Timeouts,
    sees_every_sender: bool,
}

impl Diagnosis {
    /// With idle limits learned by `limits` and documented `timeouts`. `sees_every_sender` tells whether every RST that
    /// this node's sockets and closed ports send comes here: only then does a missing one mean something.
    #[must_use]
    pub fn new(limits: Box<dyn Limits + Send>, timeouts: Timeouts, sees_every_sender: bool) -> Self {
        Self {
            join: Join::default(),
            recent: Recent::default(),
            ended: RecentlyEnded::default(),
            unsure: VecDeque::new(),
            limits,
            timeouts,
            sees_every_sender,
        }
    }

    /// Takes an event; appends to `out` what is settled by it.
    pub fn take(&mut self, event: Event, owner: Owner, out: &mut Vec<Diagnosed>) {
        self.recent.note(&event);
        let pair = match event.what {
            What::ResetReceived | What::ConnectFailed(crate::event::ConnectFailure::Refused) => {
                self.join.received(End { event, owner, cause: None })
            }
            What::ResetSent => {
                let cause = self.judge(&event, &owner, Other::default());
                let diagnosed = Diagnosed { event, owner, cause, other: None, connection: None };
                self.ended.note(&diagnosed);
                let Diagnosed { event, owner, cause, .. } = diagnosed;
                self.join.sent(End { event, owner, cause: Some(cause) })
            }
            What::ConnectFailed(_) | What::TimedOut => {
                out.push(self.alone(End { event, owner, cause: None }, false));
                None
            }
        };
        match pair {
            Some(pair) if self.is_unsure(&pair) => self.unsure.push_back(pair),
            Some(pair) => out.extend(self.both(pair)),
            None => {}
        }
    }

    /// Appends to `out` what has waited long enough at `boot_ns`.
    pub fn expire(&mut self, boot_ns: u64, out: &mut Vec<Diagnosed>) {
        while let Some(end) = self.join.expired(boot_ns) {
            let missing =
                end.event.what != What::ResetSent && self.sees_every_sender && join::is_own_address(&end.event);
            out.push(self.alone(end, missing));
        }
        let patient = |pair: &Pair| boot_ns.saturating_sub(pair.sender.event.boot_ns) < join::PATIENCE_NS;
        while let Some(pair) = self.unsure.pop_front_if(|pair| !patient(pair)) {
            out.extend(self.both(pair));
        }
    }

    /// Appends everything that still waits.
    pub fn finish(&mut self, out: &mut Vec<Diagnosed>) {
        self.expire(u64::MAX, out);
    }

    fn is_unsure(&self, pair: &Pair) -> bool {
        let unknown = pair.sender.cause.as_ref().is_some_and(|cause| cause.code == Code::ConnectionUnknown);
        unknown && self.ended.before(&pair.sender.event).is_none()
    }

    /// An end whose other end is elsewhere, or was not seen.
    fn alone(&self, end: End, sender_missing: bool) -> Diagnosed {
        let cause = match end.cause {
            Some(_) if self.ended.before(&end.event).is_some() => ended::aftermath(&end.event),
            Some(cause) => cause,
            None => self.judge(&end.event, &end.owner, Other { missing: sender_missing, ..Other::default() }),
        };
        let connection = connection_id(&end.event);
        Diagnosed { event: end.event, owner: end.owner, cause, other: None, connection }
    }

    /// Both ends; the sender first, because the receiver mostly has its cause.
    fn both(&self, Pair { sender, receiver }: Pair) -> [Diagnosed; 2] {
        let ended = self.ended.before(&sender.event);
        let cause = match ended {
            Some(_) => ended::aftermath(&sender.event),
            None => {
                self.judge(&sender.event, &sender.owner, Other { receiver: Some(&receiver.event), ..Other::default() })
            }
        };
        // Where addresses are translated the ends would find different names.
        let connection = connection_id(&sender.event);
        let mut sender =
            Diagnosed { event: sender.event, owner: sender.owner, cause, other: None, connection: connection.clone() };
        let sent = ended.cloned().unwrap_or_else(|| Sent::of(&sender));
        let cause = self.judge(&receiver.event, &receiver.owner, Other { sender: Some(&sent), ..Other::default() });
        let receiver = Diagnosed {
            event: receiver.event,
            owner: receiver.owner,
            cause,
            other: Some(OtherEnd::of(&sender)),
            connection,
        };
        sender.other = Some(OtherEnd::of(&receiver));
        [sender, receiver]
    }

    fn judge(&self, event: &Event, owner: &Owner, other: Other<'_>) -> Cause {
        let context = Context {
            process: owner.process.as_ref().map(|process| process.comm.as_str()),
            recent: &self.recent,
            limits: self.limits.as_ref(),
            timeouts: &self.timeouts,
            sender: other.sender,
            receiver: other.receiver,
            sender_missing: other.missing,
        };
        rules::judge(event, &context)
    }
}
