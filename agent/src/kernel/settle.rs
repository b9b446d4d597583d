//! Whether a RST really arrived.
//!
//! `tcp_reset()` also runs for data that nobody will read; then a RST is *sent*, by the same softirq and for the same
//! socket, right after. Where the hook is given the segment, a RST is known to be one. Else a received reset in one of the
//! states where that can be waits a moment: an answer for the same socket turns both into one sent reset. A RST is never
//! answered, so without one it was received.

use std::collections::VecDeque;

use agent_common::event::{Event, flag, kind, socket};

use crate::event::decode::merge_into_answer;

/// How long to wait for the answer, nanoseconds. It takes microseconds; a virtual CPU that loses its core in between
/// can take many milliseconds.
const PATIENCE_NS: u64 = 100_000_000;

/// A record that is settled, and whether it is data that was answered by a RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The record.
    pub record: Event,
    /// Data for a reader that was gone: `tcp_reset()` ran, no RST arrived.
    pub data_without_reader: bool,
}

/// Received resets that may turn out to be sent ones.
#[derive(Debug, Default)]
pub struct Settle {
    waiting: VecDeque<Event>,
}

impl Settle {
    /// Takes a record from the ring buffer and appends what is settled by it to `out`.
    pub fn take(&mut self, record: Event, out: &mut Vec<Settled>) {
        if record.flags & flag::AMBIGUOUS != 0 {
            self.waiting.push_back(record);
            return;
        }
        let answers = record.kind == kind::RESET_ANSWERED && record.socket == socket::FULL;
        let Some(index) = self.waiting.iter().position(|waiting| answers && waiting.sk == record.sk) else {
            out.push(Settled { record, data_without_reader: false });
            return;
        };
        let mut answer = record;
        if let Some(received) = self.waiting.remove(index) {
            merge_into_answer(&received, &mut answer);
        }
        out.push(Settled { record: answer, data_without_reader: true });
    }

    /// Appends to `out` what has waited long enough at `now_ns` (CLOCK_BOOTTIME).
    pub fn expire(&mut self, now_ns: u64, out: &mut Vec<Settled>) {
        while self.waiting.front().is_some_and(|first| now_ns.saturating_sub(first.boot_ns) >= PATIENCE_NS) {
            out.extend(self.waiting.pop_front().and_then(received));
        }
    }

    /// Appends everything still waiting to `out`.
    pub fn finish(&mut self, out: &mut Vec<Settled>) {
        out.extend(self.waiting.drain(..).filter_map(received));
    }
}

/// What no answer came for. Known data is left out: its answer was one of the records that are counted as lost, and
/// nothing was received.
const fn received(record: Event) -> Option<Settled> {
    if record.flags & flag::NO_RST_ARRIVED != 0 { None } else { Some(Settled { record, data_without_reader: false }) }
}

#[cfg(test)]
mod tests {
    use agent_common::tcp::state;

    use super::*;

    fn ambiguous(sk: u64, boot_ns: u64) -> Event {
        Event {
            kind: kind::RESET_RECEIVED,
            flags: flag::AMBIGUOUS | flag::FACTS,
            state: state::FIN_WAIT2,
            socket: socket::FULL,
            sk,
            boot_ns,
            ..Event::default()
        }
    }

    fn answer(sk: u64, boot_ns: u64) -> Event {
        Event {
            kind: kind::RESET_ANSWERED,
            flags: flag::FACTS | flag::SEGMENT,
            socket: socket::FULL,
            state: state::CLOSE,
            sk,
            boot_ns,
            ..Event::default()
        }
    }

    #[test]
    fn data_for_a_closed_reader_is_one_sent_reset() {
        let (mut settle, mut out) = (Settle::default(), Vec::new());
        settle.take(ambiguous(7, 100), &mut out);
        assert!(out.is_empty());
        settle.take(answer(7, 200), &mut out);
        settle.expire(u64::MAX, &mut out);
        assert_eq!(out.len(), 1);
        assert!(out[0].data_without_reader);
        assert_eq!(out[0].record.kind, kind::RESET_ANSWERED);
        assert_eq!(out[0].record.state, state::FIN_WAIT2, "the state while the socket was whole");
    }

    #[test]
    fn a_rst_is_never_answered() {
        let (mut settle, mut out) = (Settle::default(), Vec::new());
        settle.take(ambiguous(7, 100), &mut out);
        settle.take(answer(8, 200), &mut out);
        assert_eq!(out.len(), 1, "another socket's answer passes");
        settle.expire(100 + PATIENCE_NS - 1, &mut out);
        assert_eq!(out.len(), 1);
        settle.expire(100 + PATIENCE_NS, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(out[1].record.kind, kind::RESET_RECEIVED);
        assert!(!out[1].data_without_reader);
    }

    #[test]
    fn answer_of_a_listener_is_nobodys() {
        let (mut settle, mut out) = (Settle::default(), Vec::new());
        settle.take(ambiguous(7, 100), &mut out);
        settle.take(Event { socket: socket::LISTENER, ..answer(7, 200) }, &mut out);
        assert!(!out[0].data_without_reader);
        assert_eq!(settle.waiting.len(), 1);
    }

    #[test]
    fn data_is_never_told_as_a_received_rst() {
        let data = |boot_ns| Event { flags: flag::AMBIGUOUS | flag::NO_RST_ARRIVED, ..ambiguous(7, boot_ns) };
        let (mut settle, mut out) = (Settle::default(), Vec::new());
        settle.take(data(100), &mut out);
        settle.take(answer(7, 200), &mut out);
        assert!(out.len() == 1 && out[0].data_without_reader, "with its answer it is a sent reset");
        settle.take(data(300), &mut out);
        settle.expire(u64::MAX, &mut out);
        settle.take(data(400), &mut out);
        settle.finish(&mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn nothing_that_waits_is_lost_at_the_end() {
        let (mut settle, mut out) = (Settle::default(), Vec::new());
        settle.take(ambiguous(7, 100), &mut out);
        settle.finish(&mut out);
        assert_eq!(out.len(), 1);
    }
}
