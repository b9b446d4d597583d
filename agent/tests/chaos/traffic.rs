//! Real resets on loopback, at a moderate rate.

use std::{
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use crate::netns::Netns;

/// Between two resets: about 75 a second, each with a line for either end.
const PAUSE: Duration = Duration::from_millis(13);

/// Resets until this is told to stop.
pub struct Traffic {
    stopped: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// On connections to this port, in the namespace.
    pub fn start(netns: &Netns, port: u16) -> Self {
        let (stopped, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&stopped), Arc::clone(&made));
        let thread = netns.run(move || {
            let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free in this namespace");
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
                    let (server, _) = listener.accept().expect("accepted");
                    // What closes without lingering resets.
                    set_socket_linger(&client, Some(Duration::ZERO)).expect("SO_LINGER");
                    drop(client);
                    drop(server);
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            })
        });
        Self { stopped, made, thread: Some(thread) }
    }

    /// Ends it; how many resets it made.
    pub fn stop(mut self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("traffic does not panic");
        }
        self.made.load(Ordering::Relaxed)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
