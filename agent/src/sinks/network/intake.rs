//! From the queue into the spool.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::Spooled;
use crate::sinks::{account::Account, outputs::Line, running::Health};

/// Lines between two commits: with the longest ones still less than the least memory of a spool.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;
/// How often the spool is committed when nothing comes: for fsync, and to try a full disk again.
const IDLE: Duration = Duration::from_millis(250);

/// Takes lines until nobody sends any more.
pub(super) fn run(spooled: &Arc<Spooled>, lines: &Receiver<Line>, account: &Arc<Account>, mut health: Health) {
    loop {
        let first = lines.recv_timeout(IDLE);
        let mut inner = spooled.lock();
        let mut bytes = 0;
        let batch = first.iter().cloned().chain(lines.try_iter()).take(BATCH);
        for line in batch {
            account.took(1);
            bytes += line.len();
            if inner.spool.append(&line).is_err() {
                account.lose("sink_rejected", 1);
            }
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        match inner.spool.commit(Instant::now()) {
            Ok(()) => health.works(),
            Err(error) => health.fails(&format!("cannot write its spool: {error}; lines wait in memory")),
        }
        inner.tell(account);
        inner.is_closed = matches!(first, Err(RecvTimeoutError::Disconnected));
        let is_closed = inner.is_closed;
        drop(inner);
        spooled.changed.notify_all();
        if is_closed {
            return;
        }
    }
}
