//! Known timeouts of servers, clients and proxies: which product closes a connection after so many seconds.
//!
//! The table is data, `timeouts.tsv` beside this file, and its head explains its columns. A user's file of the same form
//! adds to it and overrides it.

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The table that comes with rstscope, as text.
pub const BUILT_IN: &str = include_str!("timeouts.tsv");

const COLUMNS: usize = 10;

/// How late a timer fires on a machine that is not overloaded: in 31 versions of Node.js up to 50 ms after 6 s.
const LATE_MS: f64 = 60.0;
/// Long timers are late by more: nginx up to 2 s after 75 s.
const LATE_SHARE: f64 = 0.02;

/// Which end's timer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that accepted the connection.
    Server,
    /// The end that opened it.
    Client,
    /// A proxy that closes in either role, or its connect upstream.
    Proxy,
    /// A load balancer that closes in either role, or its connect to a target.
    LoadBalancer,
}

impl Side {
    fn find(name: &str) -> Option<Self> {
        match name {
            "server" => Some(Self::Server),
            "client" => Some(Self::Client),
            "proxy" => Some(Self::Proxy),
            "lb" => Some(Self::LoadBalancer),
            _ => None,
        }
    }

    /// Whether a timer of this side can be what acted as `end`: proxies and load balancers are servers to one side and
    /// clients to the other.
    fn acts_as(self, end: Self) -> bool {
        self == end || matches!((self, end), (Self::Proxy | Self::LoadBalancer, Self::Server | Self::Client))
    }
}

/// What the timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The next request on a connection that rests.
    Idle,
    /// The answer to a SYN.
    Connect,
    /// The rest of a request, or the answer to it.
    Request,
}

impl Kind {
    fn find(name: &str) -> Option<Self> {
        match name {
            "idle" => Some(Self::Idle),
            "connect" => Some(Self::Connect),
            "request" => Some(Self::Request),
            _ => None,
        }
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// When it fires, as seen on the wire.
    pub seconds: f64,
    /// Whose timer it is.
    pub side: Side,
    /// What it waits for.
    pub kind: Kind,
    /// What expires, in words.
    pub what: String,
    /// The product.
    pub product: String,
    /// Its versions that have this value; empty if not known.
    pub versions: String,
    /// The setting to change; empty if there is none.
    pub setting: String,
    /// Where the value is from.
    pub source: String,
    /// By how much it may fire later, beyond what every timer may: the period of a sweep.
    late_s: f64,
    /// Names of the processes that run it, without version; empty if it can be any.
    processes: Vec<String>,
}

impl Known {
    fn parse(line: &str) -> Result<Self, Problem> {
        let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
        let cells: [&str; COLUMNS] = cells.try_into().map_err(|cells: Vec<_>| Problem::Columns(cells.len()))?;
        let [seconds, late_s, side, kind, what, product, versions, setting, processes, source] = cells;
        for (column, cell) in [("what", what), ("product", product)] {
            if cell.is_empty() {
                return Err(Problem::Empty(column));
            }
        }
        Ok(Self {
            seconds: duration("seconds", seconds)?,
            late_s: if late_s.is_empty() { 0.0 } else { duration("late_s", late_s)? },
            side: Side::find(side).ok_or_else(|| Problem::Side(side.to_owned()))?,
            kind: Kind::find(kind).ok_or_else(|| Problem::Kind(kind.to_owned()))?,
            what: what.to_owned(),
            product: product.to_owned(),
            versions: versions.to_owned(),
            setting: setting.to_owned(),
            source: source.to_owned(),
            processes: processes.split_whitespace().map(|name| unversioned(name).to_owned()).collect(),
        })
    }

    /// Timers fire late, never early; but both times are counted in ticks.
    fn fits(&self, measured_ms: f64, tick_ms: f64) -> bool {
        let ms = self.seconds * 1000.0;
        let late = LATE_MS.max(ms * LATE_SHARE).max(self.late_s * 1000.0);
        measured_ms >= ms - tick_ms && measured_ms <= ms + late
    }

    fn is_run_by(&self, process: &str) -> bool {
        self.processes.iter().any(|name| name == unversioned(process))
    }

    fn overrides(&self, other: &Self) -> bool {
        self.product == other.product && self.setting == other.setting && self.side == other.side
    }
}

/// A process's name without the version that distributions put behind it: `python3.11` is `python`.
fn unversioned(process: &str) -> &str {
    process.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}

fn duration(column: &'static str, cell: &str) -> Result<f64, Problem> {
    match cell.parse() {
        Ok(seconds) if seconds > 0.0 && f64::is_finite(seconds) => Ok(seconds),
        _ => Err(Problem::Duration { column, cell: cell.to_owned() }),
    }
}

/// What is wrong with a line of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not as many columns as there should be.
    #[error("{0} columns instead of {COLUMNS}; tabs separate them")]
    Columns(usize),
    /// A column that says nothing, but must.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Not a positive number of seconds.
    #[error("{column} is \"{cell}\", not a positive number of seconds")]
    Duration {
        /// The column.
        column: &'static str,
        /// What it says.
        cell: String,
    },
    /// No such side.
    #[error("side is \"{0}\", not server, client, proxy or lb")]
    Side(String),
    /// No such kind.
    #[error("kind is \"{0}\", not idle, connect or request")]
    Kind(String),
}

/// A user's table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TimeoutsError {
    /// The file cannot be read.
    #[error("the table of timeouts {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is malformed.
    #[error("the table of timeouts {}, line {line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: Problem,
    },
}

/// The table.
#[derive(Clone, Debug)]
pub struct Timeouts {
    rows: Vec<Known>,
}

impl Timeouts {
    /// The table that comes with rstscope.
    #[must_use]
    pub fn built_in() -> Self {
        // A unit test parses every line.
        Self { rows: rows(BUILT_IN).flat_map(|(_, row)| row).collect() }
    }

    /// The table that comes with rstscope, and a user's: each of its rows comes first, and replaces all built-in ones
    /// with the same product, setting and side.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or at its first malformed line.
    pub fn with_file(path: &Path) -> Result<Self, TimeoutsError> {
        let text = fs::read_to_string(path).map_err(|source| TimeoutsError::Read { path: path.to_owned(), source })?;
        let mut all = rows(&text)
            .map(|(line, row)| row.map_err(|problem| TimeoutsError::Malformed { path: path.to_owned(), line, problem }))
            .collect::<Result<Vec<_>, _>>()?;
        let mut kept = Self::built_in().rows;
        kept.retain(|row| !all.iter().any(|user| user.overrides(row)));
        all.append(&mut kept);
        Ok(Self { rows: all })
    }

    /// The products whose timer of this `kind` fits a measured time, the closest first, each once, at most `limit`.
    ///
    /// `side` is the end that closed the connection, or gave up. If the table knows its `process`, only rows that name
    /// it count: Node.js is not Tomcat, even if it closed after 20 s. A process the table does not know may be a program
    /// in disguise, such as a script of Python's, but neither a proxy under another name nor somebody's load balancer.
    #[must_use]
    pub fn fitting(
        &self,
        kind: Kind,
        side: Side,
        measured_ms: f64,
        tick_ms: f64,
        process: Option<&str>,
        limit: usize,
    ) -> Vec<&Known> {
        let runs = |row: &Known| match process {
            None => true,
            Some(process) if self.rows.iter().any(|row| row.is_run_by(process)) => row.is_run_by(process),
            Some(_) => row.side != Side::LoadBalancer && (row.side != Side::Proxy || row.processes.is_empty()),
        };
        let mut fitting: Vec<&Known> = self
            .rows
            .iter()
            .filter(|row| row.kind == kind && row.side.acts_as(side) && row.fits(measured_ms, tick_ms))
            .filter(|row| runs(row))
            .collect();
        let distance = |row: &Known| (measured_ms - row.seconds * 1000.0).abs();
        fitting.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        let mut distinct: Vec<&Known> = Vec::new();
        for row in fitting {
            if distinct.len() < limit && !distinct.iter().any(|other| other.product == row.product) {
                distinct.push(row);
            }
        }
        distinct
    }
}

/// The rows of a table, each with the number of its line.
fn rows(text: &str) -> impl Iterator<Item = (usize, Result<Known, Problem>)> {
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(number, line)| (number, Known::parse(line)))
}
