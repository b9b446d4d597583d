//! Sockets that were closed in a way that sends a RST.

use super::*;

/// Java NIO on an idle timeout: a FIN, and the close up to a second later.
#[test]
fn a_request_between_a_servers_fin_and_its_close_is_stale_reuse() {
    let closed = |change: fn(&mut Record)| {
        sent(11, |record| {
            record.flags |= flag::ENDED;
            record.connection.role = role::SERVER;
            record.connection.last_state = state::FIN_WAIT2;
            record.state = state::FIN_WAIT2;
            with_fin(record, first_fin::LOCAL, 400, 752, 751);
            record.facts.received_stamp = record.jiffies - 50;
            record.facts.sent_stamp = record.connection.fin_sent_stamp;
            record.facts.receive_next = 75;
            record.facts.shutdown = 3;
            change(record);
        })
    };
    let stale = closed(|_| {});
    assert_eq!((stale.code, stale.confidence), (Code::StaleConnectionReuse, Confidence::Likely));
    assert!(stale.summary.contains("3.00 s idle") && stale.summary.contains("200 ms later"), "{}", stale.summary);
    // A half-close that ends a busy exchange is none, and neither is data that had come before.
    let busy = closed(|record| record.connection.fin_sent_stamp = record.connection.fin_jiffies - 10);
    assert_eq!(busy.code, Code::ClosedWithUnreadData);
    let before = closed(|record| record.facts.received_stamp = record.connection.fin_received_stamp);
    assert_eq!(before.code, Code::ClosedWithUnreadData);
}

/// Closing with unread data after the peer's FIN.
fn closed_after_the_peers_fin(who: u8, unread: u32, change: impl FnOnce(&mut Record)) -> Cause {
    sent(11, |record| {
        record.flags |= flag::ENDED;
        record.state = state::CLOSE_WAIT;
        record.connection.role = who;
        record.connection.last_state = state::CLOSE_WAIT;
        record.facts.receive_next = unread;
        record.facts.shutdown = 3;
        record.facts.bytes_sent = 0;
        record.facts.bytes_received = 500;
        with_fin(record, first_fin::PEER, 400, 150, 150);
        nothing_since_the_fin(record);
        change(record);
    })
}

#[test]
fn a_server_that_closes_on_a_client_that_has_left_says_who_left() {
    let gone = closed_after_the_peers_fin(role::SERVER, 200, |_| {});
    assert_eq!((gone.code, gone.confidence), (Code::ClientGone, Confidence::Likely));
    assert!(gone.summary.contains("200 bytes of its request unread"), "{}", gone.summary);
    // What was answered after the FIN was answered.
    let answered = closed_after_the_peers_fin(role::SERVER, 200, |record| {
        record.facts.bytes_sent = 90;
        record.facts.sent_stamp = record.jiffies - 10;
    });
    assert_eq!(answered.code, Code::ClosedWithUnreadData);
    // A client that leaves the end of a finished answer unread cancels nothing.
    assert_eq!(closed_after_the_peers_fin(role::CLIENT, 200, |_| {}).code, Code::ClosedWithUnreadData);
}

#[test]
fn an_unread_farewell_is_benign_at_both_ends() {
    for who in [role::CLIENT, role::SERVER] {
        let with_the_fin = |record: &mut Record| {
            record.facts.bytes_sent = 90;
            with_fin(record, first_fin::PEER, 400, 0, 10);
            nothing_since_the_fin(record);
        };
        let notify = closed_after_the_peers_fin(who, 24, with_the_fin);
        assert_eq!((notify.code, notify.benign), (Code::TlsCloseNotify, true));
        assert_ne!(closed_after_the_peers_fin(who, 200, with_the_fin).code, Code::TlsCloseNotify);
        // As long, but it came long before the FIN.
        let early = closed_after_the_peers_fin(who, 24, |record| record.facts.bytes_sent = 90);
        assert_ne!(early.code, Code::TlsCloseNotify);
    }
}

/// A virtual machine that was stopped by its host: the tick counter is 65 ms behind the clock that the FIN was timed with, so
/// by the times alone the answer before the FIN and the farewell with it would have come after it.
#[test]
fn ticks_that_lag_put_nothing_after_the_fin() {
    let stopped = |unread: u32, received_before: u32| {
        closed_after_the_peers_fin(role::SERVER, unread, |record| {
            record.facts.bytes_sent = 90;
            with_fin(record, first_fin::PEER, 304, received_before, 0);
            nothing_since_the_fin(record);
            record.connection.first_fin_ns -= 65_000_000;
        })
    };
    assert_eq!(stopped(24, 0).code, Code::TlsCloseNotify);
    assert_eq!(stopped(240, 0).code, Code::ClientGone);
    assert_eq!(stopped(24, 100).code, Code::ClientGone);
}

#[test]
fn a_health_check_is_benign_and_a_client_that_waited_is_not() {
    let check = |age_ms: u64, bytes: u64| {
        sent(14, |record| {
            record.flags |= flag::ENDED;
            record.facts.flags = sock_flag::LINGER;
            record.facts.linger = 0;
            record.facts.shutdown = 3;
            record.facts.bytes_sent = bytes;
            record.facts.bytes_received = 0;
            record.connection.birth_ns = record.boot_ns - age_ms * 1_000_000;
        })
    };
    assert_eq!((check(2, 0).code, check(2, 0).benign), (Code::LingerZeroClose, true));
    assert!(!check(5000, 0).benign, "it may have waited for a greeting");
    assert!(!check(2, 10).benign);
}

/// One thread of one process: a connect that it gave up, and a fraction of a millisecond later a client closed unread.
#[test]
fn a_proxy_that_gave_up_connecting_names_its_setting() {
    let by_thread = |record: &mut Record| {
        record.flags |= flag::ACTOR;
        (record.actor.tgid, record.actor.tid) = (7, 8);
    };
    let closed_after = |error: i32| {
        let connect = decoded(|record| {
            by_thread(record);
            record.kind = kind::CONNECT_FAILED;
            record.state = state::SYN_SENT;
            record.connection.owner.tgid = 7;
            record.connection.birth_ns = record.boot_ns - 10_001_000_000;
            record.tuple.local_port = 40_000;
            record.facts.shutdown = 3;
            record.facts.segments_out = 1;
            record.facts.error = error.cast_unsigned();
        });
        let close = decoded(|record| {
            by_thread(record);
            record.kind = kind::RESET_SENT;
            record.flags |= flag::ENDED;
            record.boot_ns += 200_000;
            record.connection.role = role::SERVER;
            record.tuple.local_port = 15_001;
            record.facts.receive_next = 517;
            record.facts.bytes_sent = 0;
            record.facts.shutdown = 3;
        });
        let mut recent = Recent::default();
        recent.note(&connect, &Owner::default()).unwrap();
        judged_event(&close, Some("envoy"), Other::default(), &recent)
    };
    let gave_up = closed_after(0);
    assert_eq!((gave_up.code, gave_up.confidence), (Code::ProxyConnectTimeout, Confidence::Likely));
    assert_eq!(gave_up.evidence["connect_failure"], "abandoned");
    assert_eq!(gave_up.products.first().map(|known| known.product.as_str()), Some("Istio sidecar / gateway"));
    // The kernel gave up or the network did: no timeout of the proxy's.
    let unreachable = closed_after(libc::EHOSTUNREACH);
    assert_eq!(unreachable.code, Code::ProxyConnectTimeout);
    assert_eq!(unreachable.evidence["connect_failure"], "icmp_error");
    assert!(unreachable.products.is_empty());
}
