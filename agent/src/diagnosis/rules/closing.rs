//! A process closed a socket, and that sent a RST: with received data unread, or with SO_LINGER 0.
//!
//! How it was closed is proved by the socket. Why is told by what came before: a connect of the same process that failed,
//! a reset that it received on its other side, an idle limit that was due, a peer that had left.

use super::{
    CLOSE_NOTIFY_BYTES, Context, closed_while_busy,
    exchange::{EARLY_RESPONSE_ADVICE, benign_if_only_a_check, still_reads},
    idle, long_idle, moment, peer_name, say, short, two_ticks,
};
use crate::{
    diagnosis::{
        cause::{Cause, Confidence},
        chain::recent::Before,
        code::Code,
        timeouts::{Kind, Side},
    },
    event::{ConnectFailure, Event, Millis, Role, What},
};

/// close() with received data unread.
pub fn with_unread_data(event: &Event, context: &Context<'_>, who: &str, unread: u32) -> Cause {
    let sent = event.tcp.bytes_sent.unwrap_or(0);
    let peer_had_closed = event.facts.first_fin.as_ref().is_some_and(|fin| fin.by == "peer");
    let cause = if let Some(cause) = because_of_another_connection(event, context, who, unread) {
        cause
    } else if let Some(proxied) = passed_on(event, context, who) {
        proxied
    } else if let Some(stale) = came_after_our_fin(event, context, who) {
        stale
    } else if let Some(race) = race(event, context, who) {
        race
    } else if event.role == Role::Server && sent > 0 && just_answered(event) && !peer_had_closed {
        Cause::new(
            Code::EarlyResponseClose,
            Confidence::Likely,
            format!(
                "{who} answered and closed while the request was still arriving: {unread} bytes of it were unread."
            ),
            EARLY_RESPONSE_ADVICE,
        )
    } else if event.role == Role::Client
        && event.tcp.bytes_received.unwrap_or(0) > u64::from(unread)
        && !peer_had_closed
    {
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
            format!("{who} closed this connection with {unread} bytes from {} unread.", peer_name(event)),
            "Read to the end, or shut down and drain, before closing.",
        )
    };
    cause.with("unread_bytes", Some(unread)).with("idle_tx_ms", event.idle.tx).with("idle_rx_ms", event.idle.rx)
}

/// close() with SO_LINGER 0 and nothing unread.
pub fn with_linger_zero(event: &Event, context: &Context<'_>, who: &str) -> Cause {
    let closed = |summary: String, advice| Cause::new(Code::LingerZeroClose, Confidence::Certain, summary, advice);
    // Before a failed connect or a reset of the same process: that checks servers which are down as well.
    if event.role == Role::Client && event.tcp.bytes_received == Some(0) {
        let check = closed(
            format!("{who} only connected to {} and closed with SO_LINGER 0, as health checks do.", event.peer),
            "Nothing to do: nothing was sent either way. A check that asks for something would test more than the port.",
        );
        let check = benign_if_only_a_check(check, event, Millis(0.0));
        if check.benign {
            return check;
        }
    }
    if let Some(cause) = because_of_another_connection(event, context, who, 0) {
        return cause;
    }
    if let Some(proxied) = passed_on(event, context, who) {
        return proxied;
    }
    closed(
        format!("{who} closed this connection with SO_LINGER 0, which sends a RST instead of a FIN."),
        "It is the application's choice (health checks and some proxies do it); close without SO_LINGER 0 to end \
         connections properly.",
    )
}

/// A proxy that has just received a reset repeats it: it asks for one with SO_LINGER 0. If the other side is in the middle
/// of an upload the kernel names the unread data as the reason (`__tcp_close` looks at it first), and means the same.
fn passed_on(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    event.facts.linger_ms.filter(|linger| linger.0 == 0.0)?;
    let before = context.before.filter(Before::is_reset)?;
    let peer = before.step.peer;
    let cause = Cause::new(
        Code::ProxiedReset,
        before.confidence,
        format!("{who} passed on a reset that it had just received from {peer}."),
        "Look at the line of that other connection: the cause is there.",
    );
    Some(cause.with("other_side", Some(peer.to_string())))
}

/// The peer had left, or a connect for it failed: whichever came first is why.
fn because_of_another_connection(event: &Event, context: &Context<'_>, who: &str, unread: u32) -> Option<Cause> {
    // A proxy gives up connecting for a client that has left: such a connect is not what this one was closed for.
    if let Some(cause) = failed_connect(event, context, who) {
        return Some(cause);
    }
    event.facts.first_fin.as_ref().filter(|fin| fin.by == "peer")?;
    close_notify(event, unread).or_else(|| client_left(event, context, who, unread))
}

/// A connect of the same process had failed, and the connection was closed for that.
pub fn failed_connect(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    let before = context.before.filter(Before::is_connect)?;
    let What::ConnectFailed(failure) = before.step.what else { return None };
    let tried = before.step.age.map(|age| age.millis);
    let age = tried.map_or_else(|| "some time".to_owned(), say);
    let upstream = before.step.peer;
    let (summary, advice) = match failure {
        ConnectFailure::Abandoned => (
            format!("{who} gave up connecting to {upstream} after {age} and closed this connection for it."),
            "Find out why the upstream does not answer, and raise the proxy's connect timeout (Istio: connectTimeout) \
             above a second so that one lost SYN is survived.",
        ),
        ConnectFailure::Refused => (
            format!("{who} was refused by {upstream} after {age} and closed this connection for it."),
            "The upstream does not listen, or a firewall rejects: see the line of that connect. No timeout was involved.",
        ),
        _ => (
            format!("{who} failed to connect to {upstream} within {age} and closed this connection for it."),
            "See the line of that connect: the cause is there.",
        ),
    };
    let cause = Cause::new(Code::ProxyConnectTimeout, before.confidence, summary, advice)
        .with("upstream", Some(upstream.to_string()))
        .with("connect_ms", tried)
        .with("connect_failure", serde_json::to_value(failure).ok());
    Some(match tried {
        Some(age) if failure == ConnectFailure::Abandoned => {
            idle::with_products(cause, event, context, Kind::Connect, Side::Client, age, context.process)
        }
        _ => cause,
    })
}

/// The client had shut its side down before this server was done with what it had asked.
fn client_left(event: &Event, context: &Context<'_>, who: &str, unread: u32) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref()?;
    let (rx, tx) = (event.idle.rx?, event.idle.tx?);
    let unsent = event.facts.unsent_bytes.unwrap_or(0);
    let unacked = event.facts.in_flight_bytes.unwrap_or(0);
    let asked = event.tcp.bytes_received.unwrap_or(0) > 0;
    let unanswered = asked && (event.tcp.bytes_sent == Some(0) || tx.0 - rx.0 > two_ticks(event));
    // It only shut its sending side and is here to prove it.
    if context.receiver.is_some_and(still_reads) {
        return None;
    }
    if event.role != Role::Server || (unread == 0 && unsent == 0 && unacked == 0 && !unanswered) {
        return None;
    }
    // It was answered after it had left: how this end closed is all that is known.
    if unread > 0 && event.tcp.bytes_sent.is_some_and(|sent| sent > 0) && fin.sent_after == Some(true) {
        return None;
    }
    let left = match (unread, unsent.saturating_add(unacked)) {
        (0, 0) => "its request unanswered".to_owned(),
        (0, unsent) => format!("{unsent} bytes of the answer not delivered"),
        (unread, 0) => format!("{unread} bytes of its request unread"),
        (unread, unsent) => format!("{unread} bytes of its request unread and {unsent} of the answer not delivered"),
    };
    let waited = fin.idle_rx_ms.filter(|_| unanswered);
    let cause = Cause::new(
        Code::ClientGone,
        // It may have shut down its sending side only, and still be waiting: that is not visible from here.
        Confidence::Likely,
        format!(
            "The client {} had closed its side {} before {who} closed too, with {left}.",
            event.peer,
            say(fin.ms_ago)
        ),
        "If the client gave up too early raise its timeout, else this server is slow; a client that only half-closes \
         needs a server that answers all the same.",
    )
    .with("client_closed_ms_ago", Some(fin.ms_ago))
    .with("client_waited_ms", waited)
    .with("unsent_bytes", event.facts.unsent_bytes)
    .with("in_flight_bytes", event.facts.in_flight_bytes);
    Some(match waited {
        Some(waited) => idle::with_products(cause, event, context, Kind::Request, Side::Client, waited, None),
        None => cause,
    })
}

/// What lies unread is as long as a TLS close_notify and came together with the peer's FIN; all else was exchanged.
fn close_notify(event: &Event, unread: u32) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref()?;
    let with_the_fin = fin.idle_rx_ms?.0 <= moment(event);
    let delivered = event.facts.unsent_bytes? == 0 && event.facts.in_flight_bytes? == 0;
    let exchanged = event.tcp.bytes_sent? > 0 && event.tcp.bytes_received? > u64::from(unread);
    if !CLOSE_NOTIFY_BYTES.contains(&unread) || !with_the_fin || !delivered || !exchanged {
        return None;
    }
    Some(Cause::new(
        Code::TlsCloseNotify,
        Confidence::Possible,
        format!(
            "{} closed with a last message of {unread} bytes, the size of a TLS close_notify, that was not read.",
            event.peer
        ),
        "Nothing to do: the exchange was complete.",
    ))
}

/// A server that only shuts its sending side when a connection was idle too long, and closes it a moment later (Java NIO
/// when its selector wakes): a request in between lies unread although the client could have known.
fn came_after_our_fin(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref().filter(|fin| fin.by == "local")?;
    let (rx, idle) = (event.idle.rx?, fin.idle_tx_ms?);
    let was_idle = fin.idle()?.0 >= long_idle(event);
    if event.role != Role::Server || event.tcp.bytes_sent? == 0 || !was_idle || fin.received_after != Some(true) {
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
            say(Millis((fin.ms_ago.0 - rx.0).max(0.0)))
        ),
        "Make the server's idle timeout longer than the idle timeout of the client's or proxy's connection pool.",
    )
    .with("first_fin_ms_ago", Some(fin.ms_ago))
    .with("idle_at_close_ms", Some(idle));
    Some(idle::with_products(cause, event, context, Kind::Idle, Side::Server, idle, context.process))
}

/// The request lay in the receive queue when the server closed for idleness: its last answer is one idle limit ago.
fn race(event: &Event, context: &Context<'_>, who: &str) -> Option<Cause> {
    let (tx, rx) = (event.idle.tx?, event.idle.rx?);
    if event.role != Role::Server || tx.0 < long_idle(event) || tx.0 < rx.0 {
        return None;
    }
    let at_once = rx.0 <= moment(event);
    let gap = Millis(tx.0 - rx.0);
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
    Some(idle::with_products(cause, event, context, Kind::Idle, Side::Server, limit, context.process))
}

/// Whether a server had just answered, and what was sent to it had come not long before: a client that waits for room in
/// a full window sends nothing. Or it had answered when it shut its side, and waited a while for the rest.
fn just_answered(event: &Event) -> bool {
    let within = |idle: Option<Millis>, limit: f64| idle.is_some_and(|idle| idle.0 <= limit);
    let by_us = event.facts.first_fin.as_ref().is_some_and(|fin| fin.by == "local");
    (within(event.idle.tx, short(event)) && within(event.idle.rx, long_idle(event)))
        || (by_us && closed_while_busy(event))
}
