//! Resets that this host sent.

use super::{
    CLOSE_NOTIFY_BYTES, Context, closed_while_busy, closing,
    exchange::{EARLY_RESPONSE_ADVICE, benign_if_only_a_check, unanswered},
    idle, local_name, long_idle, peer_name, say, short, unknown,
};
use crate::{
    diagnosis::{
        cause::{Cause, Confidence},
        code::Code,
        kernel_reason,
        timeouts::{Kind, Side},
    },
    event::{
        Event, Millis, Role, Socket,
        facts::{Actor, FirstFin},
    },
};

/// Why a reset was sent.
#[must_use]
pub fn judge(event: &Event, context: &Context<'_>) -> Cause {
    let cause = match (event.socket, &event.facts.segment) {
        (Socket::Full, None) => by_itself(event, context),
        (Socket::Full, Some(_)) => by_a_dying_socket(event, context),
        (_, Some(_)) => for_nobody(event, context),
        (_, None) => unknown(event),
    };
    kernel_reason::hold_against(cause, event.kernel_reason.as_deref())
}

/// Whoever owns the socket sent it, answering nothing.
fn by_itself(event: &Event, context: &Context<'_>) -> Cause {
    let facts = &event.facts;
    let reason = event.kernel_reason.as_deref();
    let unread = event.tcp.unread_bytes.unwrap_or(0);
    let ended = facts.ended_before == Some(true);
    let named = |name: &str| reason == Some(name);
    let who = facts.actor.as_ref().map_or_else(|| local_name(event).to_owned(), |actor| actor.comm.clone());
    let proved = |by_reason: bool| if by_reason { Confidence::Certain } else { Confidence::Likely };

    if named("TCP_KEEPALIVE_TIMEOUT") || (!ended && facts.actor.is_none() && facts.probes.unwrap_or(0) > 0) {
        let probes = facts.probes.unwrap_or(0);
        return Cause::new(
            Code::KeepaliveTimeout,
            proved(named("TCP_KEEPALIVE_TIMEOUT")),
            format!("{} did not answer {probes} TCP keepalive probes.", event.peer),
            "The path or the peer is gone: look for a dead node, a firewall or a NAT entry that expired.",
        )
        .with("probes", facts.probes)
        .with("silent_ms", event.idle.ack);
    }
    if named("TCP_ABORT_ON_MEMORY") {
        return Cause::new(
            Code::OrphanOutOfMemory,
            Confidence::Certain,
            "The kernel had too little memory or too many closed sockets to finish this connection properly.",
            "Look at nstat TcpExtTCPAbortOnMemory, net.ipv4.tcp_max_orphans and net.ipv4.tcp_mem.",
        );
    }
    // In FIN_WAIT2 with no file: its timer ran out, or close() itself found a negative TCP_LINGER2.
    let orphan = facts.has_file == Some(false) && event.tcp.state == Some("FIN_WAIT2");
    if named("TCP_ABORT_ON_LINGER") || (orphan && (!ended || facts.shutdown == Some("both"))) {
        return Cause::new(
            Code::Linger2,
            proved(named("TCP_ABORT_ON_LINGER")),
            format!("{who} had closed this connection and {} did not close its side in time.", event.peer),
            "Find out why the peer keeps a connection open that was closed; TCP_LINGER2 and tcp_fin_timeout set the time.",
        );
    }
    if !ended {
        return match &facts.actor {
            // A subflow of MPTCP is reset in its old state too; the kernel's reason tells.
            Some(actor) if reason.is_none() || named("TCP_STATE") => Cause::new(
                Code::DestroyedByAdmin,
                Confidence::Certain,
                format!("{} (pid {}) destroyed this connection from outside its process.", actor.comm, actor.pid),
                "Find out who runs it: ss -K and some CNI plug-ins destroy sockets (SOCK_DESTROY).",
            ),
            _ => unknown(event),
        };
    }
    // Before accept() nobody holds the connection, so whoever ended it closed the listener.
    if facts.has_file == Some(false) && facts.linger_ms.is_none() && facts.shutdown != Some("both") {
        return Cause::new(
            Code::ListenerClosed,
            Confidence::Certain,
            format!("{who} closed its listener while {} still waited to be accepted.", event.peer),
            "Let the server drain its queue before it closes the listener, or take it out of the load balancer earlier.",
        );
    }
    if let Some(actor) = facts.actor.as_ref().filter(|actor| actor.exiting) {
        return Cause::new(
            Code::ProcessExit,
            Confidence::Certain,
            format!(
                "{} (pid {}) {} with this connection open and {unread} bytes unread.",
                actor.comm,
                actor.pid,
                how_it_ended(actor)
            ),
            "Find out why it ended (OOM killer, crash, rollout); let it finish its connections before it exits.",
        )
        .with("unread_bytes", event.tcp.unread_bytes)
        .with("signal", actor.signal);
    }
    if unread > 0 {
        return closing::with_unread_data(event, context, &who, unread);
    }
    if facts.linger_ms.is_some_and(|linger| linger.0 == 0.0) {
        return closing::with_linger_zero(event, context, &who);
    }
    if facts.shutdown != Some("both") {
        return Cause::new(
            Code::Disconnect,
            Confidence::Certain,
            format!("{who} disconnected the socket (connect to AF_UNSPEC) from {}.", event.peer),
            "It is the application's own doing; see why it disconnects sockets that are connected.",
        );
    }
    unknown(event)
}

/// A socket that was shut for reading was sent data (`TCP_ABORT_ON_DATA`), or did not like what it was sent.
fn by_a_dying_socket(event: &Event, context: &Context<'_>) -> Cause {
    let facts = &event.facts;
    if event.tcp.state == Some("SYN_SENT") || event.tcp.state == Some("SYN_RECV") {
        return unknown(event);
    }
    // What acknowledges an orphan's FIN can end it without `tcp_reset` (`tcp_rcv_state_process`, FIN_WAIT1): if it brings
    // data, or if the orphan does not want to wait for the peer's FIN.
    let orphan = facts.ended_before == Some(true) && facts.has_file == Some(false);
    let by_reason = event.kernel_reason.as_deref() == Some("TCP_ABORT_ON_DATA");
    if !facts.data_without_reader && !by_reason && !orphan {
        return unknown(event);
    }
    let payload = facts.segment.as_ref().map_or(0, |segment| segment.payload_bytes);
    if orphan
        && payload == 0
        && !facts.data_without_reader
        && matches!(event.tcp.state, Some("FIN_WAIT1" | "FIN_WAIT2"))
    {
        return Cause::new(
            Code::Linger2,
            if by_reason { Confidence::Certain } else { Confidence::Likely },
            format!(
                "{} acknowledged the close of a socket that does not wait for the peer's own (TCP_LINGER2).",
                event.peer
            ),
            "Find out who sets TCP_LINGER2 to less than 0 here, and whether the peer still had something to send.",
        );
    }
    if payload == 0 && !facts.data_without_reader {
        return unknown(event);
    }
    if facts.has_file == Some(true) {
        if let Some(early) = about_to_close(event, context) {
            return early;
        }
        return Cause::new(
            Code::DataAfterShutdown,
            Confidence::Certain,
            format!("{} sent data after this application had shut the connection down for reading.", event.peer),
            "Close instead of shutdown(SHUT_RDWR), or read until the peer closes.",
        )
        .with("first_fin_ms_ago", facts.first_fin.as_ref().map(|fin| fin.ms_ago));
    }
    after_our_close(event, context)
}

/// A server that shut both directions a moment ago is on its way to close() (CherryPy and others call the one before the
/// other): data that comes in between met the same as what comes behind.
fn about_to_close(event: &Event, context: &Context<'_>) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref().filter(|fin| fin.by == "local")?;
    if event.role != Role::Server || event.facts.shutdown != Some("both") || fin.ms_ago.0 > short(event) {
        return None;
    }
    while_the_request_arrived(event, context)
}

/// A mini-socket, a listener or nobody answered.
fn for_nobody(event: &Event, context: &Context<'_>) -> Cause {
    let Some(segment) = &event.facts.segment else { return unknown(event) };
    let has = |name: &str| segment.flags.split(',').any(|flag| flag == name);
    let peer = event.peer;
    if event.kernel_reason.as_deref() == Some("INVALID_SYN") && !has("SYN") {
        return Cause::new(
            Code::AcceptQueueOverflow,
            Confidence::Certain,
            format!("The accept queue of {} was full and tcp_abort_on_overflow is set: {peer} was reset.", event.local),
            "Accept faster or raise the backlog (and net.core.somaxconn); nstat TcpExtListenOverflows counts them.",
        );
    }
    if has("SYN") && has("ACK") {
        let given_up = event.facts.closed_from == Some("SYN_SENT");
        return Cause::new(
            Code::LateSynAck,
            if given_up { Confidence::Certain } else { Confidence::Likely },
            format!("The SYN-ACK of {peer} came when nobody here was connecting any more."),
            "Nothing to do about this reset; see the failed connect's own line for why it was given up.",
        )
        .with("given_up_ms_ago", event.facts.closed_ms_ago);
    }
    // A SYN can also be answered by a listener with a half-open request of these ends, or by TIME_WAIT: the port is served.
    if has("SYN") && event.socket != Socket::None {
        return unknown(event);
    }
    if has("SYN") {
        return Cause::new(
            Code::PortClosed,
            Confidence::Certain,
            format!("{peer} tried to connect to {}, where nobody listens.", event.local),
            "Start the service, or find out who sends it there (an old endpoint, a scanner).",
        );
    }
    let Some(closed) = event.facts.closed_ms_ago else { return unknown_connection(event, segment.payload_bytes) };
    let by_fin = event.facts.first_fin.is_some();
    let nothing_new = segment.payload_bytes == 0;
    if nothing_new || !by_fin {
        return Cause::new(
            Code::CloseAftermath,
            if by_fin { Confidence::Likely } else { Confidence::Certain },
            format!("{peer} sent {} for a connection that had ended here {} before.", segment.flags, say(closed)),
            "Nothing to do about this reset; the connection's end has its own cause.",
        )
        .with("closed_ms_ago", Some(closed));
    }
    after_our_close(event, context)
}

/// Data for a connection that both sides knew to be half closed or closed: by whom, and how idle it was then.
fn after_our_close(event: &Event, context: &Context<'_>) -> Cause {
    let Some(fin) = &event.facts.first_fin else { return unknown(event) };
    let ago = say(fin.ms_ago);
    if fin.by == "peer" {
        return Cause::new(
            Code::CloseAftermath,
            Confidence::Likely,
            format!("{} had closed first, {ago} before, and sent more.", event.peer),
            "Nothing to do about this reset.",
        );
    }
    // Not a timeout: its sockets were closed because it ended.
    if let Some(closer) = event.facts.closer.as_ref().filter(|closer| closer.exiting) {
        return Cause::new(
            Code::ProcessExit,
            Confidence::Certain,
            format!(
                "{} (pid {}) {} {ago} before; {} sent more on this connection, which that had closed.",
                closer.comm,
                closer.pid,
                how_it_ended(closer),
                peer_name(event)
            ),
            "Find out why it ended (OOM killer, crash, rollout); let it finish its connections before it exits.",
        )
        .with("signal", closer.signal)
        .with("first_fin_ms_ago", Some(fin.ms_ago));
    }
    if let Some(benign) = close_notify(event, fin.idle()) {
        return benign;
    }
    let who = context.process.unwrap_or(local_name(event));
    if let Some(proxy) = closing::failed_connect(event, context, who) {
        return proxy.with("first_fin_ms_ago", Some(fin.ms_ago));
    }
    if event.role == Role::Client { client_gone(event, fin, context) } else { stale_reuse(event, fin, context) }
}

/// This end had opened the connection and closed it: with a request unanswered, or at rest.
fn client_gone(event: &Event, fin: &FirstFin, context: &Context<'_>) -> Cause {
    let ago = say(fin.ms_ago);
    if event.tcp.bytes_sent == Some(0) {
        let cause = Cause::new(
            Code::ClientGone,
            Confidence::Certain,
            format!("This client had closed the connection {ago} before the server spoke, without having asked for anything."),
            "A health check does so; a client that waits for the server's greeting gave up too early.",
        )
        .with("first_fin_ms_ago", Some(fin.ms_ago));
        return benign_if_only_a_check(cause, event, fin.ms_ago);
    }
    let waited = unanswered(event, fin.idle_tx_ms, fin.idle_rx_ms, event.tcp.bytes_received);
    let at_rest = unanswered(event, fin.idle_rx_ms, fin.idle_tx_ms, None).filter(|_| waited.is_none());
    let text = match (waited, fin.idle()) {
        (Some(waited), _) => format!(", having waited {} for an answer", say(waited)),
        (None, Some(idle)) => format!(" {} after the last data", say(idle)),
        (None, None) => String::new(),
    };
    let cause = Cause::new(
        Code::ClientGone,
        Confidence::Certain,
        format!("This client had closed the connection{text}, {ago} before the server sent more."),
        "If the client gave up too early raise its timeout; else the server is slow, or spoke unasked (a stream, a farewell).",
    )
    .with("first_fin_ms_ago", Some(fin.ms_ago))
    .with("client_waited_ms", waited)
    .with("idle_at_close_ms", fin.idle());
    match (waited, at_rest) {
        (Some(waited), _) => {
            idle::with_products(cause, event, context, Kind::Request, Side::Client, waited, context.process)
        }
        // The server had spoken last: the client's pool let the connection go.
        (None, Some(idle)) if idle.0 >= long_idle(event) => {
            idle::with_products(cause, event, context, Kind::Idle, Side::Client, idle, context.process)
        }
        _ => cause,
    }
}

/// This end had accepted the connection and closed it, and the other side wrote on it nevertheless.
fn stale_reuse(event: &Event, fin: &FirstFin, context: &Context<'_>) -> Cause {
    if let Some(early) = while_the_request_arrived(event, context) {
        return early;
    }
    let (ago, idle_then) = (say(fin.ms_ago), fin.idle());
    let was_idle = idle_then.is_some_and(|idle| idle.0 >= long_idle(event));
    let (idle_text, reuse) = match idle_then {
        Some(idle) => (format!(" after {} idle", say(idle)), idle.0 + fin.ms_ago.0),
        None => (String::new(), fin.ms_ago.0),
    };
    let who = context.process.unwrap_or(local_name(event)).to_owned();
    // Without an acknowledgement of our FIN (else the state would be FIN_WAIT2): the peer's kernel did not have it when
    // it sent this, so nobody there could have known.
    let crossed = event.facts.data_without_reader && event.tcp.state == Some("FIN_WAIT1");
    let mut cause = if crossed && was_idle && event.role == Role::Server {
        Cause::new(
            Code::KeepaliveRace,
            Confidence::Likely,
            format!(
                "{who} closed this connection{idle_text}, {ago} before a request that was already on its way came."
            ),
            "Make the server's idle timeout longer than that of the clients' pools, and let clients retry.",
        )
    } else {
        let confidence = match event.role {
            _ if crossed => Confidence::Possible,
            Role::Server => Confidence::Certain,
            // Who opened it is not known, so it may be a client that left.
            _ => Confidence::Possible,
        };
        Cause::new(
            Code::StaleConnectionReuse,
            confidence,
            format!(
                "{who} had closed this connection{idle_text}, {ago} before; {} used it again {} after the last data.",
                peer_name(event),
                say(Millis(reuse))
            ),
            "Make the server's idle timeout longer than the idle timeout of the client's or proxy's connection pool.",
        )
    };
    cause = cause
        .with("first_fin_ms_ago", Some(fin.ms_ago))
        .with("idle_at_close_ms", idle_then)
        .with("crossed_the_fin", crossed.then_some(true));
    match idle_then {
        Some(idle) if was_idle => {
            idle::with_products(cause, event, context, Kind::Idle, Side::Server, idle, context.process)
        }
        _ => cause,
    }
}

/// A server that answers and closes in the middle of an upload, with nothing of it unread at that moment: what comes soon
/// after meets a closed connection. Nothing had been idle, so no idle timeout is to blame; but a client that overlooks that
/// the server closes after its answer, and sends its next request within a second, looks the same from here.
fn while_the_request_arrived(event: &Event, context: &Context<'_>) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref()?;
    if event.tcp.bytes_sent? == 0 || fin.ms_ago.0 >= long_idle(event) || !closed_while_busy(event) {
        return None;
    }
    let cause = Cause::new(
        Code::EarlyResponseClose,
        Confidence::Possible,
        format!(
            "{} answered and closed, and data of the client came {} later: the rest of its request, or a next one.",
            context.process.unwrap_or(local_name(event)),
            say(fin.ms_ago)
        ),
        EARLY_RESPONSE_ADVICE,
    );
    Some(cause.with("first_fin_ms_ago", Some(fin.ms_ago)).with("idle_at_close_ms", fin.idle()))
}

/// The client's last message, of the size of a TLS close_notify, crossed our FIN; the exchange was complete and nothing
/// about it idle.
fn close_notify(event: &Event, idle_at_fin: Option<Millis>) -> Option<Cause> {
    let short = short(event);
    let fin = event.facts.first_fin.as_ref()?;
    let bytes = event.facts.segment.as_ref()?.payload_bytes;
    // No farewell without a handshake.
    if event.tcp.bytes_sent? == 0 || event.tcp.bytes_received? == 0 {
        return None;
    }
    if !CLOSE_NOTIFY_BYTES.contains(&bytes) || fin.ms_ago.0 > short || idle_at_fin?.0 > short {
        return None;
    }
    Some(
        Cause::new(
            Code::TlsCloseNotify,
            Confidence::Possible,
            format!("{} sent {bytes} bytes as this end closed: the size of a TLS close_notify.", event.peer),
            "Nothing to do: the exchange was complete.",
        )
        .with("payload_bytes", Some(bytes)),
    )
}

/// Neither a socket nor a memory of one.
fn unknown_connection(event: &Event, payload: u32) -> Cause {
    let segment = event.facts.segment.as_ref().map_or("", |segment| segment.flags.as_str());
    // A listener whose queue is full answers the same way; only the kernel's reason tells.
    let listener = event.socket == Socket::Listener && event.kernel_reason.is_none();
    Cause::new(
        Code::ConnectionUnknown,
        if listener { Confidence::Possible } else { Confidence::Likely },
        format!(
            "{} sent {segment} with {payload} bytes for a connection that this host does not know (and has not known for \
             two minutes, or since rstscope started).",
            event.peer
        ),
        "A restart, failover, or a NAT or load-balancer entry that expired or moved: compare with the peer's view.",
    )
}

/// How a process ended.
fn how_it_ended(task: &Actor) -> String {
    match (task.signal, task.exit_status) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(status)) => format!("exited with status {status}"),
        (None, None) => "exited".to_owned(),
    }
}
