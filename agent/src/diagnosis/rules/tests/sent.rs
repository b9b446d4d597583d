//! Resets that were sent, and the kernel's reason for them.

use super::*;

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
fn a_syn_for_a_port_that_is_served_is_not_a_closed_port() {
    let syn = |on: u8, reason: u32| {
        judged(|record| {
            record.flags = flag::REASON;
            record.reason = reason;
            answering(record, on, tcp_flag::SYN, 0);
        })
    };
    assert_eq!(syn(socket::NONE, 1).code, Code::PortClosed);
    // A half-open request of the same ends; the TIME_WAIT of an earlier connection.
    assert_eq!(syn(socket::LISTENER, 10).code, Code::Unknown);
    assert_eq!(syn(socket::TIME_WAIT, 9).code, Code::Unknown);
}

#[test]
fn a_subflow_of_mptcp_that_resets_itself_was_not_destroyed() {
    let still_open = |reason: u32| {
        sent(reason, |record| {
            record.flags |= flag::ACTOR;
            record.actor.tgid = 7;
        })
    };
    assert_eq!(still_open(14).code, Code::DestroyedByAdmin);
    assert_eq!(still_open(18).code, Code::Unknown);
}

#[test]
fn a_reason_against_the_rule_is_in_the_line() {
    // Unread data, and the kernel says that it disconnected.
    let cause = sent(14, |record| {
        record.flags |= flag::ENDED;
        record.connection.role = role::SERVER;
        record.facts.receive_next = 5;
        record.facts.shutdown = 3;
    });
    assert_eq!((cause.code, cause.confidence), (Code::ClosedWithUnreadData, Confidence::Possible));
    assert_eq!(cause.evidence[kernel_reason::DISAGREES], "TCP_STATE");
}

#[test]
fn a_close_acknowledged_to_a_socket_that_does_not_wait_is_linger2() {
    let acked = |reason: u32, payload: u32| {
        sent(reason, |record| {
            answering(record, socket::FULL, tcp_flag::ACK, payload);
            record.flags |= flag::ENDED;
            record.facts.bits = 0;
            record.connection.role = role::SERVER;
            record.connection.last_state = state::FIN_WAIT1;
            record.state = state::FIN_WAIT1;
            with_fin(record, first_fin::LOCAL, 1, 500, 500);
        })
    };
    let by_reason = acked(8, 0);
    assert_eq!((by_reason.code, by_reason.confidence), (Code::Linger2, Confidence::Certain));
    let by_state = acked(0, 0);
    assert_eq!((by_state.code, by_state.confidence), (Code::Linger2, Confidence::Likely));
    // With data it is what the data came for.
    assert_eq!(acked(8, 10).code, Code::StaleConnectionReuse);
}

#[test]
fn data_that_crossed_the_fin_is_a_race_where_the_server_was_idle() {
    let crossed = |idle: u32| {
        let mut event = decoded(|record| {
            answering(record, socket::FULL, tcp_flag::PSH | tcp_flag::ACK, 100);
            record.flags |= flag::ENDED;
            record.facts.bits = 0;
            record.connection.role = role::SERVER;
            record.state = state::FIN_WAIT1;
            with_fin(record, first_fin::LOCAL, 2, idle, idle);
        });
        event.facts.data_without_reader = true;
        judged_event(&event, Some("node"), Other::default(), &Recent::default())
    };
    let race = crossed(1501);
    assert_eq!((race.code, race.confidence), (Code::KeepaliveRace, Confidence::Likely));
    assert_eq!(race.products.first().map(|known| known.product.as_str()), Some("Node.js http/https"));
    // A server that closes a busy connection: nobody's idle timer.
    let busy = crossed(1);
    assert_eq!((busy.code, busy.confidence), (Code::EarlyResponseClose, Confidence::Possible));
}

/// CherryPy was seen to lose the processor between shutdown() and close(), with the rest of an upload on its way.
#[test]
fn data_between_a_servers_shutdown_and_its_close_is_the_rest_of_a_request() {
    let shut = |role: u8, ago_ms: u64, idle: u32| {
        let mut event = decoded(|record| {
            answering(record, socket::FULL, tcp_flag::ACK, 32_768);
            record.flags |= flag::ENDED;
            record.connection.role = role;
            record.state = state::FIN_WAIT2;
            record.facts.shutdown = 3;
            with_fin(record, first_fin::LOCAL, ago_ms, idle, idle);
        });
        event.facts.data_without_reader = true;
        judged_event(&event, Some("node"), Other::default(), &Recent::default())
    };
    let close = shut(role::SERVER, 1, 0);
    assert_eq!((close.code, close.confidence), (Code::EarlyResponseClose, Confidence::Possible));
    for (role, ago_ms, idle) in [(role::SERVER, 200, 0), (role::SERVER, 1, 500), (role::CLIENT, 1, 0)] {
        let left = shut(role, ago_ms, idle);
        assert_eq!((left.code, left.confidence), (Code::DataAfterShutdown, Confidence::Certain), "{ago_ms} {idle}");
    }
}

#[test]
fn a_killed_server_closed_no_idle_connection() {
    let cause = after_close(role::SERVER, |record| {
        with_fin(record, first_fin::LOCAL, 300, 1250, 1250);
        record.connection.flags |= connection_flag::CLOSER_KNOWN | connection_flag::CLOSER_EXITING;
        record.connection.exit_code = 9;
    });
    assert_eq!((cause.code, cause.confidence), (Code::ProcessExit, Confidence::Certain));
    assert_eq!(cause.evidence["signal"], 9);
    assert_eq!(
        after_close(role::SERVER, |record| with_fin(record, first_fin::LOCAL, 300, 1250, 1250)).code,
        Code::StaleConnectionReuse
    );
}

#[test]
fn a_client_that_gave_up_names_what_it_waited_for() {
    // OkHttp reads for 10 s.
    let gone = after_close(role::CLIENT, |record| {
        record.facts.bytes_received = 0;
        with_fin(record, first_fin::LOCAL, 300, 2502, 2501);
    });
    assert_eq!((gone.code, gone.confidence), (Code::ClientGone, Confidence::Certain));
    assert_eq!(gone.evidence["client_waited_ms"], 10_004);
    assert_eq!(gone.products.first().map(|known| known.product.as_str()), Some("OkHttp"));
    // The server had spoken last: nobody waited.
    let at_rest = after_close(role::CLIENT, |record| with_fin(record, first_fin::LOCAL, 300, 1000, 1250));
    assert_eq!(at_rest.code, Code::ClientGone);
    assert!(!at_rest.evidence.contains_key("client_waited_ms"));
    assert!(at_rest.products.iter().any(|known| known.setting.contains("keepAliveTimeout")), "{:?}", at_rest.products);
}

#[test]
fn who_gave_up_is_not_known_without_a_role() {
    let cause = after_close(role::UNKNOWN, |record| with_fin(record, first_fin::LOCAL, 300, 1250, 1250));
    assert_eq!((cause.code, cause.confidence), (Code::StaleConnectionReuse, Confidence::Possible));
}

/// The same 31 bytes, as the client's farewell to a server that closes and the server's to a client that does.
#[test]
fn a_farewell_to_a_client_that_closes_is_no_answer() {
    let farewell = |payload: u32| {
        after_close(role::CLIENT, |record| {
            record.segment.payload = payload;
            with_fin(record, first_fin::LOCAL, 1, 5, 0);
        })
    };
    assert_eq!((farewell(31).code, farewell(31).benign), (Code::TlsCloseNotify, true));
    assert_eq!(farewell(310).code, Code::ClientGone);
}
