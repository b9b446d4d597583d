//! What the sources know about this node's pods, for whoever names a line.
//!
//! Each source has a table of its own and writes only there, from memory: whoever reads waits for no source. A pod or a
//! container that has gone stays for as long as a late reset can need it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use jiff::Timestamp;

use super::{
    addresses::Addresses,
    facts::{ContainerFacts, PodFacts, is_older},
};
use crate::{
    attribution::remembered::KEEP_NAMES,
    event::party::{Source, Workload},
};

/// Every source, the most believed first.
pub const SOURCES: [Source; 4] = [Source::ApiServer, Source::Kubelet, Source::Cri, Source::PodLogs];

/// A kubelet runs some hundred pods. The rest is room for those that have gone, and a bound for a source that raves.
const MOST_PODS: usize = 16_384;
/// As for pods, several containers each.
const MOST_CONTAINERS: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub struct PodStore {
    tables: [RwLock<Table>; SOURCES.len()],
    /// Of this node's pods, by those sources that tell it.
    addresses: RwLock<Addresses<Arc<PodFacts>>>,
}

/// What one source knows.
#[derive(Debug, Default)]
struct Table {
    pods: HashMap<String, Entry<Arc<PodFacts>>>,
    containers: HashMap<String, Entry<Arc<ContainerFacts>>>,
    /// When the last complete answer was asked for.
    listed: Option<Instant>,
}

/// Something with the time at which it was found missing.
#[derive(Debug)]
struct Entry<T> {
    value: T,
    gone: Option<Instant>,
}

impl PodStore {
    /// The pod with this uid in its cgroup, and who said so.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<(Arc<PodFacts>, Source)> {
        SOURCES.into_iter().find_map(|source| {
            let pod = self.read(source).pods.get(uid)?.value.clone();
            Some((pod, source))
        })
    }

    /// The container with this id, and who said so. `first_seen` is when it was met: a source that knows a pod's containers
    /// by name only has to have been asked after that for the only name to be this one's.
    #[must_use]
    pub fn container(&self, uid: &str, id: &str, first_seen: Instant) -> Option<(Arc<ContainerFacts>, Source)> {
        let known = |source| {
            let container = self.read(source).containers.get(id)?.value.clone();
            Some((container, source))
        };
        let only = |source| {
            let table = self.read(source);
            let pod = &table.pods.get(uid)?.value;
            let [name] = &pod.container_names[..] else { return None };
            let is_fresh = source != Source::PodLogs || table.listed.is_some_and(|listed| listed >= first_seen);
            let image = pod.containers.values().find(|container| container.name == *name);
            let image = image.and_then(|container| container.image.clone());
            is_fresh.then(|| (Arc::new(ContainerFacts { name: name.clone(), image }), source))
        };
        SOURCES.into_iter().find_map(known).or_else(|| SOURCES.into_iter().find_map(only))
    }

    /// The pod of this node that has the address, and had it when a connection began.
    #[must_use]
    pub fn at(&self, address: IpAddr, began: Option<Timestamp>) -> Option<Arc<PodFacts>> {
        let addresses = self.addresses.read().expect("nobody panics with the lock");
        addresses.get(address, |pod| is_older(pod.since, began))
    }

    /// Takes a source's complete answer to a question that was asked at `asked`.
    pub fn replace(&self, source: Source, pods: Vec<PodFacts>, asked: Instant) {
        if tells_addresses(source) {
            let mut addresses = self.addresses.write().expect("nobody panics with the lock");
            pods.iter().for_each(|pod| addresses.put(&pod.uid, held(pod)));
            let uids: HashSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
            addresses.keep_only(|uid| uids.contains(uid));
        }
        let mut fresh = Table { listed: Some(asked), ..Table::default() };
        for pod in pods.into_iter().take(MOST_PODS) {
            fresh.insert(pod);
        }
        let now = Instant::now();
        let mut table = self.write(source);
        let old = std::mem::replace(&mut *table, fresh);
        keep_gone(&mut table.pods, old.pods, MOST_PODS, now);
        keep_gone(&mut table.containers, old.containers, MOST_CONTAINERS, now);
    }

    /// Takes what a source says about one pod.
    pub fn apply(&self, source: Source, pod: PodFacts) {
        if tells_addresses(source) {
            self.addresses.write().expect("nobody panics with the lock").put(&pod.uid, held(&pod));
        }
        let now = Instant::now();
        let mut table = self.write(source);
        if let Some(old) = table.pods.get(&pod.uid) {
            // A container that was restarted has another id, and the old one's reset may come yet.
            let replaced: Vec<String> =
                old.value.containers.keys().filter(|id| !pod.containers.contains_key(*id)).cloned().collect();
            for id in replaced {
                table.container_gone(&id, now);
            }
        }
        table.insert(pod);
        table.forget(now);
    }

    /// Who is above a pod was found out later.
    pub fn set_workload(&self, source: Source, uid: &str, workload: Workload) {
        if let Some(pod) = self.write(source).pods.get_mut(uid) {
            Arc::make_mut(&mut pod.value).workload = Some(workload);
        }
    }

    /// A pod is no more.
    pub fn remove(&self, source: Source, uid: &str) {
        if tells_addresses(source) {
            self.addresses.write().expect("nobody panics with the lock").remove(uid);
        }
        let now = Instant::now();
        let mut table = self.write(source);
        let Some(pod) = table.pods.get_mut(uid) else { return };
        pod.gone.get_or_insert(now);
        let pod = pod.value.clone();
        for id in pod.containers.keys() {
            table.container_gone(id, now);
        }
        table.forget(now);
    }

    /// How many pods a source says are there.
    #[must_use]
    pub fn count(&self, source: Source) -> usize {
        self.read(source).pods.values().filter(|entry| entry.gone.is_none()).count()
    }

    fn read(&self, source: Source) -> RwLockReadGuard<'_, Table> {
        self.tables[source as usize].read().expect("nobody panics with the lock")
    }

    fn write(&self, source: Source) -> RwLockWriteGuard<'_, Table> {
        self.tables[source as usize].write().expect("nobody panics with the lock")
    }
}

const fn tells_addresses(source: Source) -> bool {
    matches!(source, Source::ApiServer | Source::Kubelet)
}

fn held(pod: &PodFacts) -> Vec<(IpAddr, Arc<PodFacts>)> {
    let shared = Arc::new(pod.clone());
    pod.addresses.iter().map(|address| (*address, shared.clone())).collect()
}

impl Table {
    fn insert(&mut self, pod: PodFacts) {
        for (id, container) in &pod.containers {
            if self.containers.len() < MOST_CONTAINERS || self.containers.contains_key(id) {
                self.containers.insert(id.clone(), Entry { value: Arc::new(container.clone()), gone: None });
            }
        }
        if self.pods.len() < MOST_PODS || self.pods.contains_key(&pod.uid) {
            self.pods.insert(pod.uid.clone(), Entry { value: Arc::new(pod), gone: None });
        }
    }

    fn container_gone(&mut self, id: &str, now: Instant) {
        if let Some(container) = self.containers.get_mut(id) {
            container.gone.get_or_insert(now);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.pods.retain(|_, entry| !is_past(entry.gone, now));
        self.containers.retain(|_, entry| !is_past(entry.gone, now));
    }
}

/// Puts what `old` knew and `table` does not beside it, for a while.
fn keep_gone<T>(table: &mut HashMap<String, Entry<T>>, old: HashMap<String, Entry<T>>, most: usize, now: Instant) {
    for (key, mut entry) in old {
        let gone = *entry.gone.get_or_insert(now);
        if table.len() < most && !table.contains_key(&key) && !is_past(Some(gone), now) {
            table.insert(key, entry);
        }
    }
}

fn is_past(gone: Option<Instant>, now: Instant) -> bool {
    gone.is_some_and(|gone| now.saturating_duration_since(gone) >= KEEP_NAMES)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pod(uid: &str, containers: &[(&str, &str)]) -> PodFacts {
        let facts = |name: &str| ContainerFacts { name: name.to_owned(), image: None };
        PodFacts {
            uid: uid.to_owned(),
            name: format!("pod-{uid}"),
            container_names: containers.iter().map(|(name, _)| (*name).to_owned()).collect(),
            containers: containers.iter().map(|(name, id)| ((*id).to_owned(), facts(name))).collect(),
            ..PodFacts::default()
        }
    }

    fn name(store: &PodStore, uid: &str, id: &str, first_seen: Instant) -> Option<String> {
        store.container(uid, id, first_seen).map(|(container, _)| container.name.clone())
    }

    #[test]
    fn the_better_source_is_believed_and_the_other_fills_in() {
        let store = PodStore::default();
        let now = Instant::now();
        store.replace(Source::PodLogs, vec![pod("a", &[("app", "1"), ("sidecar", "2")])], now);
        assert_eq!(store.pod("a").unwrap().1, Source::PodLogs);
        store.apply(Source::ApiServer, pod("a", &[("app", "1")]));
        assert_eq!(store.pod("a").unwrap().1, Source::ApiServer);
        assert_eq!(store.container("a", "1", now).unwrap().1, Source::ApiServer);
        assert_eq!(store.container("a", "2", now).unwrap().1, Source::PodLogs);
        assert!(store.pod("b").is_none());
    }

    #[test]
    fn what_has_gone_is_remembered_and_then_forgotten() {
        let store = PodStore::default();
        let now = Instant::now();
        store.replace(Source::Cri, vec![pod("a", &[("app", "1")])], now);
        store.replace(Source::Cri, Vec::new(), now);
        assert!(store.pod("a").is_some() && store.container("a", "1", now).is_some());
        assert_eq!(store.count(Source::Cri), 0);
        let mut table = store.write(Source::Cri);
        table.forget(Instant::now() + KEEP_NAMES);
        assert!(table.pods.is_empty() && table.containers.is_empty());
    }

    #[test]
    fn a_restarted_containers_old_id_keeps_its_name() {
        let store = PodStore::default();
        let now = Instant::now();
        store.apply(Source::ApiServer, pod("a", &[("app", "1"), ("sidecar", "2")]));
        store.apply(Source::ApiServer, pod("a", &[("app", "3"), ("sidecar", "2")]));
        assert_eq!(name(&store, "a", "1", now).as_deref(), Some("app"));
        assert_eq!(name(&store, "a", "3", now).as_deref(), Some("app"));
        let gone: Vec<bool> =
            ["1", "2", "3"].map(|id| store.read(Source::ApiServer).containers[id].gone.is_some()).into();
        assert_eq!(gone, [true, false, false]);
    }

    #[test]
    fn an_only_container_needs_no_id_and_two_give_no_name() {
        let store = PodStore::default();
        let now = Instant::now();
        store.replace(Source::ApiServer, vec![pod("a", &[("app", "1")])], now);
        assert_eq!(name(&store, "a", "unknown", now).as_deref(), Some("app"));
        store.apply(Source::ApiServer, pod("a", &[("app", "1"), ("sidecar", "2")]));
        assert_eq!(name(&store, "a", "unknown", now), None);
    }

    #[test]
    fn folders_listed_before_a_container_came_do_not_give_it_the_first_ones_name() {
        let store = PodStore::default();
        let listed = Instant::now();
        store.replace(Source::PodLogs, vec![pod("a", &[("init", "1")])], listed);
        let later = listed + Duration::from_secs(1);
        assert_eq!(name(&store, "a", "2", later), None);
        store.replace(Source::PodLogs, vec![pod("a", &[("init", "1")])], later);
        assert_eq!(name(&store, "a", "2", later).as_deref(), Some("init"));
    }

    #[test]
    fn a_late_owner_is_added_to_the_newest_facts() {
        let store = PodStore::default();
        store.apply(Source::ApiServer, pod("a", &[("app", "1")]));
        store.set_workload(Source::ApiServer, "a", Workload { kind: "CronJob".to_owned(), name: "report".to_owned() });
        let (pod, _) = store.pod("a").unwrap();
        assert_eq!(pod.workload.as_ref().unwrap().kind, "CronJob");
        assert_eq!(pod.containers.len(), 1);
    }

    #[test]
    fn a_source_that_raves_is_bounded() {
        let store = PodStore::default();
        let many = (0..MOST_PODS + 100).map(|number| pod(&number.to_string(), &[])).collect();
        store.replace(Source::Kubelet, many, Instant::now());
        assert_eq!(store.count(Source::Kubelet), MOST_PODS);
        store.apply(Source::Kubelet, pod("one more", &[]));
        assert_eq!(store.count(Source::Kubelet), MOST_PODS);
    }
}
