//! Connects that failed.

use super::{Context, REJECTED_ADVICE, idle, round, say};
use crate::{
    diagnosis::{
        cause::{Cause, Confidence},
        chain::recent::Before,
        code::Code,
        timeouts::{Kind, Side},
    },
    event::{ConnectFailure, Event},
};

/// Why a connect failed.
#[must_use]
pub fn judge(event: &Event, failure: ConnectFailure, context: &Context<'_>) -> Cause {
    let age = event.age.map_or_else(|| "an unknown time".to_owned(), |age| say(age.millis));
    let resent = event.tcp.syn_retransmits.unwrap_or(0);
    let peer = event.peer;
    let error = event.tcp.error.clone().unwrap_or_else(|| "an error".to_owned());
    let cause = match failure {
        ConnectFailure::Refused if context.sender_missing => Cause::new(
            Code::RejectedByFirewall,
            // A RST is all that connection tracking saw of the server, and it forgets the translation with that.
            Confidence::Possible,
            format!("The connect to {peer} was refused after {age}, but no socket of this host sent that RST."),
            REJECTED_ADVICE,
        ),
        ConnectFailure::Refused if context.sender.is_some_and(|sender| sender.cause.code == Code::PortClosed) => {
            Cause::new(
                Code::ConnectRefused,
                Confidence::Certain,
                format!("Nobody listens on {peer}: this node's own kernel answered the SYN with a RST, after {age}."),
                "Start the service, or correct the address or port: no firewall is involved.",
            )
        }
        ConnectFailure::Refused => Cause::new(
            Code::ConnectRefused,
            Confidence::Certain,
            format!("A RST answered the SYN to {peer} after {age}: nobody listens there, or a firewall rejects it."),
            "Check that the service runs and listens on that address and port, then for reject rules.",
        ),
        ConnectFailure::IcmpError => Cause::new(
            Code::ConnectUnreachable,
            Confidence::Certain,
            format!("An ICMP error ({error}) ended the connect to {peer} after {age}."),
            "Look at routes and reject rules between here and there; tcpdump 'icmp' names the router that answered.",
        ),
        ConnectFailure::KernelTimeout => Cause::new(
            Code::ConnectTimeoutKernel,
            Confidence::Certain,
            format!("No answer to the SYN to {peer} and {resent} more within {age}: the kernel gave up ({error})."),
            "The packets are dropped on the way or by a full listener: check firewalls, routes and the server's accept \
             queue.",
        ),
        ConnectFailure::Abandoned => abandoned(event, &age, resent, context),
        ConnectFailure::NotSent => Cause::new(
            Code::ConnectNotSent,
            Confidence::Likely,
            format!("The connect to {peer} failed before a SYN was sent."),
            "Check for exhausted local ports (ss -s, net.ipv4.ip_local_port_range) and the application's own error.",
        ),
        ConnectFailure::Destroyed => Cause::new(
            Code::DestroyedByAdmin,
            Confidence::Certain,
            format!("The socket was destroyed (SOCK_DESTROY, e.g. ss -K) {age} after the connect to {peer} began."),
            "Find out which tool or agent on this host destroys sockets.",
        ),
        ConnectFailure::Unknown => Cause::new(
            Code::ConnectRefused,
            Confidence::Possible,
            format!("The connect to {peer} failed after {age}; whether a RST or an ICMP error ended it was not seen."),
            "See the lost lines for why this connection could not be followed.",
        ),
    };
    let sender = context.sender;
    cause
        .with("sent_by", sender.and_then(|sender| sender.process.clone()))
        .with("sender_cause", sender.map(|sender| sender.cause.code.name()))
        .with("age_ms", event.age.map(|age| age.millis))
        .with("syn_retransmits", event.tcp.syn_retransmits)
        .with("error", event.tcp.error.clone())
}

/// Given up by the application: closed, or its process ended.
fn abandoned(event: &Event, age: &str, resent: u32, context: &Context<'_>) -> Cause {
    let peer = event.peer;
    // Of an ICMP error that comes while connect() holds the socket the kernel only takes a note (`tcp_v4_err`); connect()
    // reports it all the same, and the application closes the socket.
    if let (Some(error), 0) = (&event.facts.icmp_error, resent) {
        return Cause::new(
            Code::ConnectUnreachable,
            Confidence::Likely,
            format!(
                "An ICMP error ({error}) answered the SYN to {peer}; the application closed the socket after {age}."
            ),
            "Look at routes and reject rules between here and there; tcpdump 'icmp' names the router that answered.",
        )
        .with("icmp_error", Some(error.clone()));
    }
    if let Some(actor) = event.facts.actor.as_ref().filter(|actor| actor.exiting) {
        let how = actor.signal.map_or_else(|| "exited".to_owned(), |signal| format!("was ended by signal {signal}"));
        return Cause::new(
            Code::ProcessExit,
            Confidence::Certain,
            format!("{} {how} {age} into its connect to {peer}.", actor.comm),
            "Find out why the process ended; the connect itself tells nothing.",
        );
    }
    if let Some(before) = context.before.filter(Before::is_reset) {
        return left_by_the_client(event, age, context, &before);
    }
    let unanswered = match resent {
        0 => "its SYN had not been answered".to_owned(),
        1 => "its SYN and one more had not been answered".to_owned(),
        more => format!("its SYN and {more} more had not been answered"),
    };
    let cause = Cause::new(
        Code::ConnectTimeoutApplication,
        Confidence::Certain,
        format!("The application gave up the connect to {peer} after {age}; {unanswered}."),
        "If the time is a round number it is a connect timeout: raise it above the second the kernel takes to send a \
         lost SYN again, and find out why the peer does not answer.",
    )
    .with("icmp_error", event.facts.icmp_error.clone())
    .with("round_ms", round(event.age.map(|age| age.millis)));
    match event.age {
        Some(age) => {
            idle::with_products(cause, event, context, Kind::Connect, Side::Client, age.millis, context.process)
        }
        None => cause,
    }
}

/// A proxy stops connecting when the client that it does it for has reset its connection.
fn left_by_the_client(event: &Event, age: &str, context: &Context<'_>, before: &Before<'_>) -> Cause {
    let (who, client) = (context.process.unwrap_or("This proxy"), before.step.peer);
    Cause::new(
        Code::ClientGone,
        before.confidence,
        format!(
            "{who} gave up the connect to {} after {age}: {client}, whom it accepted, had just reset its connection.",
            event.peer
        ),
        "Look at the line of that other connection: why the client left is there. The peer had not answered so far.",
    )
    .with("other_side", Some(client.to_string()))
}
