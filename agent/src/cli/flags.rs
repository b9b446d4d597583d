//! Every flag, defined once: help, completions and the man page come from here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{log::LogFlags, pods::PodFlags};
use crate::{
    kernel::{older, plan::Preference},
    settings::units::time,
};

/// Names every TCP reset and failed connect on this node.
#[derive(Debug, Parser)]
#[command(name = "rstscope", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  rstscope trace                          a live table of every reset and failed connect
  rstscope trace --namespace shop         only those of pods in the namespace shop
  rstscope trace --port 5432 | jq .       JSON lines, as in every pipe
  rstscope run --config rstscope.toml     follow the node for good, into files, Loki, …
  rstscope explain stale_connection_reuse what a cause means and how to fix it
  rstscope doctor                         can this node be traced, and what will not be seen";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every TCP reset and failed connect as it happens
    Trace(Box<TraceFlags>),
    /// Follow this node for good: sinks, spools and filters from a configuration file
    Run(Box<RunFlags>),
    /// Check, show or describe the configuration of `run`
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check whether this node can be traced; exit 0 only if `trace` would work
    Doctor(Box<DoctorFlags>),
    /// Explain a cause: what it means, how it is recognised, how to confirm and fix it
    Explain(ExplainFlags),
    /// Print a completion script, e.g. `rstscope completions bash > /etc/bash_completion.d/rstscope`
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, e.g. `rstscope man | man -l -`
    Man,
}

/// How to show events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One row per event.
    Table,
    /// One JSON object per line, schema rstscope.v1.
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

const TRACE_EXAMPLES: &str = "Examples:
  rstscope trace
  rstscope trace --port 443 --cidr 10.0.0.0/8
  rstscope trace --pod 'checkout-*' --output table
  rstscope trace --duration 60s --output json > resets.jsonl
  rstscope trace --count 1 --process envoy --facts | jq .facts

Filters of one kind are alternatives; filters of different kinds must all match. Ctrl-C ends with a
summary on standard error.";

/// Flags of `trace`.
#[derive(Args, Debug)]
#[command(after_help = TRACE_EXAMPLES)]
pub struct TraceFlags {
    /// Table or JSON lines [default: a table on a terminal, JSON in a pipe]
    #[arg(long, short, value_enum)]
    pub output: Option<Output>,
    /// Colour in the table
    #[arg(long, value_enum, default_value = "auto")]
    pub color: Colour,
    /// Stop after this time: 90s, 5m, 2h, 500ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,
    /// Stop after this many events
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// What is followed, and how.
    #[command(flatten)]
    pub follow: Follow,
}

const RUN_EXAMPLES: &str = "Examples:
  rstscope run                                    as /etc/rstscope/rstscope.toml says
  rstscope run --config rstscope.toml --node n1   a flag wins over the file …
  RSTSCOPE_CONNECTIONS=50000 rstscope run         … and so does a variable, RSTSCOPE_ and the flag's name
  rstscope run --sink central.url=http://l:3100   a key of [sinks.central], as RSTSCOPE_SINK_CENTRAL_URL would set it
  kill -HUP $(pidof rstscope)                     read the file again; log files are opened again

A small file:
  [sinks.console]
  type = \"stdout\"

  [sinks.central]
  type = \"loki\"
  url = \"https://loki.example:3100\"
  labels = { cluster = \"prod\" }
  filter = { hide_benign = true }

`rstscope config schema` says every key, docs/configuration.md explains them. Every flag but --config and --sink can
stand in the section [agent], with _ for -. A change of the file is taken up by itself; one that is wrong is refused, with
its reason, and the old one stays in use.";

/// Flags of `run`.
#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunFlags {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIGURATION)]
    pub config: PathBuf,
    /// The folder with a spool for each sink that sends
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rstscope/spool")]
    pub spool: PathBuf,
    /// Set a key of a sink that the file has, over the file and the variable RSTSCOPE_SINK_NAME_KEY; never a secret
    #[arg(long, value_name = "NAME.KEY=VALUE")]
    pub sink: Vec<String>,
    /// After SIGTERM, how long sinks may take to hand on what they have; Kubernetes kills after 30s
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = time)]
    pub grace: Duration,
    /// Answer /metrics, /livez and /readyz there, as `[::]:9464` or `127.0.0.1:9464`; by default nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Metrics tell so many pairs of workloads apart; the rest goes by the name `other`
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub metrics_pairs: usize,
    /// Have the kernel count how often and how long eBPF programs run, which makes every run of each a little longer
    #[arg(long)]
    pub program_stats: bool,
    /// What is followed, and how.
    #[command(flatten)]
    pub follow: Follow,
}

/// Where `run` looks for its configuration.
pub const DEFAULT_CONFIGURATION: &str = "/etc/rstscope/rstscope.toml";

const CONFIG_EXAMPLES: &str = "Examples:
  rstscope config check --config rstscope.toml   exit 0 if `run` would take it, else one sentence
  rstscope config show                           every key with its value, defaults included, and where it is from
  rstscope config schema > rstscope.schema.json  for editors and CI";

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
#[command(after_help = CONFIG_EXAMPLES)]
pub enum ConfigCommand {
    /// Exit 0 if `run` would take the file, else say in one sentence what is wrong
    Check(ConfigFlags),
    /// Print every key with its value, defaults included; secrets only by their place
    Show(ConfigFlags),
    /// Print the JSON Schema of the file
    Schema,
}

/// Flags of `config check` and `config show`.
#[derive(Args, Debug)]
pub struct ConfigFlags {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIGURATION, env = "RSTSCOPE_CONFIG")]
    pub config: PathBuf,
    /// Set a key of a sink, as for `run`
    #[arg(long, value_name = "NAME.KEY=VALUE")]
    pub sink: Vec<String>,
}

/// Flags of every command that follows the node.
#[derive(Args, Debug)]
pub struct Follow {
    /// Add to each JSON line the facts behind it: sequence numbers, who closed, the segment answered
    #[arg(long)]
    pub facts: bool,

    /// Which events.
    #[command(flatten)]
    pub filters: Filters,
    /// How long a line may wait for the name of a pod that has just started; 0s to write at once
    #[arg(long, value_name = "TIME", default_value = "300ms", help_heading = "Tuning", value_parser = short_wait)]
    pub name_wait: Duration,
    /// Keep every capability instead of giving up, once attached, what is no longer needed
    #[arg(long, help_heading = "Tuning")]
    pub keep_capabilities: bool,
    /// A table of timeouts that extends or overrides the built-in one, in the format of `rstscope explain --timeouts`
    #[arg(long, value_name = "FILE", help_heading = "Tuning")]
    pub timeouts: Option<PathBuf>,
    /// What the agent says of itself.
    #[command(flatten)]
    pub log: LogFlags,
    /// Sizes and places.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Flags that choose events.
#[derive(Args, Debug)]
pub struct Filters {
    /// Only connections with this port at either end; up to 16
    #[arg(long, value_name = "PORT", help_heading = "Filters", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Only connections with an address in this network at either end; up to 8
    #[arg(long, value_name = "NETWORK", help_heading = "Filters", value_parser = network)]
    pub cidr: Vec<IpNet>,
    /// Only sockets of this cgroup v2 directory and below, as a path from its root; up to 4
    #[arg(long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    /// Only this pod; `*` stands for anything, as in the next three
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub pod: Vec<String>,
    /// Only pods of this Kubernetes namespace
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub namespace: Vec<String>,
    /// Only this container: its name, its id or the beginning of its id
    #[arg(long, value_name = "NAME|ID", help_heading = "Filters")]
    pub container: Vec<String>,
    /// Only this process name (comm, at most 15 characters) or executable path
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub process: Vec<String>,
    /// Only this cause (see `rstscope explain`); `*` stands for anything
    #[arg(long, value_name = "CODE", help_heading = "Filters")]
    pub cause: Vec<String>,
    /// Leave out resets that nobody needs to do anything about
    #[arg(long, help_heading = "Filters")]
    pub hide_benign: bool,
}

/// Lines that wait are kept in memory.
const LONGEST_NAME_WAIT: Duration = Duration::from_secs(10);

/// Flags of `explain`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  rstscope explain\n  rstscope explain stale_connection_reuse\n  rstscope explain --timeouts > my-timeouts.tsv"
)]
pub struct ExplainFlags {
    /// The code to explain; without it, every code in a line
    pub code: Option<String>,
    /// Print the table of documented timeouts
    #[arg(long, conflicts_with = "code")]
    pub timeouts: bool,
}

/// Flags that most people never need.
#[derive(Args, Debug)]
pub struct Tuning {
    /// Name of this node in the lines
    #[arg(long, value_name = "NAME", env = "NODE_NAME", help_heading = "Tuning")]
    pub node: Option<String>,
    /// Living connections that can be followed (about 200 bytes each)
    #[arg(long, value_name = "N", default_value_t = 131_072, help_heading = "Tuning",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub connections: u32,
    /// Closed connections remembered for late resets; at least 120 s of them (about 400 bytes each)
    #[arg(long, value_name = "N", default_value_t = 65_536, help_heading = "Tuning",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub closed_connections: u32,
    /// Bytes of the buffer between kernel and agent, a power of two
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, help_heading = "Tuning")]
    pub ring_bytes: u32,
    /// Do not watch reads for the process behind an accepted connection (saves a table look-up per read)
    #[arg(long, help_heading = "Tuning")]
    pub no_reader_probe: bool,
    /// Which kernel hooks to use where there is a choice; `doctor` shows what each kernel gets
    #[arg(
        long,
        value_name = "FLAVOUR",
        value_enum,
        default_value = "auto",
        env = "RSTSCOPE_HOOKS",
        hide_env = true,
        help_heading = "Tuning"
    )]
    pub hooks: Preference,
    /// How to find the processes of connections that are older than the agent.
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value = "auto",
        env = "RSTSCOPE_OLDER_CONNECTIONS",
        hide = true,
        help_heading = "Tuning"
    )]
    pub older_connections: older::Choice,
    /// Name of this agent, to run one beside another
    #[arg(long, value_name = "NAME", default_value = "default", help_heading = "Tuning", value_parser = instance)]
    pub instance: String,
    /// The kernel's type information, e.g. from elsewhere for a kernel that does not carry its own
    #[arg(long, value_name = "FILE", default_value = "/sys/kernel/btf/vmlinux", help_heading = "Tuning")]
    pub btf: PathBuf,
    /// Where the host's /proc is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc", help_heading = "Tuning")]
    pub proc_root: PathBuf,
    /// Where the host's cgroup v2 is mounted [default: found in /proc/self/mountinfo]
    #[arg(long, value_name = "DIR", help_heading = "Tuning")]
    pub cgroup_root: Option<PathBuf>,
    /// Do not ask the kernel's connection tracking which endpoint stands behind a Service's address
    #[arg(long, help_heading = "Tuning")]
    pub no_conntrack: bool,
    /// The network namespace whose connection tracking is asked [default: that of PID 1].
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "no_conntrack")]
    pub conntrack_netns: Option<PathBuf>,
    /// Who names pods.
    #[command(flatten)]
    pub pods: PodFlags,
}

impl Tuning {
    /// The network namespace whose connection tracking is asked: the host's, where kube-proxy translates. That is PID 1's,
    /// which some machines guard even from root, else that of the kernel's own threads.
    pub fn conntrack(&self) -> Option<Vec<PathBuf>> {
        if self.no_conntrack {
            return None;
        }
        let hosts = || {
            [self.proc_root.join("1/ns/net")]
                .into_iter()
                .chain(older::namespaces::of_the_kernel(&self.proc_root))
                .collect()
        };
        Some(self.conntrack_netns.clone().map_or_else(hosts, |namespace| vec![namespace]))
    }
}

/// Flags of `doctor`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  rstscope doctor\n  rstscope doctor --json | jq '.checks[] | select(.status != \"ok\")'"
)]
pub struct DoctorFlags {
    /// The result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Sizes and places, as for `trace`.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// A time that nobody minds to wait, or none.
fn short_wait(text: &str) -> Result<Duration, String> {
    let wait = if matches!(text, "0" | "0s" | "0ms") { Ok(Duration::ZERO) } else { time(text) }?;
    if wait > LONGEST_NAME_WAIT {
        return Err(format!(
            "give at most {} s: the line is written without the name then",
            LONGEST_NAME_WAIT.as_secs()
        ));
    }
    Ok(wait)
}

/// A network, or an address standing for itself.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "give a network such as 10.0.0.0/8 or fd00::/8, or one address".to_owned())
}

/// The name becomes part of a file name.
fn instance(text: &str) -> Result<String, String> {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err("use up to 64 letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wait_for_names_is_short_or_none() {
        assert_eq!(short_wait("0s"), Ok(Duration::ZERO));
        assert_eq!(short_wait("2s"), Ok(Duration::from_secs(2)));
        assert!(short_wait("11s").is_err() && short_wait("soon").is_err());
    }

    #[test]
    fn one_address_is_a_network_of_its_own() {
        assert_eq!(network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn an_instance_name_cannot_leave_its_directory() {
        assert!(instance("../etc/passwd").is_err());
        assert!(instance("ci-7").is_ok());
    }
}
