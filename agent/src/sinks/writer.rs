//! The thread of a sink that writes lines into a file or a pipe. What cannot be written is tried again while the queue takes
//! what comes; only what the queue does not take is lost, and counted there.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use super::{
    account::Account,
    outputs::Line,
    running::{Health, Orders, Running},
};

/// Lines written at once.
const BATCH: usize = 256;
/// How often a thread without a line looks whether there is something else to do.
const IDLE: Duration = Duration::from_millis(250);
/// Between two tries to write what could not be written.
const RETRY: Duration = Duration::from_millis(500);

/// Where the lines go.
pub trait Place: Send + 'static {
    /// Writes some of `bytes`; they begin where the last call ended.
    ///
    /// # Errors
    ///
    /// If nothing could be written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Called before lines that take `bytes`, between lines, and when there are none (0).
    ///
    /// # Errors
    ///
    /// If what is due then fails; the lines are written all the same.
    fn between_lines(&mut self, bytes: usize) -> io::Result<()>;

    /// Opens the place again.
    ///
    /// # Errors
    ///
    /// If that fails; the old one stays in use.
    fn reopen(&mut self) -> io::Result<()>;

    /// Nothing follows.
    ///
    /// # Errors
    ///
    /// If what was written may not last.
    fn end(&mut self) -> io::Result<()>;
}

/// Starts the thread; it waits for the one that had the place before.
///
/// # Errors
///
/// If the system has none.
pub fn start(
    name: &str,
    predecessor: Option<Running>,
    lines: Receiver<Line>,
    account: Arc<Account>,
    open: impl FnOnce() -> io::Result<Box<dyn Place>> + Send + 'static,
) -> io::Result<Running> {
    let orders = Arc::new(Orders::default());
    let mut writer = Writer { orders: Arc::clone(&orders), account, health: Health::new(name) };
    let thread = std::thread::Builder::new().name(format!("sink {name}")).spawn(move || {
        predecessor.map(Running::wait);
        writer.run(&lines, open);
    })?;
    Ok(Running { name: name.to_owned(), orders, threads: vec![thread] })
}

struct Writer {
    orders: Arc<Orders>,
    account: Arc<Account>,
    health: Health,
}

impl Writer {
    fn run(&mut self, lines: &Receiver<Line>, open: impl FnOnce() -> io::Result<Box<dyn Place>>) {
        let mut place = match open() {
            Ok(place) => place,
            Err(error) => {
                self.health.say(format_args!("{error}; it is not used until the configuration changes"));
                let count = lines.iter().count() as u64;
                return self.account.lose("sink_write_failed", count);
            }
        };
        loop {
            if self.orders.take_reopen() {
                let reopened = place.reopen();
                self.note(reopened, "cannot open it again");
            }
            let mut batch = match lines.recv_timeout(IDLE) {
                Ok(line) => vec![line],
                Err(RecvTimeoutError::Timeout) => {
                    let done = place.between_lines(0);
                    self.note(done, "cannot keep it in order");
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            batch.extend(lines.try_iter().take(BATCH - 1));
            self.write(&mut *place, &batch);
        }
        let ended = place.end();
        self.note(ended, "what was written last may not last");
    }

    fn write(&mut self, place: &mut dyn Place, batch: &[Line]) {
        let mut bytes = Vec::with_capacity(batch.iter().map(|line| line.len() + 1).sum());
        for line in batch {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        let ready = place.between_lines(bytes.len());
        self.note(ready, "cannot keep it in order");
        let mut written = 0;
        while written < bytes.len() {
            match place.write(&bytes[written..]) {
                Ok(count) => {
                    written += count;
                    self.health.works();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.health.fails(&format!("cannot write: {error}; tried again, lines wait in memory"));
                    if self.orders.is_over() {
                        let left = bytes[written..].iter().filter(|byte| **byte == b'\n').count() as u64;
                        self.health.say(format_args!("{left} lines could not be written before the end"));
                        return self.account.lose("sink_write_failed", left);
                    }
                    self.orders.pause(RETRY);
                }
            }
        }
        let done = place.between_lines(0);
        self.note(done, "cannot keep it in order");
    }

    fn note(&mut self, result: io::Result<()>, what: &str) {
        if let Err(error) = result {
            self.health.fails(&format!("{what}: {error}"));
        }
    }
}
