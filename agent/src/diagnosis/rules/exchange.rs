//! What an exchange looks like from either end: observations that the rules of both ends share.

use super::{long_idle, two_ticks};
use crate::{
    diagnosis::cause::Cause,
    event::{Event, Millis, Role},
};

/// What to do about an answer that came before the whole request.
pub const EARLY_RESPONSE_ADVICE: &str =
    "Often an error answer (413, 401) to an upload: let the server read the rest before it closes.";

/// A connection that was opened and closed within `long_idle` without a byte either way lost nobody anything: a health
/// check. `ended_ago` is how long before the event it was over. An older one may have waited in vain for a greeting.
pub fn benign_if_only_a_check(mut cause: Cause, event: &Event, ended_ago: Millis) -> Cause {
    let lived = event.age.filter(|age| !age.is_minimum).map(|age| age.millis.0 - ended_ago.0);
    let nothing = |bytes: Option<u64>| bytes == Some(0);
    // Of a server, what it sent too late to a client that asked nothing does not count.
    let silent = match event.role {
        Role::Client => nothing(event.tcp.bytes_sent),
        Role::Server => nothing(event.tcp.bytes_received),
        Role::Unknown => false,
    };
    if silent && lived.is_some_and(|lived| lived < long_idle(event)) {
        cause.benign = true;
        cause = cause.with("looks_like_health_check", Some(true));
    }
    cause
}

/// For how long one side had had the last word: data went its way `said` and the other way `replied` before, and nothing
/// may ever have come back (`reply_bytes`). `None` if the other side spoke last, or both within two ticks.
pub fn unanswered(
    event: &Event,
    said: Option<Millis>,
    replied: Option<Millis>,
    reply_bytes: Option<u64>,
) -> Option<Millis> {
    let said = said?;
    let last = reply_bytes == Some(0) || replied.is_some_and(|replied| replied.0 - said.0 > two_ticks(event));
    last.then_some(said)
}

/// Only our sending side is shut, and the application still holds the socket: it waits for what the peer has to say.
pub fn still_reads(event: &Event) -> bool {
    let facts = &event.facts;
    facts.shutdown == Some("send")
        && facts.has_file == Some(true)
        && !matches!(&facts.first_fin, Some(fin) if fin.by == "peer")
}
