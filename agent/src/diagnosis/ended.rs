//! Connections that this host has just ended by a reset: what else comes for them is answered by another reset, which has
//! no cause of its own.
//!
//! The kernel takes a closing socket out of its tables before the state changes (`tcp_set_state`), so that on another CPU
//! a segment can be answered as one of a connection that nobody knows, even before the reset that ended it is told.

use std::collections::VecDeque;

use super::{
    Sent,
    cause::{Cause, Confidence},
    code::Code,
    join::PATIENCE_NS,
};
use crate::event::{Endpoint, Event, Socket, What};

/// How many are kept: those of the last moments.
const MOST: usize = 8192;

#[derive(Debug)]
struct Ended {
    boot_ns: u64,
    netns: Option<u32>,
    ends: (Endpoint, Endpoint),
    sent: Sent,
}

/// Resets by which connections ended, oldest first.
#[derive(Debug, Default)]
pub struct RecentlyEnded {
    ended: VecDeque<Ended>,
}

impl RecentlyEnded {
    /// Notes a reset that a connection's own socket sent.
    pub fn note(&mut self, event: &Event, sent: Sent) {
        if event.what != What::ResetSent || event.socket != Socket::Full {
            return;
        }
        let old = |ended: &Ended| event.boot_ns.saturating_sub(ended.boot_ns) > 2 * PATIENCE_NS;
        while self.ended.len() == MOST || self.ended.front().is_some_and(old) {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended {
            boot_ns: event.boot_ns,
            netns: event.netns,
            ends: (event.local, event.peer),
            sent,
        });
    }

    /// The reset that ended the connection for which `event` is another answer, a moment before or after.
    #[must_use]
    pub fn before(&self, event: &Event) -> Option<&Sent> {
        if event.what != What::ResetSent || event.socket == Socket::Full || opens_another(event) {
            return None;
        }
        // Where there was no socket the namespace is not always known.
        let same_netns = |ended: &Ended| ended.netns.is_none() || event.netns.is_none() || ended.netns == event.netns;
        let found = self.ended.iter().rev().find(|ended| {
            ended.ends == (event.local, event.peer)
                && same_netns(ended)
                && ended.boot_ns.abs_diff(event.boot_ns) <= PATIENCE_NS
        });
        found.map(|ended| &ended.sent)
    }
}

/// A SYN begins a connection: whoever had the same ends before has nothing to do with it. (In a scan there is nothing to
/// look for, either.)
fn opens_another(event: &Event) -> bool {
    event.facts.segment.as_ref().is_some_and(|segment| segment.flags.split(',').any(|flag| flag == "SYN"))
}

/// The cause of such another answer.
#[must_use]
pub fn aftermath(event: &Event) -> Cause {
    let segment = event.facts.segment.as_ref().map_or("a segment", |segment| segment.flags.as_str());
    Cause::new(
        Code::CloseAftermath,
        Confidence::Certain,
        format!("{} sent {segment} for a connection that was being reset here at that moment.", event.peer),
        "Nothing to do about this reset; the one that ended the connection has its own cause.",
    )
    .with("kernel_reason", event.kernel_reason.clone())
}

#[cfg(test)]
mod tests {
    use agent_common::{
        connection::{Tuple, facts_flag},
        event::{Event as Record, Segment, flag, kind, socket},
        tcp::{flag as tcp_flag, state},
    };

    use crate::{
        diagnosis::{Diagnosed, Diagnosis, code::Code, join::Seen, limits::NoLimits, timeouts::Timeouts},
        event::{Event, decode::Decoder, party::Owner},
    };

    fn decode(record: &Record) -> Event {
        Decoder::of_a_whole_kernel(&[]).decode(record, 0)
    }

    fn server() -> Tuple {
        Tuple { local: [1; 4], peer: [2; 4], local_port: 80, peer_port: 40000, netns: 1 }
    }

    /// A segment of an upload, answered by the listener: nobody knows the connection.
    fn answer(boot_ns: u64) -> Record {
        Record {
            kind: kind::RESET_ANSWERED,
            socket: socket::LISTENER,
            flags: flag::SEGMENT,
            boot_ns,
            tuple: server(),
            segment: Segment { sequence: 500, acknowledgement: 70, flags: tcp_flag::ACK, ..Segment::default() },
            ..Record::default()
        }
    }

    /// The server's close with data unread.
    fn close(boot_ns: u64) -> Record {
        let mut record = Record {
            kind: kind::RESET_SENT,
            socket: socket::FULL,
            state: state::ESTABLISHED,
            flags: flag::FACTS | flag::CONNECTION | flag::ENDED,
            boot_ns,
            tuple: server(),
            ..Record::default()
        };
        (record.facts.send_next, record.facts.receive_next, record.facts.copied) = (70, 500, 400);
        record.facts.bits = facts_flag::HAS_FILE;
        record.facts.shutdown = 3;
        record
    }

    /// The client, which gets the answer's RST first.
    fn receiver(boot_ns: u64) -> Record {
        let mut record = Record {
            kind: kind::RESET_RECEIVED,
            socket: socket::FULL,
            state: state::ESTABLISHED,
            flags: flag::FACTS | flag::CONNECTION,
            boot_ns,
            tuple: Tuple { local: [2; 4], peer: [1; 4], local_port: 40000, peer_port: 80, netns: 1 },
            ..Record::default()
        };
        (record.facts.send_next, record.facts.receive_next) = (500, 70);
        record.facts.bits = facts_flag::HAS_FILE;
        record
    }

    fn diagnose(records: &[Record]) -> Vec<Diagnosed> {
        let mut diagnosis = Diagnosis::new(Box::new(NoLimits), Timeouts::built_in(), Seen::AllSince(0));
        let mut out = Vec::new();
        for record in records {
            diagnosis.take(decode(record), Owner::default());
            diagnosis.expire(record.boot_ns, &mut out);
        }
        diagnosis.finish(&mut out);
        assert_eq!(out.len(), records.len());
        out
    }

    fn codes(records: &[Record]) -> Vec<Code> {
        diagnose(records).iter().map(|diagnosed| diagnosed.cause.code).collect()
    }

    /// Seen with an upload that CherryPy refused, on two CPUs.
    #[test]
    fn an_answer_while_the_socket_closes_is_no_unknown_connection() {
        let ms = 1_000_000;
        for order in [[answer(ms), close(2 * ms)], [close(ms), answer(2 * ms)]] {
            let mut codes = codes(&order);
            codes.sort_by_key(|code| code.name());
            assert_eq!(codes, [Code::CloseAftermath, Code::ClosedWithUnreadData]);
        }
    }

    #[test]
    fn the_receiver_of_such_an_answer_has_the_cause_of_the_close() {
        let ms = 1_000_000;
        let lines = diagnose(&[answer(ms), receiver(ms + 1), close(2 * ms)]);
        let received = lines.iter().find(|line| line.event.what == crate::event::What::ResetReceived).unwrap();
        assert_eq!(received.cause.code, Code::ClosedWithUnreadData);
    }

    #[test]
    fn without_such_a_close_it_stays_unknown() {
        let ms = 1_000_000;
        assert_eq!(codes(&[answer(ms)]), [Code::ConnectionUnknown]);
        let late = codes(&[close(ms), answer(300 * ms)]);
        assert_eq!(late, [Code::ClosedWithUnreadData, Code::ConnectionUnknown]);
        let mut syn = answer(2 * ms);
        (syn.socket, syn.segment.flags) = (socket::NONE, tcp_flag::SYN);
        assert!(codes(&[close(ms), syn]).contains(&Code::PortClosed), "a new connection with the same ends");
        let mut other = close(ms);
        other.tuple.peer_port += 1;
        assert!(codes(&[other, answer(2 * ms)]).contains(&Code::ConnectionUnknown));
    }
}
