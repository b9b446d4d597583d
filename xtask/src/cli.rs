//! The command line of `cargo xtask`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    image::architecture::Architecture,
    vm::{flavour::Flavour, kernels::Kernel},
};

/// Builds, runs and tests rstscope on a machine with nothing but Rust
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask run                           every TCP reset on this machine, live
  cargo xtask run -- --port 443             what follows `--` goes to `rstscope trace` …
  cargo xtask run -- doctor                 … or to the sub-command it names
  cargo xtask test                          everything CI checks
  cargo xtask test --only kernel -- linger  the kernel tests whose name contains `linger`
  cargo xtask incidents                     real incidents, played with the real programs
  cargo xtask containers                    real containers of real runtimes, and whom rstscope names
  cargo xtask sinks                         a minute of chaos on the way to each sink, and nothing lost
  cargo xtask deploy                        manifests, chart, alerts and dashboards, rendered and checked
  cargo xtask install --root /usr/local     rstscope as /usr/local/bin/rstscope

The tools that are set up live in $RSTSCOPE_CACHE, else in $XDG_CACHE_HOME/rstscope, else in ~/.cache/rstscope.";

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Install what is missing to build and to test; the other sub-commands do so by themselves
    Setup,
    /// Build rstscope, both the kernel side and the agent
    Build(Build),
    /// Build rstscope and run it as root
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Check everything: format, clippy, docs, unit tests, deployment, kernel tests, sinks, other kernels, incidents,
    /// containers
    #[command(after_help = TEST_EXAMPLES)]
    Test(Test),
    /// Run the kernel tests on other kernels, which are booted in QEMU without root or KVM
    #[command(after_help = VM_EXAMPLES)]
    Vm(Vm),
    /// Play real incidents with the real programs, as root, and check what rstscope says about them
    #[command(after_help = INCIDENTS_EXAMPLES)]
    Incidents(Incidents),
    /// One of the processes that `incidents` starts
    #[command(hide = true, subcommand)]
    IncidentPart(IncidentPart),
    /// Start real containers with real runtimes, as root, and check whom rstscope names for a reset inside of them
    #[command(after_help = CONTAINERS_EXAMPLES)]
    Containers(Containers),
    /// One of the processes that `containers` starts
    #[command(hide = true, subcommand)]
    ContainerPart(ContainerPart),
    /// Kill, starve and disturb rstscope on the way to each sink, as root, and check that nothing is lost
    #[command(after_help = SINKS_EXAMPLES)]
    Sinks(Sinks),
    /// Render manifests and chart in every combination, and check them, the alerts and the dashboards
    #[command(after_help = DEPLOY_HELP)]
    Deploy,
    /// Make a container image, reproducibly and without a container engine, and print where it is
    Image(Image),
    /// Build rstscope and install it, as `cargo install` does
    Install(Install),
}

/// Options of `cargo xtask build`.
#[derive(Debug, Args)]
pub struct Build {
    /// With optimisations
    #[arg(long)]
    pub release: bool,
    /// The eBPF programs say at `--log-level debug` where they have no room or cannot read
    #[arg(long)]
    pub ebpf_log: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  cargo xtask run
  cargo xtask run -- --port 443 --output json
  cargo xtask run -- doctor";

/// Options of `cargo xtask run`.
#[derive(Debug, Args)]
pub struct Run {
    /// For `rstscope trace`, or for another sub-command where the first one names it
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

const TEST_EXAMPLES: &str = "\
Examples:
  cargo xtask test
  cargo xtask test --only clippy
  cargo xtask test --only kernel -- linger";

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Run one step instead of all
    #[arg(long, value_enum)]
    pub only: Option<Step>,
    /// Run the kernel tests and the chaos of the sinks with all optimisations, against an rstscope with all optimisations
    #[arg(long)]
    pub release: bool,
    /// For the test programs of the steps `unit`, `kernel` and `vm`: a part of a test's name, or their own options
    #[arg(last = true, value_name = "FILTER")]
    pub filter: Vec<String>,
}

const VM_EXAMPLES: &str = "\
Examples:
  cargo xtask vm                    every kernel, with every kind of hook
  cargo xtask vm 5.10 7.2           the oldest and the newest one
  cargo xtask vm --flavour kprobe   every kernel, with one kind of hook by force
  cargo xtask vm 6.1 -- linger      the tests whose name contains `linger`
  cargo xtask vm -- --ignored       the tests for a machine that has just started";

/// Options of `cargo xtask vm`.
#[derive(Debug, Default, Args)]
pub struct Vm {
    /// Which kernels, by default all
    #[arg(value_enum, value_name = "KERNEL")]
    pub kernels: Vec<Kernel>,
    /// Which kinds of hooks, by default all and a guest that waits for the kernel's tick counter to wrap
    #[arg(long = "flavour", value_enum, value_name = "FLAVOUR")]
    pub flavours: Vec<Flavour>,
    /// With all optimisations
    #[arg(long)]
    pub release: bool,
    /// For the test program: a part of a test's name, or its own options
    #[arg(last = true, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// The steps of `cargo xtask test`, in their order: quick and likely to fail first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// The code is formatted
    Fmt,
    /// Clippy finds nothing, on the host's side and on the kernel's side
    Clippy,
    /// The documentation builds without a warning
    Doc,
    /// The tests that need no privilege
    Unit,
    /// Manifests, chart, alerts and dashboards
    Deploy,
    /// The tests against this machine's kernel, as root
    Kernel,
    /// A minute of chaos on the way to each sink, as root
    Sinks,
    /// The same tests against other kernels, in QEMU
    Vm,
    /// Real incidents, played with the real programs, as root
    Incidents,
    /// Real containers of real runtimes, as root
    Containers,
}

impl Step {
    /// The name it has on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Unit => "unit",
            Self::Deploy => "deploy",
            Self::Kernel => "kernel",
            Self::Sinks => "sinks",
            Self::Vm => "vm",
            Self::Incidents => "incidents",
            Self::Containers => "containers",
        }
    }
}

const INCIDENTS_EXAMPLES: &str = "\
Examples:
  cargo xtask incidents --list
  cargo xtask incidents                     all of them, with times scaled down where a program allows it
  cargo xtask incidents --full late-reset   in the length of the incident itself
  cargo xtask incidents envoy stale-node    those whose name contains one of these

Envoy, the servers and their libraries are installed into the cache; nothing of them is seen by the system.";

/// Options of `cargo xtask incidents`.
#[derive(Debug, Default, Args)]
pub struct Incidents {
    /// A story's name or a part of it; all stories by default
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The products' own timeouts and the incidents' own times, where they are scaled down otherwise
    #[arg(long)]
    pub full: bool,
    /// Say which stories there are
    #[arg(long)]
    pub list: bool,
}

/// The processes of a story that are xtask itself.
#[derive(Debug, Subcommand)]
pub enum IncidentPart {
    /// Plays one story in the network namespace it is started in
    Story(StoryPart),
    /// Plays the provider that acknowledges a request and resets the connection later
    Provider(ProviderPart),
}

/// What a process of its own plays, a story or a case.
#[derive(Debug, Args)]
pub struct Play {
    /// Its full name
    pub name: String,
    /// The network namespace that is not its own
    #[arg(long, value_name = "INODE")]
    pub outside: u64,
    /// The rstscope to ask
    #[arg(long)]
    pub rstscope: PathBuf,
    /// The folder of the installed programs
    #[arg(long)]
    pub programs: PathBuf,
}

/// Options of the process that plays a story.
#[derive(Debug, Args)]
pub struct StoryPart {
    /// What it plays.
    #[command(flatten)]
    pub play: Play,
    /// Not scaled down
    #[arg(long)]
    pub full: bool,
}

/// Options of the process that plays the provider.
#[derive(Debug, Args)]
pub struct ProviderPart {
    /// The port to listen on
    pub port: u16,
    /// How long after the unanswered request the reset comes
    pub wait_ms: u64,
}

const CONTAINERS_EXAMPLES: &str = "\
Examples:
  cargo xtask containers --list
  cargo xtask containers                    all of them
  cargo xtask containers podman agent-      those whose name contains one of these

containerd, runc, podman, crun and docker are unpacked into the cache; nothing of them is seen by the system.";

/// Options of `cargo xtask containers`.
#[derive(Debug, Default, Args)]
pub struct Containers {
    /// A case's name or a part of it; all cases by default
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Say which cases there are
    #[arg(long)]
    pub list: bool,
}

/// The processes of a case that are xtask itself.
#[derive(Debug, Subcommand)]
pub enum ContainerPart {
    /// Prepares and tidies up around one case
    Outside(CasePart),
    /// Plays one case in the namespaces it is started in
    Inside(CasePart),
    /// The process in the container
    Server {
        /// The port to listen on
        port: u16,
    },
    /// The first process of a pod, which does nothing
    Pause,
}

/// Options of the processes of a case.
#[derive(Debug, Args)]
pub struct CasePart {
    /// What it plays.
    #[command(flatten)]
    pub play: Play,
    /// The program that plays the kubelet
    #[arg(long)]
    pub kubelet: PathBuf,
    /// The cgroup of everything the case starts
    #[arg(long)]
    pub top: Option<String>,
    /// For the container's files, configurations and logs
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

const SINKS_EXAMPLES: &str = "\
Examples:
  cargo xtask sinks                a minute for each sink, all at the same time
  cargo xtask sinks --full         five minutes
  cargo xtask sinks -- splunk      the trials whose name contains `splunk`

nginx, rsyslog and logrotate are unpacked into the cache, a collector is installed there with pip; nothing of them is seen by
the system.";

/// Options of `cargo xtask sinks`.
#[derive(Debug, Default, Args)]
pub struct Sinks {
    /// Five minutes instead of one
    #[arg(long)]
    pub full: bool,
    /// With all optimisations
    #[arg(long)]
    pub release: bool,
    /// For the test program: a part of a trial's name, or its own options
    #[arg(last = true, value_name = "FILTER")]
    pub filter: Vec<String>,
}

const DEPLOY_HELP: &str = "\
kubectl, helm, promtool and the parsers of queries are installed into the cache with pip, apt and npm; nothing of them
is seen by the system. What was rendered stays in target/deploy.";

/// Options of `cargo xtask image`.
#[derive(Debug, Args)]
pub struct Image {
    /// What it is for, by default this machine; another one takes a C compiler for it (Debian: gcc-aarch64-linux-gnu)
    #[arg(long, value_enum)]
    pub arch: Option<Architecture>,
    /// Build twice, the second time a copy of the tree in another folder, and compare
    #[arg(long)]
    pub reproduce: bool,
    /// Only lay out the files of the image in this folder, for a container engine to take
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
}

/// Options of `cargo xtask install`.
#[derive(Debug, Args)]
pub struct Install {
    /// The folder whose `bin` gets the program; by default cargo's own
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_step_has_one_name() {
        for step in Step::value_variants() {
            assert_eq!(Step::from_str(step.name(), false), Ok(*step));
        }
    }

    #[test]
    fn what_follows_the_dashes_is_not_ours() {
        let cli = Cli::try_parse_from(["cargo xtask", "run", "--", "--port", "443"]).unwrap();
        let Task::Run(run) = cli.task else { panic!("not the sub-command that was asked for") };
        assert_eq!(run.arguments, ["--port", "443"]);
    }
}
