mod home_made;

use std::{
    collections::HashMap,
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use home_made::{Answer, HomeMade};

use super::{
    super::facts::{ContainerFacts, PodFacts},
    messages::{Container, ContainerMetadata, Image, ImageSpec, PodSandbox, PodSandboxMetadata},
    *,
};

const UID: &str = "0a1b2c3d-0000-4000-8000-00000000cafe";
const IMAGE_ID: &str = "sha256:5f4d6b9e6b1f0e7b2a1c3d4e5f60718293a4b5c6d7e8f9000a1b2c3d4e5f6071";

fn allowed(labels: &[&str], annotations: &[&str]) -> Allowed {
    let list = |patterns: &[&str]| {
        patterns.iter().map(|pattern| pattern.parse::<super::super::allow::KeyPattern>().unwrap()).collect()
    };
    Allowed { labels: list(labels), annotations: list(annotations) }
}

fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn sandbox(id: &str, uid: &str, name: &str, created_at: i64) -> PodSandbox {
    PodSandbox {
        id: id.to_owned(),
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            attempt: 0,
        }),
        created_at,
        labels: texts(&[("io.kubernetes.pod.name", name), ("app", "cart")]),
        annotations: texts(&[("kubernetes.io/config.source", "api"), ("team", "green")]),
    }
}

fn container(id: &str, sandbox: &str, name: &str) -> Container {
    Container {
        id: id.to_owned(),
        pod_sandbox_id: sandbox.to_owned(),
        metadata: Some(ContainerMetadata { name: name.to_owned() }),
        image: Some(ImageSpec { image: IMAGE_ID.to_owned(), user_specified_image: String::new() }),
        image_ref: IMAGE_ID.to_owned(),
        image_id: String::new(),
    }
}

fn images() -> Answer {
    let image =
        Image { id: IMAGE_ID.to_owned(), repo_tags: vec!["quay.io/shop/cart:1.2".to_owned()], repo_digests: vec![] };
    Answer::of(&ListImagesResponse { images: vec![image] })
}

fn runtime_with(sandboxes: Vec<PodSandbox>, containers: Vec<Container>) -> HomeMade {
    HomeMade::answering([
        ("ListPodSandbox", Answer::of(&ListPodSandboxResponse { items: sandboxes })),
        ("ListContainers", Answer::of(&ListContainersResponse { containers })),
        ("ListImages", images()),
    ])
}

async fn listed(runtime: &HomeMade, allowed: &Allowed) -> Listing {
    list(&runtime.socket, allowed, &mut ImageNames::default()).await.unwrap()
}

async fn refused(runtime: &HomeMade) -> CriError {
    list(&runtime.socket, &Allowed::default(), &mut ImageNames::default()).await.unwrap_err()
}

#[tokio::test]
async fn a_pod_has_its_names_and_those_of_its_containers() {
    let runtime = runtime_with(
        vec![sandbox("s1", UID, "cart-0", 1)],
        vec![container("c1", "s1", "app"), container("c2", "s1", "istio-proxy")],
    );
    let listing = listed(&runtime, &allowed(&["app"], &["team"])).await;
    let image = Some("quay.io/shop/cart:1.2".to_owned());
    let facts = |name: &str| ContainerFacts { name: name.to_owned(), image: image.clone() };
    let pod = PodFacts {
        uid: UID.to_owned(),
        namespace: "shop".to_owned(),
        name: "cart-0".to_owned(),
        labels: texts(&[("app", "cart")]).into_iter().collect(),
        annotations: texts(&[("team", "green")]).into_iter().collect(),
        containers: [("c1".to_owned(), facts("app")), ("c2".to_owned(), facts("istio-proxy"))].into(),
        ..PodFacts::default()
    };
    assert_eq!(listing, Listing { pods: vec![pod], left_out: 0, no_images: None });
}

#[tokio::test]
async fn what_the_kubelet_adds_is_no_label_of_the_pod() {
    let runtime = runtime_with(vec![sandbox("s1", UID, "cart-0", 1)], vec![]);
    let listing = listed(&runtime, &allowed(&["*"], &["*"])).await;
    assert_eq!(listing.pods[0].labels, texts(&[("app", "cart")]).into_iter().collect());
    let listing = listed(&runtime, &Allowed::default()).await;
    assert!(listing.pods[0].labels.is_empty() && listing.pods[0].annotations.is_empty());
}

#[tokio::test]
async fn of_a_pods_sandboxes_the_newest_has_its_labels_and_all_have_its_containers() {
    let of_version = |id: &str, created_at: i64, attempt: u32, version: &str| {
        let mut sandbox = sandbox(id, UID, "cart-0", created_at);
        sandbox.metadata.as_mut().unwrap().attempt = attempt;
        PodSandbox { labels: texts(&[("version", version)]), ..sandbox }
    };
    let sandboxes = vec![
        of_version("s1", 10, 7, "1"),
        of_version("s3", 30, 1, "3"),
        // Made in the same nanosecond, as far as the clock goes.
        of_version("s2", 30, 0, "2"),
    ];
    let containers = vec![container("c1", "s1", "app"), container("c2", "s3", "app")];
    for rotated in 0..3 {
        let mut sandboxes = sandboxes.clone();
        sandboxes.rotate_left(rotated);
        let listing = listed(&runtime_with(sandboxes, containers.clone()), &allowed(&["version"], &[])).await;
        assert_eq!(listing.pods.len(), 1);
        assert_eq!(listing.pods[0].labels["version"], "3");
        assert!(["c1", "c2"].iter().all(|id| listing.pods[0].containers.contains_key(*id)));
        assert_eq!(listing.left_out, 0);
    }
}

#[tokio::test]
async fn hostile_names_are_left_out_and_counted_and_long_values_are_cut() {
    let mut loud = sandbox("s4", "uid-4", "cart-4", 1);
    loud.labels = texts(&[("note", &"x".repeat(1 << 20)), ("secret", &"y".repeat(1 << 20))]);
    let runtime = runtime_with(
        vec![
            sandbox("s1", UID, "cart\u{1b}[2J", 1),
            sandbox("s2", "uid 2", "cart-2", 1),
            sandbox("s3", "uid-3", &"x".repeat(1 << 20), 1),
            loud,
            PodSandbox { metadata: None, ..sandbox("s5", "uid-5", "cart-5", 1) },
        ],
        vec![
            container("c1", "s1", "app"),
            container("c4", "s4", "app\n"),
            container("", "s4", "app"),
            container("c5", "nowhere", "app"),
            Container { metadata: None, ..container("c6", "s4", "app") },
        ],
    );
    let listing = listed(&runtime, &allowed(&["note"], &[])).await;
    assert_eq!(listing.pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>(), ["cart-4"]);
    assert_eq!(listing.left_out, 9);
    let pod = &listing.pods[0];
    assert!(pod.containers.is_empty());
    assert_eq!(pod.labels.keys().collect::<Vec<_>>(), ["note"]);
    assert!(pod.labels["note"].len() <= 1024 && pod.labels["note"].ends_with('…'));
}

#[tokio::test]
async fn five_hundred_pods_with_five_thousand_containers_are_listed() {
    let id = |kind: char, number: u32| format!("{kind}{number:063}");
    let sandboxes = (0..500).map(|pod| {
        let mut sandbox = sandbox(&id('5', pod), &format!("uid-{pod}"), &format!("cart-{pod}"), 1);
        for number in 0..20 {
            sandbox.labels.insert(format!("example.org/label-{number}"), "v".repeat(63));
            sandbox.annotations.insert(format!("example.org/annotation-{number}"), "v".repeat(200));
        }
        sandbox
    });
    let containers = (0..5000).map(|number| container(&id('c', number), &id('5', number / 10), "app"));
    let runtime = runtime_with(sandboxes.collect(), containers.collect());
    let listing = listed(&runtime, &allowed(&["example.org/*"], &[])).await;
    assert_eq!((listing.pods.len(), listing.left_out), (500, 0));
    for pod in &listing.pods {
        let of_the_pod = |id: &String| id[1..].parse::<u32>().unwrap() / 10 == pod.uid[4..].parse::<u32>().unwrap();
        assert!(pod.containers.len() == 10 && pod.containers.keys().all(of_the_pod));
        assert_eq!(pod.labels.len(), 20);
    }
}

#[tokio::test]
async fn the_images_are_asked_for_once() {
    let runtime = runtime_with(vec![sandbox("s1", UID, "cart-0", 1)], vec![container("c1", "s1", "app")]);
    let mut images = ImageNames::default();
    for _ in 0..2 {
        let listing = list(&runtime.socket, &Allowed::default(), &mut images).await.unwrap();
        assert_eq!(listing.pods[0].containers["c1"].image.as_deref(), Some("quay.io/shop/cart:1.2"));
    }
    let once = ["ListContainers", "ListPodSandbox", "ListImages", "ListContainers", "ListPodSandbox"];
    assert_eq!(runtime.asked(), once);
}

#[tokio::test]
async fn without_a_list_of_images_the_pods_are_named_all_the_same() {
    let runtime = HomeMade::answering([
        ("ListPodSandbox", Answer::of(&ListPodSandboxResponse { items: vec![sandbox("s1", UID, "cart-0", 1)] })),
        ("ListContainers", Answer::of(&ListContainersResponse { containers: vec![container("c1", "s1", "app")] })),
        ("ListImages", Answer::Status(2, "failed to read the image store")),
    ]);
    let listing = listed(&runtime, &Allowed::default()).await;
    let app = ContainerFacts { name: "app".to_owned(), image: None };
    assert_eq!(listing.pods[0].containers["c1"], app);
    assert!(matches!(listing.no_images, Some(CriError::Failed { request: "ListImages", .. })));
}

/// The numbers of `api.proto`, and a field that is not declared here beside each that is.
#[tokio::test]
async fn fields_have_the_numbers_of_the_interface() {
    let pair = |key: &str, value: &str| [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    let metadata = [field(1, b"cart-0"), field(2, UID.as_bytes()), field(3, b"shop"), vec![4 << 3, 3]].concat();
    let sandbox = [
        field(1, b"s1"),
        field(2, &metadata),
        vec![3 << 3, 1],
        vec![4 << 3, 9],
        field(5, &pair("app", "cart")),
        field(6, &pair("team", "green")),
        field(7, b"runc"),
    ]
    .concat();
    let container = |id: &[u8], image: &[u8], fields: &[u8]| {
        let name = [field(1, id), vec![2 << 3, 4]].concat();
        [field(1, id), field(2, b"s1"), field(3, &name), field(4, image), vec![6 << 3, 1], fields.to_vec()].concat()
    };
    let by_user = container(b"by-user", &[field(1, b"nginx:1"), field(18, b"nginx:2")].concat(), &field(8, b""));
    let by_id = container(b"by-id", b"", &field(10, IMAGE_ID.as_bytes()));
    let by_reference = container(b"by-reference", b"", &field(5, IMAGE_ID.as_bytes()));
    let containers = [&by_user, &by_id, &by_reference].map(|container| field(1, container)).concat();
    let image = [field(1, IMAGE_ID.as_bytes()), field(2, b"cart:1.2"), field(3, b"cart@sha256:ab"), vec![4 << 3, 9]];
    let home_made = HomeMade::answering([
        ("ListPodSandbox", Answer::Message(field(1, &sandbox))),
        ("ListContainers", Answer::Message(containers)),
        ("ListImages", Answer::Message(field(1, &image.concat()))),
    ]);

    let listing = listed(&home_made, &allowed(&["app"], &["team"])).await;
    assert_eq!(listing.left_out, 0);
    let pod = &listing.pods[0];
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("shop", "cart-0", UID));
    assert_eq!((&*pod.labels["app"], &*pod.annotations["team"]), ("cart", "green"));
    for (id, image) in [("by-user", "nginx:2"), ("by-id", "cart:1.2"), ("by-reference", "cart:1.2")] {
        let facts = ContainerFacts { name: id.to_owned(), image: Some(image.to_owned()) };
        assert_eq!(pod.containers[id], facts);
    }
}

/// A field of bytes on the wire: number and kind, length, bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut field);
    prost::encoding::encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

#[tokio::test]
async fn a_runtime_without_the_interface_is_told_from_one_that_fails() {
    let without = HomeMade::answering([]);
    let error = refused(&without).await;
    assert_eq!(error, CriError::NoCri(without.socket.clone()));
    assert!(error.to_string().contains("disabled_plugins"), "{error}");

    let failing = HomeMade::answering([("ListContainers", Answer::Status(2, "server is not initialized yet"))]);
    let error = refused(&failing).await;
    assert!(matches!(error, CriError::Failed { request: "ListContainers", .. }), "{error:?}");
    assert!(error.to_string().contains("server is not initialized yet"), "{error}");
}

#[tokio::test]
async fn a_slow_runtime_is_given_up() {
    let limits = Limits { connect: Duration::from_secs(2), request: Duration::from_millis(200) };
    for silent in [
        HomeMade::answering([("ListContainers", Answer::Silence)]),
        HomeMade::answering([
            ("ListContainers", Answer::of(&ListContainersResponse { containers: vec![] })),
            ("ListPodSandbox", Answer::Silence),
        ]),
    ] {
        let start = Instant::now();
        let allowed = Allowed::default();
        let error = list_within(limits, &silent.socket, &allowed, &mut ImageNames::default()).await.unwrap_err();
        assert!(matches!(error, CriError::TimedOut { .. }), "{error:?}");
        assert!(start.elapsed() >= limits.request, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn one_that_accepts_nobody_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("runtime.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let limits = Limits { connect: Duration::from_secs(2), request: Duration::from_millis(200) };
    let error = list_within(limits, &socket, &Allowed::default(), &mut ImageNames::default()).await.unwrap_err();
    assert!(matches!(error, CriError::TimedOut { request: "ListContainers", .. }), "{error:?}");
}

#[tokio::test]
async fn a_malformed_answer_is_said_to_be_one() {
    let cut_short = field(1, &field(1, b"c1"));
    for answer in [
        Answer::Message(b"\xff\xff\xff".to_vec()),
        Answer::Message(cut_short[..cut_short.len() - 1].to_vec()),
        // An id that is not UTF-8.
        Answer::Message(field(1, &field(1, b"\xff"))),
        // Compressed with nothing we know.
        Answer::Body(b"\x01\x00\x00\x00\x01x".to_vec()),
        Answer::Body(b"\x07\x00\x00\x00\x01x".to_vec()),
        // Shorter than it says, and nothing at all.
        Answer::Body(b"\x00\x00\x00\x00\x09x".to_vec()),
        Answer::Body(Vec::new()),
    ] {
        let error = refused(&HomeMade::answering([("ListContainers", answer)])).await;
        assert!(matches!(error, CriError::Malformed { request: "ListContainers", .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_speaks_something_else_is_no_runtime() {
    for text in ["", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let error = refused(&HomeMade::saying(text)).await;
        assert!(matches!(error, CriError::Malformed { .. }), "{text:?}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read() {
    let endless = [&b"\x00\xff\xff\xff\xff"[..], &[0; 100]].concat();
    let error = refused(&HomeMade::answering([("ListContainers", Answer::Body(endless))])).await;
    assert!(matches!(error, CriError::TooLarge { .. }), "{error:?}");

    let by_the_runtime = Answer::Status(8, "trying to send message larger than max (20000000 vs. 16777216)");
    let error = refused(&HomeMade::answering([("ListContainers", by_the_runtime)])).await;
    assert!(matches!(error, CriError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_told_from_one_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("runtime.sock");
    let asked = |socket: &Path| {
        let socket = socket.to_owned();
        async move { list(&socket, &Allowed::default(), &mut ImageNames::default()).await.unwrap_err() }
    };
    assert_eq!(asked(&missing).await, CriError::NotThere(missing.clone()));
    drop(UnixListener::bind(&missing).unwrap());
    assert_eq!(asked(&missing).await, CriError::NobodyListens(missing.clone()));
    let below = missing.join("below");
    assert_eq!(asked(&below).await, CriError::NotThere(below.clone()));
    let long = folder.path().join("x".repeat(200));
    assert!(matches!(asked(&long).await, CriError::Unreachable { .. }));
}
