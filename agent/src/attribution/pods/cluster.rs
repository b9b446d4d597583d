//! Whose address it is, anywhere in the cluster: pods, Services, the pods behind them, and nodes.
//!
//! Four watches of the whole cluster, asked for by a flag, since every node then keeps what all nodes have. Of each object
//! only names and addresses are kept. The API has no request for pods' addresses alone: whole pods come over the wire.

use std::{
    collections::HashSet,
    net::IpAddr,
    pin::pin,
    sync::{Mutex, RwLock},
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{
    addresses::Addresses,
    allow::Allowed,
    facts::{PodFacts, is_older},
    failure::{Failure, of_watch},
    object,
};
use crate::event::party::{Service as ServiceName, Workload};

/// The label by which an EndpointSlice belongs to a Service (`discovery.k8s.io`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAt {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The uid its cgroup has.
    pub uid: String,
    /// Its node.
    pub node: Option<String>,
    /// What made it.
    pub workload: Option<Workload>,
    /// When the kubelet first saw it (`status.startTime`, whole seconds): connections that are older are another's.
    pub since: Option<Timestamp>,
}

impl From<&PodFacts> for PodAt {
    fn from(pod: &PodFacts) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            workload: pod.workload.clone(),
            since: pod.since,
        }
    }
}

/// A Service's address, or that of a pod behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceAt {
    service: ServiceName,
    /// Empty: any.
    ports: Vec<u16>,
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The pod.
    pub pod: Option<PodAt>,
    /// The Service that has it, or the only one the pod is behind with this port.
    pub service: Option<ServiceName>,
    /// The node.
    pub node: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: RwLock<Addresses<PodAt>>,
    services: RwLock<Addresses<ServiceAt>>,
    endpoints: RwLock<Addresses<ServiceAt>>,
    nodes: RwLock<Addresses<String>>,
    failures: Mutex<Vec<(&'static str, Failure)>>,
}

impl Cluster {
    /// Who has the address, for a connection to its `port` that began at `began`.
    #[must_use]
    pub fn find(&self, address: IpAddr, port: Option<u16>, began: Option<Timestamp>) -> Found {
        let has_port = |at: &ServiceAt| at.ports.is_empty() || port.is_some_and(|port| at.ports.contains(&port));
        let pod = read(&self.pods).get(address, |pod| is_older(pod.since, began));
        let endpoint = || read(&self.endpoints).get(address, has_port);
        let service = read(&self.services).get(address, has_port).or_else(|| pod.is_some().then(endpoint)?);
        let node = read(&self.nodes).get(address, |_| true);
        Found { pod, service: service.map(|at| at.service), node }
    }

    /// Keeps everything up to date for ever.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.follow::<Pod, _>("pods", client, &self.pods, pod_addresses),
            self.follow::<Service, _>("services", client, &self.services, service_addresses),
            self.follow::<EndpointSlice, _>("endpointslices", client, &self.endpoints, endpoint_addresses),
            self.follow::<Node, _>("nodes", client, &self.nodes, node_addresses),
        );
    }

    /// How many pods are known, and what cannot be watched.
    #[must_use]
    pub fn health(&self) -> (usize, Vec<(&'static str, Failure)>) {
        (read(&self.pods).len(), self.failures.lock().expect("nobody panics with the lock").clone())
    }

    async fn follow<K, T>(
        &self,
        what: &'static str,
        client: &Client,
        table: &RwLock<Addresses<T>>,
        addresses: impl Fn(&K) -> Vec<(IpAddr, T)>,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
        T: Clone + PartialEq,
    {
        let mut events = pin!(watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff());
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            self.note(what, event.as_ref().err().map(of_watch));
            let mut table = table.write().expect("nobody panics with the lock");
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    table.put(&key(&object), addresses(&object));
                    listed.insert(key(&object));
                }
                Ok(Event::InitDone) => table.keep_only(|key| listed.contains(key)),
                Ok(Event::Apply(object)) => table.put(&key(&object), addresses(&object)),
                Ok(Event::Delete(object)) => table.remove(&key(&object)),
                Err(_) => {}
            }
        }
    }

    fn note(&self, what: &'static str, failure: Option<Failure>) {
        let mut failures = self.failures.lock().expect("nobody panics with the lock");
        failures.retain(|(of, _)| *of != what);
        failures.extend(failure.map(|failure| (what, failure)));
    }
}

fn read<T>(table: &RwLock<Addresses<T>>) -> std::sync::RwLockReadGuard<'_, Addresses<T>> {
    table.read().expect("nobody panics with the lock")
}

fn key(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn pod_addresses(pod: &Pod) -> Vec<(IpAddr, PodAt)> {
    let Some(facts) = object::facts(pod, &Allowed::default()) else { return Vec::new() };
    let at = PodAt::from(&facts);
    facts.addresses.into_iter().map(|address| (address, at.clone())).collect()
}

/// The addresses by which others reach it: its own, and those a load balancer or an administrator gave it.
fn service_addresses(service: &Service) -> Vec<(IpAddr, ServiceAt)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let balancers = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let balancers = balancers.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let addresses = spec.cluster_ips.iter().flatten().chain(spec.external_ips.iter().flatten());
    let addresses = addresses.chain(balancers.iter().filter_map(|ingress| ingress.ip.as_ref()));
    let mut addresses: Vec<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let ports = spec.ports.iter().flatten().filter_map(|port| u16::try_from(port.port).ok()).collect();
    let at = ServiceAt { service: service_name(service), ports };
    addresses.into_iter().map(|address| (address, at.clone())).collect()
}

fn service_name(service: &Service) -> ServiceName {
    ServiceName { namespace: service.namespace().unwrap_or_default(), name: service.name_any() }
}

fn endpoint_addresses(slice: &EndpointSlice) -> Vec<(IpAddr, ServiceAt)> {
    let Some(name) = slice.labels().get(SERVICE_NAME).cloned() else { return Vec::new() };
    let service = ServiceName { namespace: slice.namespace().unwrap_or_default(), name };
    let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
    let at = ServiceAt { service, ports };
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|address| Some((address.parse().ok()?, at.clone()))).collect()
}

fn node_addresses(node: &Node) -> Vec<(IpAddr, String)> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let addresses = addresses.iter().filter_map(|address| address.address.parse().ok());
    addresses.map(|address| (address, node.name_any())).collect()
}
