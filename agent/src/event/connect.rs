//! The ways in which a connect fails, told apart by what the socket shows as it moves from SYN_SENT to CLOSE.

use agent_common::{
    connection::{Connection, SocketFacts, connection_flag},
    event::{Event, flag},
    tcp::shutdown,
};

/// How a connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectFailure {
    /// A RST answered the SYN.
    Refused,
    /// An ICMP error came back.
    IcmpError,
    /// The kernel gave up: SYN retries, or a user timeout.
    KernelTimeout,
    /// The application gave up: closed the socket, disconnected it or exited.
    Abandoned,
    /// Nothing was ever sent: no free port, or the send failed.
    NotSent,
    /// An administrator destroyed the socket (SOCK_DESTROY).
    Destroyed,
    /// Not to be told: there was no room to follow the connection and it may have been refused by a RST or by ICMP, or the
    /// socket could not be read.
    Unknown,
}

const ECONNABORTED: u32 = libc::ECONNABORTED as u32;
const ECONNREFUSED: u32 = libc::ECONNREFUSED as u32;
const ETIMEDOUT: u32 = libc::ETIMEDOUT as u32;

/// Tells how the connect of a record failed.
#[must_use]
pub fn failure(record: &Event) -> ConnectFailure {
    if record.flags & flag::READ_FAULT != 0 {
        return ConnectFailure::Unknown;
    }
    let connection = (record.flags & flag::CONNECTION != 0).then_some(&record.connection);
    classify(connection, &record.facts, record.tuple.local_port)
}

/// Tells how a connect failed.
///
/// ECONNREFUSED alone does not prove a RST: an ICMP "port unreachable" gives the same errno. And a timeout reports the
/// error of an earlier ICMP message (`sk_err_soft`) where there was one; then `icsk_retransmits` tells that the retries
/// ran out, because an ICMP error that ends a connect does so at once. `connection` is `None` if it could not be
/// followed.
fn classify(connection: Option<&Connection>, facts: &SocketFacts, local_port: u16) -> ConnectFailure {
    match (connection, facts.error) {
        (Some(connection), _) if connection.flags & connection_flag::RESET_RECEIVED != 0 => {
            return ConnectFailure::Refused;
        }
        (None, ECONNREFUSED) => return ConnectFailure::Unknown,
        _ => {}
    }
    match facts.error {
        0 if facts.shutdown & shutdown::BOTH == shutdown::BOTH => ConnectFailure::Abandoned,
        // connect() itself failed before a SYN left; a disconnect has sent at least one.
        0 if local_port == 0 || facts.segments_out == 0 => ConnectFailure::NotSent,
        0 => ConnectFailure::Abandoned,
        ECONNABORTED => ConnectFailure::Destroyed,
        ETIMEDOUT => ConnectFailure::KernelTimeout,
        error if error == facts.soft_error && facts.retransmits > 0 => ConnectFailure::KernelTimeout,
        _ => ConnectFailure::IcmpError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(error: i32, how: u8, retransmits: u8) -> SocketFacts {
        SocketFacts { error: error as u32, shutdown: how, retransmits, segments_out: 1, ..SocketFacts::default() }
    }

    fn classify_port(facts: &SocketFacts) -> ConnectFailure {
        classify(Some(&Connection::default()), facts, 40000)
    }

    #[test]
    fn refused_needs_the_rst_itself() {
        let refused = Connection { flags: connection_flag::RESET_RECEIVED, ..Connection::default() };
        assert_eq!(classify(Some(&refused), &facts(libc::ECONNREFUSED, 0, 0), 40000), ConnectFailure::Refused);
        assert_eq!(classify_port(&facts(libc::ECONNREFUSED, 0, 0)), ConnectFailure::IcmpError);
    }

    #[test]
    fn a_connect_that_was_not_followed_claims_no_icmp() {
        assert_eq!(classify(None, &facts(libc::ECONNREFUSED, 0, 0), 40000), ConnectFailure::Unknown);
        assert_eq!(classify(None, &facts(libc::EHOSTUNREACH, 0, 0), 40000), ConnectFailure::IcmpError);
    }

    #[test]
    fn unreachable_is_icmp_and_timed_out_is_the_kernel() {
        assert_eq!(classify_port(&facts(libc::EHOSTUNREACH, 0, 0)), ConnectFailure::IcmpError);
        assert_eq!(classify_port(&facts(libc::ETIMEDOUT, 0, 6)), ConnectFailure::KernelTimeout);
    }

    #[test]
    fn a_timeout_that_reports_an_earlier_icmp_error_is_still_a_timeout() {
        let mut late = facts(libc::EHOSTUNREACH, 0, 2);
        late.soft_error = libc::EHOSTUNREACH as u32;
        assert_eq!(classify_port(&late), ConnectFailure::KernelTimeout);
    }

    #[test]
    fn close_and_disconnect_are_the_application() {
        assert_eq!(classify_port(&facts(0, shutdown::BOTH, 0)), ConnectFailure::Abandoned);
        assert_eq!(classify_port(&facts(0, 0, 1)), ConnectFailure::Abandoned);
    }

    #[test]
    fn without_a_port_nothing_left() {
        assert_eq!(classify(Some(&Connection::default()), &facts(0, 0, 0), 0), ConnectFailure::NotSent);
    }

    #[test]
    fn ss_kill_is_neither_of_them() {
        assert_eq!(classify_port(&facts(libc::ECONNABORTED, 0, 0)), ConnectFailure::Destroyed);
    }
}
