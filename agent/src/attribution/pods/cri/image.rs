//! What an operator calls the image of a container.

use std::collections::HashMap;

use super::messages::{Container, Image};

/// Of the names of an image, by its id without `sha256:`, the one that is beyond doubt.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Keeps the images that have one.
    pub(super) fn of(images: Vec<Image>) -> Self {
        Self(images.into_iter().filter_map(|image| Some((digits(&image.id).to_owned(), only_name(image)?))).collect())
    }

    /// The image that the pod's specification names, as far as it can be told.
    ///
    /// A kubelet resolves the name to the image's id and tells the runtime that. From Kubernetes 1.28 on it tells both,
    /// but containerd before 2.0 forgets the name. The image's only name on this node is what `kubectl` shows then, too.
    pub(super) fn name(&self, container: &Container) -> Option<String> {
        if let Some(named) = named(container) {
            return Some(named.to_owned());
        }
        let asked_for = container.image.as_ref().map(|image| image.image.as_str());
        let ids = [container.image_id.as_str(), container.image_ref.as_str()].into_iter().chain(asked_for);
        ids.filter(|id| is_id(id)).find_map(|id| self.0.get(digits(id))).cloned()
    }
}

/// Whether only the list of images can tell the container's image.
pub(super) fn takes_the_list(container: &Container) -> bool {
    named(container).is_none()
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

    fn names(id: &str, tags: &[&str], digests: &[&str]) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names::of(vec![Image { id: id.to_owned(), repo_tags: owned(tags), repo_digests: owned(digests) }])
    }

    #[test]
    fn the_users_own_word_comes_first() {
        let names = names(ID, &["docker.io/library/nginx:1.27"], &[]);
        let container = container(&format!("sha256:{ID}"), "nginx:1.27", ID);
        assert_eq!(names.name(&container).as_deref(), Some("nginx:1.27"));
        assert!(!takes_the_list(&container));
    }

    #[test]
    fn a_name_the_kubelet_asked_for_is_one() {
        let digest = format!("quay.io/shop/cart@sha256:{ID}");
        assert_eq!(Names::default().name(&container(&digest, "", ID)), Some(digest));
    }

    #[test]
    fn an_id_is_no_name() {
        for id in [ID.to_owned(), format!("sha256:{ID}"), ID[..12].to_owned(), String::new()] {
            let container = container(&id, "", "");
            assert!(takes_the_list(&container), "{id}");
            assert_eq!(Names::default().name(&container), None, "{id}");
        }
        assert!(takes_the_list(&Container::default()));
    }

    #[test]
    fn an_id_is_found_with_and_without_its_prefix() {
        let with = format!("sha256:{ID}");
        for (listed, asked, by_reference) in [(&*with, ID, ""), (ID, &*with, ""), (ID, "", &*with), (&*with, "", ID)] {
            let names = names(listed, &["quay.io/shop/cart:1.2"], &[&format!("quay.io/shop/cart@sha256:{ID}")]);
            let container = container(asked, "", by_reference);
            assert_eq!(names.name(&container).as_deref(), Some("quay.io/shop/cart:1.2"), "{listed} {asked}");
        }
        let names = names(&with, &["quay.io/shop/cart:1.2"], &[]);
        let container = Container { image_id: ID.to_owned(), ..container("", "", "quay.io/shop/cart@sha256:1") };
        assert_eq!(names.name(&container).as_deref(), Some("quay.io/shop/cart:1.2"));
    }

    #[test]
    fn an_image_without_a_tag_has_the_name_of_its_digest() {
        let digest = format!("quay.io/shop/cart@sha256:{ID}");
        assert_eq!(names(ID, &[], &[&digest]).name(&container(ID, "", "")), Some(digest));
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
            assert_eq!(names(ID, tags, digests).name(&container(ID, "", "")), None, "{tags:?} {digests:?}");
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
            assert_eq!(Names::default().name(&container(name, name, "")), None);
        }
    }
}
