//! Resets that this host sent.

use super::{
    CLOSE_NOTIFY_BYTES, Context, closed_while_busy, idle, local_name, long_idle, moment, peer_name, say, short,
    two_ticks, unknown,
};
use crate::{
    diagnosis::{
        cause::{Cause, Confidence},
        code::Code,
        timeouts::Side,
    },
    event::{Event, Role, Socket},
};

/// What to do about an answer that came before the whole request.
pub const EARLY_RESPONSE_ADVICE: &str =
    "Often an error answer (413, 401) to an upload: let the server read the rest before it closes.";

/// Why a reset was sent.
#[must_use]
pub fn judge(event: &Event, context: &Context<'_>) -> Cause {
    let cause = match (event.socket, &event.facts.segment) {
        (Socket::Full, None) => by_itself(event, context),
        (Socket::Full, Some(_)) => by_a_dying_socket(event, context),
        (_, Some(_)) => for_nobody(event, context),
        (_, None) => unknown(event),
    };
    cause.with("kernel_reason", event.kernel_reason.clone())
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
            Some(actor) => Cause::new(
                Code::DestroyedByAdmin,
                Confidence::Certain,
                format!("{} (pid {}) destroyed this connection from outside its process.", actor.comm, actor.pid),
                "Find out who runs it: ss -K and some CNI plug-ins destroy sockets (SOCK_DESTROY).",
            ),
            None => unknown(event),
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
        let how = match (actor.signal, actor.exit_status) {
            (Some(signal), _) => format!("was ended by signal {signal}"),
            (None, Some(status)) => format!("exited with status {status}"),
            (None, None) => "exited".to_owned(),
        };
        return Cause::new(
            Code::ProcessExit,
            Confidence::Certain,
            format!("{} (pid {}) {how} with this connection open and {unread} bytes unread.", actor.comm, actor.pid),
            "Find out why it ended (OOM killer, crash, rollout); let it finish its connections before it exits.",
        )
        .with("unread_bytes", event.tcp.unread_bytes)
        .with("signal", actor.signal);
    }
    if unread > 0 {
        return unread_data(event, context, &who, unread);
    }
    if facts.linger_ms.is_some_and(|linger| linger.0 == 0.0) {
        return linger_zero(event, context, &who);
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

/// close() with received data unread. Why the application closed is told by what came before.
fn unread_data(event: &Event, context: &Context<'_>, who: &str, unread: u32) -> Cause {
    let peer = peer_name(event);
    let sent = event.tcp.bytes_sent.unwrap_or(0);
    let cause = if let Some(connect) = context.recent.failed_connect(event) {
        let after = connect.age.map_or_else(String::new, |age| format!(" after {}", say(age)));
        Cause::new(
            Code::ProxyConnectTimeout,
            Confidence::Likely,
            format!("{who} gave up connecting to {}{after} and closed this connection for it.", connect.peer),
            "Find out why the upstream does not answer, and raise the proxy's connect timeout (Istio: connectTimeout) \
             above a second so that one lost SYN is survived.",
        )
        .with("upstream", Some(connect.peer.clone()))
        .with("connect_ms", connect.age)
    } else if let Some(proxied) = passed_on(event, context, who) {
        proxied
    } else if let Some(stale) = came_after_our_fin(event, context, who) {
        stale
    } else if let Some(race) = race(event, context, who) {
        race
    } else if event.role == Role::Server && sent > 0 && just_answered(event) {
        Cause::new(
            Code::EarlyResponseClose,
            Confidence::Likely,
            format!(
                "{who} answered and closed while the request was still arriving: {unread} bytes of it were unread."
            ),
            EARLY_RESPONSE_ADVICE,
        )
    } else if event.role == Role::Client && event.tcp.bytes_received.unwrap_or(0) > u64::from(unread) {
        Cause::new(
            Code::TransferCancelled,
            Confidence::Likely,
            format!("{who} stopped reading a running answer and closed with {unread} bytes unread."),
            "The client cancelled: a timeout or a user's doing. If not, read the answer to its end before closing.",
        )
    } else {
        Cause::new(
            Code::ClosedWithUnreadData,
            Confidence::Certain,
            format!("{who} closed this connection with {unread} bytes from {peer} unread."),
            "Read to the end, or shut down and drain, before closing.",
        )
    };
    cause.with("unread_bytes", Some(unread)).with("idle_tx_ms", event.idle.tx).with("idle_rx_ms", event.idle.rx)
}

/// A server that only shuts its sending side when a connection was idle too long, and closes it a moment later (Java NIO
/// when its selector wakes): a request in between lies unread although the client could have known.
fn came_after_our_fin(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref().filter(|fin| fin.by == "local")?;
    let (rx, idle) = (event.idle.rx?, fin.idle_tx_ms?);
    // Nothing had come for long before the FIN: what came last came after it, even if that was in the same tick.
    let was_idle = fin.idle()?.0 >= long_idle(event) && rx.0 <= fin.ms_ago.0 + two_ticks(event);
    if event.role != Role::Server || event.tcp.bytes_sent? == 0 || !was_idle {
        return None;
    }
    let cause = Cause::new(
        Code::StaleConnectionReuse,
        Confidence::Likely,
        format!(
            "{who} had shut this connection down after {} idle; {} used it again {} later, and it was closed with that \
             unread.",
            say(idle),
            peer_name(event),
            say(crate::event::Millis((fin.ms_ago.0 - rx.0).max(0.0)))
        ),
        "Make the server's idle timeout longer than the idle timeout of the client's or proxy's connection pool.",
    )
    .with("first_fin_ms_ago", Some(fin.ms_ago))
    .with("idle_at_close_ms", Some(idle));
    Some(idle::with_products(cause, event, context, Side::Server, idle, context.process))
}

/// The request lay in the receive queue when the server closed for idleness: its last answer is one idle limit ago.
fn race(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    let (tx, rx) = (event.idle.tx?, event.idle.rx?);
    if event.role != Role::Server || tx.0 < long_idle(event) || tx.0 < rx.0 {
        return None;
    }
    let at_once = rx.0 <= moment(event);
    let gap = crate::event::Millis(tx.0 - rx.0);
    let learned = idle::learned(event, context).filter(|limit| {
        if at_once { idle::fits(tx, *limit, event) } else { idle::ran_out_meanwhile(gap, rx, *limit, event) }
    });
    // Long unread and with no limit that ran out meanwhile it is just unread.
    if !at_once && learned.is_none() {
        return None;
    }
    let ran_out = learned.filter(|_| !at_once);
    let meanwhile = ran_out
        .map_or_else(String::new, |limit| format!("; its limit of {} ran out while it was busy", say(limit.due())));
    let cause = Cause::new(
        Code::KeepaliveRace,
        if learned.is_some() { Confidence::Likely } else { Confidence::Possible },
        format!(
            "{who} closed this connection after {} idle, {} after the next request had arrived unread{meanwhile}.",
            say(tx),
            say(rx)
        ),
        "Make the server's idle timeout longer than that of the clients' pools, and let clients retry.",
    )
    .with("server_idle_ms", Some(tx))
    .with("learned_idle_limit_ms", learned.map(|limit| limit.due()));
    let limit = ran_out.map_or(tx, |limit| limit.due());
    Some(idle::with_products(cause, event, context, Side::Server, limit, context.process))
}

fn linger_zero(event: &Event, context: &Context<'_>, who: &str) -> Cause {
    // Before a failed connect or a reset of the same process, which checks servers that are down as well.
    if event.role == Role::Client && event.tcp.bytes_sent == Some(0) && event.tcp.bytes_received == Some(0) {
        let check = Cause::new(
            Code::LingerZeroClose,
            Confidence::Certain,
            format!("{who} only connected to {} and closed with SO_LINGER 0, as health checks do.", event.peer),
            "Nothing to do: nothing was sent either way. A check that asks for something would test more than the port.",
        );
        return Cause { benign: true, ..check };
    }
    if let Some(connect) = context.recent.failed_connect(event) {
        return Cause::new(
            Code::ProxyConnectTimeout,
            Confidence::Likely,
            format!("{who} could not connect to {} and reset this connection for it.", connect.peer),
            "Find out why the upstream does not answer, and raise the proxy's connect timeout.",
        )
        .with("upstream", Some(connect.peer.clone()))
        .with("connect_ms", connect.age);
    }
    if let Some(proxied) = passed_on(event, context, who) {
        return proxied;
    }
    Cause::new(
        Code::LingerZeroClose,
        Confidence::Certain,
        format!("{who} closed this connection with SO_LINGER 0, which sends a RST instead of a FIN."),
        "It is the application's choice (health checks and some proxies do it); close without SO_LINGER 0 to end \
         connections properly.",
    )
}

/// A proxy that has just received a reset repeats it: it asks for one with SO_LINGER 0. If the other side is in the middle
/// of an upload the kernel names the unread data as the reason (`__tcp_close` looks at it first), and means the same.
fn passed_on(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    event.facts.linger_ms.filter(|linger| linger.0 == 0.0)?;
    let reset = context.recent.received_reset(event)?;
    let cause = Cause::new(
        Code::ProxiedReset,
        Confidence::Likely,
        format!("{who} passed on a reset that it had just received from {}.", reset.peer),
        "Look at the line of that other connection: the cause is there.",
    );
    Some(cause.with("other_side", Some(reset.peer.clone())))
}

/// A socket that was shut for reading was sent data (`TCP_ABORT_ON_DATA`), or did not like what it was sent.
fn by_a_dying_socket(event: &Event, context: &Context<'_>) -> Cause {
    let facts = &event.facts;
    if event.tcp.state == Some("SYN_SENT") || event.tcp.state == Some("SYN_RECV") {
        return unknown(event);
    }
    // Data that acknowledges an orphan's FIN ends it without `tcp_reset` (`tcp_rcv_state_process`, FIN_WAIT1).
    let orphan = facts.ended_before == Some(true)
        && facts.has_file == Some(false)
        && facts.segment.as_ref().is_some_and(|segment| segment.payload_bytes > 0);
    if !facts.data_without_reader && event.kernel_reason.as_deref() != Some("TCP_ABORT_ON_DATA") && !orphan {
        return unknown(event);
    }
    if facts.has_file == Some(true) {
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
    let idle_then = fin.idle();
    if fin.by == "local" && event.role == Role::Client {
        return Cause::new(
            Code::ClientGone,
            Confidence::Certain,
            format!("This client had closed the connection {ago} before the server sent more of its answer."),
            "If the client gave up too early raise its timeout; else the server is slow.",
        )
        .with("first_fin_ms_ago", Some(fin.ms_ago))
        .with("idle_at_close_ms", idle_then);
    }
    if fin.by == "peer" {
        return Cause::new(
            Code::CloseAftermath,
            Confidence::Likely,
            format!("{} had closed first, {ago} before, and sent more.", event.peer),
            "Nothing to do about this reset.",
        );
    }
    if let Some(benign) = close_notify(event, idle_then) {
        return benign;
    }
    if let Some(early) = while_the_request_arrived(event, context) {
        return early;
    }
    let (idle_text, reuse) = match idle_then {
        Some(idle) => (format!(" after {} idle", say(idle)), idle.0 + fin.ms_ago.0),
        None => (String::new(), fin.ms_ago.0),
    };
    let who = context.process.unwrap_or(local_name(event)).to_owned();
    let cause = Cause::new(
        Code::StaleConnectionReuse,
        if event.role == Role::Server { Confidence::Certain } else { Confidence::Likely },
        format!(
            "{who} had closed this connection{idle_text}, {ago} before; {} used it again {} after the last data.",
            peer_name(event),
            say(crate::event::Millis(reuse))
        ),
        "Make the server's idle timeout longer than the idle timeout of the client's or proxy's connection pool.",
    )
    .with("first_fin_ms_ago", Some(fin.ms_ago))
    .with("idle_at_close_ms", idle_then);
    match idle_then {
        Some(idle) if idle.0 >= long_idle(event) => {
            idle::with_products(cause, event, context, Side::Server, idle, context.process)
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
fn close_notify(event: &Event, idle_at_fin: Option<crate::event::Millis>) -> Option<Cause> {
    let short = short(event);
    let fin = event.facts.first_fin.as_ref()?;
    let bytes = event.facts.segment.as_ref()?.payload_bytes;
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

/// Whether a server had just answered, and what was sent to it had come not long before: a client that waits for room in
/// a full window sends nothing. Or it had answered when it shut its side, and waited a while for the rest.
fn just_answered(event: &Event) -> bool {
    let within = |idle: Option<crate::event::Millis>, limit: f64| idle.is_some_and(|idle| idle.0 <= limit);
    let by_us = event.facts.first_fin.as_ref().is_some_and(|fin| fin.by == "local");
    (within(event.idle.tx, short(event)) && within(event.idle.rx, long_idle(event)))
        || (by_us && closed_while_busy(event))
}
