//! Connects that failed.

use super::*;

/// `tcp_v4_err` takes a note where the socket is locked.
#[test]
fn an_icmp_error_that_was_only_noted_is_no_timeout() {
    let given_up = |error: i32, resent: u8| {
        judged(|record| {
            record.kind = kind::CONNECT_FAILED;
            record.state = state::SYN_SENT;
            record.facts.shutdown = 3;
            record.facts.segments_out = 1;
            record.facts.retransmits = resent;
            record.facts.soft_error = error.cast_unsigned();
        })
    };
    let noted = given_up(libc::ECONNREFUSED, 0);
    assert_eq!((noted.code, noted.confidence), (Code::ConnectUnreachable, Confidence::Likely));
    assert_eq!(noted.evidence["icmp_error"], "ECONNREFUSED");
    assert_eq!(given_up(0, 0).code, Code::ConnectTimeoutApplication);
    // The kernel went on trying, and the application gave up later.
    assert_eq!(given_up(libc::EHOSTUNREACH, 2).code, Code::ConnectTimeoutApplication);
}

#[test]
fn a_connect_given_up_names_the_product_whose_timeout_it_is() {
    let given_up = |process: &str, ms: u64| {
        judged_as(Some(process), None, |record| {
            record.kind = kind::CONNECT_FAILED;
            record.state = state::SYN_SENT;
            record.facts.shutdown = 3;
            record.facts.segments_out = 1;
            record.connection.birth_ns = record.boot_ns - ms * 1_000_000;
        })
    };
    let istio = given_up("envoy", 10_001);
    let known = istio.products.first().unwrap();
    assert_eq!(known.product, "Istio sidecar / gateway");
    assert!(known.setting.contains("connectTimeout"), "{known:?}");
    assert_eq!(istio.evidence["round_ms"], 10_000);
    // Its own timeout, but not this program's; and none at all.
    assert!(given_up("node", 5_001).products.is_empty());
    assert!(given_up("envoy", 7_300).products.is_empty());
}

#[test]
fn a_refusal_by_this_node_itself_names_no_firewall() {
    let refused = |record: &mut Record| {
        record.kind = kind::CONNECT_FAILED;
        record.state = state::SYN_SENT;
        record.facts.error = libc::ECONNREFUSED.cast_unsigned();
        record.connection.flags |= connection_flag::RESET_RECEIVED;
    };
    let cause = judged(|record| {
        record.flags = flag::REASON;
        record.reason = 1;
        answering(record, socket::NONE, tcp_flag::SYN, 0);
    });
    let sender = Sent::new(&cause, &Owner::default());
    let proven = judged_as(None, Some(&sender), refused);
    assert_eq!((proven.code, proven.confidence), (Code::ConnectRefused, Confidence::Certain));
    assert_eq!(proven.evidence["sender_cause"], "port_closed");
    assert!(proven.summary.starts_with("Nobody listens"), "{}", proven.summary);
    let alone = judged(refused);
    assert!(alone.summary.contains("or a firewall rejects it"), "{}", alone.summary);
}

#[test]
fn timers_fire_late_and_a_round_time_is_still_round() {
    for (measured, expected) in [(998.0, Some(1000.0)), (1002.0, Some(1000.0)), (1020.0, Some(1000.0)), (1050.0, None)]
    {
        assert_eq!(round(Some(Millis(measured))), expected.map(Millis), "{measured}");
    }
    assert_eq!(round(Some(Millis(3.0))), None);
}
