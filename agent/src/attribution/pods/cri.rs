//! What the container runtime knows about the pods of this node, asked through its socket.
//!
//! The runtime knows what the kubelet told it to make: names, the labels and annotations of pods, images. It knows
//! neither the owner of a pod nor the node's name. There is no read-only mode: who may connect may also start
//! containers, so only the requests that list are declared here at all.

mod connection;
mod error;
mod image;
mod listing;
mod messages;
mod socket;

use std::path::Path;

use self::connection::{Connection, Method};
pub use self::{
    error::CriError,
    listing::Listing,
    socket::{USUAL_PLACES, find_socket},
};
use super::allow::Allowed;

/// Who answers at a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// `containerd`, `cri-o`, `docker` for cri-dockerd.
    pub name: String,
    /// As the runtime writes it.
    pub version: String,
}

/// Asks who answers at a socket. Takes at most 7 s.
///
/// # Errors
///
/// When no runtime answers there.
pub async fn runtime(socket: &Path) -> Result<Runtime, CriError> {
    let mut connection = Connection::open(socket).await?;
    let answer: messages::VersionResponse =
        connection.call(Method::Version, messages::VersionRequest::default()).await?;
    Ok(Runtime { name: error::quoted(&answer.runtime_name), version: error::quoted(&answer.runtime_version) })
}

/// Lists the pods of this node and their containers, living or dead, until the kubelet removes them. Takes at most 17 s.
///
/// # Errors
///
/// When the socket cannot be reached, or one of the answers cannot be had or read.
pub async fn list(socket: &Path, allowed: &Allowed) -> Result<Listing, CriError> {
    let mut connection = Connection::open(socket).await?;
    // Containers before sandboxes, so that the sandbox of each is there unless it was removed meanwhile.
    let containers: messages::ListContainersResponse =
        connection.call(Method::ListContainers, messages::ListContainersRequest {}).await?;
    let sandboxes: messages::ListPodSandboxResponse =
        connection.call(Method::ListPodSandbox, messages::ListPodSandboxRequest {}).await?;
    let images = if containers.containers.iter().any(image::takes_the_list) {
        let answer: messages::ListImagesResponse =
            connection.call(Method::ListImages, messages::ListImagesRequest {}).await?;
        image::Names::of(answer.images)
    } else {
        image::Names::default()
    };
    Ok(Listing::of(sandboxes.items, containers.containers, &images, allowed))
}
