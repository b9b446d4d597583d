//! A few words for the table: what was seen. Why it happened is the diagnosis's to say.

use super::{ConnectFailure, Event, Socket, What};

/// What was seen, in a few words with this event's numbers.
#[must_use]
pub fn reason(event: &Event) -> String {
    match event.what {
        What::ConnectFailed(failure) => connect_failed(event, failure),
        What::TimedOut => match event.facts.timeouts_in_a_row {
            Some(timeouts) if timeouts > 0 => format!("timed out after {timeouts} retransmissions"),
            _ => "timed out".to_owned(),
        },
        What::ResetReceived => received(event),
        What::ResetSent => sent(event),
        What::Closed => "closed with a FIN".to_owned(),
    }
}

fn connect_failed(event: &Event, failure: ConnectFailure) -> String {
    let retransmits = event.tcp.syn_retransmits.unwrap_or(0);
    match failure {
        ConnectFailure::Refused => "connect refused by a RST".to_owned(),
        ConnectFailure::IcmpError => {
            format!("connect failed by ICMP: {}", event.tcp.error.as_deref().unwrap_or("unreachable"))
        }
        ConnectFailure::KernelTimeout => format!("connect timed out, {retransmits} SYNs resent"),
        ConnectFailure::Abandoned => format!("connect given up by the application, {retransmits} SYNs resent"),
        ConnectFailure::NotSent => "connect failed before a SYN was sent".to_owned(),
        ConnectFailure::Unknown => "connect refused".to_owned(),
        ConnectFailure::Destroyed => "connecting socket destroyed by an administrator".to_owned(),
    }
}

fn received(event: &Event) -> String {
    if let (Some("CLOSE_WAIT"), Some(fin)) = (event.tcp.state, &event.facts.first_fin) {
        return format!("RST received {} after the peer's FIN", seconds(fin.ms_ago.0));
    }
    match event.idle.gap_before_last_send {
        Some(gap) if gap.0 >= 1000.0 => format!("RST received; sent after {} idle", seconds(gap.0)),
        _ => "RST received".to_owned(),
    }
}

fn sent(event: &Event) -> String {
    let to = event.facts.segment.as_ref().map(|segment| {
        if segment.flags == "SYN" {
            "a SYN".to_owned()
        } else if segment.payload_bytes > 0 {
            format!("{} bytes", segment.payload_bytes)
        } else {
            segment.flags.clone()
        }
    });
    match (event.socket, to) {
        (Socket::Full, None) => closed_by_us(event),
        (Socket::Full, Some(to)) => format!("answered {to}: nobody reads here any more"),
        (Socket::Listener, Some(to)) => format!("answered {to}: no such connection{}", closed_ago(event)),
        (_, Some(to)) if to == "a SYN" => "answered a SYN: port closed".to_owned(),
        (_, Some(to)) => format!("answered {to}{}", closed_ago(event)),
        (_, None) => "RST sent".to_owned(),
    }
}

fn closed_ago(event: &Event) -> String {
    match (&event.facts.first_fin, event.facts.closed_ms_ago) {
        (Some(fin), _) if fin.by == "local" => {
            let after = fin.idle().map_or_else(String::new, |idle| format!(", then {} idle", seconds(idle.0)));
            format!("; closed here {} before{after}", seconds(fin.ms_ago.0))
        }
        (_, Some(closed)) => format!("; gone {} before", seconds(closed.0)),
        _ => String::new(),
    }
}

fn closed_by_us(event: &Event) -> String {
    if event.facts.actor.as_ref().is_some_and(|actor| actor.exiting) {
        return "process exited".to_owned();
    }
    match event.tcp.unread_bytes {
        Some(unread) if unread > 0 => format!("closed with {unread} unread bytes"),
        _ if event.facts.linger_ms.is_some_and(|linger| linger.0 == 0.0) => "closed with SO_LINGER 0".to_owned(),
        _ => "RST sent".to_owned(),
    }
}

/// Seconds with two decimals, milliseconds below one second.
#[must_use]
pub fn seconds(millis: f64) -> String {
    if millis < 1000.0 { format!("{millis:.0} ms") } else { format!("{:.2} s", millis / 1000.0) }
}
