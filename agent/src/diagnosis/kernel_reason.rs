//! The kernel's own reason for a reset held against the cause that the rules found.
//!
//! The two are independent: rules reason with the socket's state, the kernel names the branch of its code that sent the
//! RST (`enum sk_rst_reason`, by its names in the running kernel's BTF). Where they contradict each other one of the two
//! is wrong, and the line has to show it.

use super::{
    cause::{Cause, Confidence},
    code::Code,
};

/// Name of the evidence that shows a contradiction.
pub const DISAGREES: &str = "kernel_reason_disagrees";

/// The reasons that a reset *sent* by this host for this cause can come with, less `SK_RST_REASON_`; `None` if the cause
/// claims nothing about who sent it. A cause of resets that were received, or of no reset at all, comes with none.
const fn may_come_with(code: Code) -> Option<&'static [&'static str]> {
    /// `tcp_disconnect()`: which of the two depends only on the state it finds. Closing a listener and SOCK_DESTROY have
    /// no reason of their own and say `TCP_STATE` too.
    const DISCONNECT: &[&str] = &["TCP_STATE", "TCP_DISCONNECT_WITH_DATA"];
    /// `__tcp_close()` with unread data.
    const UNREAD: &[&str] = &["TCP_ABORT_ON_CLOSE"];
    /// Either, for what a process does to a connection because of something else.
    const EITHER: &[&str] = &["TCP_ABORT_ON_CLOSE", "TCP_STATE", "TCP_DISCONNECT_WITH_DATA"];
    /// What may answer a segment for a connection that was closed: its mini-socket, itself, a listener, nobody.
    const ANSWER: &[&str] = &["TCP_TIMEWAIT_SOCKET", "TCP_ABORT_ON_DATA", "TCP_FLAGS", "NO_SOCKET"];
    /// The same, or the closing itself when the segment came just before.
    const ANSWER_OR_CLOSE: &[&str] =
        &["TCP_TIMEWAIT_SOCKET", "TCP_ABORT_ON_DATA", "TCP_FLAGS", "NO_SOCKET", "TCP_ABORT_ON_CLOSE"];
    /// The same, or linger 0.
    const ANSWER_OR_ANY_CLOSE: &[&str] = &[
        "TCP_TIMEWAIT_SOCKET",
        "TCP_ABORT_ON_DATA",
        "TCP_FLAGS",
        "NO_SOCKET",
        "TCP_ABORT_ON_CLOSE",
        "TCP_STATE",
        "TCP_DISCONNECT_WITH_DATA",
    ];

    Some(match code {
        Code::Unknown => return None,
        Code::KeepaliveTimeout => &["TCP_KEEPALIVE_TIMEOUT"],
        Code::OrphanOutOfMemory => &["TCP_ABORT_ON_MEMORY"],
        // At close(); by the timer of an orphan; when the peer acknowledges the FIN (`tcp_rcv_state_process`).
        Code::Linger2 => &["TCP_ABORT_ON_LINGER", "TCP_STATE", "TCP_ABORT_ON_DATA"],
        Code::DestroyedByAdmin | Code::ListenerClosed => &["TCP_STATE"],
        // `tcp_disconnect()`: by SO_LINGER 0 or by connect() itself.
        Code::LingerZeroClose | Code::Disconnect => DISCONNECT,
        Code::ProxiedReset => EITHER,
        Code::TransferCancelled | Code::ClosedWithUnreadData => UNREAD,
        Code::DataAfterShutdown => &["TCP_ABORT_ON_DATA"],
        // Closed with the request in the receive queue, or just before it came.
        Code::KeepaliveRace => &["TCP_ABORT_ON_CLOSE", "TCP_ABORT_ON_DATA"],
        Code::StaleConnectionReuse | Code::EarlyResponseClose | Code::TlsCloseNotify => ANSWER_OR_CLOSE,
        // A process that ended, or a proxy that closed: its sockets at that moment, or what came for them afterwards.
        Code::ClientGone | Code::ProcessExit | Code::ProxyConnectTimeout => ANSWER_OR_ANY_CLOSE,
        Code::CloseAftermath => ANSWER,
        // The handshake's last ACK or the data behind it meets a request that cannot become a socket (`tcp_check_req`).
        Code::AcceptQueueOverflow => &["INVALID_SYN"],
        Code::PortClosed => &["NO_SOCKET"],
        Code::LateSynAck | Code::ConnectionUnknown => &["NO_SOCKET", "TCP_FLAGS"],
        Code::LateResetAfterIdle
        | Code::ConnectTimeoutApplication
        | Code::ConnectTimeoutKernel
        | Code::ConnectRefused
        | Code::ConnectUnreachable
        | Code::ConnectNotSent
        | Code::AbortedBeforeAccept
        | Code::PeerClosedWithoutReading
        | Code::ConnectionUnknownAtPeer
        | Code::PeerAbortedWithRequestPending
        | Code::PeerAbortedIdle
        | Code::RetransmissionTimeout
        | Code::UserTimeout
        | Code::ZeroWindowTimeout
        | Code::RejectedByFirewall => &[],
    })
}

/// Adds the kernel's reason to the evidence of a reset that was sent. If it contradicts the cause, that is shown and the
/// cause is no more than possible.
#[must_use]
pub fn hold_against(cause: Cause, reason: Option<&str>) -> Cause {
    let contradicts = reason.filter(|reason| may_come_with(cause.code).is_some_and(|names| !names.contains(reason)));
    let confidence = if contradicts.is_some() { Confidence::Possible } else { cause.confidence };
    Cause { confidence, ..cause }.with(DISAGREES, contradicts).with("kernel_reason", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name that Linux 7.2 has for a plain TCP reset.
    const NAMES: [&str; 16] = [
        "NO_SOCKET",
        "TCP_INVALID_ACK_SEQUENCE",
        "TCP_RFC7323_PAWS",
        "TCP_TOO_OLD_ACK",
        "TCP_ACK_UNSENT_DATA",
        "TCP_FLAGS",
        "TCP_OLD_ACK",
        "TCP_ABORT_ON_DATA",
        "TCP_TIMEWAIT_SOCKET",
        "INVALID_SYN",
        "TCP_ABORT_ON_CLOSE",
        "TCP_ABORT_ON_LINGER",
        "TCP_ABORT_ON_MEMORY",
        "TCP_STATE",
        "TCP_KEEPALIVE_TIMEOUT",
        "TCP_DISCONNECT_WITH_DATA",
    ];

    fn held(code: Code, reason: Option<&str>) -> Cause {
        hold_against(Cause::new(code, Confidence::Certain, "why", "what to do"), reason)
    }

    #[test]
    fn the_table_names_only_what_kernels_say() {
        for code in Code::ALL {
            for name in may_come_with(*code).unwrap_or_default() {
                assert!(NAMES.contains(name), "{}: {name}", code.name());
            }
        }
    }

    /// A reason that only one branch of the kernel gives belongs to one cause alone.
    #[test]
    fn reasons_of_a_single_branch_belong_to_one_cause() {
        for (reason, owner) in [
            ("TCP_KEEPALIVE_TIMEOUT", Code::KeepaliveTimeout),
            ("TCP_ABORT_ON_MEMORY", Code::OrphanOutOfMemory),
            ("TCP_ABORT_ON_LINGER", Code::Linger2),
            ("INVALID_SYN", Code::AcceptQueueOverflow),
        ] {
            for code in Code::ALL.iter().filter(|code| **code != Code::Unknown) {
                let agrees = !held(*code, Some(reason)).evidence.contains_key(DISAGREES);
                assert_eq!(agrees, *code == owner, "{} with {reason}", code.name());
            }
        }
    }

    #[test]
    fn agreement_leaves_the_cause_as_it_was() {
        let cause = held(Code::ClosedWithUnreadData, Some("TCP_ABORT_ON_CLOSE"));
        assert_eq!(cause.confidence, Confidence::Certain);
        assert_eq!(cause.evidence["kernel_reason"], "TCP_ABORT_ON_CLOSE");
        assert!(!cause.evidence.contains_key(DISAGREES));
    }

    #[test]
    fn a_contradiction_is_shown_and_nothing_is_certain_any_more() {
        let cause = held(Code::ClosedWithUnreadData, Some("TCP_STATE"));
        assert_eq!(cause.confidence, Confidence::Possible);
        assert_eq!(cause.evidence[DISAGREES], "TCP_STATE");
        assert_eq!(cause.evidence["kernel_reason"], "TCP_STATE");
    }

    /// A kernel that is newer than the table, or an MPTCP subflow.
    #[test]
    fn a_reason_the_table_does_not_know_proves_nothing() {
        let cause = held(Code::DestroyedByAdmin, Some("MPTCP_RST_EMPTCP"));
        assert_eq!((cause.confidence, &cause.evidence[DISAGREES]), (Confidence::Possible, &"MPTCP_RST_EMPTCP".into()));
    }

    #[test]
    fn no_reason_and_an_unknown_cause_contradict_nothing() {
        assert_eq!(held(Code::ListenerClosed, None).confidence, Confidence::Certain);
        assert!(!held(Code::Unknown, Some("TCP_OLD_ACK")).evidence.contains_key(DISAGREES));
    }
}
