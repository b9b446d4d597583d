//! Idle times, from the jiffies stamps the kernel keeps in every socket.
//!
//! Resolution is one tick (4 ms at HZ 250), error within one tick either way.

use agent_common::{
    connection::SocketFacts,
    event::{Event, flag},
    jiffies,
    tcp::state,
};

use super::Millis;

/// How long a connection was idle at the event. Counted from the moment it was established where no data came at all,
/// as the kernel's own `tcpi_last_data_recv` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Idle {
    /// Since data last arrived in order (`icsk_ack.lrcvtime`); acknowledgements and a FIN do not count.
    #[serde(rename = "rx_ms", skip_serializing_if = "Option::is_none")]
    pub rx: Option<Millis>,
    /// Since data was last sent (`tcp_sock.lsndtime`).
    #[serde(rename = "tx_ms", skip_serializing_if = "Option::is_none")]
    pub tx: Option<Millis>,
    /// Since the peer last acknowledged anything (`tcp_sock.rcv_tstamp`): last sign of life.
    #[serde(rename = "ack_ms", skip_serializing_if = "Option::is_none")]
    pub ack: Option<Millis>,
    /// Between the last data received and the last data sent after it: how idle the connection was before the last
    /// request, on the end that asks; the service time, on the end that answers.
    #[serde(rename = "gap_before_last_send_ms", skip_serializing_if = "Option::is_none")]
    pub gap_before_last_send: Option<Millis>,
}

impl Idle {
    /// Since the last data in either direction; only if both are known.
    #[must_use]
    pub fn either(&self) -> Option<Millis> {
        let (rx, tx) = (self.rx?, self.tx?);
        Some(if rx < tx { rx } else { tx })
    }
}

/// Idle times at the event. For a connection that closed before, they still count up to the event.
#[must_use]
pub fn idle(event: &Event, hz: u32) -> Idle {
    if event.flags & flag::FACTS == 0 || !was_established(event) {
        return Idle::default();
    }
    let since = |stamp: u32| Some(Millis::from_ticks(jiffies::since(event.jiffies, stamp)?, hz));
    let facts = &event.facts;
    // A retransmission sets lsndtime too, so while one may be outstanding the stamp tells when the kernel last tried
    // and not when the application last wrote.
    let tx = if resent(facts) { None } else { since(facts.sent_stamp) };
    Idle {
        rx: since(facts.received_stamp),
        tx,
        ack: since(facts.ack_stamp),
        gap_before_last_send: tx.and_then(|_| gap(facts, hz)),
    }
}

fn gap(facts: &SocketFacts, hz: u32) -> Option<Millis> {
    if facts.received_stamp == 0 || facts.sent_stamp == 0 {
        return None;
    }
    let ticks = facts.sent_stamp.wrapping_sub(facts.received_stamp);
    // Received after it was last sent: when the send before that was, nobody kept.
    (ticks.cast_signed() >= 0).then(|| Millis::from_ticks(ticks, hz))
}

/// The stamps mean something only once the connection was established: 0 before, and read as uptime then.
fn was_established(event: &Event) -> bool {
    !matches!(
        connection_state(event),
        0 | state::SYN_SENT | state::SYN_RECV | state::NEW_SYN_RECV | state::LISTEN | state::CLOSE
    )
}

/// The state the connection was in, also of one that closed before.
#[must_use]
pub fn connection_state(event: &Event) -> u8 {
    if event.flags & flag::CLOSED != 0 { event.connection.last_state } else { event.state }
}

/// Whether a retransmission may be outstanding: it sets `lsndtime` as well.
pub(super) fn resent(facts: &SocketFacts) -> bool {
    facts.total_retransmits > 0 && (facts.retransmits > 0 || facts.retransmits_out > 0 || facts.packets_out > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(jiffies: u32, received: u32, sent: u32) -> Event {
        let mut event = Event { jiffies, state: state::ESTABLISHED, flags: flag::FACTS, ..Event::default() };
        event.facts.received_stamp = received;
        event.facts.sent_stamp = sent;
        event.facts.ack_stamp = sent;
        event
    }

    #[test]
    fn third_incident_request_after_ten_idle_seconds_reset_ten_seconds_later() {
        let idle = idle(&event(100_000, 95_000, 97_500), 250);
        assert_eq!(idle.rx, Some(Millis(20_000.0)));
        assert_eq!(idle.tx, Some(Millis(10_000.0)));
        assert_eq!(idle.gap_before_last_send, Some(Millis(10_000.0)));
        assert_eq!(idle.either(), Some(Millis(10_000.0)));
    }

    #[test]
    fn right_on_both_sides_of_the_wrap_five_minutes_after_boot() {
        let before = idle(&event(u32::MAX - 10, u32::MAX - 260, u32::MAX - 135), 250);
        assert_eq!((before.rx, before.tx), (Some(Millis(1000.0)), Some(Millis(500.0))));
        let across = idle(&event(124, 124_u32.wrapping_sub(250), 124_u32.wrapping_sub(125)), 250);
        assert_eq!((across.rx, across.tx), (Some(Millis(1000.0)), Some(Millis(500.0))));
        assert_eq!(across.gap_before_last_send, Some(Millis(500.0)));
    }

    #[test]
    fn a_newer_stamp_of_another_cpu_is_zero_and_not_weeks() {
        assert_eq!(idle(&event(1000, 1001, 999), 250).rx, Some(Millis(0.0)));
        assert_eq!(idle(&event(u32::MAX, 1, u32::MAX), 250).rx, Some(Millis(0.0)));
    }

    #[test]
    fn absent_before_established() {
        for state in [state::SYN_SENT, state::SYN_RECV, state::LISTEN, state::CLOSE] {
            let mut event = event(1000, 0, 0);
            event.state = state;
            assert_eq!(idle(&event, 250), Idle::default());
        }
    }

    #[test]
    fn a_stamp_wiped_by_disconnect_is_unknown() {
        let idle = idle(&event(1000, 0, 900), 250);
        assert_eq!((idle.rx, idle.gap_before_last_send, idle.either()), (None, None, None));
        assert_eq!(idle.tx, Some(Millis(400.0)));
    }

    #[test]
    fn gap_is_unknown_once_data_came_back() {
        assert_eq!(idle(&event(1000, 900, 800), 250).gap_before_last_send, None);
    }

    #[test]
    fn a_retransmission_is_not_the_last_send() {
        let mut event = event(1000, 800, 990);
        event.facts.total_retransmits = 2;
        event.facts.packets_out = 1;
        let idle = idle(&event, 250);
        assert_eq!((idle.tx, idle.gap_before_last_send, idle.either()), (None, None, None));
        assert_eq!(idle.rx, Some(Millis(800.0)));
    }

    #[test]
    fn a_closed_connection_goes_on_being_idle_until_the_event() {
        let mut event = event(2000, 500, 500);
        event.state = state::TIME_WAIT;
        event.flags |= flag::CLOSED;
        event.connection.last_state = state::FIN_WAIT2;
        assert_eq!(idle(&event, 250).either(), Some(Millis(6000.0)));
    }
}
