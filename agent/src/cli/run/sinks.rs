//! The sinks that run: started, changed by a reload, ended.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    config::sink::SinkSettings,
    settings::Wrong,
    sinks::{
        outputs::{Output, Outputs},
        running::Running,
    },
};

/// A sink that a reload changes or removes may take so long to hand on what it has; a spool keeps the rest.
const HAND_OVER: Duration = Duration::from_secs(5);

/// The sinks by name.
#[derive(Debug)]
pub struct Sinks {
    outputs: Outputs,
    spools: PathBuf,
    running: BTreeMap<String, (SinkSettings, Running)>,
    ending: Vec<Running>,
}

impl Sinks {
    /// None yet.
    #[must_use]
    pub fn new(outputs: Outputs, spools: PathBuf) -> Self {
        Self { outputs, spools, running: BTreeMap::new(), ending: Vec::new() }
    }

    /// Starts, replaces and removes until these run. Sinks whose settings are the same go on undisturbed. Returns what changed.
    ///
    /// # Errors
    ///
    /// If one of them cannot run; then nothing is changed, but for a system that gives no more threads.
    pub fn apply(&mut self, wanted: &BTreeMap<String, SinkSettings>) -> Result<Vec<String>, Wrong> {
        let in_sink = |name: &str, Wrong(problem)| Wrong(format!("sinks.{name}: {problem}"));
        let is_new = |this: &Self, name: &str, settings: &SinkSettings| {
            this.running.get(name).is_none_or(|(old, _)| *old != *settings)
        };
        let fresh: Vec<&String> =
            wanted.iter().filter(|(name, settings)| is_new(self, name, settings)).map(|(name, _)| name).collect();
        for name in &fresh {
            wanted[*name].check_files().map_err(|wrong| in_sink(name, wrong))?;
        }
        let mut changes = Vec::new();
        let gone: Vec<String> = self.running.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        // First, so that what they write to is free.
        for name in gone {
            self.outputs.remove(&name);
            if let Some((_, old)) = self.running.remove(&name) {
                old.orders.end_by(Instant::now() + HAND_OVER);
                self.ending.push(old);
            }
            changes.push(format!("{name} removed"));
        }
        for name in fresh {
            let is_replaced = self.running.contains_key(name);
            self.start(name, &wanted[name]).map_err(|wrong| in_sink(name, wrong))?;
            changes.push(format!("{name} {}", if is_replaced { "changed" } else { "added" }));
        }
        self.ending.retain(|running| !running.threads.iter().all(std::thread::JoinHandle::is_finished));
        Ok(changes)
    }

    fn start(&mut self, name: &str, settings: &SinkSettings) -> Result<(), Wrong> {
        let predecessor = self.running.remove(name).map(|(_, old)| {
            old.orders.end_by(Instant::now() + HAND_OVER);
            old
        });
        let (output, lines, account) = Output::new(name, settings.filter().clone());
        // From here on lines go to the new queue; the old one ends with what it has.
        self.outputs.put(output);
        let started = settings.start(name, &self.spools, predecessor, lines, account);
        let running = started.inspect_err(|_| self.outputs.remove(name))?;
        self.running.insert(name.to_owned(), (settings.clone(), running));
        Ok(())
    }

    /// Tells those that write files to open them again.
    pub fn reopen(&self) {
        self.running.values().for_each(|(_, running)| running.orders.reopen());
    }

    /// Nothing follows: waits until everything was handed on, at most until `deadline`.
    pub fn end(mut self, deadline: Instant) {
        self.outputs.clear();
        let all: Vec<Running> =
            self.running.into_values().map(|(_, running)| running).chain(self.ending.drain(..)).collect();
        all.iter().for_each(|running| running.orders.end_by(deadline));
        for running in all {
            if let Err(name) = running.wait() {
                let _unseen = writeln!(io::stderr(), "rstscope: sink {name}: did not end in time and is left behind");
            }
        }
    }
}
