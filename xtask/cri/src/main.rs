//! Plays the kubelet for `cargo xtask containers`: makes a pod with one container in the node's network by way of a
//! container runtime's socket, and prints the container's id.
//!
//! A program of its own, because nothing else that `cargo xtask` does takes gRPC.

mod messages;

use std::{collections::HashMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::{Instant, sleep};
use tonic::{
    Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use messages::{
    ContainerConfig, ContainerMetadata, ContainerSecurityContext, CreateContainerRequest, CreateContainerResponse,
    ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig, ListImagesRequest, ListImagesResponse, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, RunPodSandboxRequest, RunPodSandboxResponse, SandboxSecurityContext,
    StartContainerRequest, StartContainerResponse,
};

/// How long an answer may take, and an image that was imported to appear in the list, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The node's network, and processes that do not see those of other containers: a pod with `hostNetwork: true`.
const NAMESPACES: NamespaceOption = NamespaceOption { network: 2, pid: 1 };

/// Makes a pod by way of a container runtime's socket
#[derive(Debug, Parser)]
struct Options {
    /// The runtime's socket
    #[arg(long)]
    socket: PathBuf,
    /// The pod's namespace
    #[arg(long)]
    namespace: String,
    /// The pod's name
    #[arg(long)]
    pod: String,
    /// The pod's uid
    #[arg(long)]
    uid: String,
    /// The pod's cgroup
    #[arg(long)]
    cgroup: String,
    /// A label of the pod
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// An annotation of the pod
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    annotations: Vec<(String, String)>,
    /// The folder for the container's output
    #[arg(long)]
    logs: String,
    /// The container's name
    #[arg(long)]
    container: String,
    /// The image's name
    #[arg(long)]
    image: String,
    /// What runs in the container
    #[arg(last = true)]
    command: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').context("this is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    match make_pod(&Options::parse()) {
        Ok(container) => {
            println!("{container}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make_pod(options: &Options) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(run(options))
}

async fn run(options: &Options) -> Result<String> {
    let mut kubelet = Kubelet::connect(options).await?;
    let image = kubelet.image(&options.image).await?;
    let pod = options.pod();
    let request = RunPodSandboxRequest { config: Some(pod.clone()) };
    let sandbox: RunPodSandboxResponse = kubelet.call("RuntimeService/RunPodSandbox", request).await?;
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.pod_sandbox_id,
        config: Some(options.container(image)),
        sandbox_config: Some(pod),
    };
    let container: CreateContainerResponse = kubelet.call("RuntimeService/CreateContainer", request).await?;
    let request = StartContainerRequest { container_id: container.container_id.clone() };
    let StartContainerResponse {} = kubelet.call("RuntimeService/StartContainer", request).await?;
    Ok(container.container_id)
}

impl Options {
    fn pod(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.pod.clone(),
                uid: self.uid.clone(),
                namespace: self.namespace.clone(),
            }),
            log_directory: self.logs.clone(),
            labels: self.labels.iter().cloned().chain(self.names()).collect(),
            annotations: self.annotations.iter().cloned().collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(SandboxSecurityContext { namespace_options: Some(NAMESPACES) }),
            }),
        }
    }

    /// Tells the image as the kubelet does from Kubernetes 1.28 on.
    fn container(&self, image: String) -> ContainerConfig {
        let name = self.container.clone();
        let labels: HashMap<_, _> = self.names().into_iter().collect();
        ContainerConfig {
            metadata: Some(ContainerMetadata { name }),
            image: Some(ImageSpec { image, user_specified_image: self.image.clone() }),
            command: self.command.clone(),
            labels,
            log_path: format!("{}.log", self.container),
            linux: Some(LinuxContainerConfig {
                security_context: Some(ContainerSecurityContext { namespace_options: Some(NAMESPACES) }),
            }),
        }
    }

    /// The labels that the kubelet adds.
    fn names(&self) -> [(String, String); 3] {
        [("name", &self.pod), ("namespace", &self.namespace), ("uid", &self.uid)]
            .map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone()))
    }
}

/// What asks the runtime.
struct Kubelet {
    grpc: Grpc<Channel>,
}

impl Kubelet {
    async fn connect(options: &Options) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", options.socket.display()))?.timeout(PATIENCE);
        let channel =
            endpoint.connect().await.with_context(|| format!("connecting to {}", options.socket.display()))?;
        Ok(Self { grpc: Grpc::new(channel) })
    }

    /// The id of the image with this name, once the runtime lists it.
    async fn image(&mut self, name: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list: ListImagesResponse = self.call("ImageService/ListImages", ListImagesRequest {}).await?;
            let mut images = list.images.into_iter();
            if let Some(image) = images.find(|image| image.repo_tags.iter().any(|tag| tag == name)) {
                return Ok(image.id);
            }
            if Instant::now() > deadline {
                bail!("the runtime lists no image {name} within {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn call<Q, A>(&mut self, method: &str, question: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}"))?;
        self.grpc.ready().await.with_context(|| format!("no connection for {method}"))?;
        let answer = self.grpc.unary(Request::new(question), path, ProstCodec::default()).await;
        Ok(answer.with_context(|| format!("the runtime did not answer {method}"))?.into_inner())
    }
}
