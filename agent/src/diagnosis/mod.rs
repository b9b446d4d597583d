//! The diagnosis stage: why.
//!
//! * [`code`]: the closed set of causes; [`cause`]: one answer, with its evidence;
//! * [`rules`]: what an event shows by itself; [`kernel_reason`]: what the kernel says against it;
//! * [`join`]: both ends of one connection on this node;
//! * [`recent`]: what a process went through just before, which ties a proxy's two sides together;
//! * [`pitfalls`]: what misleads, and the tests that hold it;
//! * [`limits`]: idle limits learned from quiet closes; [`timeouts`]: those that products document.
//!
//! An event leaves at once, except a reset or refusal that was *received*: it waits up to [`join::PATIENCE_NS`] for the
//! end that sent it, which knows more.

pub mod cause;
pub mod code;
pub mod join;
pub mod kernel_reason;
pub mod limits;
pub mod pitfalls;
pub mod recent;
pub mod rules;
pub mod timeouts;

use crate::event::{Event, What, party::Owner};

use self::{
    cause::Cause,
    join::{Join, Sent},
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
    /// The end that receives the reset which this one sent is on this node, and was seen before.
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
    limits: Box<dyn Limits + Send>,
    timeouts: Timeouts,
    sees_every_sender: bool,
}

impl Diagnosis {
    /// With idle limits learned by `limits` and documented `timeouts`. `sees_every_sender` tells whether every RST that
    /// this node's sockets and closed ports send comes here: only then does a missing one mean something.
    #[must_use]
    pub fn new(limits: Box<dyn Limits + Send>, timeouts: Timeouts, sees_every_sender: bool) -> Self {
        Self { join: Join::default(), recent: Recent::default(), limits, timeouts, sees_every_sender }
    }

    /// Takes an event; appends to `out` what is settled by it.
    pub fn take(&mut self, event: Event, owner: Owner, out: &mut Vec<Diagnosed>) {
        self.recent.note(&event);
        match event.what {
            What::ResetReceived | What::ConnectFailed(crate::event::ConnectFailure::Refused) => {
                if let Some((event, owner, sender)) = self.join.received(event, owner) {
                    out.push(self.judge(event, owner, Other { sender: Some(&sender), ..Other::default() }));
                }
            }
            What::ResetSent => {
                let receiver = self.join.receiver(&event).cloned();
                let diagnosed = self.judge(event, owner, Other { receiver: receiver.as_ref(), ..Other::default() });
                let sender = Sent::of(&diagnosed);
                let waiting = sender.as_ref().and_then(|sender| self.join.sent(sender));
                out.push(diagnosed);
                if let (Some((event, owner)), Some(sender)) = (waiting, sender) {
                    out.push(self.judge(event, owner, Other { sender: Some(&sender), ..Other::default() }));
                }
            }
            What::ConnectFailed(_) | What::TimedOut => out.push(self.judge(event, owner, Other::default())),
        }
    }

    /// Appends to `out` what has waited long enough at `boot_ns`.
    pub fn expire(&mut self, boot_ns: u64, out: &mut Vec<Diagnosed>) {
        while let Some((event, owner)) = self.join.expired(boot_ns) {
            let missing = self.sees_every_sender && join::is_own_address(&event);
            out.push(self.judge(event, owner, Other { missing, ..Other::default() }));
        }
    }

    /// Appends everything that still waits.
    pub fn finish(&mut self, out: &mut Vec<Diagnosed>) {
        self.expire(u64::MAX, out);
    }

    /// Whether anything waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.join.is_waiting()
    }

    fn judge(&self, event: Event, owner: Owner, other: Other<'_>) -> Diagnosed {
        let context = Context {
            process: owner.process.as_ref().map(|process| process.comm.as_str()),
            recent: &self.recent,
            limits: self.limits.as_ref(),
            timeouts: &self.timeouts,
            sender: other.sender,
            receiver: other.receiver,
            sender_missing: other.missing,
        };
        let cause = rules::judge(&event, &context);
        Diagnosed { event, owner, cause }
    }
}
