//! Connections older than the agent: whose they are is looked up once, when the agent starts.
//!
//! After the hooks are attached, so that no connection falls between: one that begins meanwhile is a hook's, and what a
//! hook has learned goes before what is found here.
//!
//! * `iterator`: the kernel walks over every open file and notes the holders in its own table. Best, because it sees
//!   all network namespaces at once, needs no more rights than tracing does, and knows the holder's cgroup.
//! * `netlink` and `holders`: where the kernel refuses that, or would walk over a part of the processes only, the
//!   sockets come from sock_diag and their holders from `/proc`; `seeds` keeps what was found and completes records.

mod holders;
mod iterator;
pub mod namespaces;
mod netlink;
mod seeds;
mod stat;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

pub use self::seeds::Seeds;
use super::attach::Running;

/// Which way to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The iterator, or what stands in for it
    #[default]
    Auto,
    /// The kernel's iterator over open files
    Iterator,
    /// The open files in /proc, and sock_diag
    Proc,
}

/// The way that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The kernel's iterator over open files.
    Iterator,
    /// `/proc` and sock_diag.
    Proc,
}

impl Way {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iterator => "the kernel's iterator over open files",
            Self::Proc => "the open files in /proc and sock_diag",
        }
    }
}

/// What was found, and by which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The way; `None` if none worked.
    pub way: Option<Way>,
    /// Connections that got a process.
    pub named: u64,
    /// Connections that several processes have open, so that none was named.
    pub shared: u64,
    /// How long it took.
    pub took: Duration,
    /// Why it was not the iterator.
    pub refused: Option<String>,
    /// What could not be looked at, a sentence each.
    pub missing: Vec<String>,
}

/// What a way finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    named: u64,
    shared: u64,
    missing: Vec<String>,
}

/// A connection that a file may refer to. A node may have hundreds of thousands, so that one list of these goes from
/// the sockets by way of their holders to what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    /// Names the socket, for ever.
    cookie: u64,
    /// Number of the socket's inode, which its files have in common.
    inode: u32,
    /// Index into the processes; or [`NOBODY`], or [`SEVERAL`].
    holder: u32,
}

/// No process was found to have it open.
const NOBODY: u32 = u32::MAX;
/// More than one has.
const SEVERAL: u32 = u32::MAX - 1;

/// What is not seen without any way.
const UNSEEN: &str = "the process of a connection older than the agent, until it reads from it or closes it";

/// Longest time that `/proc` and sock_diag may take: events wait in the buffer meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds the processes. `most` is the number of connections that are followed at most.
///
/// # Errors
///
/// Only if a way was asked for that does not work: nothing else depends on it.
pub fn find(kernel: &mut Running<'_>, choice: Choice, proc_root: &Path, most: usize) -> Result<(Report, Seeds)> {
    let start = Instant::now();
    let mut report = Report::default();
    let mut seeds = Seeds::default();
    let found = match by_iterator(kernel, choice) {
        Ok(found) => {
            report.way = Some(Way::Iterator);
            found
        }
        Err(error) if choice == Choice::Iterator => {
            return Err(error).context("one way to older connections was asked for; leave out --older-connections");
        }
        Err(error) => {
            report.refused = (choice == Choice::Auto).then(|| format!("{error:#}"));
            match holders::find(proc_root, most, start + PATIENCE) {
                Ok((found, by_proc)) => {
                    report.way = Some(Way::Proc);
                    seeds = by_proc;
                    found
                }
                Err(error) => Found { missing: vec![format!("{UNSEEN}: {error:#}")], ..Found::default() },
            }
        }
    };
    report.named = found.named;
    report.shared = found.shared;
    report.missing = found.missing;
    report.took = start.elapsed();
    Ok((report, seeds))
}

fn by_iterator(kernel: &mut Running<'_>, choice: Choice) -> Result<Found> {
    if choice == Choice::Proc {
        bail!("not asked for");
    }
    // `task_seq_get_next` knows the tasks of its opener's pid namespace only.
    if choice == Choice::Auto && !namespaces::has_every_pid() {
        bail!("the agent's pid namespace has only a part of the processes");
    }
    iterator::find(kernel)
}
