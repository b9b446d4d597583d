//! An API server and a kubelet for tests, home-made: a real one cannot be had here. It speaks plain HTTP and knows no more
//! of the protocol than these tests need: lists of pods narrowed by `fieldSelector`, watches that go on from a resource
//! version, the metadata of Jobs, a token, and the ways in which a real one fails.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Fine,
    /// With this status for every request.
    Status(u16),
    /// With something that is no JSON.
    Garbage,
    /// Not at all: it takes the request and says nothing.
    Silent,
    /// It hangs up.
    HangsUp,
}

/// The server; it ends with the test's process.
pub struct ApiServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    token: Option<String>,
    pods: HashMap<String, Value>,
    jobs: HashMap<String, Value>,
    /// Objects of other kinds, by the path of their list.
    others: HashMap<String, Vec<Value>>,
    version: u64,
    watchers: Vec<TcpStream>,
    /// Every event with its resource version, for a watch that goes on from an older one.
    events: Vec<(u64, Value)>,
    requests: Vec<String>,
}

impl ApiServer {
    /// Listens on loopback in the network namespace of the calling thread.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            mood: Mood::Fine,
            token: None,
            pods: HashMap::new(),
            jobs: HashMap::new(),
            others: HashMap::new(),
            version: 1,
            watchers: Vec::new(),
            events: Vec::new(),
            requests: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig that leads here, in this folder.
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let file = folder.join("kubeconfig");
        let token = self.state().token.clone().unwrap_or_default();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// Only with this token from now on.
    pub fn ask_for_token(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// How to answer from now on. What is being watched is hung up, as by a server that restarts.
    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.state();
        state.mood = mood;
        state.watchers.drain(..).for_each(|watcher| drop(watcher.shutdown(std::net::Shutdown::Both)));
    }

    /// Makes a pod, or changes it.
    pub fn put_pod(&self, mut pod: Value) {
        let mut state = self.state();
        state.version += 1;
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let kind = if state.pods.insert(uid, pod.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.happened(json!({"type": kind, "object": pod}));
    }

    /// Removes a pod.
    pub fn remove_pod(&self, uid: &str) {
        let mut state = self.state();
        state.version += 1;
        let mut pod = state.pods.remove(uid).unwrap();
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.happened(json!({"type": "DELETED", "object": pod}));
    }

    /// What every watch is told, whether it is an event or not.
    pub fn tell(&self, event: &Value) {
        self.state().tell(event);
    }

    /// Makes a Job that is owned by a CronJob.
    pub fn put_job(&self, namespace: &str, name: &str, cron_job: &str) {
        let owner =
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job, "uid": "c", "controller": true});
        let job = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"namespace": namespace, "name": name, "uid": "j", "ownerReferences": [owner]},
        });
        self.state().jobs.insert(format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}"), job);
    }

    /// Makes an object of another kind, found in the list at `path`; nobody is told of it who watches already.
    pub fn put(&self, path: &str, object: Value) {
        self.state().others.entry(path.to_owned()).or_default().push(object);
    }

    /// Paths with their queries.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn happened(&mut self, event: Value) {
        self.tell(&event);
        self.events.push((self.version, event));
    }

    fn tell(&mut self, event: &Value) {
        self.watchers.retain_mut(|watcher| tell(watcher, event));
    }

    /// The status and the body; none for a watch that has begun.
    fn answer(&mut self, path: &str, token: Option<&str>, stream: &TcpStream) -> Option<(u16, String)> {
        self.requests.push(path.to_owned());
        match self.mood {
            Mood::Fine => {}
            Mood::Status(code) => return Some((code, status(code))),
            Mood::Garbage => return Some((200, "<html>It works!</html>".to_owned())),
            Mood::Silent | Mood::HangsUp => return None,
        }
        if self.token.as_deref().is_some_and(|wanted| token != Some(wanted)) {
            return Some((401, status(401)));
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        match path {
            // The kubelet's.
            "/pods" => Some((200, self.list(None))),
            "/api/v1/pods" => {
                // The server of Kubernetes narrows by it; so does this one, and every pod is everyone's without it.
                let node = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("spec.nodeName%3D"));
                if query.get("watch") == Some(&"true") {
                    let mut watcher = stream.try_clone().unwrap();
                    let head =
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                    watcher.write_all(head.as_bytes()).unwrap();
                    let since = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
                    for (_, event) in self.events.iter().filter(|(version, _)| *version > since) {
                        tell(&mut watcher, event);
                    }
                    self.watchers.push(watcher);
                    return None;
                }
                Some((200, self.list(node)))
            }
            _ if self.others.contains_key(path) => {
                if query.get("watch") == Some(&"true") {
                    begin_watch(&mut stream.try_clone().unwrap());
                    return None;
                }
                let metadata = json!({"resourceVersion": self.version.to_string()});
                Some((200, json!({"metadata": metadata, "items": self.others[path]}).to_string()))
            }
            _ => Some(self.jobs.get(path).map_or_else(|| (404, status(404)), |job| (200, job.to_string()))),
        }
    }

    fn list(&self, node: Option<&str>) -> String {
        let is_wanted = |pod: &&Value| node.is_none_or(|node| pod["spec"]["nodeName"] == node);
        let items: Vec<&Value> = self.pods.values().filter(is_wanted).collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}).to_string()
    }
}

fn begin_watch(watcher: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    watcher.write_all(head.as_bytes()).unwrap();
}

/// Whether it could be told.
fn tell(watcher: &mut TcpStream, event: &Value) -> bool {
    let text = format!("{event}\n");
    write!(watcher, "{:x}\r\n{text}\r\n", text.len()).is_ok()
}

fn status(code: u16) -> String {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("the test answers {code}"),
    })
    .to_string()
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(first)) = lines.next() {
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut token = None;
        for header in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            let lower = header.to_ascii_lowercase();
            if lower.starts_with("authorization: bearer ") {
                token = Some(header["authorization: bearer ".len()..].to_owned());
            }
        }
        let (answer, mood) = {
            let mut state = state.lock().unwrap();
            (state.answer(&path, token.as_deref(), &stream), state.mood)
        };
        let Some((code, body)) = answer else {
            if mood == Mood::HangsUp {
                let _gone = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            // A watch, or silence: until the other end has had enough.
            while stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0) {
                thread::sleep(Duration::from_millis(50));
            }
            return;
        };
        let retry = if code == 429 { "Retry-After: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {code} Status\r\nContent-Type: application/json\r\n{retry}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if (&stream).write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// A pod with one container that runs, as the API writes it.
pub fn pod(namespace: &str, name: &str, uid: &str, node: &str, container_id: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "labels": {}, "annotations": {}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "app", "image": "registry.test/app:1.2"}],
        },
        "status": {
            "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}],
            "containerStatuses": [{
                "name": "app", "image": "sha256:0", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{container_id}"),
            }],
        },
    })
}
