//! Resets that this host received.

use super::{
    CLOSE_NOTIFY_BYTES, Context, REJECTED_ADVICE, closed_while_busy,
    exchange::{EARLY_RESPONSE_ADVICE, benign_if_only_a_check, still_reads, unanswered},
    idle, long_idle, moment, peer_name, round, say, short, two_ticks, unknown,
};
use crate::{
    diagnosis::{
        cause::{Cause, Confidence},
        code::Code,
        kernel_reason,
        timeouts::{Kind, Side},
    },
    event::{Event, Millis, Role},
};

/// Why a reset was received.
///
/// What the end that sent it knows, where that is on this node, comes first: its own state proves more than what can be
/// seen from here. But some causes are how it was done and not why (`says_only_how`); then the pattern seen from here
/// is the better answer.
#[must_use]
pub fn judge(event: &Event, context: &Context<'_>) -> Cause {
    let own = by_itself(event, context);
    let Some(sender) = context.sender else { return own };
    let process = sender.process.clone();
    let theirs = &sender.cause;
    let same = theirs.code == own.code;
    // The server took a half-close for leaving; who half-closed knows better.
    let mistaken = theirs.code == Code::ClientGone && still_reads(event);
    if same || mistaken || theirs.code == Code::Unknown || (says_only_how(theirs.code) && is_pattern(own.code)) {
        let confidence = if same { own.confidence.max(theirs.confidence) } else { own.confidence };
        // Who closed measured more exactly when.
        let products = if theirs.products.is_empty() { own.products.clone() } else { theirs.products.clone() };
        let how = (!same).then(|| theirs.code.name());
        return Cause { confidence, products, ..own }
            .with("sent_by", process)
            .with("sender_cause", how)
            .with(kernel_reason::DISAGREES, theirs.evidence.get(kernel_reason::DISAGREES).cloned());
    }
    let mut cause = theirs.clone();
    cause.evidence.extend(own.evidence);
    cause.with("sent_by", process)
}

/// The peer's process, where its end is on this node: it narrows the products. Else every one that fits is a candidate.
fn peer_process<'a>(context: &Context<'a>) -> Option<&'a str> {
    context.sender.and_then(|sender| sender.process.as_deref())
}

/// How a socket was ended or what it answered, not why.
const fn says_only_how(code: Code) -> bool {
    matches!(code, Code::LingerZeroClose | Code::ClosedWithUnreadData | Code::ConnectionUnknown | Code::CloseAftermath)
}

/// What only the receiving end can see: the shape of what went before.
const fn is_pattern(code: Code) -> bool {
    matches!(
        code,
        Code::LateResetAfterIdle
            | Code::KeepaliveRace
            | Code::TransferCancelled
            | Code::PeerClosedWithoutReading
            | Code::ConnectionUnknownAtPeer
            | Code::AbortedBeforeAccept
    )
}

fn by_itself(event: &Event, context: &Context<'_>) -> Cause {
    match event.tcp.state {
        Some("FIN_WAIT1" | "FIN_WAIT2") if still_reads(event) => while_established(event, context),
        Some("FIN_WAIT1" | "FIN_WAIT2" | "CLOSING" | "LAST_ACK" | "TIME_WAIT") => aftermath(event),
        Some("CLOSE_WAIT") => after_the_peers_fin(event, context),
        Some("SYN_RECV") => aborted_before_accept(event),
        Some("ESTABLISHED") if event.facts.has_file == Some(false) => aborted_before_accept(event),
        Some("ESTABLISHED") => while_established(event, context),
        _ => unknown(event),
    }
}

/// We had closed, or both had: the RST ends nothing any more.
fn aftermath(event: &Event) -> Cause {
    let ago = event.facts.first_fin.as_ref().map_or_else(String::new, |fin| format!(" {} before", say(fin.ms_ago)));
    Cause::new(
        Code::CloseAftermath,
        Confidence::Likely,
        format!("This end had closed the connection{ago}; the RST of {} only ended the rest of it.", event.peer),
        "Nothing to do, unless data was still on its way to the peer.",
    )
    .with("in_flight_bytes", event.facts.in_flight_bytes)
}

fn aborted_before_accept(event: &Event) -> Cause {
    let cause = Cause::new(
        Code::AbortedBeforeAccept,
        Confidence::Certain,
        format!("{} reset the connection while it still waited to be accepted.", event.peer),
        "A health check, or a client that gave up: if it happens often the server accepts too slowly.",
    )
    .with("age_ms", event.age.map(|age| age.millis));
    benign_if_only_a_check(cause, event, Millis(0.0))
}

/// The peer's FIN had come. Whether the RST was made by a live socket tells what happened to what we sent after it.
fn after_the_peers_fin(event: &Event, context: &Context<'_>) -> Cause {
    let in_flight = event.facts.in_flight_bytes.unwrap_or(0);
    let fin = event.facts.first_fin.as_ref();
    let fin_ago = fin.map(|fin| fin.ms_ago);
    let ago = fin_ago.map_or_else(|| "some time".to_owned(), say);
    if event.facts.rst_had_timestamp == Some(true) && !reused_half_closed(event) {
        return Cause::new(
            Code::PeerClosedWithoutReading,
            Confidence::Likely,
            format!(
                "{} shut its side down {ago} before, took what came after, and closed without reading it.",
                event.peer
            ),
            "The peer's application closed with our data unread: see what it does after it has shut down its side.",
        )
        .with("first_fin_ms_ago", fin_ago);
    }
    if in_flight == 0 && event.facts.rst_had_timestamp != Some(true) {
        return unknown(event);
    }
    if let Some(benign) = close_notify(event, fin_ago.map(|ago| ago.0)) {
        return benign;
    }
    let weaker = |confidence| if event.facts.rst_had_timestamp.is_none() { Confidence::Possible } else { confidence };
    if event.role == Role::Server {
        return client_gone(event, context, weaker(Confidence::Likely), &ago);
    }
    let unsent = event.facts.unsent_bytes.unwrap_or(0);
    let received = event.tcp.bytes_received.unwrap_or(0);
    if event.role == Role::Client && unsent > 0 && received > 0 && event.idle.rx.is_some_and(|rx| rx.0 <= short(event))
    {
        return refused_upload(event, weaker(Confidence::Likely), in_flight, unsent);
    }
    if let Some(early) = before_the_request_was_sent(event) {
        return Cause { confidence: weaker(early.confidence), ..early };
    }
    let idle_then = fin.and_then(|fin| fin.idle_rx_ms);
    let gap = event.idle.gap_before_last_send;
    if let (Some(idle), Some(sent)) = (idle_then, fin.and_then(|fin| fin.idle_tx_ms))
        && fin.is_some_and(|fin| fin.sent_after == Some(false))
        && idle.0 >= long_idle(event)
        && event.role == Role::Client
    {
        return crossed_the_fin(event, context, weaker(Confidence::Likely), idle, sent);
    }
    let reused = gap.map_or_else(String::new, |gap| format!(" after {} idle", say(gap)));
    let served = event.tcp.bytes_received.unwrap_or(0) > 0;
    let summary = match idle_then {
        Some(idle) if served => format!(
            "{} had closed this connection after {} idle, {ago} before; it was used again{reused}.",
            event.peer,
            say(idle)
        ),
        _ if served => format!("{} had closed this connection {ago} before; it was used again{reused}.", event.peer),
        _ => format!("{} had closed this fresh connection {ago} before anything was sent on it.", event.peer),
    };
    let certainty = if served && event.role == Role::Client { Confidence::Likely } else { Confidence::Possible };
    let cause = Cause::new(
        Code::StaleConnectionReuse,
        weaker(certainty),
        summary,
        "Make the idle timeout of this client's or proxy's connection pool shorter than the server's, and retry.",
    )
    .with("peer_idle_timeout_ms", if served { idle_then } else { None })
    .with("gap_before_last_send_ms", gap)
    .with("first_fin_ms_ago", fin_ago);
    match idle_then {
        Some(idle) if served => {
            idle::with_products(cause, event, context, Kind::Idle, Side::Server, idle, peer_process(context))
        }
        _ => cause,
    }
}

/// The client's FIN came while this server was at work, or before it spoke at all.
fn client_gone(event: &Event, context: &Context<'_>, confidence: Confidence, ago: &str) -> Cause {
    let fin = event.facts.first_fin.as_ref();
    if event.tcp.bytes_received == Some(0) {
        let cause = Cause::new(
            Code::ClientGone,
            confidence,
            format!(
                "The client {} had closed the connection {ago} before, without having asked for anything.",
                event.peer
            ),
            "A health check does so; a client that waits for the server's greeting gave up too early.",
        )
        .with("client_closed_ms_ago", fin.map(|fin| fin.ms_ago));
        return benign_if_only_a_check(cause, event, fin.map_or(Millis(0.0), |fin| fin.ms_ago));
    }
    // What the client sent last was not answered when its FIN came: so long had it been waiting.
    let waited = fin.and_then(|fin| unanswered(event, fin.idle_rx_ms, fin.idle_tx_ms, None));
    let waited = waited.or_else(|| fin.filter(|_| event.tcp.bytes_acked == Some(0)).and_then(|fin| fin.idle_rx_ms));
    let text = waited.map_or_else(String::new, |waited| format!(", after {} of waiting", say(waited)));
    let cause = Cause::new(
        Code::ClientGone,
        confidence,
        format!("The client {} had closed the connection{text}, {ago} before this server sent more.", event.peer),
        "If the client gave up too early raise its timeout; else this server is slow.",
    )
    .with("service_ms", event.idle.gap_before_last_send)
    .with("client_waited_ms", waited)
    .with("client_closed_ms_ago", fin.map(|fin| fin.ms_ago));
    match waited {
        Some(waited) => {
            idle::with_products(cause, event, context, Kind::Request, Side::Client, waited, peer_process(context))
        }
        None => cause,
    }
}

/// The request had left before the server's FIN came: nobody here could have known.
fn crossed_the_fin(event: &Event, context: &Context<'_>, confidence: Confidence, idle: Millis, by: Millis) -> Cause {
    let cause = Cause::new(
        Code::KeepaliveRace,
        confidence,
        format!(
            "{} closed this connection after {} idle; a request had left {} before that was known here.",
            event.peer,
            say(idle),
            say(by)
        ),
        "Make this client's or proxy's pool idle timeout shorter than the server's, and retry.",
    )
    .with("peer_idle_timeout_ms", Some(idle))
    .with("gap_before_last_send_ms", event.idle.gap_before_last_send)
    .with("crossed_the_fin", Some(true));
    idle::with_products(cause, event, context, Kind::Idle, Side::Server, idle, peer_process(context))
}

/// The server answered, closed, and the rest of the request met nobody.
fn refused_upload(event: &Event, confidence: Confidence, in_flight: u32, unsent: u32) -> Cause {
    Cause::new(
        Code::EarlyResponseClose,
        confidence,
        format!(
            "{} answered and closed in the middle of a request: {in_flight} bytes of it were sent and not acknowledged, \
             {unsent} more waited.",
            event.peer
        ),
        "Read the answer, it may have come all the same: an error (413, 401) as a rule. Let the server read the rest \
         before it closes.",
    )
    .with("unsent_bytes", Some(unsent))
    .with("in_flight_bytes", Some(in_flight))
    .with("idle_rx_ms", event.idle.rx)
}

/// A server's FIN came on an idle connection, and the next request after it: taken by a socket that only its sending side
/// was shut of (Java NIO until its selector wakes), and reset when that closed.
fn reused_half_closed(event: &Event) -> bool {
    let Some(fin) = &event.facts.first_fin else { return false };
    let was_idle = fin.idle().is_some_and(|idle| idle.0 >= long_idle(event));
    let received = event.tcp.bytes_received.unwrap_or(0) > 0;
    event.role == Role::Client && received && was_idle && fin.sent_after == Some(true)
}

/// The server's FIN came in the middle of an exchange and we went on sending. That is the rest of an upload if more of it
/// waits; else it can as well be a next request to a server that closes after each.
fn before_the_request_was_sent(event: &Event) -> Option<Cause> {
    let fin = event.facts.first_fin.as_ref()?;
    let answered = event.tcp.bytes_received? > 0;
    if event.role != Role::Client || !answered || fin.ms_ago.0 >= long_idle(event) || !closed_while_busy(event) {
        return None;
    }
    let uploading = event.facts.unsent_bytes.unwrap_or(0) > 0;
    Some(
        Cause::new(
            Code::EarlyResponseClose,
            if uploading { Confidence::Likely } else { Confidence::Possible },
            format!(
                "{} answered and closed {} before, while this client was still sending.",
                event.peer,
                say(fin.ms_ago)
            ),
            EARLY_RESPONSE_ADVICE,
        )
        .with("first_fin_ms_ago", Some(fin.ms_ago))
        .with("unsent_bytes", event.facts.unsent_bytes),
    )
}

/// A client's last write (a TLS close_notify) left as the server's FIN arrived, with the exchange complete and nothing
/// idle about it.
fn close_notify(event: &Event, fin_ago: Option<f64>) -> Option<Cause> {
    let short = short(event);
    let (rx, tx) = (event.idle.rx?, event.idle.tx?);
    let is_notify = event.facts.in_flight_bytes.is_some_and(|bytes| CLOSE_NOTIFY_BYTES.contains(&bytes));
    // No farewell without a handshake.
    let shook_hands = event.tcp.bytes_received? > 0 && event.tcp.bytes_acked? > 0;
    if !is_notify || !shook_hands || rx.0 > short || tx.0 > short || fin_ago? > short {
        return None;
    }
    Some(
        Cause::new(
            Code::TlsCloseNotify,
            Confidence::Possible,
            format!(
                "{} closed, and a last message of {} bytes crossed its FIN: the size of a TLS close_notify.",
                event.peer,
                event.facts.in_flight_bytes.unwrap_or(0)
            ),
            "Nothing to do: the exchange was complete.",
        )
        .with("in_flight_bytes", event.facts.in_flight_bytes),
    )
}

/// No FIN either way.
fn while_established(event: &Event, context: &Context<'_>) -> Cause {
    let facts = &event.facts;
    let received = event.tcp.bytes_received.unwrap_or(0);
    let in_flight = facts.in_flight_bytes.unwrap_or(0);
    let just_sent = event.idle.tx.is_some_and(|tx| tx.0 <= moment(event));
    // A server's peer may only look like this host: a node translates clients from elsewhere to its own address.
    if context.sender_missing && event.role == Role::Client && facts.rst_had_timestamp != Some(true) {
        return rejected(event);
    }
    if facts.rst_had_timestamp == Some(false) {
        return made_by_no_socket(event, received, in_flight, just_sent);
    }
    let sure = if facts.rst_had_timestamp == Some(true) { Confidence::Likely } else { Confidence::Possible };
    let unsent = facts.unsent_bytes.unwrap_or(0);
    let answered_just_now = received > 0 && event.idle.rx.is_some_and(|rx| rx.0 <= short(event));
    if unsent > 0 && event.role == Role::Client && answered_just_now {
        return refused_upload(event, sure, in_flight, unsent);
    }
    if unsent > 0 {
        return Cause::new(
            Code::TransferCancelled,
            sure,
            format!(
                "{} ended a running transfer: {} bytes were sent and not acknowledged, {} more waited.",
                event.peer, in_flight, unsent
            ),
            "The receiver cancelled, or refused an upload: look at what it answered and at its timeouts.",
        )
        .with("unsent_bytes", facts.unsent_bytes)
        .with("in_flight_bytes", facts.in_flight_bytes);
    }
    if let Some(race) = race(event, context, just_sent, in_flight) {
        return race;
    }
    let asked_last = match (event.idle.rx, event.idle.tx) {
        (Some(rx), Some(tx)) => rx.0 - tx.0 > two_ticks(event),
        _ => false,
    } || acknowledged_last(event);
    let gap = event.idle.gap_before_last_send.filter(|_| asked_last);
    if let (Some(gap), 0) = (gap, in_flight)
        && gap.0 >= long_idle(event)
        && received > 0
    {
        let waited = event.idle.tx.map_or_else(String::new, |tx| format!(" {} later", say(tx)));
        return Cause::new(
            Code::LateResetAfterIdle,
            sure,
            format!(
                "A request sent after {} idle was acknowledged by {}, never answered, and reset{waited}.",
                say(gap),
                event.peer
            ),
            "Something between (a provider's load balancer) dropped the idle connection behind it: make the pool's idle \
             timeout shorter than the gap.",
        )
        .with("gap_before_last_send_ms", Some(gap))
        .with("waited_ms", event.idle.tx)
        .with("idle_rx_ms", event.idle.rx);
    }
    let never_answered = received == 0 && event.tcp.bytes_sent.unwrap_or(0) > 0;
    if asked_last || never_answered {
        let waited = event.idle.tx.map_or_else(String::new, |tx| format!(" {}", say(tx)));
        // Behind a proxy that gave up its connect, the age is that connect's timeout.
        let round = round(event.age.filter(|age| never_answered && !age.is_minimum).map(|age| age.millis));
        let cause = Cause::new(
            Code::PeerAbortedWithRequestPending,
            sure,
            format!("{} aborted the connection{waited} after the last data sent to it, without an answer.", event.peer),
            "Look at the peer: a crash, a restart, a timeout of its own, or a proxy that gave up behind it.",
        )
        .with("waited_ms", event.idle.tx)
        .with("round_ms", round)
        .with("bytes_received", event.tcp.bytes_received);
        // What a server sends first is no request.
        return if event.role == Role::Server { benign_if_only_a_check(cause, event, Millis(0.0)) } else { cause };
    }
    let cause = Cause::new(
        Code::PeerAbortedIdle,
        sure,
        format!(
            "{} aborted the connection with nothing outstanding, {} after the last data.",
            event.peer,
            event.idle.either().map_or_else(|| "some time".to_owned(), say)
        ),
        "Its application, its proxy or an administrator ended it: harmless if the next use opens a new connection.",
    )
    .with("idle_ms", event.idle.either());
    if event.role == Role::Server { benign_if_only_a_check(cause, event, Millis(0.0)) } else { cause }
}

/// Whether the last thing the peer sent was an ACK without data, at most a delayed ACK's time after its last data. It then
/// acknowledged something of ours that it had not answered, even if that was sent in the same tick as the answer before it
/// came: an answer would have carried the ACK. (`TCP_DELACK_MAX` is 0.2 s; a keepalive probe's ACK comes later.)
fn acknowledged_last(event: &Event) -> bool {
    let (Some(rx), Some(tx), Some(ack)) = (event.idle.rx, event.idle.tx, event.idle.ack) else { return false };
    let in_one_tick = (rx.0 - tx.0).abs() <= two_ticks(event);
    let later = rx.0 - ack.0;
    in_one_tick && later > two_ticks(event) && later <= 200.0 + moment(event)
}

/// This host's own kernel would have had to make it, and none of its sockets did, nor its lack of one.
fn rejected(event: &Event) -> Cause {
    Cause::new(
        Code::RejectedByFirewall,
        Confidence::Possible,
        format!("This open connection to {} was reset, but no socket of this host sent that RST.", event.peer),
        REJECTED_ADVICE,
    )
    .with("gap_before_last_send_ms", event.idle.gap_before_last_send)
    .with("in_flight_bytes", event.facts.in_flight_bytes)
}

/// The RST carried no timestamp: whoever made it had no socket for the connection.
fn made_by_no_socket(event: &Event, received: u64, in_flight: u32, just_sent: bool) -> Cause {
    if received == 0 && event.role == Role::Client {
        return Cause::new(
            Code::AcceptQueueOverflow,
            Confidence::Possible,
            format!(
                "{} reset this fresh connection without having a socket for it: a full accept queue with \
                 tcp_abort_on_overflow, or a firewall.",
                event.peer
            ),
            "On the server look at nstat TcpExtListenOverflows and net.ipv4.tcp_abort_on_overflow, then for reject rules.",
        )
        .with("age_ms", event.age.map(|age| age.millis));
    }
    let gap = event.idle.gap_before_last_send;
    let after = gap
        .filter(|gap| gap.0 >= long_idle(event))
        .map_or_else(String::new, |gap| format!(" (after {} idle)", say(gap)));
    Cause::new(
        Code::ConnectionUnknownAtPeer,
        if in_flight > 0 && just_sent { Confidence::Likely } else { Confidence::Possible },
        format!("{} did not know this connection any more{after}: what it was sent was answered by no socket.", event.peer),
        "A restart, a failover, or a NAT, load-balancer or firewall entry that expired or was replaced: keep idle times \
         shorter than that entry's, or send TCP keepalives.",
    )
    .with("gap_before_last_send_ms", gap)
    .with("in_flight_bytes", event.facts.in_flight_bytes)
}

/// We had asked after a pause as long as the server's idle limit: its timer fired with the request in its queue.
fn race(event: &Event, context: &Context<'_>, just_sent: bool, in_flight: u32) -> Option<Cause> {
    let gap = event.idle.gap_before_last_send?;
    if event.role != Role::Client || gap.0 < long_idle(event) || event.tcp.bytes_received? == 0 {
        return None;
    }
    let waited = event.idle.tx?;
    let learned = idle::learned(event, context).filter(|limit| {
        if just_sent { idle::fits(gap, *limit, event) } else { idle::ran_out_meanwhile(gap, waited, *limit, event) }
    });
    if !just_sent && learned.is_none() {
        return None;
    }
    let cause = Cause::new(
        Code::KeepaliveRace,
        if learned.is_some() { Confidence::Likely } else { Confidence::Possible },
        format!(
            "A request sent after {} idle was reset {} by {}: its idle timer fired before it read the request.",
            say(gap),
            if just_sent { "at once".to_owned() } else { format!("{} later", say(waited)) },
            peer_name(event)
        ),
        "Make this client's or proxy's pool idle timeout shorter than the server's, and retry.",
    )
    .with("gap_before_last_send_ms", Some(gap))
    .with("learned_idle_limit_ms", learned.map(|limit| limit.due()))
    .with("in_flight_bytes", Some(in_flight));
    let limit = learned.filter(|_| !just_sent).map_or(gap, |limit| limit.due());
    let cause = idle::with_products(cause, event, context, Kind::Idle, Side::Server, limit, peer_process(context));
    // Neither learned nor documented: a server that dies at that moment looks the same.
    (learned.is_some() || !cause.products.is_empty()).then_some(cause)
}
