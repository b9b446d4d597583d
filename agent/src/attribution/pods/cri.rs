//! What the container runtime knows about the pods of this node, asked through its socket.
//!
//! The runtime knows what the kubelet told it to make: names, the labels and annotations of pods, images. It knows
//! neither the owner of a pod nor the node's name. There is no read-only mode: who may connect may also start
//! containers, so only requests that read are declared here at all.

mod connection;
mod error;
mod image;
mod listing;
mod messages;
mod socket;

use std::path::Path;

use self::{
    connection::{Connection, Limits, Method},
    messages::{
        ListContainersRequest, ListContainersResponse, ListImagesRequest, ListImagesResponse, ListPodSandboxRequest,
        ListPodSandboxResponse,
    },
};
pub use self::{
    error::CriError,
    image::ImageNames,
    listing::Listing,
    socket::{USUAL_PLACES, find_socket},
};
use super::allow::Allowed;

/// Lists the pods of this node and their containers, living or dead, until the kubelet removes them, in at most 17 s.
/// `images` is for the next listing: it saves asking for the images again.
///
/// # Errors
///
/// When the socket cannot be reached, or the pods or containers cannot be had or read.
pub async fn list(socket: &Path, allowed: &Allowed, images: &mut ImageNames) -> Result<Listing, CriError> {
    list_within(Limits::USUAL, socket, allowed, images).await
}

async fn list_within(
    limits: Limits,
    socket: &Path,
    allowed: &Allowed,
    images: &mut ImageNames,
) -> Result<Listing, CriError> {
    let mut connection = Connection::open(socket, limits).await?;
    // Containers before sandboxes, so that the sandbox of each is there unless it was removed meanwhile.
    let ListContainersResponse { containers } =
        connection.call(Method::ListContainers, ListContainersRequest {}).await?;
    let sandboxes: ListPodSandboxResponse = connection.call(Method::ListPodSandbox, ListPodSandboxRequest {}).await?;
    images.forget_all_but(&containers);
    let mut no_images = None;
    if images.lack_any_of(&containers) {
        match connection.call(Method::ListImages, ListImagesRequest {}).await {
            Ok(ListImagesResponse { images: list }) => images.learn(list, &containers),
            Err(error) => no_images = Some(error),
        }
    }
    let listing = Listing::of(sandboxes.items, containers, images, allowed);
    Ok(Listing { no_images, ..listing })
}

#[cfg(test)]
mod tests;
