//! Who had which line, by the lines' ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

/// The file to which the agent tells every line, read as it grows.
pub struct Told {
    path: PathBuf,
    read: u64,
    starts: usize,
    /// `lost` lines about the sink under test: their causes and counts.
    lost: Vec<(String, u64)>,
    /// When each line says that it happened.
    lines: BTreeMap<String, Timestamp>,
}

impl Told {
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: 0, starts: 0, lost: Vec::new(), lines: BTreeMap::new() }
    }

    /// Reads on, up to the last line that is whole.
    pub fn read(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        file.seek(SeekFrom::Start(self.read)).expect("a file has places");
        let mut file = BufReader::new(file);
        let mut text = String::new();
        while file.read_line(&mut text).is_ok_and(|count| count > 0) && text.ends_with('\n') {
            self.read += text.len() as u64;
            // A kill may cut a line; the next agent gives it its end.
            if let Ok(line) = serde_json::from_str(&text) {
                self.note(&line);
            }
            text.clear();
        }
    }

    fn note(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().expect("each line has an id and a time");
        self.starts += usize::from(line["agent"]["action"] == "start");
        if line["lost"]["sink"].is_string() {
            // Each sink is told by a line of its own, with another id.
            if line["lost"]["sink"] == "remote" {
                let cause = line["lost"]["cause"].as_str().expect("a loss has a cause").to_owned();
                self.lost.push((cause, line["lost"]["count"].as_u64().expect("a loss has a count")));
            }
            return;
        }
        self.lines.insert(text("id").to_owned(), text("time").parse().expect("RFC 3339"));
    }

    /// How many agents have started.
    pub fn starts(&self) -> usize {
        self.starts
    }

    /// How many lines the sink under test lost, as `lost` lines say.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|(_, count)| count).sum()
    }
}

/// What a line may be old at most that was in the agent's memory when it was killed. The documentation says milliseconds; a
/// machine with much else to do takes its time.
const IN_MEMORY: Duration = Duration::from_secs(2);

/// The accounts of one sink.
pub struct Ledger {
    pub told: Told,
    /// What the spool or the server had at a kill.
    accepted: BTreeSet<String>,
    /// What neither had, because the agent was killed before.
    cut: BTreeSet<String>,
    kills: Vec<Timestamp>,
}

impl Ledger {
    pub fn new(told: PathBuf) -> Self {
        Self { told: Told::new(told), accepted: BTreeSet::new(), cut: BTreeSet::new(), kills: Vec::new() }
    }

    /// An agent was killed at this time: what its spool and its server have.
    pub fn killed(&mut self, when: Timestamp, spooled: &[Value], delivered: &BTreeSet<String>) {
        self.told.read();
        self.kills.push(when);
        let spooled = spooled.iter().map(|line| line["id"].as_str().expect("each line has an id").to_owned());
        self.accepted.extend(spooled);
        self.accepted.extend(delivered.iter().cloned());
        let since = when - IN_MEMORY;
        let cut = self.told.lines.iter().filter(|(id, time)| **time >= since && !self.accepted.contains(*id));
        self.cut.extend(cut.map(|(id, _)| id.clone()));
    }

    /// What was told and has not arrived, but for what a kill cut off.
    pub fn missing<'a>(&'a self, delivered: &'a BTreeSet<String>) -> Vec<&'a String> {
        self.told.lines.keys().filter(|id| !delivered.contains(*id) && !self.cut.contains(*id)).collect()
    }

    /// Balances the accounts after the last agent has ended: nothing that was accepted is missing, and as much is lost as
    /// `lost` lines say. `all` are the ids of everything delivered, as often as it came.
    pub fn balance(&self, name: &str, all: &[String]) {
        let delivered: BTreeSet<String> = all.iter().cloned().collect();
        let gone: Vec<&String> = self.accepted.difference(&delivered).collect();
        assert!(gone.is_empty(), "{name}: {} that were accepted are missing, such as {:?}", gone.len(), gone.first());
        let missing = self.missing(&delivered);
        println!(
            "{name}: {} lines told, {} delivered, {} of them again; {} kills cut off {} lines in memory; {} lost, and {} \
             are told as lost",
            self.told.lines.len(),
            delivered.len(),
            all.len() - delivered.len(),
            self.kills.len(),
            self.cut.iter().filter(|id| !delivered.contains(*id)).count(),
            missing.len(),
            self.told.lost(),
        );
        assert!(
            missing.len() as u64 == self.told.lost(),
            "{name}: {} lines are missing:\n{}\nlost by their own account: {:?}\nkills: {:?}",
            missing.len(),
            self.runs(&missing),
            self.told.lost,
            self.kills,
        );
    }

    /// Lines of one agent with no other between them as one sentence.
    fn runs(&self, missing: &[&String]) -> String {
        let split = |id: &str| {
            let (agent, number) = id.rsplit_once('-').expect("an id ends with a number");
            (agent.to_owned(), number.parse::<u64>().expect("an id ends with a number"))
        };
        let all: BTreeMap<(String, u64), Timestamp> =
            self.told.lines.iter().map(|(id, time)| (split(id), *time)).collect();
        let missing: BTreeSet<(String, u64)> = missing.iter().map(|id| split(id)).collect();
        let mut runs: Vec<(&(String, u64), Timestamp, Timestamp, u64)> = Vec::new();
        let mut is_going_on = false;
        for (id, time) in &all {
            match (missing.contains(id), runs.last_mut()) {
                (true, Some(run)) if is_going_on && run.0.0 == id.0 => (run.2, run.3) = (*time, run.3 + 1),
                (true, _) => runs.push((id, *time, *time, 1)),
                (false, _) => {}
            }
            is_going_on = missing.contains(id);
        }
        let shown = |((agent, number), from, to, count): &(&(String, u64), Timestamp, Timestamp, u64)| {
            format!("  {count} of agent {agent} from number {number}, {from} to {to}")
        };
        runs.iter().map(shown).collect::<Vec<_>>().join("\n")
    }
}
