//! The live table: one row per event, for eyes on a terminal.

use std::io::{self, BufWriter, Write};

use crate::{
    attribution::pods::health::Health,
    diagnosis::{
        Diagnosed,
        cause::{Cause, Confidence},
    },
    event::{
        ConnectFailure, Event, What,
        link::{Link, Relation},
        party::{Backend, Owner},
        reason,
    },
    kernel::losses::Loss,
    sinks::{AgentLine, Sink},
};

/// Writes rows.
#[derive(Debug)]
pub struct Table<W: Write> {
    out: BufWriter<W>,
    colour: bool,
    /// The connection of the last row, if it named both ends.
    both_ends: Option<String>,
}

/// How long what was seen gets by itself: a stale connection's row.
const WIDTH_OF_SEEN: usize = 66;

const RED: &str = "31";
const YELLOW: &str = "33";
const MAGENTA: &str = "35";
const BOLD: &str = "1";

impl<W: Write> Table<W> {
    /// Writes to `out`, with colour if asked for.
    pub fn new(out: W, colour: bool) -> Self {
        Self { out: BufWriter::new(out), colour, both_ends: None }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl<W: Write> Sink for Table<W> {
    fn event(&mut self, diagnosed: &Diagnosed) -> io::Result<()> {
        let Diagnosed { event, owner, cause, other, peer, connection, chain } = diagnosed;
        // A refused connect is the story, not that its SYN was answered: the row of that end follows.
        if other.as_ref().is_some_and(|other| matches!(other.event.what, What::ConnectFailed(_))) {
            return Ok(());
        }
        // The row of the other end, right before, has both names.
        if other.is_some() && connection.is_some() && *connection == self.both_ends {
            self.both_ends = None;
            return Ok(());
        }
        self.both_ends = if other.is_some() { connection.clone() } else { None };
        let (what, arrow, code) = match event.what {
            What::ResetReceived => ("received", "←", RED),
            What::ResetSent => ("sent", "→", YELLOW),
            What::ConnectFailed(ConnectFailure::Refused) => ("refused", "←", MAGENTA),
            What::ConnectFailed(_) => ("connect", "×", MAGENTA),
            What::TimedOut => ("timeout", "×", MAGENTA),
            What::Closed => ("closed", "→", YELLOW),
        };
        let age = event.age.map_or_else(String::new, |age| {
            format!("{}{}", if age.is_minimum { "≥" } else { "" }, reason::seconds(age.millis.0))
        });
        let idle = event.idle.either().map_or_else(String::new, |idle| reason::seconds(idle.0));
        let ends = format!("{} {arrow} {}", event.local, event.peer);
        writeln!(
            self.out,
            "{} {} {ends:<45} {:<34} {age:>9} {idle:>9} {:<11} {:<33} {}",
            time_of_day(event),
            self.paint(code, &format!("{what:<8}")),
            names(owner, arrow, other.as_ref().map_or(peer, |other| &other.owner)),
            event.tcp.state.unwrap_or(""),
            why(cause),
            seen(event, chain),
        )
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        let text = format!("LOST {} ({})", loss.count, loss.cause);
        let text = self.paint(RED, &text);
        writeln!(self.out, "{text}")
    }

    fn agent(&mut self, agent: &AgentLine) -> io::Result<()> {
        for (source, health) in &agent.pod_sources {
            if let (Health::Fails { what, .. }, "pod_sources") = (health, agent.action) {
                let text = format!("NO NAMES from {}: {}", source.name(), harmless(what));
                let text = self.paint(RED, &text);
                writeln!(self.out, "{text}")?;
            }
        }
        if agent.action != "start" {
            return Ok(());
        }
        let header = format!(
            "{:<13} {:<8} {:<45} {:<34} {:>9} {:>9} {:<11} {:<33} {}",
            "TIME (UTC)", "WHAT", "LOCAL ← → PEER", "PODS OR PROCESSES", "AGE", "IDLE", "STATE", "CAUSE", "SEEN"
        );
        let header = self.paint(BOLD, &header);
        writeln!(self.out, "{header}")?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Hours to milliseconds of the event's time.
fn time_of_day(event: &Event) -> String {
    let text = format!("{:.3}", event.time);
    text.get(11..).unwrap_or(&text).to_owned()
}

/// What was seen, and where the story begins, or else ends, that this row belongs to: as far as there is room for it.
fn seen(event: &Event, chain: &[Link]) -> String {
    let seen = reason::reason(event);
    let with = |sign: &str, link: &Link| {
        let name = Some(who(&link.peer.owner)).filter(|name| !name.is_empty());
        let what = match link.what {
            What::ConnectFailed(_) => "connect",
            What::ResetReceived | What::ResetSent => "RST",
            What::TimedOut => "timeout",
            What::Closed => "FIN",
        };
        let long = format!("{seen} {sign} {what} {}", name.unwrap_or_else(|| link.peer.endpoint.to_string()));
        if long.chars().count() <= WIDTH_OF_SEEN { long } else { format!("{seen} {sign}") }
    };
    match (chain.iter().rfind(|link| link.relation == Relation::FollowsFrom), chain.last()) {
        (Some(origin), _) => with("⇐", origin),
        (None, Some(end)) => with("⇒", end),
        (None, None) => seen,
    }
}

/// The code; with a question mark where it is only possible.
fn why(cause: &Cause) -> String {
    let doubt = if cause.confidence == Confidence::Possible { "?" } else { "" };
    format!("{}{doubt}", cause.code.name())
}

/// Both ends, as far as they have names.
fn names(local: &Owner, arrow: &str, peer: &Owner) -> String {
    let (local, peer) = (who(local), who(peer));
    match (local.is_empty(), peer.is_empty()) {
        (_, true) => local,
        (true, false) => format!("? {arrow} {peer}"),
        (false, false) => format!("{local} {arrow} {peer}"),
    }
}

/// The best name there is: pod, also the one behind a Service's address, Service, node, process, container, cgroup, and
/// the address behind the one that was asked. The root cgroup names nobody.
fn who(owner: &Owner) -> String {
    let backend = owner.backend.as_deref();
    let name = if let Some(pod) = owner.pod.as_ref().or_else(|| backend.and_then(|backend| backend.pod.as_ref())) {
        let name = pod.name.as_ref().unwrap_or(&pod.uid);
        match &pod.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        }
    } else if let Some(service) = &owner.service {
        format!("{}/{}", service.namespace, service.name)
    } else if let Some(node) = &owner.node {
        node.clone()
    } else if let Some(process) = &owner.process {
        format!("{}({})", process.comm, process.pid)
    } else if let Some(container) = &owner.container {
        container.id.chars().take(12).collect()
    } else if let Some(path) = owner.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_ref()).filter(|path| *path != "/")
    {
        path.clone()
    } else if let Some(Backend { ip, port, .. }) = backend {
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    } else {
        String::new()
    };
    harmless(&name)
}

/// The longest pod with its namespace: two DNS names of 63 and 253 characters (RFC 1123) and the slash.
const LONGEST_NAME: usize = 63 + 1 + 253;

/// A hostile name must not move the cursor, turn the row around or fill the screen.
fn harmless(name: &str) -> String {
    let mut shown: String = name.chars().take(LONGEST_NAME).map(|c| if is_unprintable(c) { '?' } else { c }).collect();
    if name.chars().nth(LONGEST_NAME).is_some() {
        shown.push('…');
    }
    shown
}

/// Controls, and of Unicode's format characters (category Cf) and separators (Zl, Zp) those that are invisible or
/// change the direction of what follows.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use agent_common::event::{Event as Record, kind};

    use super::*;
    use crate::event::{
        Endpoint, Millis,
        decode::Decoder,
        link::End,
        party::{Cgroup, Pod, Process, Service},
    };

    fn link(relation: Relation, port: u16, comm: Option<&str>) -> Link {
        let process = |comm: &str| Process { pid: 7, comm: comm.to_owned(), exe: None };
        let owner = Owner { process: comm.map(process), ..Owner::default() };
        let endpoint = Endpoint { ip: "10.0.0.9".parse().unwrap(), port: Some(port) };
        Link {
            relation,
            what: What::ConnectFailed(ConnectFailure::Abandoned),
            time: jiff::Timestamp::UNIX_EPOCH,
            cause: None,
            connection: None,
            age: None,
            local: End { endpoint, owner: Owner::default(), netns: None },
            peer: End { endpoint, owner, netns: None },
            after: Millis(0.0),
            confidence: "likely",
        }
    }

    #[test]
    fn a_row_says_where_the_story_begins_or_ends_as_far_as_there_is_room() {
        let event =
            Decoder::of_a_whole_kernel(&[]).decode(&Record { kind: kind::RESET_RECEIVED, ..Record::default() }, 0);
        let shown = |chain: &[Link]| seen(&event, chain);
        let (near, far) = (link(Relation::FollowsFrom, 80, Some("gateway")), link(Relation::FollowsFrom, 8443, None));
        let app = link(Relation::LeadsTo, 50_000, Some("java"));
        assert_eq!(shown(&[]), "RST received");
        assert_eq!(shown(&[near.clone(), far, app.clone()]), "RST received ⇐ connect 10.0.0.9:8443");
        assert_eq!(shown(&[near]), "RST received ⇐ connect gateway(7)");
        assert_eq!(shown(&[app]), "RST received ⇒ connect java(7)");
        let long = "a-name-that-leaves-no-room-for-anything-else-in-this-row";
        assert_eq!(shown(&[link(Relation::FollowsFrom, 80, Some(long))]), "RST received ⇐");
    }

    #[test]
    fn a_process_name_cannot_move_the_cursor() {
        let owner =
            Owner { process: Some(Process { pid: 7, comm: "\x1b[2Jevil".to_owned(), exe: None }), ..Owner::default() };
        assert_eq!(who(&owner), "?[2Jevil(7)");
    }

    #[test]
    fn both_ends_are_named_as_far_as_they_are_known() {
        let process = |comm: &str| Owner {
            process: Some(Process { pid: 7, comm: comm.to_owned(), exe: None }),
            ..Owner::default()
        };
        let (node, envoy, nobody) = (process("node"), process("envoy"), Owner::default());
        assert_eq!(names(&node, "→", &envoy), "node(7) → envoy(7)");
        assert_eq!(names(&nobody, "→", &envoy), "? → envoy(7)");
        assert_eq!(names(&node, "→", &nobody), "node(7)");
    }

    #[test]
    fn behind_a_services_address_is_a_pod_or_at_least_an_address() {
        let backend = |pod: Option<&str>| Backend {
            ip: "fd00::9".to_owned(),
            port: 8080,
            pod: pod.map(|name| Pod {
                namespace: Some("shop".to_owned()),
                name: Some(name.to_owned()),
                ..Pod::default()
            }),
            workload: None,
            node: None,
        };
        let service = Some(Service { namespace: "shop".to_owned(), name: "cart".to_owned() });
        let owner = |service, pod| Owner { service, backend: Some(Box::new(backend(pod))), ..Owner::default() };
        assert_eq!(who(&owner(service.clone(), Some("cart-0"))), "shop/cart-0");
        assert_eq!(who(&owner(service, None)), "shop/cart");
        assert_eq!(who(&owner(None, None)), "[fd00::9]:8080");
    }

    #[test]
    fn a_cgroup_name_cannot_turn_the_row_around_or_fill_the_screen() {
        let cgroup = |path: String| {
            let cgroup = Cgroup { id: 7, path: Some(path), creator_only: false };
            who(&Owner { cgroup: Some(cgroup), ..Owner::default() })
        };
        assert_eq!(cgroup("/a\u{202e}b\u{2028}c\u{9b}d\r\ne".to_owned()), "/a?b?c?d??e");
        assert_eq!(cgroup("/日本語-é".to_owned()), "/日本語-é");
        let cut = cgroup(format!("/{}", "x".repeat(4096)));
        assert_eq!(cut.chars().count(), LONGEST_NAME + 1);
        assert!(cut.ends_with("x…"));
    }
}
