//! One line for many sinks: each behind a bounded queue of its own, so that none can slow another, or the kernel's reader.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use super::{
    AgentLine, Sink,
    account::{Account, Figures},
    encode::Encoder,
    filter::Filter,
};
use crate::{diagnosis::Diagnosed, kernel::losses::Loss};

/// Lines that wait for one sink's thread; at about 2 KB each, 8 MB.
pub const QUEUE: usize = 4096;
/// How often losses of sinks are told.
const TELL: Duration = Duration::from_secs(1);

/// A line as every sink gets it.
pub type Line = Arc<[u8]>;

/// The pipeline's end of one sink.
#[derive(Debug)]
pub struct Output {
    /// The sink's name in the configuration.
    pub name: String,
    /// Which events it wants.
    pub filter: Filter,
    queue: SyncSender<Line>,
    account: Arc<Account>,
    /// Losses that this sink was not told about yet, its own and others', by sink and cause.
    owed: BTreeMap<(String, &'static str), u64>,
}

impl Output {
    /// An end for the pipeline, and one for the sink's thread.
    #[must_use]
    pub fn new(name: &str, filter: Filter) -> (Self, Receiver<Line>, Arc<Account>) {
        let (queue, lines) = sync_channel(QUEUE);
        let account = Arc::new(Account::default());
        let output =
            Self { name: name.to_owned(), filter, queue, account: Arc::clone(&account), owed: BTreeMap::new() };
        (output, lines, account)
    }

    fn send(&self, line: &Line) {
        if !self.try_send(line) {
            self.account.lose("sink_queue_full", 1);
        }
    }

    /// A thread that has ended takes nothing more, which is as good as full.
    fn try_send(&self, line: &Line) -> bool {
        match self.queue.try_send(Arc::clone(line)) {
            Ok(()) => {
                self.account.queued();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// The sinks, which a reload changes while lines flow.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    outputs: Vec<Output>,
    /// What sinks that were removed may still count.
    removed: Vec<(String, Arc<Account>)>,
    /// Everything that was ever lost, by sink and cause.
    lost: BTreeMap<(String, &'static str), u64>,
}

impl Outputs {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a sink, in the place of the one with its name if there is one: every line goes to one of the two.
    pub fn put(&self, mut output: Output) {
        let mut all = self.lock();
        match all.outputs.iter_mut().find(|old| old.name == output.name) {
            Some(old) => {
                output.owed = std::mem::take(&mut old.owed);
                let old = std::mem::replace(old, output);
                all.removed.push((old.name, old.account));
            }
            None => all.outputs.push(output),
        }
    }

    /// Removes a sink; its thread ends when it has handed on what is in its queue.
    pub fn remove(&self, name: &str) {
        let mut all = self.lock();
        while let Some(index) = all.outputs.iter().position(|output| output.name == name) {
            let old = all.outputs.remove(index);
            all.removed.push((old.name, old.account));
        }
    }

    /// What each sink has done so far.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, Figures)> {
        self.lock().outputs.iter().map(|output| (output.name.clone(), output.account.read())).collect()
    }

    /// What was lost so far and has been told, by sink and cause; also of sinks that were removed.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<(String, &'static str), u64> {
        self.lock().lost.clone()
    }

    /// Removes all of them.
    pub fn clear(&self) {
        self.lock().outputs.clear();
    }
}

/// Hands each line to every sink that wants it.
#[derive(Debug)]
pub struct FanOut {
    encoder: Encoder,
    outputs: Outputs,
    told: Instant,
}

impl FanOut {
    /// For these sinks.
    #[must_use]
    pub fn new(encoder: Encoder, outputs: Outputs) -> Self {
        Self { encoder, outputs, told: Instant::now() }
    }

    fn send_to_all(&mut self, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let mut line = Vec::new();
        encode(&mut self.encoder, &mut line)?;
        let line = Line::from(line);
        self.outputs.lock().outputs.iter().for_each(|output| output.send(&line));
        Ok(())
    }

    /// Tells every sink what any of them lost. What its queue does not take is owed, not lost.
    fn tell_losses(&mut self) -> io::Result<()> {
        let mut all = self.outputs.lock();
        let All { outputs, removed, lost } = &mut *all;
        let mut news: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        let present = outputs.iter().map(|output| (&output.name, &output.account));
        for (name, account) in present.chain(removed.iter().map(|(name, account)| (name, account))) {
            for (cause, count) in account.take_losses() {
                *news.entry((name.clone(), cause)).or_default() += count;
            }
        }
        for (what, count) in &news {
            *lost.entry(what.clone()).or_default() += count;
        }
        // Of a thread that has ended nothing more comes.
        removed.retain(|(_, account)| Arc::strong_count(account) > 1);
        for output in outputs.iter_mut() {
            for (what, count) in &news {
                *output.owed.entry(what.clone()).or_default() += count;
            }
            while let Some(entry) = output.owed.first_entry() {
                let ((sink, cause), count) = (entry.key(), *entry.get());
                let mut line = Vec::new();
                let loss = Loss { cause, count, by_cpu: BTreeMap::new() };
                self.encoder.loss(&loss, Some(sink), &mut line)?;
                if output.queue.try_send(Line::from(line)).is_err() {
                    break;
                }
                output.account.queued();
                entry.remove();
            }
        }
        Ok(())
    }

    fn tell_losses_now_and_then(&mut self) -> io::Result<()> {
        if self.told.elapsed() < TELL {
            return Ok(());
        }
        self.told = Instant::now();
        self.tell_losses()
    }
}

impl Sink for FanOut {
    fn event(&mut self, diagnosed: &Diagnosed) -> io::Result<()> {
        let all = self.outputs.lock();
        let wanted: Vec<&Output> = all.outputs.iter().filter(|output| output.filter.want(diagnosed)).collect();
        if !wanted.is_empty() {
            let mut line = Vec::new();
            self.encoder.event(diagnosed, &mut line)?;
            let line = Line::from(line);
            wanted.iter().for_each(|output| output.send(&line));
        }
        drop(all);
        self.tell_losses_now_and_then()
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        self.send_to_all(|encoder, line| encoder.loss(loss, None, line))
    }

    fn agent(&mut self, agent: &AgentLine) -> io::Result<()> {
        // What was lost until now belongs before the last line.
        self.tell_losses()?;
        self.send_to_all(|encoder, line| encoder.agent(agent, line))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tell_losses_now_and_then()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn lines(receiver: &Receiver<Line>) -> Vec<Value> {
        receiver.try_iter().map(|line| serde_json::from_slice(&line).unwrap()).collect()
    }

    fn stop() -> AgentLine {
        AgentLine::new("stop")
    }

    #[test]
    fn a_sink_that_stands_still_loses_its_own_lines_and_the_others_say_so() {
        let (slow, slow_lines, _) = Output::new("slow", Filter::default());
        let (quick, quick_lines, _) = Output::new("quick", Filter::default());
        let outputs = Outputs::default();
        outputs.put(slow);
        outputs.put(quick);
        let mut fan_out = FanOut::new(Encoder::new(None, false), outputs);
        let mut got = 0;
        for _ in 0..QUEUE + 10 {
            fan_out.agent(&stop()).unwrap();
            got += lines(&quick_lines).iter().filter(|line| line["type"] == "agent").count();
        }
        assert_eq!(got, QUEUE + 10, "the other one gets every line");
        fan_out.tell_losses().unwrap();
        let told = lines(&quick_lines);
        assert_eq!(told.last().unwrap()["lost"]["sink"], "slow");
        assert_eq!(told.last().unwrap()["lost"]["cause"], "sink_queue_full");

        // The slow one learns it as well, once it has room, and the report itself is not counted as lost.
        assert_eq!(lines(&slow_lines).len(), QUEUE);
        fan_out.tell_losses().unwrap();
        let told = lines(&slow_lines);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["lost"]["count"], 10);
    }

    #[test]
    fn a_sink_that_replaces_another_gets_every_line_that_the_other_did_not() {
        let (old, old_lines, old_account) = Output::new("a", Filter::default());
        let (new, new_lines, _) = Output::new("a", Filter::default());
        let outputs = Outputs::default();
        outputs.put(old);
        let mut fan_out = FanOut::new(Encoder::new(None, false), outputs.clone());
        fan_out.agent(&stop()).unwrap();
        outputs.put(new);
        fan_out.agent(&stop()).unwrap();
        assert_eq!((lines(&old_lines).len(), lines(&new_lines).len()), (1, 1));
        assert!(old_lines.recv().is_err(), "the old one learns that nothing follows");
        // What the old one counts while it ends is told as well.
        old_account.lose("sink_write_failed", 3);
        fan_out.tell_losses().unwrap();
        assert_eq!(lines(&new_lines)[0]["lost"]["count"], 3);
    }

    #[test]
    fn a_line_has_the_same_id_in_every_sink() {
        let (one, one_lines, _) = Output::new("one", Filter::default());
        let (other, other_lines, _) = Output::new("other", Filter::default());
        let outputs = Outputs::default();
        outputs.put(one);
        outputs.put(other);
        FanOut::new(Encoder::new(None, false), outputs).agent(&stop()).unwrap();
        let (one, other) = (lines(&one_lines), lines(&other_lines));
        assert_eq!(one, other);
        assert!(one[0]["id"].is_string());
    }
}
