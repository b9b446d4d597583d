//! What real programs were seen to do in `cargo xtask incidents`, and had another cause before.

use agent_common::{connection::Task, tcp::sock_flag};

use super::*;

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
    recent.note(&event(|record| {
        record.boot_ns -= 300_000;
        record.connection.owner = PROXY;
        record.tuple.local_port = 40_000;
    }));
    assert_eq!(closed(&recent, sock_flag::LINGER).code, Code::ProxiedReset);
    // Without the wish to reset, or without a reset to repeat, it is the application's own close.
    assert_eq!(closed(&recent, 0).code, Code::ClosedWithUnreadData);
    assert_eq!(closed(&Recent::default(), sock_flag::LINGER).code, Code::ClosedWithUnreadData);
}
