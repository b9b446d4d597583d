//! Rules on made-up events: what no test can provoke for real, and what a rule must not say.
//!
//! [`played`] has what real programs were seen to do.

mod played;

use agent_common::{
    connection::{facts_flag, first_fin, role},
    event::{Event as Record, Segment, flag, kind, socket},
    layout::{Location, MEMBERS},
    settings::Settings,
    tcp::{flag as tcp_flag, state},
};

use super::*;
use crate::{
    diagnosis::{limits::NoLimits, recent::Recent, timeouts::Timeouts},
    event::decode::Decoder,
};

const REASONS: [(u32, &str); 4] =
    [(8, "TCP_ABORT_ON_DATA"), (12, "TCP_ABORT_ON_LINGER"), (13, "TCP_ABORT_ON_MEMORY"), (15, "TCP_KEEPALIVE_TIMEOUT")];

/// A reset of an established client connection, decoded as the agent does it.
fn judged(change: impl FnOnce(&mut Record)) -> Cause {
    judged_after(&Recent::default(), change)
}

fn judged_after(recent: &Recent, change: impl FnOnce(&mut Record)) -> Cause {
    let (event, timeouts) = (event(change), Timeouts::built_in());
    judge(
        &event,
        &Context { process: None, recent, limits: &NoLimits, timeouts: &timeouts, sender: None, sender_missing: false },
    )
}

fn event(change: impl FnOnce(&mut Record)) -> Event {
    let mut record = Record {
        boot_ns: 100_000_000_000,
        monotonic_ns: 100_000_000_000,
        jiffies: 100_000,
        kind: kind::RESET_RECEIVED,
        socket: socket::FULL,
        state: state::ESTABLISHED,
        flags: flag::FACTS | flag::CONNECTION,
        ..Record::default()
    };
    record.connection.birth_ns = 50_000_000_000;
    record.connection.role = role::CLIENT;
    record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON | facts_flag::SAW_TIMESTAMP;
    record.facts.received_stamp = 99_500;
    record.facts.sent_stamp = 99_400;
    record.facts.bytes_received = 100;
    record.facts.bytes_sent = 100;
    change(&mut record);
    let mut locations = Settings::EMPTY.locations;
    for (index, place) in locations.iter_mut().enumerate().take(MEMBERS.len()) {
        *place = Location::new(index as u32 * 8, 0).unwrap();
    }
    let decoder = Decoder { hz: 250, locations, reasons: REASONS.map(|(value, name)| (value, name.to_owned())).into() };
    decoder.decode(&record, 0)
}

fn sent(reason: u32, change: impl FnOnce(&mut Record)) -> Cause {
    judged(|record| {
        record.kind = kind::RESET_SENT;
        record.reason = reason;
        record.flags |= flag::REASON;
        change(record);
    })
}

#[test]
fn the_kernels_reason_proves_orphan_out_of_memory() {
    let cause = sent(13, |_| {});
    assert_eq!((cause.code, cause.confidence), (Code::OrphanOutOfMemory, Confidence::Certain));
}

#[test]
fn what_fits_no_rule_says_what_was_seen() {
    let cause = sent(0, |record| record.flags |= flag::ENDED | flag::READ_FAULT);
    assert_eq!((cause.code, cause.confidence), (Code::Unknown, Confidence::Possible));
    assert!(cause.summary.contains("seen was"), "{}", cause.summary);
}

#[test]
fn keepalive_is_told_by_its_probes_where_the_kernel_gives_no_reason() {
    let cause = sent(0, |record| record.facts.probes = 3);
    assert_eq!((cause.code, cause.confidence), (Code::KeepaliveTimeout, Confidence::Likely));
    assert!(cause.summary.contains("3 TCP keepalive probes"), "{}", cause.summary);
}

#[test]
fn without_timestamps_nothing_is_more_than_possible() {
    let cause = judged(|record| record.facts.bits = facts_flag::HAS_FILE);
    assert_eq!((cause.code, cause.confidence), (Code::PeerAbortedIdle, Confidence::Possible));
}

#[test]
fn a_gap_that_is_nobodys_idle_limit_is_no_keepalive_race() {
    let just_sent = |gap: u32| {
        judged(|record| {
            record.facts.sent_stamp = 100_000;
            record.facts.received_stamp = 100_000 - gap;
            record.facts.send_next = 50;
        })
    };
    // 7.9 s is in no product's documentation; 5 s is in several.
    assert_eq!(just_sent(1975).code, Code::PeerAbortedWithRequestPending);
    let race = just_sent(1250);
    assert_eq!((race.code, race.confidence), (Code::KeepaliveRace, Confidence::Possible));
    assert!(!race.products.is_empty());
}

#[test]
fn a_slow_path_makes_moments_longer_and_not_races() {
    // The RST comes one round trip of 400 ms after the request.
    let cause = judged(|record| {
        record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON;
        record.facts.srtt_8us = 400_000 * 8;
        record.facts.sent_stamp = 100_000 - 100;
        record.facts.send_next = 50;
    });
    assert_eq!((cause.code, cause.confidence), (Code::ConnectionUnknownAtPeer, Confidence::Likely));
}

#[test]
fn a_half_close_that_is_read_to_its_end_is_no_stale_reuse() {
    // Nothing was in flight when the RST came: what had been written before was taken.
    let cause = judged(|record| {
        record.state = state::CLOSE_WAIT;
        record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON;
        record.connection.first_fin = first_fin::PEER;
        record.connection.first_fin_ns = 99_000_000_000;
    });
    assert_eq!(cause.code, Code::Unknown);
}

#[test]
fn a_syn_ack_nobody_waits_for_is_benign() {
    let cause = judged(|record| {
        record.kind = kind::RESET_ANSWERED;
        record.socket = socket::NONE;
        record.flags = flag::SEGMENT;
        record.segment = Segment { flags: tcp_flag::SYN | tcp_flag::ACK, ..Segment::default() };
    });
    assert_eq!(cause.code, Code::LateSynAck);
    assert!(cause.benign);
    assert_eq!(cause.confidence, Confidence::Likely, "whose connect it was is not remembered");
}

#[test]
fn sentences_have_numbers_and_no_jargon_alone() {
    let cause = judged(|record| {
        record.facts.sent_stamp = 100_000 - 2500;
        record.facts.received_stamp = 100_000 - 5000;
    });
    assert_eq!(cause.code, Code::LateResetAfterIdle);
    assert!(cause.summary.contains("10.00 s idle") && cause.summary.contains("10.00 s later"), "{}", cause.summary);
    assert_eq!(cause.evidence["gap_before_last_send_ms"], 10_000);
}

/// Java NIO on an idle timeout: a FIN, and the close up to a second later.
#[test]
fn a_request_between_a_servers_fin_and_its_close_is_stale_reuse() {
    let closed = |change: fn(&mut Record)| {
        sent(11, |record| {
            record.flags |= flag::ENDED;
            record.connection.role = role::SERVER;
            record.connection.last_state = state::FIN_WAIT2;
            record.state = state::FIN_WAIT2;
            record.connection.first_fin = first_fin::LOCAL;
            record.connection.first_fin_ns = record.boot_ns - 400_000_000;
            record.connection.fin_idle_rx = 752;
            record.connection.fin_idle_tx = 751;
            record.facts.received_stamp = record.jiffies - 50;
            record.facts.sent_stamp = record.jiffies - 851;
            record.facts.receive_next = 75;
            record.facts.shutdown = 3;
            change(record);
        })
    };
    let stale = closed(|_| {});
    assert_eq!((stale.code, stale.confidence), (Code::StaleConnectionReuse, Confidence::Likely));
    assert!(stale.summary.contains("3.00 s idle") && stale.summary.contains("200 ms later"), "{}", stale.summary);
    // A half-close that ends a busy exchange is none, and neither is data that had come before.
    assert_eq!(closed(|record| record.connection.fin_idle_tx = 10).code, Code::ClosedWithUnreadData);
    let before = closed(|record| record.facts.received_stamp = record.jiffies - 300);
    assert_eq!(before.code, Code::ClosedWithUnreadData);
}
