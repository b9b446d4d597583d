//! A watch of the API server for the pods of this node.
//!
//! The watch is narrowed by `spec.nodeName`, so that a node costs the API server no more than its own pods. Whatever it
//! answers, what was learned before stays known, and the watch is tried again with a growing pause.

use std::{
    collections::HashMap,
    path::PathBuf,
    pin::{Pin, pin},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::{batch, core::v1::Pod};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};

use tokio::time::{Instant, sleep};

use super::{
    allow::Allowed,
    client::client,
    facts::PodFacts,
    failure::{Failure, chain, of_request, of_watch},
    health::Report,
    object,
    store::PodStore,
};
use crate::event::party::{Source, Workload};

/// How long the first answer may take before `doctor` and the lines are told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to ask, for which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// A kubeconfig; the pod's own service account if unset.
    pub kubeconfig: Option<PathBuf>,
    /// `spec.nodeName` of the pods asked for.
    pub node: String,
}

impl ApiServer {
    /// Whether a pod of Kubernetes could ask, by the variables that every container there gets.
    #[must_use]
    pub fn is_in_cluster() -> bool {
        std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// A client that has not connected yet.
    pub async fn client(&self) -> Result<Client, Failure> {
        let config = match &self.kubeconfig {
            Some(file) => {
                let from_file = async || {
                    let kubeconfig = Kubeconfig::read_from(file)?;
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
                };
                from_file().await.map_err(|error| {
                    let what = format!("the kubeconfig {}: {}", file.display(), chain(&error));
                    Failure::new(what, "give another --kubeconfig")
                })?
            }
            None => Config::incluster().map_err(|error| {
                let what = format!("the pod's service account: {}", chain(&error));
                Failure::new(what, "let the pod mount its service account's token, or give --kubeconfig")
            })?,
        };
        let host = config.cluster_url.clone();
        client(config)
            .map_err(|error| Failure::new(format!("no client for {host}: {}", chain(&error)), "check the kubeconfig"))
    }

    /// The pods of the node, once.
    pub async fn list(&self, client: &Client, allow: &Allowed) -> Result<Vec<PodFacts>, Failure> {
        let fields = format!("spec.nodeName={}", self.node);
        let parameters = kube::api::ListParams::default().fields(&fields);
        let pods = Api::<Pod>::all(client.clone()).list(&parameters).await.map_err(|error| of_request(&error))?;
        Ok(pods.items.iter().filter_map(|pod| object::facts(pod, allow)).collect())
    }

    /// Keeps the store up to date for ever.
    pub async fn watch(&self, client: &Client, allow: &Allowed, store: &PodStore, report: &Report) {
        let fields = format!("spec.nodeName={}", self.node);
        let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default().fields(&fields));
        let mut events = pin!(pods.default_backoff());
        let mut list = List::default();
        let mut owners = Owners::new(client);
        let mut silence = pin!(sleep(PATIENCE));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if list.take(event, |pod| owners.facts(pod, allow), store) {
                            report.answered(store.count(Source::ApiServer));
                        }
                    }
                    Some(Err(error)) => report.failed(of_watch(&error)),
                    // The watcher goes on for ever.
                    None => return,
                },
                Some(answer) = owners.answers.next() => {
                    if let Some((uid, owner)) = owners.learn(answer) {
                        store.set_workload(Source::ApiServer, &uid, owner);
                    }
                }
                () = &mut silence, if report.is_waiting() => {
                    let what = format!("no answer within {} s", PATIENCE.as_secs());
                    report.failed(Failure::new(what, "check the address and the network; the agent keeps asking"));
                    silence.as_mut().reset(Instant::now() + PATIENCE);
                }
            }
        }
    }
}

/// The complete list that a watch begins with, until it is complete.
struct List {
    pods: Vec<PodFacts>,
    asked: std::time::Instant,
}

impl Default for List {
    fn default() -> Self {
        Self { pods: Vec::new(), asked: std::time::Instant::now() }
    }
}

impl List {
    /// Puts an event into the store; whether the store now knows every pod.
    fn take(&mut self, event: Event<Pod>, mut facts: impl FnMut(&Pod) -> Option<PodFacts>, store: &PodStore) -> bool {
        match event {
            Event::Init => {
                *self = Self::default();
                return false;
            }
            Event::InitApply(pod) => {
                self.pods.extend(facts(&pod));
                return false;
            }
            Event::InitDone => store.replace(Source::ApiServer, std::mem::take(&mut self.pods), self.asked),
            Event::Apply(pod) => {
                if let Some(pod) = facts(&pod) {
                    store.apply(Source::ApiServer, pod);
                }
            }
            Event::Delete(pod) => {
                if let Some(uid) = object::cgroup_uid(&pod) {
                    store.remove(Source::ApiServer, &uid);
                }
            }
        }
        true
    }
}

/// What is above a Job: one question each, whose answer may be late or be refused. The pod has the Job's name until then.
struct Owners<'a> {
    client: &'a Client,
    /// By the Job's namespace and name; none while it is asked for, and where there is nothing above.
    known: HashMap<Job, Option<Workload>>,
    answers: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + 'a>>>,
}

type Job = (String, String);

/// What is above the Job of a pod.
struct Answer {
    uid: String,
    job: Job,
    /// None if it could not be asked just now.
    owner: Option<Option<Workload>>,
}

/// More Jobs than one node runs in a day; then each is asked for anew.
const MOST_JOBS: usize = 4096;

impl<'a> Owners<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, known: HashMap::new(), answers: FuturesUnordered::new() }
    }

    /// What the pod says, with what is known above it; asks for what is not.
    fn facts(&mut self, pod: &Pod, allow: &Allowed) -> Option<PodFacts> {
        let mut facts = object::facts(pod, allow)?;
        if let Some(job) = facts.workload.as_ref().filter(|owner| owner.kind == "Job") {
            let job = (facts.namespace.clone(), job.name.clone());
            match self.known.get(&job) {
                Some(Some(owner)) => facts.workload = Some(owner.clone()),
                Some(None) => {}
                None => self.ask(facts.uid.clone(), job),
            }
        }
        Some(facts)
    }

    fn ask(&mut self, uid: String, job: Job) {
        if self.known.len() >= MOST_JOBS {
            self.known.clear();
        }
        self.known.insert(job.clone(), None);
        let jobs: Api<batch::v1::Job> = Api::namespaced(self.client.clone(), &job.0);
        self.answers.push(Box::pin(async move {
            let owner = match jobs.get_metadata(&job.1).await {
                Ok(found) => Some(object::controller(&found.metadata)),
                // It will be the same for every Job.
                Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => Some(None),
                Err(_) => None,
            };
            Answer { uid, job, owner }
        }));
    }

    /// Remembers the answer. Returns the owner to name, with the pod's uid.
    fn learn(&mut self, Answer { uid, job, owner }: Answer) -> Option<(String, Workload)> {
        let Some(owner) = owner else {
            self.known.remove(&job);
            return None;
        };
        self.known.insert(job, owner.clone());
        Some((uid, owner?))
    }
}
