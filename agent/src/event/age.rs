//! How old a connection is: measured from its birth, or the best lower bound the kernel still holds.

use agent_common::{
    connection::{Connection, SocketFacts},
    event::{Event, flag},
    jiffies,
};

use super::Millis;

/// Age of a connection at the event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Age {
    /// Time since the connection began: `connect()` on the client, the end of the handshake on the server.
    pub millis: Millis,
    /// The connection began before the agent: it is at least this old.
    pub is_minimum: bool,
}

/// The age, or `None` if the event belongs to no connection or the kernel holds no stamp of it.
#[must_use]
pub fn age(event: &Event, hz: u32) -> Option<Age> {
    if event.flags & flag::CONNECTION != 0 && event.connection.birth_ns != 0 {
        let ns = event.boot_ns.saturating_sub(event.connection.birth_ns);
        return Some(Age { millis: Millis::from_ns(ns), is_minimum: false });
    }
    if event.flags & flag::FACTS == 0 {
        return None;
    }
    let ns = minimum_ns(event, &event.facts, &event.connection, hz)?;
    Some(Age { millis: Millis::from_ns(ns), is_minimum: true })
}

/// Every one of these stamps, if set, was written when the connection was established or later, so the connection is
/// at least as old as the oldest. `rcvq_space.time` is exact for a connection that has been idle or only sending.
fn minimum_ns(event: &Event, facts: &SocketFacts, connection: &Connection, hz: u32) -> Option<u64> {
    let since_us = |us: u64| (us != 0).then(|| event.monotonic_ns.saturating_sub(us * 1000));
    let since_ticks = |stamp: u32| {
        let ticks = jiffies::since(event.jiffies, stamp)?;
        // A stamp up to one tick old may be from this very instant.
        Some(u64::from(ticks.saturating_sub(1)) * 1_000_000_000 / u64::from(hz))
    };
    let since_ns = |ns: u64| (ns != 0).then(|| event.boot_ns.saturating_sub(ns));
    [
        since_us(facts.receive_queue_us),
        since_us(facts.delivered_us),
        since_ticks(facts.cwnd_stamp),
        since_ticks(facts.sent_stamp),
        since_ticks(facts.received_stamp),
        since_ticks(facts.ack_stamp),
        since_ns(connection.established_ns),
        since_ns(connection.first_fin_ns),
    ]
    .into_iter()
    .flatten()
    .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn event() -> Event {
        Event {
            boot_ns: 100 * SECOND,
            monotonic_ns: 90 * SECOND,
            jiffies: 10_000,
            flags: flag::CONNECTION | flag::FACTS,
            ..Event::default()
        }
    }

    #[test]
    fn a_birth_that_was_seen_is_exact() {
        let mut event = event();
        event.connection.birth_ns = 94 * SECOND;
        event.facts.receive_queue_us = 1_000_000;
        assert_eq!(age(&event, 250), Some(Age { millis: Millis(6000.0), is_minimum: false }));
    }

    #[test]
    fn an_older_connection_is_at_least_as_old_as_its_oldest_stamp() {
        let mut event = event();
        event.facts.receive_queue_us = 50_000_000;
        event.facts.sent_stamp = 10_000 - 250 * 5;
        assert_eq!(age(&event, 250), Some(Age { millis: Millis(40_000.0), is_minimum: true }));
        // 60 s less the tick that the stamp's resolution leaves open. The stamp lies before the jiffies wrap.
        event.facts.received_stamp = 10_000_u32.wrapping_sub(250 * 60);
        assert_eq!(age(&event, 250).unwrap().millis, Millis(59_996.0));
    }

    #[test]
    fn without_any_stamp_there_is_no_age() {
        assert_eq!(age(&event(), 250), None);
        assert_eq!(age(&Event { flags: 0, ..event() }, 250), None);
    }

    #[test]
    fn the_monotonic_clock_and_the_boot_clock_are_not_mixed() {
        let mut event = event();
        event.facts.delivered_us = 89_000_000;
        assert_eq!(age(&event, 250).unwrap().millis, Millis(1000.0));
    }
}
