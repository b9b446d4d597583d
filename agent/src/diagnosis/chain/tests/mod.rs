//! Chains of made-up events: [`stories`] that belong together, and [`near_misses`] that do not; [`waiting`] for them.
//!
//! The cast: an application on 10.0.0.2, a proxy (process 7) that accepts on 10.0.0.1:15001 and connects to 10.0.0.9:8443.

mod near_misses;
mod stories;
mod waiting;

use agent_common::{
    connection::{Task, Tuple, facts_flag, mapped, owner_from, role},
    event::{Event as Record, flag, kind, socket},
    tcp::state,
};

use crate::{
    diagnosis::{Diagnosed, Diagnosis, code::Code, join::Seen, limits::NoLimits, timeouts::Timeouts},
    event::{
        Event,
        decode::Decoder,
        link::{Link, Relation},
        party::{Owner, Process},
    },
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// When the stories begin.
const START: u64 = 100 * SECOND;
/// Ticks of 4 ms at [`START`].
const JIFFIES: u32 = 1_000_000;

const PROXY: Task = task(7, 8);
const APP: Task = task(20, 20);

const fn task(tgid: u32, tid: u32) -> Task {
    Task { tgid, tid, ..Task::NOBODY }
}

/// An end of a connection: the last byte of its address, and its port.
type Address = (u8, u16);

const APPLICATION: Address = (2, 50_000);
const LISTENER: Address = (1, 15_001);
const OUTGOING: Address = (1, 40_000);
const UPSTREAM: Address = (9, 8443);

fn address(last: u8) -> [u32; 4] {
    mapped(u32::from_ne_bytes([10, 0, 0, last]))
}

/// An event so long after the start at one end of a connection that is two seconds old and belongs to `owner`.
fn event(what: u8, ns: u64, role: u8, owner: Task, [local, peer]: [Address; 2]) -> Record {
    let boot_ns = START + ns;
    let mut record = Record {
        kind: what,
        socket: socket::FULL,
        state: state::ESTABLISHED,
        flags: flag::FACTS | flag::CONNECTION,
        boot_ns,
        monotonic_ns: boot_ns,
        jiffies: JIFFIES + (ns / (4 * MS)) as u32,
        tuple: Tuple {
            local: address(local.0),
            peer: address(peer.0),
            local_port: local.1,
            peer_port: peer.1,
            netns: u32::from(local.0),
        },
        ..Record::default()
    };
    record.connection.birth_ns = START - 2 * SECOND;
    record.connection.role = role;
    record.connection.owner = owner;
    record.connection.owner_from = if role == role::CLIENT { owner_from::CONNECT } else { owner_from::READ };
    record.facts.bits = facts_flag::HAS_FILE;
    // Sequence numbers by which both ends find each other, whoever asks.
    let number = |(last, port): Address| u32::from(last) * 100_000 + u32::from(port);
    (record.facts.send_next, record.facts.receive_next) = (number(local), number(peer));
    record.facts.copied = record.facts.receive_next;
    (record.facts.send_unacked, record.facts.written) = (record.facts.send_next, record.facts.send_next);
    exchange(&mut record, 100, 200, 1000);
    record
}

/// So many bytes were received and sent, the last of them so many milliseconds before the start.
fn exchange(record: &mut Record, received: u64, sent: u64, ms_ago: u32) {
    (record.facts.bytes_received, record.facts.bytes_sent) = (received, sent);
    record.facts.received_stamp = JIFFIES - ms_ago / 4;
    record.facts.sent_stamp = JIFFIES - ms_ago / 4;
}

/// The task whose doing it is.
fn by(mut record: Record, task: Task) -> Record {
    record.actor = task;
    record.flags |= flag::ACTOR;
    record
}

/// The proxy gives up connecting.
fn gave_up(ns: u64) -> Record {
    connect_failed(by(event(kind::CONNECT_FAILED, ns, role::CLIENT, PROXY, [OUTGOING, UPSTREAM]), PROXY))
}

fn connect_failed(mut record: Record) -> Record {
    record.state = state::SYN_SENT;
    record.facts.shutdown = 3;
    record.facts.segments_out = 1;
    // It began when the application's connection was there.
    record.connection.birth_ns = START - SECOND;
    exchange(&mut record, 0, 0, 0);
    record
}

/// Nobody listens where the proxy wanted to connect.
fn refused(ns: u64) -> Record {
    use agent_common::connection::connection_flag;
    let mut record = connect_failed(event(kind::CONNECT_FAILED, ns, role::CLIENT, PROXY, [OUTGOING, UPSTREAM]));
    record.facts.error = libc::ECONNREFUSED.cast_unsigned();
    record.connection.flags |= connection_flag::RESET_RECEIVED;
    record
}

/// The upstream resets the proxy's connection, over which what the application had said went a second ago.
fn upstream_reset(ns: u64) -> Record {
    let mut record = event(kind::RESET_RECEIVED, ns, role::CLIENT, PROXY, [OUTGOING, UPSTREAM]);
    exchange(&mut record, 200, 100, 1000);
    record
}

/// The proxy closes the application's connection, whose first bytes it has not read.
fn closes(ns: u64) -> Record {
    let mut record = by(event(kind::RESET_SENT, ns, role::SERVER, PROXY, [LISTENER, APPLICATION]), PROXY);
    record.flags |= flag::ENDED;
    record.facts.shutdown = 3;
    exchange(&mut record, 517, 0, 1000);
    record.facts.copied -= 517;
    record
}

/// The proxy closes the application's connection with SO_LINGER 0 and nothing unread.
fn aborts(ns: u64) -> Record {
    let mut record = closes(ns);
    record.facts.flags = agent_common::tcp::sock_flag::LINGER;
    record.facts.copied = record.facts.receive_next;
    exchange(&mut record, 100, 200, 1000);
    record
}

/// The application's end of it.
fn application(ns: u64) -> Record {
    let mut record = event(kind::RESET_RECEIVED, ns, role::CLIENT, APP, [APPLICATION, LISTENER]);
    exchange(&mut record, 0, 517, 1000);
    record
}

fn decode(record: &Record) -> Event {
    Decoder::of_a_whole_kernel(&[]).decode(record, 0)
}

/// A process with a name, as the attribution finds it.
fn owner(record: &Record) -> Owner {
    let pid = record.connection.owner.tgid;
    let comm = match pid {
        0 => return Owner::default(),
        7 => "envoy",
        20 => "java",
        _ => "other",
    };
    Owner { process: Some(Process { pid, comm: comm.to_owned(), exe: None }), ..Owner::default() }
}

fn diagnosis() -> Diagnosis {
    Diagnosis::new(Box::new(NoLimits), Timeouts::built_in(), Seen::AllSince(0))
}

/// The proxy closes the application's connection with a FIN: no line, but something to remember.
fn closes_quietly(ns: u64) -> Record {
    let mut record = by(event(kind::CLOSED, ns, role::SERVER, PROXY, [LISTENER, APPLICATION]), PROXY);
    exchange(&mut record, 0, 0, 1000);
    record
}

/// The lines of these records, by time.
fn lines(records: &[Record]) -> Vec<Diagnosed> {
    let (mut diagnosis, mut out, mut now) = (diagnosis(), Vec::new(), 0);
    for record in records {
        now = now.max(record.boot_ns);
        diagnosis.expire(now, &mut out);
        diagnosis.take(decode(record), owner(record));
    }
    diagnosis.finish(&mut out);
    assert_eq!(out.len(), records.iter().filter(|record| record.kind != kind::CLOSED).count());
    out.sort_by_key(|line| line.event.boot_ns);
    out
}

/// A link in few words: its relation, its type, its far end, and how sure it is.
fn shown(link: &Link) -> String {
    let relation = if link.relation == Relation::FollowsFrom { "after" } else { "before" };
    format!("{relation} {} {} {}", link.what.kind(), link.peer.endpoint, link.confidence)
}

/// The chains of these records' lines, by time.
fn chains(records: &[Record]) -> Vec<Vec<String>> {
    lines(records).iter().map(|line| line.chain.iter().map(shown).collect()).collect()
}

/// Asserts that nothing is linked with anything.
#[track_caller]
fn unlinked(records: &[Record]) {
    let chains = chains(records);
    assert!(chains.iter().all(Vec::is_empty), "{chains:?}");
}

/// Asserts that the second of two events is a consequence of the first, this sure, and returns its cause.
#[track_caller]
fn linked(records: &[Record; 2], confidence: &str) -> Code {
    let lines = lines(records);
    let chain = |line: &Diagnosed| line.chain.iter().map(shown).collect::<Vec<_>>();
    let [first, second] = &lines[..] else { panic!("{lines:?}") };
    let kind = |line: &Diagnosed| line.event.what.kind();
    assert_eq!(chain(first), [format!("before {} {} {confidence}", kind(second), second.event.peer)]);
    assert_eq!(chain(second), [format!("after {} {} {confidence}", kind(first), first.event.peer)]);
    second.cause.code
}

/// Every order in which these records may come.
fn orders<const COUNT: usize>(records: [Record; COUNT]) -> Vec<Vec<Record>> {
    let mut all = vec![Vec::new()];
    for record in records {
        let with = |order: Vec<Record>| {
            (0..=order.len()).map(move |place| {
                let mut longer = order.clone();
                longer.insert(place, record);
                longer
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}
