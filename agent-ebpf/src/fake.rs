//! A kernel made of bytes, for the unit tests of the logic.
//!
//! Memory is sparse and knows structures: an object has the members of the structures it is made of and nothing else,
//! so that a read beyond the end of a mini-socket is a read fault here, where the real kernel would quietly answer with
//! somebody else's bytes.

mod objects;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ptr::NonNull,
};

use agent_common::{
    connection::{Closed, Connection, Failure, MAPPED_PREFIX, Server, Tuple, mapped},
    counter::{COUNTERS, Counter},
    event::Event,
    layout::{Location, Locations, MEMBERS, Member},
    settings::Settings,
    tcp::state,
};

use crate::{
    kernel::{Kernel, Plain, field},
    lifecycle, reset,
};

/// Where the current task's stack begins.
pub const STACK: u64 = 0xffff_c900_0010_0000;
/// Inode number of the network namespace everything is in, unless a test says otherwise.
pub const NETNS: u32 = 4_026_531_840;
/// How many levels of cgroups there is room for.
const CGROUP_DEPTH: usize = 8;

/// An IPv4 address as sockets and packets have it in a [`Tuple`].
pub fn v4(a: u8, b: u8, c: u8, d: u8) -> [u32; 4] {
    mapped(u32::from_ne_bytes([a, b, c, d]))
}

/// The IPv6 address fd00::`last`.
pub fn v6(last: u8) -> [u32; 4] {
    let bytes = v6_bytes(last);
    [0, 4, 8, 12].map(|i| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]))
}

fn v6_bytes(last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[15] = last;
    bytes
}

/// The bytes a member takes; every offset in the table leaves that much room.
fn room(member: Member) -> u32 {
    match member {
        Member::CgroupAncestors | Member::CgroupAncestorIds => 8 * CGROUP_DEPTH as u32,
        _ => 16,
    }
}

/// A place of its own for every member.
fn places() -> Locations {
    let mut places = Settings::EMPTY.locations;
    // Not 0, which is where a member read through a null pointer's offset would be.
    let mut byte = 16;
    for row in MEMBERS {
        let index = row.member as usize;
        let place = match row.member {
            Member::SawTstamp => Location::new(byte * 8, 1),
            Member::TstampOk => Location::new(places[Member::SawTstamp as usize].byte() as u32 * 8 + 1, 1),
            _ => Location::new(byte * 8, 0),
        };
        places[index] = place.unwrap();
        byte += room(row.member);
    }
    places
}

/// The kernel, its current task and the agent's tables.
pub struct Fake {
    /// Address of the hook's arguments: on the task's own stack unless [softirq](Self::softirq) runs.
    pub arguments: u64,
    /// Thread group id and thread id of the current task.
    pub pid_tgid: u64,
    /// The agent's settings; nothing is filtered.
    pub settings: Settings,
    /// CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
    /// The low 32 bits of jiffies.
    pub jiffies: u32,
    /// How many connections the table holds.
    pub capacity: usize,

    places: Locations,
    memory: HashMap<u64, u8>,
    next: u64,
    net: u64,
    task: u64,
    /// The thread group leaders that have run, by thread group id.
    leaders: HashMap<u32, u64>,
    current_cgroup_id: u64,

    // Values are leaked: a reference handed out stays valid whatever happens to the table.
    connections: RefCell<HashMap<u64, NonNull<Connection>>>,
    closed: RefCell<HashMap<Tuple, NonNull<Closed>>>,
    scratch: NonNull<Closed>,
    events: RefCell<Vec<Event>>,
    /// Idle limits learned, in order.
    pub idle_limits: RefCell<Vec<(Server, u32)>>,
    failures: RefCell<HashMap<u32, Failure>>,
    counters: [Cell<u64>; COUNTERS as usize],
}

impl Fake {
    /// Ten thousand seconds after boot, a thread of process 100, `envoy`, runs in process context in cgroup 700.
    pub fn new() -> Self {
        let places = places();
        let mut settings = Settings { locations: places, ..Settings::EMPTY };
        // As from 5.15 on; see `swap`.
        settings.locations[Member::SkCgroupVal as usize] = Location::ABSENT;
        settings.locations[Member::CgroupAncestorIds as usize] = Location::ABSENT;
        let mut fake = Self {
            arguments: STACK + 15 * 1024,
            pid_tgid: 100 << 32 | 101,
            settings,
            boot_ns: 10_000_000_000_000,
            monotonic_ns: 9_000_000_000_000,
            jiffies: 2_175_000,
            capacity: usize::MAX,
            places,
            memory: HashMap::new(),
            next: 0xffff_8880_0100_0000,
            net: 0,
            task: 0,
            leaders: HashMap::new(),
            current_cgroup_id: 0,
            connections: RefCell::default(),
            closed: RefCell::default(),
            scratch: leak(Closed::default()),
            events: RefCell::default(),
            idle_limits: RefCell::default(),
            failures: RefCell::default(),
            counters: Default::default(),
        };
        fake.net = fake.namespace(NETNS);
        fake.task = fake.object(&["task_struct"]);
        let css_set = fake.object(&["css_set"]);
        fake.set(fake.task, Member::TaskStack, STACK);
        fake.set(fake.task, Member::TaskCgroups, css_set);
        fake.set(fake.task, Member::TaskComm, *b"wrk:worker_0\0\0\0\0");
        fake.run(100, "envoy");
        fake.pid_tgid = 100 << 32 | 101;
        let cgroup = fake.cgroup(700, &[1, 700]);
        fake.run_in_cgroup(cgroup, 700);
        fake
    }

    // Memory.

    /// A new all-zero object with the members of these structures.
    fn object(&mut self, structures: &[&str]) -> u64 {
        let base = self.next;
        self.next += 0x1000;
        for row in MEMBERS.iter().filter(|row| structures.contains(&row.structure)) {
            let first = base + self.places[row.member as usize].byte();
            for address in first..first + u64::from(room(row.member)) {
                self.memory.insert(address, 0);
            }
        }
        base
    }

    /// Writes a member that the running kernel has. Of a bit-field, the whole byte it lies in.
    pub fn set<T: Plain>(&mut self, base: u64, member: Member, value: T) {
        let location = self.settings.locations[member as usize];
        assert!(location.is_present(), "{member:?} is absent");
        self.write(base + location.byte(), value);
    }

    fn write<T: Plain>(&mut self, address: u64, value: T) {
        // SAFETY: `T` is made of integers, without padding, and the slice ends with the function.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        for (address, byte) in (address..).zip(bytes) {
            assert!(self.memory.insert(address, *byte).is_some(), "{address:#x} is in no object");
        }
    }

    /// Takes a member's memory away: reading it fails from now on.
    pub fn unmap(&mut self, base: u64, member: Member) {
        let byte = self.places[member as usize].byte();
        self.memory.remove(&(base + byte));
    }

    /// Makes the running kernel one without the first member and with the second.
    pub fn swap(&mut self, absent: Member, present: Member) {
        self.settings.locations[absent as usize] = Location::ABSENT;
        self.settings.locations[present as usize] = self.places[present as usize];
    }

    // Hooks.

    /// `sk` changes its state, which the hook is told first.
    pub fn go(&mut self, sk: u64, new: u8) {
        let old: u8 = field(self, sk, Member::State);
        lifecycle::on_state(self, sk, old, new);
        self.set(sk, Member::State, new);
    }

    /// A client's connection, established: `connect()` by the current process, the answer in softirq.
    pub fn connected(&mut self) -> u64 {
        let sk = self.connecting();
        self.softirq();
        self.go(sk, state::ESTABLISHED);
        self.process();
        sk
    }

    /// A client's connection right after `connect()` has sent its SYN.
    pub fn connecting(&mut self) -> u64 {
        let sk = self.unconnected();
        self.set_peer(sk);
        self.go(sk, state::SYN_SENT);
        self.set(sk, Member::Sport, 80_u16.to_be());
        sk
    }

    /// A server's connection, established and accepted, all seen from softirq.
    pub fn accepted(&mut self) -> u64 {
        let sk = self.unaccepted();
        let file = self.object(&[]);
        self.set(sk, Member::Socket, file);
        sk
    }

    /// The same, still in the accept queue: no file refers to it. The peer's ends are known late, as up to 6.12.
    pub fn unaccepted(&mut self) -> u64 {
        let sk = self.listener();
        self.set(sk, Member::Socket, 0_u64);
        self.softirq();
        self.go(sk, state::SYN_RECV);
        self.set_peer(sk);
        self.go(sk, state::ESTABLISHED);
        self.process();
        sk
    }

    /// What a softirq gets to see when the peer's RST arrives: the hook, then CLOSE with its error.
    pub fn receive_rst(&mut self, sk: u64, error: u32) {
        self.softirq();
        reset::on_receive_reset(self, sk, 0);
        self.set(sk, Member::Error, error);
        self.go(sk, state::CLOSE);
        self.process();
    }

    /// Lets time pass: 4 ms for each of the jiffies.
    pub fn wait(&mut self, jiffies: u32) {
        self.jiffies = self.jiffies.wrapping_add(jiffies);
        self.boot_ns += u64::from(jiffies) * 4_000_000;
        self.monotonic_ns += u64::from(jiffies) * 4_000_000;
    }

    // Who runs.

    /// The hooks run in softirq, on top of the current task.
    pub fn softirq(&mut self) {
        self.arguments = STACK + 1024 * 1024;
    }

    /// The hooks run in the current task's own context again.
    pub fn process(&mut self) {
        self.arguments = STACK + 15 * 1024;
    }

    /// Another process runs, in process context, in the cgroup of the one before; or the same one by another name.
    pub fn run(&mut self, tgid: u32, comm: &str) {
        self.process();
        self.pid_tgid = u64::from(tgid) << 32 | u64::from(tgid);
        let leader = self.leader(tgid);
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm.as_bytes());
        self.set(leader, Member::TaskComm, name);
        self.set(self.task, Member::TaskGroupLeader, leader);
    }

    /// The leader of a thread group: a task of its own, with a living thread, in the cgroup of the current task.
    pub fn leader(&mut self, tgid: u32) -> u64 {
        if let Some(&leader) = self.leaders.get(&tgid) {
            return leader;
        }
        let (leader, signal) = (self.object(&["task_struct"]), self.object(&["signal_struct"]));
        let css_set: u64 = field(self, self.task, Member::TaskCgroups);
        self.set(leader, Member::TaskTgid, tgid);
        self.set(leader, Member::TaskPid, tgid);
        self.set(leader, Member::TaskGroupLeader, leader);
        self.set(leader, Member::TaskStartBoottime, u64::from(tgid) * 50_000_000);
        self.set(leader, Member::TaskCgroups, css_set);
        self.set(leader, Member::TaskSignal, signal);
        self.set(signal, Member::SignalLive, 1_u32);
        self.leaders.insert(tgid, leader);
        leader
    }

    /// A process begins to exit; with its files closed it is a zombie.
    pub fn exit(&mut self, tgid: u32, files_are_closed: bool) {
        let leader = self.leader(tgid);
        let signal: u64 = field(self, leader, Member::TaskSignal);
        self.set(leader, Member::TaskFlags, 4_u32);
        self.set(signal, Member::SignalLive, 0_u32);
        self.set(leader, Member::TaskExitState, if files_are_closed { 0x20_u32 } else { 0 });
    }

    /// `task_struct.flags` of the current task.
    pub fn set_task_flags(&mut self, flags: u32) {
        self.set(self.task, Member::TaskFlags, flags);
    }

    /// `exit_code` of the current task.
    pub fn set_exit_code(&mut self, code: u32) {
        self.set(self.task, Member::TaskExitCode, code);
    }

    /// Moves the current task.
    pub fn run_in_cgroup(&mut self, cgroup: u64, id: u64) {
        let css_set: u64 = field(self, self.task, Member::TaskCgroups);
        self.set(css_set, Member::CssSetDefault, cgroup);
        self.current_cgroup_id = id;
    }

    // What came of it.

    /// What is followed of `sk`.
    pub fn followed(&self, sk: u64) -> Option<Connection> {
        self.connection(sk).map(|connection| *connection)
    }

    /// How many connections are in the table.
    pub fn followed_count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Every event since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// The only event since the last call.
    #[track_caller]
    pub fn take_event(&self) -> Event {
        let events = self.take_events();
        assert_eq!(events.len(), 1, "one event expected, got {:?}", events.iter().map(|e| e.kind).collect::<Vec<_>>());
        events[0]
    }
}

fn leak<T>(value: T) -> NonNull<T> {
    NonNull::from(Box::leak(Box::new(value)))
}

impl Kernel for Fake {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn location(&self, member: Member) -> Location {
        self.settings.locations[member as usize]
    }

    fn read<T: Plain>(&self, base: u64, offset: u64) -> T {
        let mut value = T::default();
        if base == 0 {
            return value;
        }
        let bytes = (&raw mut value).cast::<u8>();
        for (index, address) in (base + offset..).take(size_of::<T>()).enumerate() {
            let Some(byte) = self.memory.get(&address) else {
                self.count(Counter::ReadFault);
                return T::default();
            };
            // SAFETY: `index` is below the size of `value`, and a `Plain` type is valid for any bytes.
            unsafe { bytes.add(index).write(*byte) };
        }
        value
    }

    fn boot_ns(&self) -> u64 {
        self.boot_ns
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns
    }

    fn jiffies(&self) -> u32 {
        self.jiffies
    }

    fn cpu(&self) -> u16 {
        3
    }

    fn current_task(&self) -> u64 {
        self.task
    }

    fn current_pid_tgid(&self) -> u64 {
        self.pid_tgid
    }

    fn current_cgroup_id(&self) -> u64 {
        self.current_cgroup_id
    }

    fn arguments(&self) -> u64 {
        self.arguments
    }

    fn connection(&self, sk: u64) -> Option<&mut Connection> {
        let found = self.connections.borrow().get(&sk).copied();
        // SAFETY: the value is leaked, so the pointer is valid for ever. A hook asks for the record of a socket once, or
        // again only when the first answer was `None`, and the tests only keep copies: no other reference is alive.
        found.map(|mut connection| unsafe { connection.as_mut() })
    }

    fn begin_connection(&self, sk: u64) -> Option<&mut Connection> {
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= self.capacity && !connections.contains_key(&sk) {
            self.count(Counter::ConnectionTableFull);
            return None;
        }
        let mut connection = leak(Connection::NONE);
        connections.insert(sk, connection);
        // SAFETY: the value is leaked and nobody else has seen it yet.
        Some(unsafe { connection.as_mut() })
    }

    fn remove_connection(&self, sk: u64) {
        self.connections.borrow_mut().remove(&sk);
    }

    fn closed(&self, tuple: &Tuple) -> Option<&Closed> {
        let found = self.closed.borrow().get(tuple).copied();
        // SAFETY: the value is leaked, so the pointer is valid for ever, and nothing writes to it once it is stored.
        found.map(|closed| unsafe { closed.as_ref() })
    }

    fn closed_scratch(&self) -> Option<&mut Closed> {
        let mut scratch = self.scratch;
        // SAFETY: the value is leaked; one hook uses it, once, and hooks do not run inside each other here.
        Some(unsafe { scratch.as_mut() })
    }

    fn store_closed(&self, tuple: &Tuple, closed: &Closed) {
        self.closed.borrow_mut().insert(*tuple, leak(*closed));
        self.count(Counter::ClosedRecorded);
    }

    fn remove_closed(&self, tuple: &Tuple) {
        self.closed.borrow_mut().remove(tuple);
    }

    fn learn_idle_limit(&self, server: &Server, ticks: u32) {
        self.idle_limits.borrow_mut().push((*server, ticks));
    }

    fn note_failure(&self, tgid: u32, failure: &Failure) {
        self.failures.borrow_mut().insert(tgid, *failure);
    }

    fn failure(&self, tgid: u32) -> Option<Failure> {
        self.failures.borrow().get(&tgid).copied()
    }

    fn emit(&self, fill: impl FnOnce(&mut Event)) {
        let mut event = Event::default();
        fill(&mut event);
        self.events.borrow_mut().push(event);
        self.count(Counter::Emitted);
    }

    fn count(&self, counter: Counter) {
        let cell = &self.counters[counter as usize];
        cell.set(cell.get() + 1);
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].get()
    }
}

/// Every test of the logic would prove little if two members shared a place.
#[test]
fn every_member_has_a_place_of_its_own() {
    let places = places();
    for row in MEMBERS {
        let first = places[row.member as usize].byte();
        let others = MEMBERS.iter().filter(|other| {
            other.member != row.member
                && (first..first + u64::from(room(row.member))).contains(&places[other.member as usize].byte())
        });
        let others: Vec<_> = others.map(|other| other.member).collect();
        match row.member {
            Member::SawTstamp => assert_eq!(others, [Member::TstampOk]),
            Member::TstampOk => assert_eq!(others, [Member::SawTstamp]),
            _ => assert_eq!(others, []),
        }
    }
    assert_eq!(v4(10, 0, 0, 2)[2], MAPPED_PREFIX);
}
