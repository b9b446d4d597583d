//! Connections that a timer ended.

use super::*;

/// A FIN that a rule of this host's firewall dropped was told as a peer that does not read.
#[test]
fn probes_into_an_open_window_say_that_nothing_left_this_host() {
    let probed = |window: u32| {
        judged(|record| {
            record.kind = kind::TIMED_OUT;
            record.facts.probes = 8;
            record.facts.send_window = window;
            record.facts.written = record.facts.send_next + 1;
        })
    };
    let closed = probed(0);
    assert_eq!((closed.code, closed.confidence), (Code::ZeroWindowTimeout, Confidence::Certain));
    let open = probed(64_256);
    assert_eq!((open.code, open.confidence), (Code::RetransmissionTimeout, Confidence::Likely));
    assert!(open.summary.contains("never left this host in 8 tries"), "{}", open.summary);
}
