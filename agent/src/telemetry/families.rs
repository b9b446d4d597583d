//! Every metric there is, in one table: its name, what it is, its labels and its help.
//!
//! Names are Prometheus' (one unit and one quantity each, base units, `_total` for what only grows); `docs/metrics.md` is
//! held against this table by a unit test.

use prometheus_client::{metrics::MetricType, registry::Unit};

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows while the agent runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Type {
    /// As OpenMetrics calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

impl From<Type> for MetricType {
    fn from(it: Type) -> Self {
        match it {
            Type::Counter => Self::Counter,
            Type::Gauge => Self::Gauge,
        }
    }
}

macro_rules! families {
    ($($variant:ident $kind:ident $name:literal $unit:literal [$($label:literal)*] $help:literal;)+) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Family {
            $(#[doc = $help] $variant,)+
        }

        impl Family {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name without unit and `_total`.
            #[must_use]
            pub const fn stem(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            const fn unit_name(self) -> &'static str {
                match self { $(Self::$variant => $unit,)+ }
            }

            /// What its values are.
            #[must_use]
            pub const fn kind(self) -> Type {
                match self { $(Self::$variant => Type::$kind,)+ }
            }

            /// Names of its labels.
            #[must_use]
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label,)*],)+ }
            }

            /// What it says.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

families! {
    Resets Counter "rstscope_resets" ""
        ["direction" "cause" "benign" "namespace" "workload" "peer_namespace" "peer_workload"]
        "Resets received and sent, by cause and by whose connection it was";
    ConnectFailures Counter "rstscope_connect_failures" ""
        ["cause" "benign" "namespace" "workload" "peer_namespace" "peer_workload"]
        "Connects that failed";
    Timeouts Counter "rstscope_timeouts" ""
        ["cause" "benign" "namespace" "workload" "peer_namespace" "peer_workload"]
        "Connections that a timer of the kernel ended without a reset";
    Lost Counter "rstscope_lost" "" ["cause" "sink"]
        "Events and lines lost, by the causes of lost lines; sink is empty for what was lost before the sinks";
    Filtered Counter "rstscope_filtered" "" ["by"]
        "Events left out by filters, in the kernel or in the agent";
    QueueRecords Gauge "rstscope_reader_queue_records" "" []
        "Records between the reader of the ring buffer and the pipeline";
    QueueRecordsLimit Gauge "rstscope_reader_queue_limit_records" "" []
        "How many there is room for";
    QueueLines Gauge "rstscope_queue_lines" "" ["sink"]
        "Lines that wait for a sink";
    QueueLinesLimit Gauge "rstscope_queue_limit_lines" "" []
        "How many there is room for, in each sink's queue";
    SpoolLines Gauge "rstscope_spool_lines" "" ["sink"]
        "Lines in a sink's spool that were not delivered yet";
    SpoolBytes Gauge "rstscope_spool" "bytes" ["sink"]
        "Size of a spool's files";
    SpoolLimit Gauge "rstscope_spool_limit" "bytes" ["sink"]
        "Size beyond which the oldest lines are dropped";
    SpoolOnDisk Gauge "rstscope_spool_on_disk" "" ["sink"]
        "1 if the spool is on a disk, 0 if in memory only";
    SinkLines Counter "rstscope_sink_lines" "" ["sink"]
        "Lines delivered: the server has them, or the file";
    SinkRequests Counter "rstscope_sink_requests" "" ["sink" "outcome"]
        "Requests to a sink's server, by how they ended";
    SinkLastDelivery Gauge "rstscope_sink_last_delivery_timestamp" "seconds" ["sink"]
        "When a line was delivered last, in seconds since 1970";
    SinkFailing Gauge "rstscope_sink_failing" "" ["sink"]
        "1 while the last try to deliver has failed";
    Attributions Counter "rstscope_attributions" "" ["what" "source"]
        "Local ends of events by how the process, container, pod or workload became known; source none: it did not";
    PodSourceUp Gauge "rstscope_pod_source_up" "" ["source"]
        "1 while a source of pods' names that is asked answers";
    Hooks Gauge "rstscope_hooks" "" ["hook" "flavour"]
        "1 for each hook that is attached";
    Unseen Gauge "rstscope_unseen" "" []
        "How many things this kernel does not show; rstscope doctor names them";
    ProgramRuns Counter "rstscope_program_runs" "" ["hook" "flavour"]
        "Runs of an eBPF program, while the kernel counts them (kernel.bpf_stats_enabled or --program-stats)";
    ProgramRunTime Counter "rstscope_program_run" "seconds" ["hook" "flavour"]
        "Time that an eBPF program took, while the kernel counts it";
    Ready Gauge "rstscope_ready" "" []
        "1 when /readyz says yes";
    Reloads Counter "rstscope_configuration_reloads" "" ["outcome"]
        "Times the configuration was read again, and applied or refused";
    LastReload Gauge "rstscope_configuration_last_reload_success" "" []
        "0 while the configuration's last change is refused";
    BuildInfo Gauge "rstscope_build_info" "" ["version" "kernel"]
        "Always 1";
    CpuTime Counter "process_cpu" "seconds" []
        "User and system CPU time of the agent";
    ResidentMemory Gauge "process_resident_memory" "bytes" []
        "Resident memory of the agent";
    VirtualMemory Gauge "process_virtual_memory" "bytes" []
        "Virtual memory of the agent";
    OpenFiles Gauge "process_open_fds" "" []
        "Open file descriptors of the agent";
    MostFiles Gauge "process_max_fds" "" []
        "How many it may have";
    StartTime Gauge "process_start_time" "seconds" []
        "When the agent started, in seconds since 1970";
}

impl Family {
    /// Its unit, which is the end of its name.
    #[must_use]
    pub fn unit(self) -> Option<Unit> {
        match self.unit_name() {
            "bytes" => Some(Unit::Bytes),
            "seconds" => Some(Unit::Seconds),
            _ => None,
        }
    }

    /// Its name in OpenMetrics' metadata: with its unit, without `_total`.
    #[must_use]
    pub fn name(self) -> String {
        match self.unit_name() {
            "" => self.stem().to_owned(),
            unit => format!("{}_{unit}", self.stem()),
        }
    }

    /// Its name as people write it in queries.
    #[must_use]
    pub fn queried(self) -> String {
        match self.kind() {
            Type::Counter => format!("{}_total", self.name()),
            Type::Gauge => self.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of `docs/metrics.md`.
    fn row(family: Family) -> String {
        let labels: Vec<String> = family.labels().iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", family.queried(), family.kind().name(), labels.join(" "), family.help())
    }

    #[test]
    fn the_page_has_every_metric_and_no_other() {
        let page = include_str!("../../../docs/metrics.md");
        let is_row =
            |line: &&str| line.starts_with("| `") && (line.contains(" counter |") || line.contains(" gauge |"));
        let rows: Vec<&str> = page.lines().filter(is_row).collect();
        let table: Vec<String> = Family::ALL.iter().map(|family| row(*family)).collect();
        assert_eq!(rows, table, "the table for docs/metrics.md:\n{}", table.join("\n"));
    }

    #[test]
    fn names_are_prometheus() {
        for family in Family::ALL {
            let name = family.queried();
            assert!(name.chars().all(|it| it.is_ascii_lowercase() || it == '_'), "{name}");
            assert!(!family.help().ends_with('.') && !family.help().contains('\n'), "{name}");
            assert!(family.labels().iter().all(|label| !name.contains(&format!("by_{label}"))), "{name}");
        }
        let mut names: Vec<_> = Family::ALL.iter().map(|family| family.queried()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Family::ALL.len());
    }
}
