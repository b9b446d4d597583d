//! The flags of those who are asked about pods, and what they mean.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    attribution::pods::{
        allow::{Allowed, KeyPattern},
        api_server::ApiServer,
        cri::{USUAL_PLACES, find_socket},
        kubelet::Kubelet,
        workers::Sources,
    },
    event::party::Source,
};

/// Who names pods, and where they are.
#[derive(Args, Debug)]
#[command(next_help_heading = "Names of pods")]
pub struct PodFlags {
    /// Who may be asked; each only where it is there, the first that knows a pod is believed
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Source::value_variants().to_vec())]
    pub pod_sources: Vec<Source>,
    /// A kubeconfig for the API server [default: in a pod its service account]; takes --node
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Watch all pods, Services and nodes of the cluster, to name peers elsewhere; every node then keeps all their names
    #[arg(long)]
    pub cluster_watch: bool,
    /// The kubelet's address, such as https://127.0.0.1:10250
    #[arg(long, value_name = "URL")]
    pub kubelet: Option<String>,
    /// A file with the token for the kubelet [default: in a pod that of its service account]
    #[arg(long, value_name = "FILE", requires = "kubelet")]
    pub kubelet_token: Option<PathBuf>,
    /// The CA of the kubelet's certificate [default: in a pod that of its service account]
    #[arg(long, value_name = "FILE", requires = "kubelet")]
    pub kubelet_ca: Option<PathBuf>,
    /// Believe any certificate of the kubelet
    #[arg(long, requires = "kubelet", conflicts_with = "kubelet_ca")]
    pub kubelet_insecure: bool,
    /// The container runtime's socket [default: found at the usual places]
    #[arg(long, value_name = "SOCKET")]
    pub cri_socket: Option<PathBuf>,
    /// Where the kubelet keeps the pods' logs, whose folders' names tell pods and containers
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,
    /// Labels to show of a pod: their keys, or beginnings of keys with `*`
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub pod_labels: Vec<KeyPattern>,
    /// Annotations to show of a pod, as above
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub pod_annotations: Vec<KeyPattern>,
}

/// Where the API server is not asked, and why not.
pub struct NotAsked(pub Source, pub String);

impl PodFlags {
    /// Whom to ask about the pods of `node`, and who is left out for which reason.
    ///
    /// # Errors
    ///
    /// If a file that was named is not there, or something else is missing that it takes.
    pub fn sources(&self, node: Option<&str>) -> Result<(Sources, Vec<NotAsked>)> {
        let mut not_asked = Vec::new();
        let mut ask = |source, found: Result<(), String>| {
            let result =
                if self.pod_sources.contains(&source) { found } else { Err("left out by --pod-sources".to_owned()) };
            result.map_err(|why| not_asked.push(NotAsked(source, why))).is_ok()
        };
        let in_cluster = ApiServer::is_in_cluster();
        let api_server = match (&self.kubeconfig, in_cluster, node) {
            (None, false, _) => Err("no --kubeconfig, and not in a pod of Kubernetes".to_owned()),
            (_, _, None) => Err("give the node's name with --node or NODE_NAME".to_owned()),
            (Some(_), ..) | (_, true, _) => Ok(()),
        };
        let kubelet = self.kubelet.as_ref().map(|_| ()).ok_or("no --kubelet".to_owned());
        let found = self.cri_socket.clone().or_else(|| find_socket(Path::new("/")));
        let cri = found.as_ref().map(|_| ()).ok_or_else(|| format!("nothing at /{}", USUAL_PLACES.join(", /")));
        let asked = [
            ask(Source::ApiServer, api_server),
            ask(Source::Kubelet, kubelet),
            ask(Source::Cri, cri),
            ask(Source::PodLogs, Ok(())),
        ];
        let [api_server, kubelet, cri, logs] = asked;
        if api_server {
            self.check_kubeconfig()?;
        } else if self.cluster_watch {
            bail!(
                "--cluster-watch takes the API server: give --kubeconfig and --node, or run in a pod with NODE_NAME set"
            );
        }
        let node = node.unwrap_or_default().to_owned();
        let sources = Sources {
            cluster: self.cluster_watch,
            api_server: api_server.then(|| ApiServer { kubeconfig: self.kubeconfig.clone(), node }),
            kubelet: self.kubelet.clone().filter(|_| kubelet).map(|url| Kubelet {
                url,
                token: self.kubelet_token.clone(),
                ca: self.kubelet_ca.clone(),
                insecure: self.kubelet_insecure,
            }),
            cri: found.filter(|_| cri),
            logs: logs.then(|| self.pod_logs.clone()),
            allow: Allowed {
                labels: self.pod_labels.iter().cloned().collect(),
                annotations: self.pod_annotations.iter().cloned().collect(),
            },
        };
        Ok((sources, not_asked))
    }

    /// A file that is wrong now is a mistake; one that becomes wrong later is a source that fails.
    fn check_kubeconfig(&self) -> Result<()> {
        let Some(file) = &self.kubeconfig else { return Ok(()) };
        if let Err(error) = kube::config::Kubeconfig::read_from(file) {
            bail!(
                "cannot use the kubeconfig {}: {}; give another --kubeconfig, or leave it out with --pod-sources",
                file.display(),
                crate::attribution::pods::failure::chain(&error)
            );
        }
        Ok(())
    }
}
