//! Connections that a timer ended without a RST.

use super::{peer_name, say};
use crate::{
    diagnosis::{
        cause::{Cause, Confidence},
        code::Code,
    },
    event::Event,
};

/// Which timer it was.
#[must_use]
pub fn judge(event: &Event) -> Cause {
    let facts = &event.facts;
    let timeouts = facts.timeouts_in_a_row.unwrap_or(0);
    let in_flight = facts.in_flight_bytes.unwrap_or(0);
    let probes = facts.probes.unwrap_or(0);
    let silent = event.idle.ack.map_or_else(|| "an unknown time".to_owned(), say);
    let peer = peer_name(event);
    let unsent = facts.unsent_bytes.unwrap_or(0);
    // The kernel probes as well when what it wants to send does not leave this host (`tcp_check_probe_timer`): the window
    // tells the two apart.
    let probing = probes > 0 && in_flight == 0 && unsent > 0;
    let window = facts.send_window_bytes.unwrap_or(0);
    let cause = if probing && window > 0 {
        Cause::new(
            Code::RetransmissionTimeout,
            Confidence::Likely,
            format!(
                "{unsent} bytes for {} never left this host in {probes} tries, although the peer had room for {window}; \
                 it was last heard {silent} before.",
                event.peer
            ),
            "Look at this host's own way out: its routes, its links, and firewall rules or a network policy that drop \
             what it sends.",
        )
    } else if probing {
        Cause::new(
            Code::ZeroWindowTimeout,
            Confidence::Certain,
            format!(
                "{peer} at {} kept its receive window closed for {probes} probes, with {unsent} bytes waiting to be sent.",
                event.peer
            ),
            "The peer's application does not read: find out what it is stuck in.",
        )
    } else if let Some(limit) = facts.user_timeout_ms {
        Cause::new(
            Code::UserTimeout,
            Confidence::Likely,
            format!(
                "TCP_USER_TIMEOUT ({}) ended the connection: {in_flight} bytes were not acknowledged, nothing came from \
                 {} for {silent}.",
                say(limit),
                event.peer
            ),
            "The path or the peer is gone; the timeout is the application's own (gRPC sets it with its keepalive).",
        )
    } else {
        Cause::new(
            Code::RetransmissionTimeout,
            Confidence::Certain,
            format!(
                "{timeouts} retransmissions in a row of {in_flight} bytes to {} were not acknowledged; it was last \
                 heard {silent} before.",
                event.peer
            ),
            "The path or the peer is gone: look for drops, a dead node, or a NAT entry that expired.",
        )
    };
    let mut cause = cause;
    if let Some(first) = cause.summary.get(..1) {
        let upper = first.to_uppercase();
        cause.summary.replace_range(..1, &upper);
    }
    cause
        .with("timeouts_in_a_row", facts.timeouts_in_a_row)
        .with("probes", facts.probes)
        .with("in_flight_bytes", facts.in_flight_bytes)
        .with("unsent_bytes", facts.unsent_bytes)
        .with("send_window_bytes", facts.send_window_bytes.filter(|_| probing))
        .with("silent_ms", event.idle.ack)
        .with("user_timeout_ms", facts.user_timeout_ms)
}
