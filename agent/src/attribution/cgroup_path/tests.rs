//! Every shape of cgroup path seen in the field, with made-up ids.

use super::*;

const ID: &str = "1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const OTHER_ID: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const UID: &str = "0a1b2c3d-1111-4222-8333-445566778899";
const UID_: &str = "0a1b2c3d_1111_4222_8333_445566778899";
const OTHER_UID: &str = "ffeeddcc-9999-4888-9777-665544332211";
const STATIC_UID: &str = "00112233445566778899aabbccddeeff";

/// Fills the made-up ids into a shape.
fn path(shape: &str) -> String {
    shape
        .replace("{id}", ID)
        .replace("{other_id}", OTHER_ID)
        .replace("{uid}", UID)
        .replace("{uid_}", UID_)
        .replace("{other_uid}", OTHER_UID)
        .replace("{static}", STATIC_UID)
}

fn reference(id: Option<&str>, runtime: Option<&'static str>, pod_uid: Option<&str>) -> ContainerRef {
    ContainerRef { container_id: id.map(str::to_owned), runtime, pod_uid: pod_uid.map(str::to_owned) }
}

#[track_caller]
fn expect(shape: &str, runtime: Option<&'static str>, pod_uid: Option<&str>) {
    assert_eq!(parse(&path(shape)), reference(Some(ID), runtime, pod_uid), "{shape}");
}

#[track_caller]
fn expect_nothing(shape: &str) {
    assert_eq!(parse(&path(shape)), ContainerRef::default(), "{shape}");
}

#[test]
fn pods_of_the_cgroupfs_driver() {
    for shape in [
        "/kubepods/burstable/pod{uid}/{id}",
        "/kubepods/besteffort/pod{uid}/{id}",
        "/kubepods/pod{uid}/{id}",
        "kubepods/pod{uid}/{id}/",
    ] {
        expect(shape, None, Some(UID));
    }
    expect("/kubepods/besteffort/pod{uid}/crio-{id}", Some("cri-o"), Some(UID));
    expect("/kubepods/burstable/pod{static}/{id}", None, Some(STATIC_UID));
}

#[test]
fn pods_of_the_systemd_driver() {
    for (shape, runtime) in [
        ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/docker-{id}.scope", "docker"),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/cri-containerd-{id}.scope",
            "containerd",
        ),
        ("/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{id}.scope", "containerd"),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/crio-{id}.scope", "cri-o"),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/crio-{id}.scope/container",
            "cri-o",
        ),
    ] {
        expect(shape, Some(runtime), Some(UID));
    }
    expect(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{static}.slice/cri-containerd-{id}",
        Some("containerd"),
        Some(STATIC_UID),
    );
}

/// crun puts the payload into a group of its own, so that the container's stays free of processes.
#[test]
fn the_inner_group_of_crun() {
    expect("/kubepods/burstable/pod{uid}/crio-{id}/container", Some("cri-o"), Some(UID));
    expect(
        "/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{id}.scope/container",
        Some("containerd"),
        Some(UID),
    );
}

/// `--cgroup-root` of the kubelet, by either driver.
#[test]
fn a_kubelet_below_a_cgroup_of_its_own() {
    expect("/nodes/kubepods/besteffort/pod{uid}/{id}", None, Some(UID));
    expect(
        "/nodes.slice/nodes-kubepods.slice/nodes-kubepods-pod{uid_}.slice/crio-{id}.scope",
        Some("cri-o"),
        Some(UID),
    );
}

#[test]
fn the_colon_form_of_mixed_drivers() {
    for shape in [
        "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
        "/podruntime.slice/containerd.service/kubepods-besteffort-pod{uid_}.slice:cri-containerd:{id}",
        "/kubepods-pod{uid_}.slice:cri-containerd:{id}/sub/group",
    ] {
        expect(shape, Some("containerd"), Some(UID));
    }
    expect("/system.slice/crio.service/kubepods-pod{static}.slice:crio:{id}", Some("cri-o"), Some(STATIC_UID));
    expect("/system.slice:docker:{id}", Some("docker"), None);
}

#[test]
fn containers_without_a_pod() {
    for (shape, runtime) in [
        ("/docker/{id}", "docker"),
        ("/system.slice/docker-{id}.scope", "docker"),
        ("/system.slice/docker-{id}.scope/init.scope", "docker"),
        ("/machine.slice/libpod-{id}.scope/container", "podman"),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container", "podman"),
        ("/libpod_parent/libpod-{id}", "podman"),
        ("/machine.slice/machine-libpod_pod_{other_id}.slice/libpod-{id}.scope", "podman"),
        ("/system.slice/web.service/libpod-payload-{id}", "podman"),
        ("/libpod_parent/{other_id}/libpod-{id}", "podman"),
        ("/libpod_parent/libpod-{id}/container", "podman"),
        ("/user.slice/nerdctl-{id}.scope", "containerd"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{id}.scope", "docker"),
        ("/ecstasks.slice/ecstasks-{static}.slice/docker-{id}.scope", "docker"),
    ] {
        expect(shape, Some(runtime), None);
    }
    expect("/ecs/{static}/{id}", None, None);
    expect("/k8s.io/{id}", None, None);
    expect("/default/{id}", None, None);
    expect("/docker/{other_id}/docker/{id}", Some("docker"), None);
}

#[test]
fn nodes_in_containers_give_the_innermost_pod() {
    for (shape, pod) in [
        ("/system.slice/docker-{other_id}.scope/kubelet/kubepods/burstable/pod{static}/{id}", STATIC_UID),
        ("/docker/{other_id}/kubepods/besteffort/pod{uid}/{id}/kube-proxy", UID),
        ("/kubepods/pod{other_uid}/{other_id}/kubelet/kubepods/pod{uid}/{id}", UID),
    ] {
        expect(shape, None, Some(pod));
    }
    expect(
        "/system.slice/docker-{other_id}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{uid_}.slice/cri-containerd-{id}.scope",
        Some("containerd"),
        Some(UID),
    );
}

#[test]
fn what_a_container_makes_inside_itself_does_not_rename_it() {
    expect("/kubepods/besteffort/pod{uid}/{id}/kube-proxy", None, Some(UID));
    expect("/kubepods/pod{uid}/{id}/docker/{other_id}", None, Some(UID));
}

#[test]
fn a_path_relative_to_another_cgroup_namespace() {
    expect("/../../kubepods/pod{uid}/{id}", None, Some(UID));
    expect("/../../../pod{uid}/{id}", None, Some(UID));
    expect("/../../kubepods-pod{uid_}.slice/cri-containerd-{id}.scope", Some("containerd"), Some(UID));
    expect("/../cri-containerd-{id}.scope", Some("containerd"), None);
}

#[test]
fn a_removed_cgroup_keeps_its_meaning() {
    expect("/system.slice/docker-{id}.scope (deleted)", Some("docker"), None);
}

#[test]
fn the_monitor_is_not_the_container() {
    for shape in [
        "/kubepods.slice/kubepods-pod{uid_}.slice/crio-conmon-{id}.scope",
        "/kubepods/pod{uid}/crio-conmon-{id}",
        "/kubepods-pod{uid_}.slice:crio-conmon:{id}",
    ] {
        assert_eq!(parse(&path(shape)), reference(None, None, Some(UID)), "{shape}");
    }
    for shape in ["/machine.slice/libpod-conmon-{id}.scope", "/libpod_parent/conmon", "/libpod_parent/{id}/conmon"] {
        expect_nothing(shape);
    }
    assert_eq!(
        parse(&path("/docker/{other_id}/libpod-conmon-{id}.scope")),
        reference(Some(OTHER_ID), Some("docker"), None),
        "a monitor inside a container belongs to that one"
    );
}

#[test]
fn a_pods_own_group_names_the_pod_only() {
    for shape in ["/kubepods/pod{uid}", "/kubepods.slice/kubepods-pod{uid_}.slice", "/docker/{id}/kubepods/pod{uid}"] {
        assert_eq!(parse(&path(shape)), reference(None, None, Some(UID)), "{shape}");
    }
}

#[test]
fn a_pod_of_podman_is_no_container() {
    expect_nothing("/libpod_parent/{id}");
    expect_nothing("/machine.slice/machine-libpod_pod_{id}.slice");
}

#[test]
fn node_services_give_nothing() {
    for shape in [
        "/system.slice/kubelet.service",
        "/runtime.slice/kubelet.service",
        "/kube.slice/kubelet.service",
        "/azure.slice/walinuxagent.service",
        "/podruntime.slice/containerd.service",
        "/podruntime/kubelet",
        "/system.slice/podman.service",
        "/kubepods/podcast",
        "/kubepods",
        "/kubepods.slice/kubepods-burstable.slice",
        "/user.slice/user-1000.slice/session-3.scope",
        "/init.scope",
    ] {
        expect_nothing(shape);
    }
}

#[test]
fn nasty_input_gives_nothing() {
    for shape in [
        "",
        "/",
        "//",
        "no slash",
        ":",
        "-",
        ".scope",
        ".slice",
        "pod",
        "/pod/",
        " (deleted)",
        "/docker/{id}0",
        "/system.slice/docker-{id}0.scope",
        "/machine.slice/machine-libpod_pod_{id}.slice",
        "/pod{uid}0",
        "/pod{uid}-",
        "/pod-{uid}",
        "/pod{static}0",
        "/docker/Ω{id}",
        "/Ω/日本語-pod.slice/\u{202e}\0\n",
    ] {
        expect_nothing(shape);
    }
    expect_nothing(&format!("/docker/{}", &ID[1..]));
    expect_nothing(&format!("/docker/{}é", &ID[2..]));
    expect_nothing(&format!("/docker/{}", ID.to_uppercase()));
}
