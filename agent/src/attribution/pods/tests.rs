//! The sources on their thread, against a home-made API server and kubelet: see the module for what it can do.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    api_server,
    health::Health,
    kubelet::Kubelet,
    workers::{Sources, Workers},
};
use crate::event::party::Source;

#[path = "../../../tests/kernel/api_server.rs"]
mod home_made;
use home_made::{ApiServer, Mood, pod};

const UID: &str = "0a1b2c3d-1111-4222-8333-445566778899";
const ID: &str = "1f0e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const NEW_ID: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const NODE: &str = "node-7";

/// Asks the API server of the test about the node's pods.
fn watching(server: &ApiServer) -> (Workers, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = Some(server.kubeconfig(folder.path()));
    let api_server = Some(api_server::ApiServer { kubeconfig, node: NODE.to_owned() });
    (Workers::start(Sources { api_server, ..Sources::default() }).unwrap(), folder)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn health(workers: &Workers, source: Source) -> Health {
    workers.health()[source as usize].1.clone()
}

fn pods(workers: &Workers, source: Source) -> Option<usize> {
    match health(workers, source) {
        Health::Answers { pods, .. } => Some(pods),
        _ => None,
    }
}

fn pod_name(workers: &Workers, uid: &str) -> Option<String> {
    workers.store().pod(uid).map(|(pod, _)| pod.name.clone())
}

fn workload(workers: &Workers, uid: &str) -> Option<String> {
    let (pod, _) = workers.store().pod(uid)?;
    pod.workload.as_ref().map(|owner| format!("{} {}", owner.kind, owner.name))
}

fn owned(mut pod: serde_json::Value, kind: &str, name: &str) -> serde_json::Value {
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "o", "controller": true}]);
    pod
}

#[test]
fn a_watch_of_this_nodes_pods_follows_what_comes_and_goes() {
    let server = ApiServer::start();
    server.put_pod(pod("shop", "cart-0", UID, NODE, ID));
    server.put_pod(pod("shop", "cart-1", "elsewhere", "node-8", NEW_ID));
    let (workers, _folder) = watching(&server);
    until("the list", || pods(&workers, Source::ApiServer) == Some(1));
    assert_eq!(pod_name(&workers, UID).as_deref(), Some("cart-0"));
    assert_eq!(pod_name(&workers, "elsewhere"), None);
    let (container, source) = workers.store().container(UID, ID, Instant::now()).unwrap();
    assert_eq!((container.name.as_str(), source), ("app", Source::ApiServer));
    assert_eq!(container.image.as_deref(), Some("registry.test/app:1.2"));

    // A restarted container has a new id, and the old one's reset may come yet.
    until("the watch", || server.requests().iter().any(|request| request.contains("watch=true")));
    server.put_pod(pod("shop", "cart-0", UID, NODE, NEW_ID));
    until("the restart", || workers.store().container("", NEW_ID, Instant::now()).is_some());
    assert!(workers.store().container("", ID, Instant::now()).is_some());

    server.remove_pod(UID);
    until("the end", || workers.store().count(Source::ApiServer) == 0);
    assert_eq!(pod_name(&workers, UID).as_deref(), Some("cart-0"), "a late reset may need it");

    let requests = server.requests();
    let narrow = |request: &&String| request.contains("fieldSelector=spec.nodeName%3Dnode-7");
    assert!(!requests.is_empty() && requests.iter().all(|request| narrow(&request)), "{requests:?}");
}

#[test]
fn the_owner_chain_ends_at_what_people_deploy() {
    let server = ApiServer::start();
    let mut deployment = owned(pod("shop", "web-7d9f6b5c4-x2x8z", "a", NODE, ID), "ReplicaSet", "web-7d9f6b5c4");
    deployment["metadata"]["labels"] = json!({"pod-template-hash": "7d9f6b5c4"});
    server.put_pod(deployment);
    server.put_pod(owned(pod("shop", "bare-x2x8z", "b", NODE, ID), "ReplicaSet", "bare-7d9f6b5c4"));
    server.put_pod(owned(pod("shop", "db-0", "c", NODE, ID), "StatefulSet", "db"));
    server.put_pod(owned(pod("shop", "report-1-x", "d", NODE, ID), "Job", "report-1"));
    server.put_pod(owned(pod("shop", "once-x", "e", NODE, ID), "Job", "once"));
    server.put_pod(pod("shop", "alone", "f", NODE, ID));
    server.put_job("shop", "report-1", "report");
    let (workers, _folder) = watching(&server);
    until("the CronJob", || workload(&workers, "d").as_deref() == Some("CronJob report"));
    let found = ["a", "b", "c", "e", "f"].map(|uid| workload(&workers, uid));
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    let expected =
        [Some("Deployment web"), Some("ReplicaSet bare-7d9f6b5c4"), Some("StatefulSet db"), Some("Job once"), None];
    assert_eq!(found, expected);
}

#[test]
fn a_static_pod_is_found_by_the_hash_in_its_cgroup() {
    const HASH: &str = "3e61c214bc3ed9ff81e21474dd6cba17";
    let server = ApiServer::start();
    let mut mirror = owned(pod("kube-system", "etcd-node-7", UID, NODE, ID), "Node", NODE);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH});
    server.put_pod(mirror);
    // Nobody can take another pod's uid by an annotation.
    let mut liar = pod("evil", "liar", "b", NODE, NEW_ID);
    liar["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": UID});
    server.put_pod(liar);
    let (workers, _folder) = watching(&server);
    until("the list", || pod_name(&workers, HASH).is_some());
    assert_eq!(pod_name(&workers, HASH).as_deref(), Some("etcd-node-7"));
    assert_eq!(workload(&workers, HASH), None, "the node is nobody's workload");
    assert_eq!(pod_name(&workers, UID), None);
}

#[test]
fn an_api_server_in_any_mood_is_told_of_and_what_was_learned_stays() {
    // Side by side, because each waits for the pauses between questions.
    std::thread::scope(|scope| {
        for (mood, said) in [
            (Mood::Status(401), "not accepted"),
            (Mood::Status(403), "allow `list` and `watch` to"),
            (Mood::Status(410), "the test answers 410"),
            (Mood::Status(500), "the test answers 500"),
            (Mood::Garbage, "API server"),
            (Mood::HangsUp, "network"),
        ] {
            scope.spawn(move || fails_and_recovers(mood, said));
        }
    });
}

fn fails_and_recovers(mood: Mood, said: &str) {
    let server = ApiServer::start();
    server.put_pod(pod("shop", "cart-0", UID, NODE, ID));
    let (workers, _folder) = watching(&server);
    until("the list", || pod_name(&workers, UID).is_some());
    until("the watch", || server.requests().iter().any(|request| request.contains("watch=true")));
    server.set_mood(mood);
    until(&format!("{mood:?}"), || match health(&workers, Source::ApiServer) {
        Health::Fails { what, remedy } => format!("{what}; {remedy}").contains(said),
        _ => false,
    });
    assert_eq!(pod_name(&workers, UID).as_deref(), Some("cart-0"), "{mood:?}");
    server.set_mood(Mood::Fine);
    server.put_pod(pod("shop", "cart-1", "later", NODE, NEW_ID));
    until(&format!("another question after {mood:?}"), || pod_name(&workers, "later").is_some());
}

#[test]
fn a_watch_that_has_fallen_behind_begins_again() {
    let server = ApiServer::start();
    let (workers, _folder) = watching(&server);
    until("the watch", || server.requests().iter().any(|request| request.contains("watch=true")));
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version"});
    server.tell(&json!({"type": "ERROR", "object": gone}));
    server.put_pod(pod("shop", "cart-0", UID, NODE, ID));
    until("the new list", || pod_name(&workers, UID).is_some());
}

#[test]
fn nobody_waits_for_a_server_that_says_nothing() {
    let server = ApiServer::start();
    server.set_mood(Mood::Silent);
    let (workers, _folder) = watching(&server);
    until("the question", || !server.requests().is_empty());
    let start = Instant::now();
    for _ in 0..10_000 {
        assert!(workers.store().pod(UID).is_none());
        workers.want();
    }
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(2), "10 000 look-ups took {taken:?}");
    assert_eq!(health(&workers, Source::ApiServer), Health::Waiting);
}

#[test]
fn labels_are_taken_by_the_list_only() {
    let server = ApiServer::start();
    let mut labelled = pod("shop", "cart-0", UID, NODE, ID);
    labelled["metadata"]["labels"] = json!({"app": "cart", "team": "blue", "secret": "x"});
    labelled["metadata"]["annotations"] = json!({"owner/mail": "a@b.test", "token": "x"});
    server.put_pod(labelled);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = Some(server.kubeconfig(folder.path()));
    let allow = super::allow::Allowed {
        labels: ["app", "te*"].iter().map(|key| key.parse().unwrap()).collect(),
        annotations: [("owner/*")].iter().map(|key| key.parse().unwrap()).collect(),
    };
    let api_server = Some(api_server::ApiServer { kubeconfig, node: NODE.to_owned() });
    let workers = Workers::start(Sources { api_server, allow, ..Sources::default() }).unwrap();
    until("the list", || workers.store().pod(UID).is_some());
    let (pod, _) = workers.store().pod(UID).unwrap();
    assert_eq!(json!(pod.labels), json!({"app": "cart", "team": "blue"}));
    assert_eq!(json!(pod.annotations), json!({"owner/mail": "a@b.test"}));
}

#[test]
fn a_kubelet_takes_a_token_and_lists_its_pods() {
    let server = ApiServer::start();
    server.ask_for_token("secret");
    server.put_pod(owned(pod("shop", "db-0", UID, NODE, ID), "StatefulSet", "db"));
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let asking = |text: &str| {
        std::fs::write(&token, text).unwrap();
        let kubelet = Kubelet { url: server.url(), token: Some(token.clone()), ca: None, insecure: false };
        Workers::start(Sources { kubelet: Some(kubelet), ..Sources::default() }).unwrap()
    };
    let refused = asking("wrong");
    until("the refusal", || match health(&refused, Source::Kubelet) {
        Health::Fails { remedy, .. } => remedy.contains("--kubelet-token"),
        _ => false,
    });
    let workers = asking("secret");
    until("the list", || pods(&workers, Source::Kubelet) == Some(1));
    assert_eq!(workload(&workers, UID).as_deref(), Some("StatefulSet db"));

    // Whoever wants a name does not wait for the next round.
    server.put_pod(pod("shop", "new", "new", NODE, NEW_ID));
    let asked = Instant::now();
    until("the new pod", || {
        workers.want();
        pod_name(&workers, "new").is_some()
    });
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[test]
fn an_address_that_is_none_is_one_sentence() {
    let kubelet = Kubelet { url: "node-7:10250".to_owned(), token: None, ca: None, insecure: true };
    let failure = kubelet.client().err().unwrap().to_string();
    assert!(failure.contains("--kubelet https://"), "{failure}");
}

/// A cluster's objects other than pods: a Service with its address and the pod behind it, and a node.
fn put_cluster(server: &ApiServer) {
    let metadata = |namespace: &str, name: &str| json!({"namespace": namespace, "name": name, "uid": "x"});
    server.put(
        "/api/v1/services",
        json!({
            "metadata": metadata("shop", "cart"),
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]},
        }),
    );
    let mut slice = json!({
        "metadata": metadata("shop", "cart-x2x8z"), "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.1.2.3"], "targetRef": {"kind": "Pod", "namespace": "shop", "name": "cart-0"}}],
    });
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "cart"});
    server.put("/apis/discovery.k8s.io/v1/endpointslices", slice);
    let mut node = json!({"metadata": metadata("", "node-8")});
    node["status"]["addresses"] =
        json!([{"type": "InternalIP", "address": "192.0.2.8"}, {"type": "Hostname", "address": "node-8"}]);
    server.put("/api/v1/nodes", node);
}

#[test]
fn whose_an_address_is_elsewhere() {
    let server = ApiServer::start();
    put_cluster(&server);
    let mut remote = owned(pod("shop", "cart-0", UID, "node-8", ID), "StatefulSet", "cart");
    remote["status"]["startTime"] = json!("2026-01-01T00:00:10Z");
    server.put_pod(remote);
    let mut on_host = pod("kube-system", "proxy", "p", "node-8", NEW_ID);
    on_host["spec"]["hostNetwork"] = json!(true);
    on_host["status"]["podIPs"] = json!([{"ip": "192.0.2.8"}]);
    on_host["status"]["podIP"] = json!("192.0.2.8");
    server.put_pod(on_host);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = Some(server.kubeconfig(folder.path()));
    let api_server = Some(api_server::ApiServer { kubeconfig, node: NODE.to_owned() });
    let workers = Workers::start(Sources { api_server, cluster: true, ..Sources::default() }).unwrap();

    let find = |address: &str, port: u16, began: Option<&str>| {
        let began = began.map(|time| time.parse().unwrap());
        workers.cluster().find(address.parse().unwrap(), Some(port), began)
    };
    let service = |found: &super::cluster::Found| found.service.as_ref().map(|service| service.name.clone());
    let complete = || {
        let found = find("10.1.2.3", 8080, None);
        found.pod.is_some()
            && service(&found).is_some()
            && service(&find("10.96.0.7", 80, None)).is_some()
            && find("192.0.2.8", 10250, None).node.is_some()
    };
    until("the lists", complete);

    let pod = find("10.1.2.3", 8080, Some("2026-01-01T00:00:10.5Z")).pod.unwrap();
    assert_eq!((pod.name.as_str(), pod.node.as_deref()), ("cart-0", Some("node-8")));
    assert_eq!(pod.workload.unwrap().kind, "StatefulSet");
    assert_eq!(
        find("10.1.2.3", 8080, Some("2026-01-01T00:00:09.9Z")).pod,
        None,
        "older than the pod: another's address"
    );
    assert_eq!(service(&find("10.1.2.3", 9090, None)), None, "no port of the Service");
    let cluster_ip = find("10.96.0.7", 80, None);
    assert_eq!((service(&cluster_ip).as_deref(), cluster_ip.pod), (Some("cart"), None));
    let node = find("192.0.2.8", 10250, None);
    assert_eq!(
        (node.node.as_deref(), node.pod),
        (Some("node-8"), None),
        "a pod in the node's network is not named by it"
    );
    assert_eq!(find("203.0.113.1", 443, None), super::cluster::Found::default());
    assert_eq!(workers.cluster().health(), (1, Vec::new()));
}

#[test]
fn a_right_that_is_missing_costs_its_names_only() {
    let server = ApiServer::start();
    server.put_pod(pod("shop", "cart-0", UID, "node-8", ID));
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = Some(server.kubeconfig(folder.path()));
    let api_server = Some(api_server::ApiServer { kubeconfig, node: NODE.to_owned() });
    let workers = Workers::start(Sources { api_server, cluster: true, ..Sources::default() }).unwrap();
    // It answers 404 for Services, EndpointSlices and nodes.
    until("three failures and the pod", || {
        let (pods, failures) = workers.cluster().health();
        pods == 1 && failures.len() == 3
    });
    assert!(workers.cluster().find("10.1.2.3".parse().unwrap(), None, None).pod.is_some());
}

#[test]
fn this_nodes_pods_have_their_addresses_without_a_cluster_watch() {
    let server = ApiServer::start();
    server.put_pod(pod("shop", "cart-0", UID, NODE, ID));
    let (workers, _folder) = watching(&server);
    let address = "10.1.2.3".parse().unwrap();
    until("the list", || workers.store().at(address, None).is_some());
    assert_eq!(workers.store().at(address, None).unwrap().name, "cart-0");
}
