//! Counts events on their way to the sinks: by cause and by whose they are.
//!
//! Names come from the cluster, so there can be any number of them. Pairs of workloads are counted one by one only up to a
//! bound; what comes after goes by the name `other`, so that no cluster makes this node's metrics too many.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use super::vitals::{BY_AGENT, Vitals};
use crate::{
    attribution::pods::health::Health,
    diagnosis::{Diagnosed, code::Code},
    event::{
        What,
        party::{Evidence, Owner, Source},
    },
    kernel::losses::Loss,
    sinks::{AgentLine, Sink},
};

/// What a bound leaves no room for.
pub const OTHER: &str = "other";

/// Whose one end is. Both are empty where nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// The pod's namespace.
    pub namespace: String,
    /// What made the pod, as `Deployment/checkout`.
    pub workload: String,
}

impl Party {
    fn of(owner: &Owner) -> Self {
        Self {
            namespace: owner.pod.as_ref().and_then(|pod| pod.namespace.clone()).unwrap_or_default(),
            workload: owner.workload.as_ref().map(|it| format!("{}/{}", it.kind, it.name)).unwrap_or_default(),
        }
    }

    fn other() -> Self {
        Self { namespace: String::new(), workload: OTHER.to_owned() }
    }
}

/// The two ends of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The end that the line is about.
    pub local: Party,
    /// The far end.
    pub peer: Party,
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// `reset`, `connect_failure` or `timeout`.
    pub kind: &'static str,
    /// `received` or `sent`, of a reset.
    pub direction: Option<&'static str>,
    /// Why.
    pub cause: Code,
    /// Nobody needs to do anything.
    pub benign: bool,
}

/// What a name was found for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// The process.
    Process,
    /// The container.
    Container,
    /// The pod's name.
    Pod,
    /// What made the pod.
    Workload,
}

impl Named {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Workload => "workload",
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Events, by whose they are.
    pub events: BTreeMap<Pair, BTreeMap<Kind, u64>>,
    /// How names of the local end became known.
    pub names: BTreeMap<(Named, &'static str), u64>,
    /// What was lost before the sinks.
    pub lost: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn event(&mut self, line: &Diagnosed, most: usize) {
        let kind = line.event.what.kind();
        if line.event.what == What::Closed {
            return;
        }
        let peer = line.other.as_ref().map_or(&line.peer, |other| &other.owner);
        let pair = self.bounded(Pair { local: Party::of(&line.owner), peer: Party::of(peer) }, most);
        let Diagnosed { event, cause, .. } = line;
        // A refused connect is a RST received as well, but there is no other way to be refused.
        let direction = event.what.direction().filter(|_| kind == "reset");
        let kind = Kind { kind, direction, cause: cause.code, benign: cause.benign };
        *self.events.entry(pair).or_default().entry(kind).or_default() += 1;
        for (named, by) in names(line) {
            *self.names.entry((named, by)).or_default() += 1;
        }
    }

    /// The pair itself, or all others where there are so many by name already. The one of which nobody knows anything needs no
    /// room.
    fn bounded(&self, pair: Pair, most: usize) -> Pair {
        let nobody = Pair::default();
        if pair == nobody || self.events.contains_key(&pair) {
            return pair;
        }
        let others = Pair { local: Party::other(), peer: Party::other() };
        let nameless = [&nobody, &others].into_iter().filter(|pair| self.events.contains_key(*pair)).count();
        if self.events.len() - nameless < most { pair } else { others }
    }
}

/// How each name of the local end became known, `none` if it did not.
fn names(line: &Diagnosed) -> [(Named, &'static str); 4] {
    const NONE: &str = "none";
    let Owner { process, container, pod, workload, attribution, .. } = &line.owner;
    let attribution = attribution.unwrap_or_default();
    let source = attribution.pod.map_or(NONE, source);
    let named = pod.as_ref().is_some_and(|pod| pod.name.is_some());
    let process = process.as_ref().map_or(NONE, |_| line.event.facts.owner_from.unwrap_or("actor"));
    let container = container.as_ref().and(attribution.container).map_or(NONE, evidence);
    [
        (Named::Process, process),
        (Named::Container, container),
        (Named::Pod, if named { source } else { NONE }),
        (Named::Workload, if workload.is_some() { source } else { NONE }),
    ]
}

/// As lines have it.
#[must_use]
pub const fn source(source: Source) -> &'static str {
    match source {
        Source::ApiServer => "api_server",
        Source::Kubelet => "kubelet",
        Source::Cri => "cri",
        Source::PodLogs => "pod_logs",
    }
}

const fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::SocketCgroup => "socket_cgroup",
        Evidence::ProcessCgroup => "process_cgroup",
        Evidence::Address => "address",
    }
}

/// Whether a source answers; nothing if it is not asked.
#[must_use]
pub const fn is_up(health: &Health) -> Option<bool> {
    match health {
        Health::Off => None,
        Health::Answers { .. } => Some(true),
        Health::Waiting | Health::Fails { .. } => Some(false),
    }
}

/// The counts, shared between the pipeline and whoever asks.
#[derive(Debug, Default)]
pub struct Events(Mutex<Counts>);

impl Events {
    /// All of them now.
    #[must_use]
    pub fn read(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what it hands on to another sink.
#[derive(Debug)]
pub struct Counting<S> {
    to: S,
    events: Arc<Events>,
    most_pairs: usize,
}

impl<S> Counting<S> {
    /// In front of `to`; at most so many pairs of workloads are told apart.
    #[must_use]
    pub const fn new(to: S, events: Arc<Events>, most_pairs: usize) -> Self {
        Self { to, events, most_pairs }
    }
}

impl<S: Sink> Sink for Counting<S> {
    fn event(&mut self, diagnosed: &Diagnosed) -> io::Result<()> {
        self.events.lock().event(diagnosed, self.most_pairs);
        self.to.event(diagnosed)
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        *self.events.lock().lost.entry(loss.cause).or_default() += loss.count;
        self.to.loss(loss)
    }

    fn agent(&mut self, agent: &AgentLine) -> io::Result<()> {
        self.to.agent(agent)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Counts an event that a filter on names left out.
pub fn left_out(vitals: &Vitals) {
    vitals.filtered[BY_AGENT].fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests;
