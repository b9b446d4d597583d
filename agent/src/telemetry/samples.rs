//! The values of all metrics at one moment, collected from whoever writes them down.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use agent_common::counter::Counter;

use super::{
    events::{Counts, Events, Kind, Pair, is_up, source},
    families::Family,
    probes::is_ready,
    process::Process,
    vitals::{BY_AGENT, BY_KERNEL, Vitals},
};
use crate::{
    kernel::preflight,
    sinks::{
        account::Figures,
        outputs::{self, Outputs},
        spool,
    },
};

/// Why something is lost before the sinks, as `lost` lines say it.
fn lost_before_sinks() -> impl Iterator<Item = &'static str> {
    const IN_THE_AGENT: [&str; 5] = [
        "program_skipped_by_kernel",
        "closed_connection_forgotten",
        "queue_full",
        "record_malformed",
        "backend_not_asked",
    ];
    Counter::LOSSES.iter().map(|(_, cause)| *cause).chain(IN_THE_AGENT)
}

/// Why a sink loses something.
fn lost_by_sinks() -> impl Iterator<Item = &'static str> {
    ["sink_queue_full", "sink_rejected", "sink_write_failed"].into_iter().chain(spool::Loss::ALL.map(spool::Loss::name))
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// A quantity.
    Quantity(f64),
}

impl Value {
    /// 1 or 0.
    const fn flag(is: bool) -> Self {
        Self::Count(is as u64)
    }
}

/// One series.
pub type Series = (Vec<(&'static str, String)>, Value);

/// The values of all metrics.
pub type Samples = BTreeMap<Family, Vec<Series>>;

/// Whoever writes down what metrics say.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The stages.
    pub vitals: Arc<Vitals>,
    /// Events on their way to the sinks.
    pub events: Arc<Events>,
    /// The sinks.
    pub outputs: Outputs,
    /// Records between the reader and the pipeline, at most.
    pub most_records: u64,
}

impl Sources {
    /// The values now.
    #[must_use]
    pub fn collect(&self) -> Samples {
        let mut samples = Collector::default();
        let sinks = self.outputs.figures();
        let counts = self.events.read();
        samples.events(&counts);
        samples.losses(&counts.lost, &sinks, &self.outputs);
        samples.stages(&self.vitals, self.most_records);
        samples.sinks(&sinks);
        samples.itself(&self.vitals);
        samples.0
    }
}

#[derive(Default)]
struct Collector(Samples);

impl Collector {
    /// One series of a family, its labels in the family's order.
    fn add<const N: usize>(&mut self, family: Family, labels: [&str; N], value: Value) {
        debug_assert_eq!(family.labels().len(), N, "{family:?}");
        let labels = family.labels().iter().zip(labels).map(|(name, value)| (*name, value.to_owned())).collect();
        self.0.entry(family).or_default().push((labels, value));
    }

    fn events(&mut self, counts: &Counts) {
        for (pair, kinds) in &counts.events {
            for (kind, count) in kinds {
                self.event(kind, pair, *count);
            }
        }
        for ((named, by), count) in &counts.names {
            self.add(Family::Attributions, [named.name(), by], Value::Count(*count));
        }
    }

    /// From 0 on, also what has not happened: `increase()` does not see the first value of a series.
    fn losses(&mut self, before: &BTreeMap<&'static str, u64>, sinks: &[(String, Figures)], outputs: &Outputs) {
        let of = |sink: &str, cause: &'static str, count| ((sink.to_owned(), cause), count);
        let mut lost: BTreeMap<(String, &str), u64> = lost_before_sinks().map(|cause| of("", cause, 0)).collect();
        for (sink, _) in sinks {
            lost.extend(lost_by_sinks().map(|cause| of(sink, cause, 0)));
        }
        lost.extend(before.iter().map(|(cause, count)| of("", cause, *count)));
        lost.extend(outputs.lost());
        for ((sink, cause), count) in &lost {
            self.add(Family::Lost, [cause, sink], Value::Count(*count));
        }
    }

    fn event(&mut self, kind: &Kind, Pair { local, peer }: &Pair, count: u64) {
        let benign = if kind.benign { "true" } else { "false" };
        let labels = [kind.cause.name(), benign, &local.namespace, &local.workload, &peer.namespace, &peer.workload];
        let count = Value::Count(count);
        match kind.direction {
            Some(direction) => {
                let [cause, benign, namespace, workload, peer_namespace, peer_workload] = labels;
                let labels = [direction, cause, benign, namespace, workload, peer_namespace, peer_workload];
                self.add(Family::Resets, labels, count);
            }
            None if kind.kind == "timeout" => self.add(Family::Timeouts, labels, count),
            None => self.add(Family::ConnectFailures, labels, count),
        }
    }

    fn stages(&mut self, vitals: &Vitals, most_records: u64) {
        for (by, index) in [("kernel", BY_KERNEL), ("agent", BY_AGENT)] {
            self.add(Family::Filtered, [by], Value::Count(vitals.filtered[index].load(Relaxed)));
        }
        self.add(Family::QueueRecords, [], Value::Count(vitals.queue.len()));
        self.add(Family::QueueRecordsLimit, [], Value::Count(most_records));
        for (who, health) in vitals.healths().iter().flat_map(|healths| healths.all()) {
            if let Some(up) = is_up(&health) {
                self.add(Family::PodSourceUp, [source(who)], Value::flag(up));
            }
        }
        if let Some((hooks, unseen)) = vitals.hooks() {
            for hook in hooks {
                self.add(Family::Hooks, [hook.hook, hook.flavour.name()], Value::Count(1));
            }
            self.add(Family::Unseen, [], Value::Count(unseen));
        }
        // A kernel that does not count says 0, which is no number of runs.
        for (hook, runs) in vitals.programs().iter().filter(|(_, runs)| runs.count > 0) {
            let labels = [hook.hook, hook.flavour.name()];
            self.add(Family::ProgramRuns, labels, Value::Count(runs.count));
            self.add(Family::ProgramRunTime, labels, Value::Quantity(runs.ns as f64 / 1e9));
        }
    }

    fn sinks(&mut self, sinks: &[(String, Figures)]) {
        self.add(Family::QueueLinesLimit, [], Value::Count(outputs::QUEUE as u64));
        for (sink, figures) in sinks {
            self.add(Family::QueueLines, [sink], Value::Count(figures.in_queue));
            self.add(Family::SinkLines, [sink], Value::Count(figures.delivered));
            self.add(Family::SinkFailing, [sink], Value::flag(figures.is_failing));
            if let Some(seconds) = figures.last_delivery_seconds {
                self.add(Family::SinkLastDelivery, [sink], Value::Quantity(seconds));
            }
            let Some(waiting) = figures.waiting else { continue };
            for (outcome, count) in figures.requests {
                self.add(Family::SinkRequests, [sink, outcome.name()], Value::Count(count));
            }
            self.add(Family::SpoolLines, [sink], Value::Count(waiting.lines));
            self.add(Family::SpoolBytes, [sink], Value::Count(waiting.disk_bytes));
            self.add(Family::SpoolLimit, [sink], Value::Count(waiting.most_disk_bytes));
            self.add(Family::SpoolOnDisk, [sink], Value::flag(waiting.is_on_disk));
        }
    }

    fn itself(&mut self, vitals: &Vitals) {
        self.add(Family::Ready, [], Value::flag(is_ready(vitals)));
        let (applied, refused, last) = vitals.reloads.read();
        self.add(Family::Reloads, ["applied"], Value::Count(applied));
        self.add(Family::Reloads, ["refused"], Value::Count(refused));
        self.add(Family::LastReload, [], Value::flag(last));
        self.add(Family::BuildInfo, [env!("CARGO_PKG_VERSION"), &preflight::release()], Value::Count(1));
        let Some(process) = Process::myself() else { return };
        self.add(Family::CpuTime, [], Value::Quantity(process.cpu_seconds));
        self.add(Family::ResidentMemory, [], Value::Count(process.resident_bytes));
        self.add(Family::VirtualMemory, [], Value::Count(process.virtual_bytes));
        self.add(Family::StartTime, [], Value::Quantity(process.start_seconds));
        if let Some(open) = process.open_files {
            self.add(Family::OpenFiles, [], Value::Count(open));
        }
        if let Some(most) = process.most_files {
            self.add(Family::MostFiles, [], Value::Count(most));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sinks::{filter::Filter, outputs::Output};

    #[test]
    fn every_cause_of_a_loss_is_counted_from_0_on() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/rstscope.v1.schema.json")).unwrap();
        let causes = schema["oneOf"].as_array().unwrap().iter();
        let causes = causes.filter_map(|line| line["properties"]["lost"]["properties"]["cause"]["enum"].as_array());
        let known: BTreeSet<&str> = causes.flatten().filter_map(|cause| cause.as_str()).collect();
        let listed: BTreeSet<&str> = lost_before_sinks().chain(lost_by_sinks()).collect();
        assert_eq!(listed, known);

        let sources = Sources::default();
        let (output, _lines, account) = Output::new("central", Filter::default());
        sources.outputs.put(output);
        account.lose("sink_rejected", 2);
        let lost = &sources.collect()[&Family::Lost];
        assert_eq!(lost.len(), listed.len());
        assert!(lost.iter().all(|(_, value)| *value == Value::Count(0)), "told later, with its line: {lost:?}");
    }
}
