//! Where runtimes have their sockets.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// The usual places below the host's root. The particular ones come first: docker brings a containerd with it at the
/// last place that has the interface switched off.
pub const USUAL_PLACES: [&str; 7] = [
    "run/k3s/cri-dockerd/cri-dockerd.sock",
    // Also RKE2's.
    "run/k3s/containerd/containerd.sock",
    "run/k0s/containerd.sock",
    "var/snap/microk8s/common/run/containerd.sock",
    "run/cri-dockerd.sock",
    "run/crio/crio.sock",
    "run/containerd/containerd.sock",
];

/// The first of the usual places at which there is a socket, as a path that begins with `host_root`.
#[must_use]
pub fn find_socket(host_root: &Path) -> Option<PathBuf> {
    USUAL_PLACES.iter().map(|place| host_root.join(place)).find(|path| is_socket(path))
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn make_folder_of(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn every_usual_place_is_found() {
        for place in USUAL_PLACES {
            let host = tempfile::tempdir().unwrap();
            let path = host.path().join(place);
            make_folder_of(&path);
            let _socket = UnixListener::bind(&path).unwrap();
            assert_eq!(find_socket(host.path()), Some(path));
        }
    }

    #[test]
    fn the_containerd_that_docker_brings_is_not_taken_for_the_kubelets() {
        let host = tempfile::tempdir().unwrap();
        let [dockers, kubelets] = ["run/containerd/containerd.sock", "run/cri-dockerd.sock"].map(|place| {
            let path = host.path().join(place);
            make_folder_of(&path);
            (UnixListener::bind(&path).unwrap(), path)
        });
        assert!(dockers.1.exists());
        assert_eq!(find_socket(host.path()), Some(kubelets.1));
    }

    #[test]
    fn a_file_is_no_socket() {
        let host = tempfile::tempdir().unwrap();
        assert_eq!(find_socket(host.path()), None);
        let path = host.path().join(USUAL_PLACES[0]);
        make_folder_of(&path);
        fs::write(&path, "").unwrap();
        assert_eq!(find_socket(host.path()), None);
    }
}
