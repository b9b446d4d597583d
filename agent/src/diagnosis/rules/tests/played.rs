//! What real programs were seen to do in `cargo xtask incidents`, and had another cause before.

use agent_common::{
    connection::{Task, owner_from},
    tcp::sock_flag,
};

use super::*;
use crate::diagnosis::limits::{Limit, Limits};

const PROXY: Task = Task { tgid: 7, tid: 8, ..Task::NOBODY };

/// Envoy as a proxy for TCP, whose upstream was killed in the middle of an upload.
#[test]
fn envoy_passes_on_a_reset_with_an_upload_unread() {
    let closed = |recent: &Recent, flags: u32| {
        judged_after(recent, |record| {
            record.kind = kind::RESET_SENT;
            record.flags |= flag::ENDED | flag::ACTOR;
            record.actor = PROXY;
            record.connection.role = role::SERVER;
            record.facts.flags = flags;
            record.facts.receive_next = 2_221_974;
            record.facts.shutdown = 3;
        })
    };
    let mut recent = Recent::default();
    let upstream = decoded(|record| {
        record.boot_ns -= 300_000;
        record.connection.owner = PROXY;
        record.connection.owner_from = owner_from::CONNECT;
        record.tuple.local_port = 40_000;
    });
    recent.note(&upstream, &Owner::default()).unwrap();
    assert_eq!(closed(&recent, sock_flag::LINGER).code, Code::ProxiedReset);
    // Without the wish to reset, or without a reset to repeat, it is the application's own close.
    assert_eq!(closed(&recent, 0).code, Code::ClosedWithUnreadData);
    assert_eq!(closed(&Recent::default(), sock_flag::LINGER).code, Code::ClosedWithUnreadData);
}

/// CherryPy answers 413 and closes; the body of the upload comes after its FIN.
#[test]
fn cherrypy_refuses_an_upload_and_no_idle_timeout_is_to_blame() {
    let answered = |fin_ms: u64, idle_ticks: u32| {
        judged(|record| {
            record.kind = kind::RESET_ANSWERED;
            record.socket = socket::TIME_WAIT;
            record.flags = flag::FACTS | flag::CONNECTION | flag::CLOSED | flag::SEGMENT;
            record.segment = Segment { flags: tcp_flag::PSH | tcp_flag::ACK, payload: 65_536, ..Segment::default() };
            record.connection.role = role::SERVER;
            record.closed_ns = record.boot_ns - 1_000_000;
            with_fin(record, first_fin::LOCAL, fin_ms, idle_ticks, idle_ticks);
        })
    };
    let refused = answered(123, 0);
    assert_eq!((refused.code, refused.confidence), (Code::EarlyResponseClose, Confidence::Possible));
    // Idle before, or used again much later: the connection was kept.
    assert_eq!(answered(123, 500).code, Code::StaleConnectionReuse);
    assert_eq!(answered(3000, 0).code, Code::StaleConnectionReuse);
}

/// The same from the client's end alone.
#[test]
fn an_upload_that_cherrypy_refuses_was_no_idle_connection() {
    let reset = |unsent: u32, idle_ticks: u32| {
        judged(|record| {
            record.state = state::CLOSE_WAIT;
            record.facts.bits = facts_flag::HAS_FILE | facts_flag::TIMESTAMPS_ON;
            record.facts.sent_stamp = record.jiffies;
            record.facts.send_next = 65_536;
            record.facts.written = record.facts.send_next + unsent;
            with_fin(record, first_fin::PEER, 62, idle_ticks, idle_ticks);
        })
    };
    let refused = reset(458_752, 0);
    assert_eq!((refused.code, refused.confidence), (Code::EarlyResponseClose, Confidence::Likely));
    assert_eq!(reset(0, 0).confidence, Confidence::Possible);
    assert_eq!(reset(458_752, 500).code, Code::StaleConnectionReuse);
}

/// gunicorn answers, shuts its side, waits a little for the rest of the upload, and closes with more of it unread.
#[test]
fn gunicorn_drains_a_refused_upload_before_it_closes() {
    let closed = |idle_ticks: u32| {
        sent(11, |record| {
            record.flags |= flag::ENDED;
            record.state = state::FIN_WAIT2;
            record.connection.role = role::SERVER;
            with_fin(record, first_fin::LOCAL, 40, idle_ticks, idle_ticks);
            record.facts.received_stamp = record.jiffies;
            record.facts.sent_stamp = record.jiffies - 19;
            record.facts.receive_next = 16_752;
            record.facts.shutdown = 3;
        })
    };
    assert_eq!(closed(9).code, Code::EarlyResponseClose);
    assert_eq!(closed(200).code, Code::ClosedWithUnreadData);
}

/// HAProxy checks one server by connecting, and has just given up a connect to another.
#[test]
fn haproxys_health_check_is_benign_and_no_proxys_doing() {
    let mut recent = Recent::default();
    let dead = decoded(|record| {
        record.kind = kind::CONNECT_FAILED;
        record.boot_ns -= 300_000;
        record.connection.owner = PROXY;
        record.flags |= flag::ACTOR;
        record.actor = PROXY;
        record.tuple.local_port = 40_000;
    });
    recent.note(&dead, &Owner::default()).unwrap();
    let closed = |who: u8, bytes: u64| {
        judged_after(&recent, |record| {
            record.kind = kind::RESET_SENT;
            record.flags |= flag::ENDED | flag::ACTOR;
            record.actor = PROXY;
            record.facts.flags = sock_flag::LINGER;
            record.facts.shutdown = 3;
            record.facts.bytes_sent = bytes;
            record.facts.bytes_received = bytes;
            record.connection.birth_ns = record.boot_ns - 2_000_000;
            record.connection.role = who;
        })
    };
    let check = closed(role::CLIENT, 0);
    assert_eq!((check.code, check.benign), (Code::LingerZeroClose, true));
    // It did not open the one for the other.
    let used = closed(role::CLIENT, 100);
    assert_eq!((used.code, used.benign), (Code::LingerZeroClose, false));
    let client = closed(role::SERVER, 100);
    assert_eq!((client.code, client.benign), (Code::ProxyConnectTimeout, false));
}

/// A provider takes a request that was sent in the same tick as its last answer came, acknowledges it, and gives up later.
#[test]
fn a_delayed_ack_after_the_last_answer_is_a_request_pending() {
    let aborted = |ack_ticks: u32| {
        judged(|record| {
            record.facts.sent_stamp = record.jiffies - 500;
            record.facts.received_stamp = record.jiffies - 500;
            record.facts.ack_stamp = record.jiffies - ack_ticks;
        })
    };
    assert_eq!(aborted(489).code, Code::PeerAbortedWithRequestPending);
    assert_eq!(aborted(500).code, Code::PeerAbortedIdle);
    // The answer to a keepalive probe is no delayed ACK.
    assert_eq!(aborted(200).code, Code::PeerAbortedIdle);
}

/// Every server closes after 6 s.
struct SixSeconds;

impl Limits for SixSeconds {
    fn of(&self, _: std::net::IpAddr, _: u16, _: u32) -> Option<Limit> {
        Some(Limit { last: Millis(6004.0), least: Millis(6000.0), count: 1 })
    }
}

/// Node.js is busy as its idle timer comes due, and looks at its timers before it reads.
#[test]
fn node_is_busy_when_its_idle_timer_comes_due() {
    let ends = |gap_ticks: u32, waited_ticks: u32| {
        let server = |record: &mut Record| {
            record.kind = kind::RESET_SENT;
            record.flags |= flag::ENDED;
            record.connection.role = role::SERVER;
            record.facts.received_stamp = record.jiffies - waited_ticks;
            record.facts.sent_stamp = record.jiffies - waited_ticks - gap_ticks;
            record.facts.receive_next = 75;
            record.facts.shutdown = 3;
        };
        let client = |record: &mut Record| {
            record.facts.sent_stamp = record.jiffies - waited_ticks;
            record.facts.received_stamp = record.jiffies - waited_ticks - gap_ticks;
        };
        [code_with_limits(server), code_with_limits(client)]
    };
    // 5.85 s idle, then 0.45 s unread.
    assert_eq!(ends(1462, 112), [Code::KeepaliveRace; 2]);
    // The request can also come after the limit, as long as Node.js is busy.
    assert_eq!(ends(1615, 43), [Code::KeepaliveRace; 2]);
    // The limit had not come, was long over, or the request lay there for longer than a server is busy.
    assert_eq!(ends(1200, 112), [Code::ClosedWithUnreadData, Code::LateResetAfterIdle]);
    assert_eq!(ends(1700, 112), [Code::ClosedWithUnreadData, Code::LateResetAfterIdle]);
    assert_eq!(ends(1300, 500), [Code::ClosedWithUnreadData, Code::LateResetAfterIdle]);
}

fn code_with_limits(change: impl FnOnce(&mut Record)) -> Code {
    let timeouts = Timeouts::built_in();
    let event = decoded(|record| {
        record.tuple.netns = 1;
        record.tuple.local_port = 8080;
        record.tuple.peer_port = 8080;
        change(record);
    });
    let context = Context {
        process: None,
        before: None,
        limits: &SixSeconds,
        timeouts: &timeouts,
        sender: None,
        receiver: None,
        sender_missing: false,
    };
    judge(&event, &context).code
}

/// Tomcat shuts its side of an idle connection, takes the next request, and closes a second later; it is on another host.
#[test]
fn a_request_that_tomcat_takes_after_its_fin_is_stale_reuse_at_the_client_alone() {
    let reset = |idle_ticks: u32, sent_ticks_ago: u32| {
        judged(|record| {
            record.state = state::CLOSE_WAIT;
            record.facts.sent_stamp = record.jiffies - sent_ticks_ago;
            record.facts.received_stamp = record.jiffies - 1009;
            with_fin(record, first_fin::PEER, 966, idle_ticks, idle_ticks);
        })
    };
    let stale = reset(768, 230);
    assert_eq!((stale.code, stale.confidence), (Code::StaleConnectionReuse, Confidence::Likely));
    assert!(stale.summary.contains("3.07 s idle"), "{}", stale.summary);
    // What ends a running exchange, or was sent before the FIN, is not.
    assert_eq!(reset(10, 230).code, Code::PeerClosedWithoutReading);
    assert_eq!(reset(768, 1009).code, Code::PeerClosedWithoutReading);
    // In the tick of the FIN: it had been idle until then.
    assert_eq!(reset(768, 242).code, Code::StaleConnectionReuse);
}
