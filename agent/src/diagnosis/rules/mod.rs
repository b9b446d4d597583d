//! What an event shows: the rules, first match wins.
//!
//! One file per side of the story: [`sent`] for the end that sent the RST ([`closing`] if a close() did), [`received`] for
//! the one that got it, [`connect`] and [`timeout`] for what fails without one; [`exchange`] has what both ends observe alike.
//! Limits come from what the kernel knows (the length of a tick, the round-trip time, learned idle limits), not from
//! milliseconds that fitted one machine.

pub mod closing;
pub mod connect;
pub mod exchange;
pub mod idle;
pub mod received;
pub mod sent;
pub mod timeout;

#[cfg(test)]
mod tests;

use super::{
    Context,
    cause::{Cause, Confidence},
    code::Code,
};
use crate::event::{Event, Millis, Role, What, reason::seconds};

/// The cause of an event.
#[must_use]
pub fn judge(event: &Event, context: &Context<'_>) -> Cause {
    match event.what {
        What::ResetSent => sent::judge(event, context),
        What::ResetReceived => received::judge(event, context),
        What::ConnectFailed(failure) => connect::judge(event, failure, context),
        What::TimedOut => timeout::judge(event),
        What::Closed => unknown(event),
    }
}

/// What to do about a RST that none of this host's sockets sent.
const REJECTED_ADVICE: &str = "Look for a reject rule with tcp reset on this host (nft list ruleset, iptables -S); if the \
                               address is translated (a NodePort, DNAT), on the host it leads to.";

/// How long a TLS close_notify alert is as a record: 24 bytes in TLS 1.3 with a 16-byte tag, up to 31 in TLS 1.2 (and one
/// more if a FIN travels with it).
const CLOSE_NOTIFY_BYTES: std::ops::RangeInclusive<u32> = 24..=32;

/// Two kernel ticks: closer together the kernel's stamps say nothing about order or length.
fn two_ticks(event: &Event) -> f64 {
    2.0 * event.facts.tick_ms.map_or(4.0, |tick| tick.0)
}

/// The time in which an answer to something just sent comes back: two ticks and four round trips.
fn moment(event: &Event) -> f64 {
    two_ticks(event) + 4.0 * event.tcp.srtt_ms.map_or(0.0, |rtt| rtt.0)
}

/// From which idleness on a connection counts as idle: a second, or where that is longer, ten round trips.
fn long_idle(event: &Event) -> f64 {
    event.tcp.srtt_ms.map_or(1000.0, |rtt| (10.0 * rtt.0).max(1000.0))
}

/// How close together two steps of one exchange are.
fn short(event: &Event) -> f64 {
    moment(event) + 50.0
}

/// Whether the first FIN came in the middle of an exchange, with data going both ways just before: no idle timer did it.
fn closed_while_busy(event: &Event) -> bool {
    let is_short = |idle: Option<Millis>| idle.is_some_and(|idle| idle.0 <= short(event));
    event.facts.first_fin.as_ref().is_some_and(|fin| is_short(fin.idle_rx_ms) && is_short(fin.idle_tx_ms))
}

/// Seconds or milliseconds, as a sentence has them.
fn say(millis: Millis) -> String {
    seconds(millis.0)
}

/// The round time (a whole number of hundreds of milliseconds) that the age is, within 2 % above: timers fire late.
fn round(age: Option<Millis>) -> Option<Millis> {
    let age = age?.0;
    let hundred = (age / 100.0).round() * 100.0;
    (hundred >= 100.0 && age >= hundred - 8.0 && age <= hundred * 1.02 + 8.0).then_some(Millis(hundred))
}

/// The other end, by the part it plays.
const fn peer_name(event: &Event) -> &'static str {
    match event.role {
        Role::Client => "the server",
        Role::Server => "the client",
        Role::Unknown => "the peer",
    }
}

/// This end, by the part it plays.
const fn local_name(event: &Event) -> &'static str {
    match event.role {
        Role::Client => "this client",
        Role::Server => "this server",
        Role::Unknown => "this host",
    }
}

/// None of the rules: says what was seen.
fn unknown(event: &Event) -> Cause {
    let seen = crate::event::reason::reason(event);
    Cause::new(
        Code::Unknown,
        Confidence::Possible,
        format!("None of the rules fits; seen was: {seen}."),
        "Look at the line with --facts, and please report it if it happens often.",
    )
    .with("state", event.tcp.state)
    .with("kernel_reason", event.kernel_reason.clone())
}
