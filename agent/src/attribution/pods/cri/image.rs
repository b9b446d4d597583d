//! What an operator calls the image of a container.

use std::collections::HashMap;

use super::messages::{Container, Image};

/// The names of the images that only the runtime's list of images can tell, kept from listing to listing.
///
/// A kubelet resolves the image's name to an id and tells the runtime that. From Kubernetes 1.28 on it tells both, but
/// containerd before 2.0 forgets the name. The image's only name on this node is what `kubectl` shows then, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageNames {
    /// By id without `sha256:`; none where the list has no name beyond doubt.
    by_id: HashMap<String, Option<String>>,
}

impl ImageNames {
    /// Whether the list has to be asked for one of these.
    pub(super) fn lack_any_of(&self, containers: &[Container]) -> bool {
        containers.iter().filter_map(listed_by).any(|id| !self.by_id.contains_key(id))
    }

    /// Takes the names of these containers' images from the list. What was known stays: a tag may have moved on since.
    pub(super) fn learn(&mut self, images: Vec<Image>, containers: &[Container]) {
        let mut list: HashMap<String, String> =
            images.into_iter().filter_map(|image| Some((digits(&image.id).to_owned(), only_name(image)?))).collect();
        for id in containers.iter().filter_map(listed_by) {
            if !self.by_id.contains_key(id) {
                self.by_id.insert(id.to_owned(), list.remove(id));
            }
        }
    }

    /// Drops the names of images that none of these has.
    pub(super) fn forget_all_but(&mut self, containers: &[Container]) {
        let kept = containers.iter().filter_map(listed_by).filter_map(|id| self.by_id.remove_entry(id)).collect();
        self.by_id = kept;
    }

    /// The image that the pod's specification names, as far as it can be told.
    pub(super) fn name(&self, container: &Container) -> Option<String> {
        let told = named(container).map(str::to_owned);
        told.or_else(|| self.by_id.get(listed_by(container)?)?.clone())
    }
}

/// The id of an image whose name only the list can tell.
fn listed_by(container: &Container) -> Option<&str> {
    if named(container).is_some() {
        return None;
    }
    let asked_for = container.image.as_ref().map(|image| image.image.as_str());
    let ids = [container.image_id.as_str(), container.image_ref.as_str()].into_iter().chain(asked_for);
    ids.into_iter().find(|id| is_id(id)).map(digits)
}

fn named(container: &Container) -> Option<&str> {
    let image = container.image.as_ref()?;
    [&image.user_specified_image, &image.image].into_iter().map(String::as_str).find(|name| is_name(name))
}

/// With two names one of them is another image's, or it is not known by which the container was started: a tag that
/// is moved to this image later may name what the container's owner has never heard of.
fn only_name(image: Image) -> Option<String> {
    let repositories = image.repo_tags.iter().chain(&image.repo_digests).map(|name| repository(name));
    let is_one_repository = all_equal(repositories);
    let mut names = if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
    let name = names.pop().filter(|name| is_name(name))?;
    (names.is_empty() && is_one_repository).then_some(name)
}

fn all_equal<'a>(mut texts: impl Iterator<Item = &'a str>) -> bool {
    let Some(first) = texts.next() else { return true };
    texts.all(|text| text == first)
}

/// `example.org:5000/shop/cart` of `example.org:5000/shop/cart:1.2@sha256:…`.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _digest)| name);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

/// The longest reference there is: 255 bytes of repository (distribution/reference `RepositoryNameTotalLengthMax`), 128
/// of tag and a digest.
const MOST_NAME_BYTES: usize = 512;

/// Docker's list of images has `<none>:<none>` for one without a name.
fn is_name(name: &str) -> bool {
    let is_reference = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_reference && name.len() <= MOST_NAME_BYTES && !is_id(name) && !name.contains("<none>")
}

/// `sha256:…` or the digits alone, 64 of them or as many as docker shows.
fn is_id(text: &str) -> bool {
    let digits = digits(text);
    digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digits(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::{super::messages::ImageSpec, *};

    const ID: &str = "5f4d6b9e6b1f0e7b2a1c3d4e5f60718293a4b5c6d7e8f9000a1b2c3d4e5f6071";

    fn container(image: &str, user_specified_image: &str, image_ref: &str) -> Container {
        let (image, user_specified_image) = (image.to_owned(), user_specified_image.to_owned());
        Container {
            image: Some(ImageSpec { image, user_specified_image }),
            image_ref: image_ref.to_owned(),
            ..Container::default()
        }
    }

    fn image(id: &str, tags: &[&str], digests: &[&str]) -> Image {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Image { id: id.to_owned(), repo_tags: owned(tags), repo_digests: owned(digests) }
    }

    /// What the container is called, given this image.
    fn name(container: &Container, image: Image) -> Option<String> {
        let mut names = ImageNames::default();
        names.learn(vec![image], std::slice::from_ref(container));
        names.name(container)
    }

    #[test]
    fn the_users_own_word_comes_first() {
        let container = container(&format!("sha256:{ID}"), "nginx:1.27", ID);
        assert_eq!(name(&container, image(ID, &["docker.io/library/nginx:1.27"], &[])).as_deref(), Some("nginx:1.27"));
    }

    #[test]
    fn a_name_the_kubelet_asked_for_is_one() {
        let digest = format!("quay.io/shop/cart@sha256:{ID}");
        assert_eq!(ImageNames::default().name(&container(&digest, "", ID)), Some(digest));
    }

    #[test]
    fn an_id_is_no_name() {
        for id in [ID.to_owned(), format!("sha256:{ID}"), ID[..12].to_owned()] {
            let container = container(&id, "", "");
            assert!(ImageNames::default().lack_any_of(std::slice::from_ref(&container)), "{id}");
            assert_eq!(ImageNames::default().name(&container), None, "{id}");
        }
    }

    #[test]
    fn the_list_is_asked_only_for_what_it_can_tell_and_once() {
        let told = [container(ID, "nginx:1.27", ID), container("nginx:1.27", "", ID), Container::default()];
        assert!(!ImageNames::default().lack_any_of(&told));

        let untold = [container(ID, "", "")];
        let mut names = ImageNames::default();
        assert!(names.lack_any_of(&untold));
        names.learn(Vec::new(), &untold);
        assert!(!names.lack_any_of(&untold), "that there is no name is known, too");
    }

    #[test]
    fn a_name_stays_when_its_tag_moves_on() {
        let containers = [container(ID, "", "")];
        let mut names = ImageNames::default();
        names.learn(vec![image(ID, &["quay.io/shop/cart:1.2"], &[])], &containers);
        names.learn(vec![image(ID, &["quay.io/other/name:3"], &[])], &containers);
        assert_eq!(names.name(&containers[0]).as_deref(), Some("quay.io/shop/cart:1.2"));
    }

    #[test]
    fn names_go_with_the_last_container_of_the_image() {
        let containers = [container(ID, "", ""), container(ID, "", "")];
        let mut names = ImageNames::default();
        names.learn(vec![image(ID, &["quay.io/shop/cart:1.2"], &[])], &containers);
        names.forget_all_but(&containers);
        assert!(!names.lack_any_of(&containers));
        names.forget_all_but(&[]);
        assert_eq!(names, ImageNames::default());
    }

    #[test]
    fn an_id_is_found_with_and_without_its_prefix() {
        let with = format!("sha256:{ID}");
        let digest = format!("quay.io/shop/cart@sha256:{ID}");
        let listed = |id: &str| image(id, &["quay.io/shop/cart:1.2"], &[&digest]);
        for (id, asked_for, by_reference) in [(&*with, ID, ""), (ID, &*with, ""), (ID, "", &*with), (&*with, "", ID)] {
            let name = name(&container(asked_for, "", by_reference), listed(id));
            assert_eq!(name.as_deref(), Some("quay.io/shop/cart:1.2"), "{id} {asked_for}");
        }
        let with_id = Container { image_id: ID.to_owned(), ..container("", "", &digest) };
        assert_eq!(name(&with_id, listed(&with)).as_deref(), Some("quay.io/shop/cart:1.2"));
    }

    #[test]
    fn an_image_without_a_tag_has_the_name_of_its_digest() {
        let digest = format!("quay.io/shop/cart@sha256:{ID}");
        assert_eq!(name(&container(ID, "", ""), image(ID, &[], &[&digest])), Some(digest));
    }

    #[test]
    fn of_two_names_neither_is_taken() {
        let digest = format!("quay.io/shop/cart@sha256:{ID}");
        for (tags, digests) in [
            (&["quay.io/shop/cart:1.2", "quay.io/shop/cart:latest"][..], &[][..]),
            (&[], &["quay.io/shop/cart@sha256:1", "quay.io/shop/cart@sha256:2"]),
            // The tag came to this image after the container did, which was started by the digest.
            (&["quay.io/other/name:3"], &[&*digest]),
            (&[], &[]),
            (&["<none>:<none>"], &[]),
        ] {
            assert_eq!(name(&container(ID, "", ""), image(ID, tags, digests)), None, "{tags:?} {digests:?}");
        }
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(repository("example.org:5000/cart"), "example.org:5000/cart");
        assert_eq!(repository("example.org:5000/cart:1.2"), "example.org:5000/cart");
        assert_eq!(repository("example.org:5000/cart:1.2@sha256:ab"), "example.org:5000/cart");
        assert_eq!(repository("cart@sha256:ab"), "cart");
    }

    #[test]
    fn a_name_nobody_can_have_given_is_none() {
        for name in ["nginx\u{1b}[31m", "nginx latest", "ngi\u{202e}nx", &"x".repeat(1_000_000)] {
            assert_eq!(ImageNames::default().name(&container(name, name, "")), None);
        }
    }
}
