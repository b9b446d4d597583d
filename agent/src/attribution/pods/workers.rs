//! The thread on which the sources are asked.
//!
//! A thread of its own with a runtime of its own: whatever a source does, the lines are written by others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::{
    allow::Allowed,
    api_server::ApiServer,
    cluster::Cluster,
    cri::{self, ImageNames, Listing},
    facts::PodFacts,
    failure::Failure,
    health::{Health, Healths, Report},
    kubelet::Kubelet,
    logs,
    store::{PodStore, SOURCES},
};
use crate::event::party::Source;

/// Which sources may be asked, and where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The API server.
    pub api_server: Option<ApiServer>,
    /// Also watch the whole cluster, for whose an address is elsewhere.
    pub cluster: bool,
    /// The kubelet.
    pub kubelet: Option<Kubelet>,
    /// The runtime's socket.
    pub cri: Option<PathBuf>,
    /// The kubelet's log folders.
    pub logs: Option<PathBuf>,
    /// What of a pod's labels and annotations may be said.
    pub allow: Allowed,
}

/// A source's complete answer.
#[derive(Default)]
struct Listed {
    pods: Vec<PodFacts>,
    left_out: usize,
    lacks: Option<String>,
}

impl From<Vec<PodFacts>> for Listed {
    fn from(pods: Vec<PodFacts>) -> Self {
        Self { pods, ..Self::default() }
    }
}

/// What the workers share with whoever wants names.
#[derive(Debug, Default)]
struct Shared {
    store: PodStore,
    cluster: Cluster,
    health: Arc<Healths>,
}

impl Shared {
    fn report(&self, source: Source) -> Report {
        Report::new(&self.health, source)
    }
}

/// The sources at work.
pub struct Workers {
    shared: Arc<Shared>,
    wanted: watch::Sender<()>,
}

impl Workers {
    /// Begins to ask.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(sources: Sources) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (wanted, wanted_by) = watch::channel(());
        for source in sources.asked() {
            shared.report(source).asked();
        }
        let workers = Self { shared: shared.clone(), wanted };
        // The first listing of the folders is quick, and names what is old from the first line on.
        if let Some(folder) = &sources.logs {
            take(&shared.store, &shared.report(Source::PodLogs), Instant::now(), logs::list(folder).map(Listed::from));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime of the pods' names")?;
        std::thread::Builder::new()
            .name("pod-names".to_owned())
            .spawn(move || runtime.block_on(work(&sources, &shared, &wanted_by)))
            .context("starting the thread of the pods' names")?;
        Ok(workers)
    }

    /// What is known.
    #[must_use]
    pub fn store(&self) -> &PodStore {
        &self.shared.store
    }

    /// Whose an address is elsewhere.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// How each source fares.
    #[must_use]
    pub fn health(&self) -> [(Source, Health); SOURCES.len()] {
        self.shared.health.all()
    }

    /// Where they say how they fare, for whoever asks later.
    #[must_use]
    pub fn healths(&self) -> Arc<Healths> {
        Arc::clone(&self.shared.health)
    }

    /// Whether somebody who may know a name yet unknown is being asked.
    #[must_use]
    pub fn may_learn(&self) -> bool {
        self.shared.health.any_may_learn()
    }

    /// A name was wanted that nobody knew: those who have to be asked are asked now.
    pub fn want(&self) {
        self.wanted.send_replace(());
    }
}

impl Sources {
    fn asked(&self) -> impl Iterator<Item = Source> {
        let Self { api_server, kubelet, cri, logs, .. } = self;
        let asked = [api_server.is_some(), kubelet.is_some(), cri.is_some(), logs.is_some()];
        SOURCES.into_iter().zip(asked).filter_map(|(source, is_asked)| is_asked.then_some(source))
    }
}

/// Asks every source for as long as somebody wants names.
async fn work(sources: &Sources, shared: &Arc<Shared>, wanted: &watch::Receiver<()>) {
    let report = |source| shared.report(source);
    let api_server = async {
        let Some(api_server) = &sources.api_server else { return };
        let report = report(Source::ApiServer);
        loop {
            match api_server.client().await {
                Ok(client) => {
                    let own = api_server.watch(&client, &sources.allow, &shared.store, &report);
                    let all = async {
                        if sources.cluster {
                            shared.cluster.watch(&client).await;
                        }
                    };
                    tokio::join!(own, all);
                }
                Err(failure) => report.failed(failure),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let kubelet = async {
        let Some(kubelet) = &sources.kubelet else { return };
        let report = report(Source::Kubelet);
        let client = match kubelet.client() {
            Ok(client) => client,
            Err(failure) => return report.failed(failure),
        };
        poll(&shared.store, &report, wanted.clone(), KUBELET, async || {
            Ok(kubelet.list(&client, &sources.allow).await?.into())
        })
        .await;
    };
    let cri = async {
        let Some(socket) = &sources.cri else { return };
        let mut images = ImageNames::default();
        poll(&shared.store, &report(Source::Cri), wanted.clone(), CRI, async || {
            cri_pods(socket, &sources.allow, &mut images).await
        })
        .await;
    };
    let logs = async {
        let Some(folder) = &sources.logs else { return };
        poll(&shared.store, &report(Source::PodLogs), wanted.clone(), LOGS, async || {
            let folder = folder.clone();
            let listed = tokio::task::spawn_blocking(move || logs::list(&folder)).await;
            let listed = listed.map_err(|error| Failure::new(error.to_string(), "please report this as a bug"))?;
            Ok(listed?.into())
        })
        .await;
    };
    let everything = async { tokio::join!(api_server, kubelet, cri, logs) };
    let mut nobody = wanted.clone();
    tokio::select! {
        _ = everything => {}
        // An error means that the sender is gone.
        () = async { while nobody.changed().await.is_ok() {} } => {}
    }
}

async fn cri_pods(socket: &Path, allow: &Allowed, images: &mut ImageNames) -> Result<Listed, Failure> {
    let listing = cri::list(socket, allow, images).await;
    let Listing { pods, left_out, no_images } = listing.map_err(|error| Failure::new(error.to_string(), ""))?;
    Ok(Listed { pods, left_out, lacks: no_images.map(|error| format!("images: {error}")) })
}

/// A client that could not be made is tried again, because a token's file may come later.
const AGAIN: Duration = Duration::from_secs(30);

/// How often a source is asked that does not speak by itself.
#[derive(Clone, Copy)]
struct Pace {
    /// Without a special reason.
    usual: Duration,
    /// At most, when names are wanted.
    wanted: Duration,
}

/// Some megabytes of JSON on a full node.
const KUBELET: Pace = Pace { usual: Duration::from_secs(30), wanted: Duration::from_secs(2) };
/// A socket beside us.
const CRI: Pace = Pace { usual: Duration::from_secs(10), wanted: Duration::from_millis(250) };
/// Two folders and one for each pod.
const LOGS: Pace = Pace { usual: Duration::from_secs(5), wanted: Duration::from_millis(100) };

/// A listing is followed by a pause of so many times its own length: a fifth of a percent of one CPU.
const PAUSE_FACTOR: u32 = 500;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

async fn poll(
    store: &PodStore,
    report: &Report,
    mut wanted: watch::Receiver<()>,
    pace: Pace,
    mut list: impl AsyncFnMut() -> Result<Listed, Failure>,
) {
    loop {
        let asked = Instant::now();
        wanted.mark_unchanged();
        take(store, report, asked, list().await);
        let pause = asked.elapsed().saturating_mul(PAUSE_FACTOR).clamp(pace.usual, LONGEST_PAUSE);
        tokio::time::sleep(pace.wanted).await;
        let usual = async {
            // Who is only asked because a better source may fall silent can be asked seldom.
            let pause = if report.is_spare() { LONGEST_PAUSE } else { pause };
            tokio::time::sleep(pause.saturating_sub(pace.wanted)).await;
        };
        tokio::select! {
            () = usual => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

fn take(store: &PodStore, report: &Report, asked: Instant, listed: Result<Listed, Failure>) {
    match listed {
        Ok(Listed { pods, left_out, lacks }) => {
            store.replace(report.source(), pods, asked);
            report.say(Health::Answers { pods: store.count(report.source()), left_out, lacks });
        }
        Err(failure) => report.failed(failure),
    }
}
