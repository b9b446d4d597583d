//! The closed set of cause codes, in one table.
//!
//! A cause is added here, with its page in `docs/causes` (shown by `rstscope explain`), its rule in
//! [`rules`](super::rules), its name in the JSON Schema and its kernel test; a unit test of `explain` holds page, schema
//! and test names together.

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($variant:ident $name:literal $benign:literal $title:literal;)+) => {
        /// Why a connection was reset or a connect failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $variant,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in lines, metrics and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it is, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// Whether nobody needs to do anything about it.
            #[must_use]
            pub const fn is_benign(self) -> bool {
                match self { $(Self::$variant => $benign,)+ }
            }

            /// Its page: what it means, how it is recognised, how to confirm it by hand, how to fix it.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self { $(Self::$variant => include_str!(concat!("../../../docs/causes/", $name, ".md")),)+ }
            }
        }
    };
}

codes! {
    StaleConnectionReuse "stale_connection_reuse" false "a connection was used after the other side had closed it (keep-alive mismatch)";
    KeepaliveRace "keepalive_race" false "the server's idle timer fired while a request was already on its way";
    LateResetAfterIdle "late_reset_after_idle" false "a request on a long-idle connection was acknowledged, never answered and reset";
    ProxyConnectTimeout "proxy_connect_timeout" false "a proxy gave up connecting upstream and closed its client's connection";
    ProxiedReset "proxied_reset" false "a proxy passed on a reset from its other side";
    ConnectTimeoutApplication "connect_timeout_application" false "the application gave up a connect";
    ConnectTimeoutKernel "connect_timeout_kernel" false "no answer to any SYN";
    ConnectRefused "connect_refused" false "a RST answered the SYN";
    ConnectUnreachable "connect_unreachable" false "an ICMP error answered the SYN";
    ConnectNotSent "connect_not_sent" false "a connect failed before a SYN left";
    PortClosed "port_closed" false "a SYN came for a port nobody listens on";
    AcceptQueueOverflow "accept_queue_overflow" false "the listener's accept queue was full and tcp_abort_on_overflow is set";
    ListenerClosed "listener_closed" false "the listener was closed with the connection still in its queue";
    AbortedBeforeAccept "aborted_before_accept" false "the client reset the connection before the server accepted it";
    ClosedWithUnreadData "closed_with_unread_data" false "a socket was closed with received data unread";
    EarlyResponseClose "early_response_close" false "a server answered and closed while the request was still arriving";
    ProcessExit "process_exit" false "the process that held the connection ended";
    LingerZeroClose "linger_zero_close" false "a socket was closed with SO_LINGER 0";
    Disconnect "disconnect" false "a socket was disconnected (connect to AF_UNSPEC)";
    DestroyedByAdmin "destroyed_by_admin" false "an administrator destroyed the socket (ss -K)";
    Linger2 "linger2" false "a closed socket waited too long for the peer's FIN (TCP_LINGER2)";
    OrphanOutOfMemory "orphan_out_of_memory" false "the kernel ran out of memory or room for closed sockets";
    DataAfterShutdown "data_after_shutdown" false "data came for a socket its own application had shut down";
    PeerClosedWithoutReading "peer_closed_without_reading" false "the peer shut its side, took late data and closed without reading it";
    ClientGone "client_gone" false "the client had closed before the answer came";
    TransferCancelled "transfer_cancelled" false "the receiver stopped a running transfer";
    ConnectionUnknownAtPeer "connection_unknown_at_peer" false "the peer did not know the connection";
    ConnectionUnknown "connection_unknown" false "a segment came for a connection this host does not know";
    PeerAbortedWithRequestPending "peer_aborted_with_request_pending" false "the peer's process aborted the connection with a request unanswered";
    PeerAbortedIdle "peer_aborted_idle" false "the peer's process aborted the connection with nothing outstanding";
    KeepaliveTimeout "keepalive_timeout" false "TCP keepalive probes went unanswered";
    RetransmissionTimeout "retransmission_timeout" false "retransmissions went unanswered";
    UserTimeout "user_timeout" false "TCP_USER_TIMEOUT ran out";
    ZeroWindowTimeout "zero_window_timeout" false "the peer's receive window stayed closed";
    LateSynAck "late_syn_ack" true "a SYN-ACK came for a connect already given up";
    CloseAftermath "close_aftermath" true "a segment or RST came for a connection that had ended before";
    TlsCloseNotify "tls_close_notify" true "a TLS close_notify crossed the peer's FIN";
    RejectedByFirewall "rejected_by_firewall" false "a firewall rule rejected the connection";
    Unknown "unknown" false "none of the rules fits";
}

impl Code {
    /// The code with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
