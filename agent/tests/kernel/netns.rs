//! Network namespaces, each for one test.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// In an emulated machine on a busy one.
const MOST_FOR_A_LINK: Duration = Duration::from_secs(60);

/// Every namespace of this run. A namespace's number is given anew as soon as it is gone, and what the shared agent says
/// late about one test's connections would look like another's.
static KEPT: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A network namespace with loopback up.
#[derive(Clone)]
pub struct Netns {
    file: Arc<File>,
}

impl Netns {
    /// Makes one.
    pub fn new() -> Self {
        let file = std::thread::spawn(|| {
            // SAFETY: unshare has no memory arguments; it concerns this thread only.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "a network namespace: {}", std::io::Error::last_os_error());
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net").expect("the thread's own namespace")
        })
        .join()
        .expect("the namespace was made");
        KEPT.lock().expect("nobody panics with the lock").push(file.try_clone().expect("a second descriptor"));
        Self { file: Arc::new(file) }
    }

    /// Its inode number, as lines name it.
    pub fn inode(&self) -> u64 {
        self.file.metadata().expect("an open namespace").ino()
    }

    /// Where other programs find it, while this one runs.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `work` inside. Sockets it makes belong to the namespace wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the descriptor is an open network namespace; setns concerns this thread only.
                let result = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "entering a namespace: {}", std::io::Error::last_os_error());
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments));
    }

    /// Has `nft` put rules in force inside.
    pub fn nft(&self, rules: &str) {
        self.run(|| {
            let mut child =
                Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft (nftables) runs");
            let mut input = child.stdin.take().expect("stdin is piped");
            input.write_all(rules.as_bytes()).expect("nft reads");
            drop(input);
            assert!(child.wait().expect("nft ends").success(), "nft refuses the rules");
        });
    }

    /// Sets a sysctl inside.
    pub fn sysctl(&self, name: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/{}", name.replace('.', "/")), value.to_owned());
        self.run(move || std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    /// Joins it to `other` by a veth pair: here `name` with `address`, there `peer_name` with `peer_address` if given.
    pub fn join(&self, name: &str, address: &str, other: &Self, peer_name: &str, peer_address: Option<&str>) {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", other.path()));
        self.ip(&format!("addr add {address} dev {name}"));
        self.ip(&format!("link set {name} up"));
        if let Some(address) = peer_address {
            other.ip(&format!("addr add {address} dev {peer_name}"));
        }
        other.ip(&format!("link set {peer_name} up"));
        self.until_it_carries(name);
        other.until_it_carries(peer_name);
    }

    /// A link that was just set up drops what it is given until a worker of the kernel has seen that it has a carrier
    /// (`linkwatch_do_dev()`), which may take a second.
    fn until_it_carries(&self, name: &str) {
        let show = format!("-o link show dev {name}");
        self.run(move || {
            let began = Instant::now();
            while !output_of_ip(&show).contains("state UP") {
                assert!(began.elapsed() < MOST_FOR_A_LINK, "no carrier: {show}");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    }

    /// A namespace in which every SYN to 10.77.0.9 disappears: the neighbour is known and does not listen.
    pub fn with_black_hole() -> (Self, Self) {
        let (near, far) = (Self::new(), Self::new());
        near.join("near", "10.77.0.1/24", &far, "far", None);
        near.ip("neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev near nud permanent");
        (near, far)
    }
}

fn ip(arguments: &str) {
    output_of_ip(arguments);
}

fn output_of_ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip (iproute2) runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
