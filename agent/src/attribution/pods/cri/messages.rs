//! The messages of the container runtime interface, version 1, that are asked for: the numbers are those of
//! `pkg/apis/runtime/v1/api.proto` in kubernetes/cri-api. A field that is not declared is skipped when it comes.

use std::collections::HashMap;

/// `ListPodSandboxRequest`, without its filter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxRequest {}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// Every sandbox that was not removed, ready or not.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// `PodSandbox`: one run of a pod. A pod has several when its first one died.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// What containers name it by.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Which pod it is a run of.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// The pod's labels and some of the kubelet's own.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
    /// The pod's annotations and some of the kubelet's own.
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
}

/// `PodSandboxMetadata`: as in the pod's `metadata`, except that a static pod's uid is that of its cgroup.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// The pod's namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How many sandboxes the kubelet had made for the pod before.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// `ListContainersRequest`, without its filter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersRequest {}

/// `ListContainersResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersResponse {
    /// Every container that was not removed, running or not.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// `Container`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    /// The id that its cgroup has.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its sandbox.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    /// What it was made of.
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    /// The image's id or its digest, as the runtime likes.
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// The image's id, from runtimes that know this field (cri-api 0.30 and newer).
    #[prost(string, tag = "10")]
    pub image_id: String,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerMetadata {
    /// The name in the pod's specification.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `ImageSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageSpec {
    /// What the kubelet asked for: a name, or the id it had resolved the name to.
    #[prost(string, tag = "1")]
    pub image: String,
    /// The image in the pod's specification, from runtimes that know this field (cri-api 0.28 and newer).
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

/// `ListImagesRequest`, without its filter.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListImagesRequest {}

/// `ListImagesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListImagesResponse {
    /// Every image of the node.
    #[prost(message, repeated, tag = "1")]
    pub images: Vec<Image>,
}

/// `Image`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    /// With or without `sha256:`, as the runtime likes.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `REPOSITORY:TAG`.
    #[prost(string, repeated, tag = "2")]
    pub repo_tags: Vec<String>,
    /// `REPOSITORY@DIGEST`.
    #[prost(string, repeated, tag = "3")]
    pub repo_digests: Vec<String>,
}
