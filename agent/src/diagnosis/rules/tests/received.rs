//! Resets that were received.

use super::*;

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
fn sentences_have_numbers_and_no_jargon_alone() {
    let cause = judged(|record| {
        record.facts.sent_stamp = 100_000 - 2500;
        record.facts.received_stamp = 100_000 - 5000;
    });
    assert_eq!(cause.code, Code::LateResetAfterIdle);
    assert!(cause.summary.contains("10.00 s idle") && cause.summary.contains("10.00 s later"), "{}", cause.summary);
    assert_eq!(cause.evidence["gap_before_last_send_ms"], 10_000);
}

/// Over a path of 40 ms: what left before the FIN arrived is a race, what left after it is stale reuse.
#[test]
fn the_client_knows_whether_its_request_left_before_the_fin_came() {
    let received = |sent_ticks: u32, sent_before_fin: u32| {
        judged(|record| {
            record.state = state::CLOSE_WAIT;
            record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON;
            record.facts.srtt_8us = 40_000 * 8;
            record.facts.send_next = 100;
            record.facts.sent_stamp = record.jiffies - sent_ticks;
            record.facts.received_stamp = record.jiffies - 1255;
            with_fin(record, first_fin::PEER, 20, 1250, sent_before_fin);
        })
    };
    let crossed = received(10, 5);
    assert_eq!(crossed.code, Code::KeepaliveRace);
    assert_eq!(crossed.evidence["crossed_the_fin"], true);
    assert!(crossed.summary.contains("20 ms"), "{}", crossed.summary);
    assert_eq!(received(2, 1250).code, Code::StaleConnectionReuse);
    // In the tick of the FIN: after it, for the stamp has moved, or before it.
    assert_eq!(received(5, 1250).code, Code::StaleConnectionReuse);
    assert_eq!(received(5, 0).code, Code::KeepaliveRace);
}

#[test]
fn a_half_closed_client_that_still_reads_has_lost_something() {
    let reset = |shutdown: u8, bits: u8| {
        judged(|record| {
            record.state = state::FIN_WAIT2;
            record.facts.shutdown = shutdown;
            record.facts.bits = bits;
            record.facts.received_stamp = record.jiffies - 500;
            record.facts.sent_stamp = record.jiffies - 100;
            with_fin(record, first_fin::LOCAL, 400, 400, 1);
        })
    };
    let held = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON | facts_flag::SAW_TIMESTAMP;
    let reading = reset(2, held);
    assert_eq!(reading.code, Code::LateResetAfterIdle);
    assert!(!reading.benign);
    // Shut for both directions, or closed: the rest of what had ended.
    assert_eq!(reset(3, held).code, Code::CloseAftermath);
    assert_eq!(reset(2, held & !facts_flag::HAS_FILE).code, Code::CloseAftermath);
}

#[test]
fn a_refused_upload_is_told_from_a_cancelled_download() {
    let reset = |who: u8, answered_ago: u32| {
        judged(|record| {
            record.connection.role = who;
            record.facts.send_next = 30_000;
            record.facts.written = 90_000;
            record.facts.received_stamp = record.jiffies - answered_ago;
            record.facts.sent_stamp = record.jiffies;
        })
    };
    assert_eq!(reset(role::CLIENT, 2).code, Code::EarlyResponseClose);
    assert_eq!(reset(role::CLIENT, 500).code, Code::TransferCancelled);
    assert_eq!(reset(role::SERVER, 2).code, Code::TransferCancelled);
}

/// Node.js is not nginx, even if both close after so long; where the closing end is on this node, it is known which it was.
#[test]
fn the_process_at_the_other_end_narrows_the_products() {
    let reused = |record: &mut Record| {
        record.state = state::CLOSE_WAIT;
        record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON;
        record.facts.send_next = 100;
        record.facts.sent_stamp = record.jiffies;
        record.facts.received_stamp = record.jiffies - 1350;
        with_fin(record, first_fin::PEER, 400, 1250, 1250);
    };
    let closed_by = |comm: &str| {
        let process = Process { pid: 7, comm: comm.to_owned(), exe: None };
        let owner = Owner { process: Some(process), ..Owner::default() };
        let cause = Cause::new(Code::StaleConnectionReuse, Confidence::Certain, "why", "what to do");
        let sender = Sent::new(&cause, &owner);
        let cause = judged_as(None, Some(&sender), reused);
        cause.products.iter().map(|known| known.product.clone()).collect::<Vec<_>>()
    };
    assert_eq!(judged(reused).code, Code::StaleConnectionReuse);
    assert!(judged(reused).products.len() > 1);
    assert_eq!(closed_by("uvicorn"), ["uvicorn"]);
    assert_eq!(closed_by("java"), [""; 0], "no server of Java's closes after 5 s");
}

/// A reject rule of this node's makes a RST that is sent by no socket of it.
#[test]
fn an_open_connection_to_this_node_that_nobody_reset_was_rejected() {
    let without_timestamp = |record: &mut Record| {
        record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON;
        record.facts.sent_stamp = 100_000;
        record.facts.send_next = 50;
    };
    let cause = judged_without_a_sender(without_timestamp);
    assert_eq!((cause.code, cause.confidence), (Code::RejectedByFirewall, Confidence::Possible));
    assert_eq!(cause.evidence["in_flight_bytes"], 50);
    // A connection without timestamps tells as little of a socket.
    let off = judged_without_a_sender(|record| record.facts.bits = facts_flag::HAS_FILE);
    assert_eq!(off.code, Code::RejectedByFirewall);

    // Who sends a timestamp has a socket, on whatever host.
    assert_ne!(judged_without_a_sender(|_| ()).code, Code::RejectedByFirewall);
    // Its client may be one from elsewhere that a node gives its own address.
    let servers = judged_without_a_sender(|record| {
        without_timestamp(record);
        record.connection.role = role::SERVER;
    });
    assert_eq!(servers.code, Code::ConnectionUnknownAtPeer);
    assert_eq!(judged(without_timestamp).code, Code::ConnectionUnknownAtPeer);
}
