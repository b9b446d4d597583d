//! The attach plan: what the agent wants to learn, by which hooks a kernel with these prototypes can show it, best first,
//! and what it cannot show.
//!
//! The plan knows prototypes only. Whether the kernel lets a program in is found out by trying, in
//! [`attach`](super::attach).

use clap::ValueEnum;
use serde::Serialize;

use super::btf::Btf;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Flavour {
    /// A raw tracepoint: works everywhere, needs no mount.
    #[serde(rename = "raw tracepoint")]
    RawTracepoint,
    /// At a function's entry, by a trampoline.
    #[serde(rename = "fentry")]
    Fentry,
    /// At a function's return, by a trampoline.
    #[serde(rename = "fexit")]
    Fexit,
    /// At a function's entry, by a breakpoint or ftrace.
    #[serde(rename = "kprobe")]
    Kprobe,
    /// At a function's return, by a replaced return address.
    #[serde(rename = "kretprobe")]
    Kretprobe,
}

impl Flavour {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw tracepoint",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
        }
    }
}

/// Which hooks to use where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Preference {
    /// What shows most on this kernel
    #[default]
    Auto,
    /// Tracepoints only
    Tracepoint,
    /// Function probes by trampolines (fentry, fexit)
    Fentry,
    /// Function probes by kprobes and kretprobes
    Kprobe,
}

impl Preference {
    /// As it is given on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }

    const fn takes(self, flavour: Flavour) -> bool {
        match self {
            Self::Auto => true,
            Self::Tracepoint => matches!(flavour, Flavour::RawTracepoint),
            Self::Fentry => matches!(flavour, Flavour::Fentry | Flavour::Fexit),
            Self::Kprobe => matches!(flavour, Flavour::Kprobe | Flavour::Kretprobe),
        }
    }
}

/// One program and its hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Name of the tracepoint or function.
    pub hook: &'static str,
    /// Name of the program in the object.
    #[serde(skip)]
    pub program: &'static str,
    /// How it is attached.
    pub flavour: Flavour,
    /// What it is for.
    pub purpose: &'static str,
}

/// Hooks that show one thing together: all of them or none, or a part would be missing in silence.
pub type Way = Vec<Hook>;

/// Something the agent wants to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// What it is for.
    pub purpose: &'static str,
    /// How this kernel may show it, best first.
    pub ways: Vec<Way>,
    /// What is not seen if no way works; `None` if the agent cannot do without.
    pub unseen: Option<&'static str>,
    /// One flavour was asked for: another one would not be what was asked.
    pub forced: bool,
}

/// A hook that will not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Name of the tracepoint or function.
    pub hook: &'static str,
    /// How it would have been attached; absent: in any way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavour: Option<Flavour>,
    /// Why not.
    pub reason: String,
    /// What to do about it, where it is not a matter of the kernel's version or configuration.
    #[serde(skip)]
    pub remedy: Option<&'static str>,
}

/// What to try, in this order: births before resets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to learn.
    pub wants: Vec<Want>,
    /// Sentences about what this kernel does not show, whatever is tried.
    pub unseen: Vec<String>,
    /// Hooks that its prototypes rule out.
    pub refused: Vec<Refusal>,
}

/// A hook the kernel does not have.
#[derive(Debug, thiserror::Error)]
#[error("this kernel has no tracepoint {0}; rstscope needs Linux 5.10 or newer with tracepoints (CONFIG_TRACEPOINTS)")]
pub struct MissingHook(pub &'static str);

/// What a kernel says about its own hooks.
pub trait Prototypes {
    /// See [`Btf::tracepoint_args`].
    fn tracepoint_args(&self, name: &str) -> Option<usize>;
    /// See [`Btf::function_parameters`].
    fn function_parameters(&self, name: &str) -> Option<Vec<String>>;
}

impl Prototypes for Btf {
    fn tracepoint_args(&self, name: &str) -> Option<usize> {
        Self::tracepoint_args(self, name)
    }

    fn function_parameters(&self, name: &str) -> Option<Vec<String>> {
        Self::function_parameters(self, name)
    }
}

/// Beginning of the sentence in [`Plan::unseen`] about resets that no full socket sends.
pub const UNSEEN_WITHOUT_SOCKET: &str = "resets sent without a socket (closed port, TIME_WAIT): this kernel's \
                                         tcp_send_reset tracepoint does not fire for them (Linux 6.12's does)";

/// Makes the plan for a kernel.
///
/// # Errors
///
/// If one of the hooks without which nothing works is missing.
pub fn plan(kernel: &impl Prototypes, preference: Preference, learn_readers: bool) -> Result<Plan, MissingHook> {
    let mut planner = Planner { kernel, preference, plan: Plan::default() };
    planner.states()?;
    planner.ends()?;
    planner.accepts();
    planner.received()?;
    planner.sent()?;
    planner.readers(learn_readers);
    let mut plan = planner.plan;
    // Half-open requests and TIME_WAIT sockets take a RST without any tracepoint (tcp_check_req,
    // tcp_timewait_state_process); no kernel shows those to this agent.
    plan.unseen.push(
        "resets received by half-open requests and TIME_WAIT sockets: the kernel has no tracepoint there".to_owned(),
    );
    Ok(plan)
}

struct Planner<'a, K> {
    kernel: &'a K,
    preference: Preference,
    plan: Plan,
}

/// A function that may be probed: its name, its entries for the trampoline and for the kprobe.
type Function = (&'static str, &'static str, &'static str);

impl<K: Prototypes> Planner<'_, K> {
    fn states(&mut self) -> Result<(), MissingHook> {
        const PURPOSE: &str = "births, closes and failed connects";
        // Every change of a TCP socket's state but the beginning of a listener, which needs no record.
        const FUNCTIONS: [Function; 2] = [
            ("tcp_set_state", "tcp_set_state_fentry", "tcp_set_state_kprobe"),
            ("inet_sk_set_state", "inet_sk_set_state_fentry", "inet_sk_set_state_kprobe"),
        ];
        let mut ways = self.tracepoint(PURPOSE, "inet_sock_set_state", "inet_sock_set_state");
        ways.extend(self.functions(PURPOSE, &FUNCTIONS, &["sock", ""]));
        self.need(PURPOSE, ways, "inet_sock_set_state")
    }

    fn ends(&mut self) -> Result<(), MissingHook> {
        const PURPOSE: &str = "end of a socket's address";
        let ways = self.tracepoint(PURPOSE, "tcp_destroy_sock", "tcp_destroy_sock");
        self.need(PURPOSE, ways, "tcp_destroy_sock")
    }

    /// Known before anybody reads from the connection.
    fn accepts(&mut self) {
        const PURPOSE: &str = "the process that accepts a connection";
        const ENTRY: [Function; 1] = [("__inet_accept", "inet_accept_fentry", "inet_accept_kprobe")];
        // What it returns lies behind its arguments, so their number counts. Since they are two (6.9), there is the other.
        const RETURN: Function = ("inet_csk_accept", "inet_csk_accept_fexit", "inet_csk_accept_kretprobe");
        let mut ways = self.functions(PURPOSE, &ENTRY, &["socket", "socket", "sock"]);
        let parameters = self.kernel.function_parameters(RETURN.0).unwrap_or_default();
        if ways.is_empty() && parameters.len() == 4 && parameters[0] == "sock" {
            let hook = |program, flavour| Hook { hook: RETURN.0, program, flavour, purpose: PURPOSE };
            ways = vec![vec![hook(RETURN.1, Flavour::Fexit)], vec![hook(RETURN.2, Flavour::Kretprobe)]];
        }
        self.want(PURPOSE, ways, "the process that accepts a connection, before it reads from it or closes it");
    }

    fn received(&mut self) -> Result<(), MissingHook> {
        const PURPOSE: &str = "received resets";
        // The function is given the segment, which tells data for a closed socket from a RST. Before about 6.0 it was not,
        // and showed no more than the tracepoint inside.
        const FUNCTION: [Function; 1] = [("tcp_reset", "tcp_reset_fentry", "tcp_reset_kprobe")];
        let mut ways = self.functions(PURPOSE, &FUNCTION, &["sock", "sk_buff"]);
        ways.extend(self.tracepoint(PURPOSE, "tcp_receive_reset", "tcp_receive_reset"));
        self.need(PURPOSE, ways, "tcp_receive_reset")
    }

    fn sent(&mut self) -> Result<(), MissingHook> {
        const PURPOSE: &str = "sent resets";
        const ANSWERS: &str = "resets sent without a socket";
        const FUNCTIONS: [Function; 2] = [
            ("tcp_v4_send_reset", "tcp_v4_send_reset_fentry", "tcp_v4_send_reset_kprobe"),
            ("tcp_v6_send_reset", "tcp_v6_send_reset_fentry", "tcp_v6_send_reset_kprobe"),
        ];
        // The reason, and the call for resets without a full socket, came together around 6.10. With both the tracepoint
        // and the functions those resets would be told twice.
        let complete = self.kernel.tracepoint_args("tcp_send_reset").is_some_and(|arguments| arguments >= 3);
        let program = if complete { "tcp_send_reset_reason" } else { "tcp_send_reset" };
        let ways = self.tracepoint(PURPOSE, "tcp_send_reset", program);
        self.need(PURPOSE, ways, "tcp_send_reset")?;
        if !complete {
            self.plan.unseen.push("the kernel's own reset reason: it exists from about Linux 6.10 on".to_owned());
            let ways = self.functions(ANSWERS, &FUNCTIONS, &["sock", "sk_buff"]);
            self.want(ANSWERS, ways, UNSEEN_WITHOUT_SOCKET);
        }
        Ok(())
    }

    fn readers(&mut self, wanted: bool) {
        const PURPOSE: &str = "the process that reads an accepted connection";
        const UNSEEN: &str = "the process of an accepted connection, where another one accepted it, until it closes it";
        if wanted {
            let ways = self.tracepoint(PURPOSE, "tcp_rcv_space_adjust", "tcp_rcv_space_adjust");
            self.want(PURPOSE, ways, UNSEEN);
        } else {
            self.plan.unseen.push(format!("{UNSEEN}: --no-reader-probe was given"));
        }
    }

    fn tracepoint(&self, purpose: &'static str, hook: &'static str, program: &'static str) -> Vec<Way> {
        let way = vec![Hook { hook, program, flavour: Flavour::RawTracepoint, purpose }];
        self.kernel.tracepoint_args(hook).map(|_| way).into_iter().collect()
    }

    /// The ways by probes on all of these functions, if their parameters begin as the entries expect them.
    fn functions(&mut self, purpose: &'static str, functions: &[Function], expected: &[&str]) -> Vec<Way> {
        let unfit: Vec<Refusal> = functions.iter().filter_map(|function| self.unfit(function.0, expected)).collect();
        if !unfit.is_empty() {
            self.plan.refused.extend(unfit);
            return Vec::new();
        }
        let way = |flavour, program: fn(&Function) -> &'static str| -> Way {
            let hook = |function: &Function| Hook { hook: function.0, program: program(function), flavour, purpose };
            functions.iter().map(hook).collect()
        };
        vec![way(Flavour::Fentry, |function| function.1), way(Flavour::Kprobe, |function| function.2)]
    }

    fn unfit(&self, function: &'static str, expected: &[&str]) -> Option<Refusal> {
        let reason = match self.kernel.function_parameters(function) {
            None => "this kernel has no such function to probe".to_owned(),
            Some(parameters) if begin_as(&parameters, expected) => return None,
            Some(_) => format!("its parameters do not begin with {} here", describe(expected)),
        };
        Some(Refusal { hook: function, flavour: None, reason, remedy: None })
    }

    /// The agent cannot do without.
    fn need(&mut self, purpose: &'static str, ways: Vec<Way>, tracepoint: &'static str) -> Result<(), MissingHook> {
        let (ways, forced) = self.preferred(ways);
        if ways.is_empty() {
            return Err(MissingHook(tracepoint));
        }
        self.plan.wants.push(Want { purpose, ways, unseen: None, forced });
        Ok(())
    }

    /// Without it something is not seen.
    fn want(&mut self, purpose: &'static str, ways: Vec<Way>, unseen: &'static str) {
        let possible = !ways.is_empty();
        let (ways, forced) = self.preferred(ways);
        if ways.is_empty() {
            let why = match possible {
                true => format!("--hooks {} was given", self.preference.name()),
                false => "this kernel has nothing for it that could be probed".to_owned(),
            };
            self.plan.unseen.push(format!("{unseen}: {why}"));
        } else {
            self.plan.wants.push(Want { purpose, ways, unseen: Some(unseen), forced });
        }
    }

    /// The ways of the flavour that was asked for, and whether one was. What has none of that flavour keeps its
    /// tracepoint: a flavour is chosen among those that there are.
    fn preferred(&self, ways: Vec<Way>) -> (Vec<Way>, bool) {
        let takes = |preference: Preference| {
            let fits = move |way: &&Way| way.iter().all(|hook| preference.takes(hook.flavour));
            ways.iter().filter(fits).cloned().collect::<Vec<_>>()
        };
        let asked = takes(self.preference);
        if asked.is_empty() {
            (takes(Preference::Tracepoint), false)
        } else {
            (asked, self.preference != Preference::Auto)
        }
    }
}

fn begin_as(parameters: &[String], expected: &[&str]) -> bool {
    parameters.len() >= expected.len() && parameters.iter().zip(expected).all(|(found, wanted)| found == wanted)
}

fn describe(parameters: &[&str]) -> String {
    let names: Vec<_> = parameters.iter().map(|name| if name.is_empty() { "a number" } else { name }).collect();
    format!("({})", names.join(", "))
}

#[cfg(test)]
mod tests;
