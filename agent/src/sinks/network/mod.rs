//! Sinks that send: two threads each. One takes lines from the queue and puts them into the spool; the other reads them from
//! there in order, sends them, and acknowledges what the server has. So a server that hangs holds up neither the queue nor
//! another sink, and what it did not take is there for the next agent.

pub mod client;
mod delivery;
mod intake;
pub mod protocol;
pub mod settings;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::Receiver},
    thread::JoinHandle,
    time::Duration,
};

use self::{
    delivery::Delivery,
    protocol::Protocol,
    settings::{Batch, Retry},
};
use super::{
    account::{Account, Waiting},
    outputs::Line,
    running::{Health, Orders, Running},
    spool::{Limits, Spool, disk::FileSystem},
};

/// What the two threads share.
struct Spooled {
    inner: Mutex<Inner>,
    /// Something was appended, or nothing follows.
    changed: Condvar,
}

struct Inner {
    spool: Spool,
    /// Nothing follows.
    is_closed: bool,
}

impl Inner {
    /// Writes down what was lost since the last time, and what waits.
    fn tell(&mut self, account: &Account) {
        let losses = self.spool.unreported();
        losses.iter().for_each(|(loss, count)| account.lose(loss.name(), *count));
        self.spool.reported(&losses);
        account.keeps(Waiting {
            lines: self.spool.waiting(),
            disk_bytes: self.spool.disk_bytes(),
            most_disk_bytes: self.spool.most_disk_bytes(),
            is_on_disk: self.spool.is_on_disk(),
        });
    }
}

impl Spooled {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, most: Duration) -> MutexGuard<'a, Inner> {
        self.changed.wait_timeout(inner, most).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What a network sink needs to start.
pub struct Start<P> {
    /// Its name.
    pub name: String,
    /// The folder of its spool.
    pub folder: PathBuf,
    /// The spool's bounds.
    pub limits: Limits,
    /// What is sent at once.
    pub batch: Batch,
    /// Pauses between tries.
    pub retry: Retry,
    /// Compress requests.
    pub gzip: bool,
    /// The client.
    pub client: reqwest::Client,
    /// The kind of server.
    pub protocol: P,
    /// The sink of this name that ran before, which has the spool until it ends.
    pub predecessor: Option<Running>,
}

/// Starts the threads.
///
/// # Errors
///
/// If the system has none.
pub fn start<P: Protocol>(start: Start<P>, lines: Receiver<Line>, account: Arc<Account>) -> io::Result<Running> {
    let orders = Arc::new(Orders::default());
    let name = start.name.clone();
    let thread = {
        let orders = Arc::clone(&orders);
        std::thread::Builder::new().name(format!("sink {name}")).spawn(move || run(start, &lines, &account, &orders))?
    };
    Ok(Running { name, orders, threads: vec![thread] })
}

fn run<P: Protocol>(start: Start<P>, lines: &Receiver<Line>, account: &Arc<Account>, orders: &Arc<Orders>) {
    let health = Health::new(&start.name);
    if let Some(Err(name)) = start.predecessor.map(Running::wait) {
        health.say(format_args!("the sink {name} before it does not end; its spool may be in use"));
    }
    let spool = open(&start.folder, start.limits, &health);
    let mut inner = Inner { spool, is_closed: false };
    inner.tell(account);
    let spooled = Arc::new(Spooled { inner: Mutex::new(inner), changed: Condvar::new() });
    let delivery = Delivery {
        spooled: Arc::clone(&spooled),
        orders: Arc::clone(orders),
        account: Arc::clone(account),
        health: Health::new(&start.name),
        client: start.client,
        protocol: start.protocol,
        batch: start.batch,
        retry: start.retry,
        gzip: start.gzip,
        said_why: None,
    };
    let sender = std::thread::Builder::new().name(format!("send {}", start.name)).spawn(move || delivery.run());
    if let Err(error) = &sender {
        health.say(format_args!("cannot start its thread: {error}; lines wait in the spool for the next start"));
    }
    intake::run(&spooled, lines, account, health);
    sender.ok().map(JoinHandle::join);
}

/// Without a disk the agent still delivers, and says that it could not do more.
fn open(folder: &std::path::Path, limits: Limits, health: &Health) -> Spool {
    match Spool::open(folder, limits, Box::new(FileSystem)) {
        Ok((spool, recovery)) => {
            let found = format!("spool {}: {recovery}", folder.display());
            if !recovery.is_clean() {
                health.say(found);
            } else if recovery.waiting > 0 {
                health.tell(found);
            }
            spool
        }
        Err(error) => {
            health.say(format_args!(
                "{error}; lines wait in memory only until that is mended and rstscope started again"
            ));
            Spool::in_memory(limits)
        }
    }
}
