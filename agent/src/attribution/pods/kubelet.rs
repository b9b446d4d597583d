//! The kubelet's own list of its pods: `GET /pods` on its secured port.
//!
//! The same facts as the API server's, from the node itself. It takes the right `nodes/pods` (or, before Kubernetes 1.33,
//! `nodes/proxy`, which is far more than reading) and a token.

use std::{path::PathBuf, time::Duration};

use k8s_openapi::{List, api::core::v1::Pod};
use kube::{Client, Config};

use super::{
    allow::Allowed,
    client::client,
    facts::PodFacts,
    failure::{Failure, chain, said},
    object,
};

/// Where the token and the CA of a pod's service account are.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Where the kubelet is, and how to speak with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// `https://127.0.0.1:10250` or the like.
    pub url: String,
    /// A file with the token to show; the service account's if unset.
    pub token: Option<PathBuf>,
    /// The CA that has signed the kubelet's certificate; the service account's if unset.
    pub ca: Option<PathBuf>,
    /// Believe whatever certificate it shows: most kubelets have signed theirs themselves.
    pub insecure: bool,
}

impl Kubelet {
    /// A client that has not connected yet.
    pub fn client(&self) -> Result<Client, Failure> {
        let url = self.url.parse::<http::Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some());
        let url = url.ok_or_else(|| {
            Failure::new(
                format!("{:?} is no address of a kubelet", self.url),
                "give one such as --kubelet https://127.0.0.1:10250",
            )
        })?;
        let mut config = Config::new(url);
        config.connect_timeout = Some(CONNECT_LIMIT);
        config.read_timeout = Some(READ_LIMIT);
        config.reset_reader_on_write = true;
        config.default_retry = false;
        config.accept_invalid_certs = self.insecure;
        let default = |name: &str| Some(PathBuf::from(SERVICE_ACCOUNT).join(name)).filter(|file| file.is_file());
        if !self.insecure {
            config.root_cert_file = self.ca.clone().or_else(|| default("ca.crt"));
        }
        let token = self.token.clone().or_else(|| default("token"));
        config.auth_info.token_file = token.map(|file| file.display().to_string());
        client(config).map_err(|error| {
            Failure::new(
                format!("no client for {}: {}", self.url, chain(&error)),
                "check --kubelet-token and --kubelet-ca",
            )
        })
    }

    /// Its pods now.
    pub async fn list(&self, client: &Client, allow: &Allowed) -> Result<Vec<PodFacts>, Failure> {
        let request = http::Request::get("/pods").body(Vec::new()).expect("a constant request is well formed");
        let pods: List<Pod> = client.request(request).await.map_err(|error| self.failure(&error))?;
        Ok(pods.items.iter().filter_map(|pod| object::facts(pod, allow)).collect())
    }

    fn failure(&self, error: &kube::Error) -> Failure {
        let remedy = match error {
            kube::Error::Api(status) if status.code == 401 => "give a token that it accepts as --kubelet-token",
            kube::Error::Api(status) if status.code == 403 => {
                "allow `get` on nodes/pods (before Kubernetes 1.33 on nodes/proxy)"
            }
            kube::Error::SerdeError(_) => "check that --kubelet names a kubelet",
            _ => "check --kubelet, and --kubelet-ca or --kubelet-insecure for its certificate",
        };
        Failure::new(format!("{}/pods: {}", self.url, said(error)), remedy)
    }
}
