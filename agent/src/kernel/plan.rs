//! The attach plan: which program goes to which hook on this kernel, and what it cannot show.

use serde::Serialize;

use super::btf::Btf;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Flavour {
    /// A raw tracepoint: works everywhere, needs no mount.
    #[serde(rename = "raw tracepoint")]
    RawTracepoint,
    /// A probe on a kernel function.
    #[serde(rename = "kprobe")]
    Kprobe,
}

impl Flavour {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawTracepoint => "raw tracepoint",
            Self::Kprobe => "kprobe",
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

/// What will be attached and what will not be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Programs to attach, in this order: births before resets.
    pub hooks: Vec<Hook>,
    /// Sentences about what this kernel does not show.
    pub unseen: Vec<String>,
    /// Resets without a socket are among what is shown.
    #[serde(skip)]
    pub shows_every_sender: bool,
}

/// A hook the kernel does not have.
#[derive(Debug, thiserror::Error)]
#[error("this kernel has no tracepoint {0}; rstscope needs Linux 5.10 or newer with tracepoints (CONFIG_TRACEPOINTS)")]
pub struct MissingHook(pub &'static str);

/// Makes the plan for a kernel.
///
/// # Errors
///
/// If one of the hooks without which nothing works is missing.
pub fn plan(btf: &Btf, learn_readers: bool) -> Result<Plan, MissingHook> {
    let mut hooks = Vec::new();
    let mut unseen = Vec::new();
    let hook = |hook, program, purpose| Hook { hook, program, flavour: Flavour::RawTracepoint, purpose };

    require(btf, "inet_sock_set_state")?;
    hooks.push(hook("inet_sock_set_state", "inet_sock_set_state", "births, closes and failed connects"));
    require(btf, "tcp_destroy_sock")?;
    hooks.push(hook("tcp_destroy_sock", "tcp_destroy_sock", "end of a socket's address"));
    require(btf, "tcp_receive_reset")?;
    hooks.push(hook("tcp_receive_reset", "tcp_receive_reset", "received resets"));

    let arguments = require(btf, "tcp_send_reset")?;
    let program = if arguments >= 3 { "tcp_send_reset_reason" } else { "tcp_send_reset" };
    hooks.push(hook("tcp_send_reset", program, "sent resets"));
    // The reason, and the call for resets without a full socket, came together around 6.10.
    let mut shows_every_sender = arguments >= 3;
    if arguments < 3 {
        unseen.push("the kernel's own reset reason: it exists from about Linux 6.10 on".to_owned());
        if SENDING_FUNCTIONS.iter().all(|function| btf.has_function(function)) {
            hooks.extend(SENDING_FUNCTIONS.map(|function| Hook {
                hook: function,
                program: function,
                flavour: Flavour::Kprobe,
                purpose: "resets sent without a socket",
            }));
            shows_every_sender = true;
        } else {
            unseen.push(without_socket("it has no functions to probe instead"));
        }
    }

    if !learn_readers {
        unseen.push("the process of an accepted connection until it closes it: --no-reader-probe was given".to_owned());
    } else if btf.tracepoint_args("tcp_rcv_space_adjust").is_some() {
        hooks.push(hook(
            "tcp_rcv_space_adjust",
            "tcp_rcv_space_adjust",
            "the process that reads an accepted connection",
        ));
    } else {
        unseen.push("the process of an accepted connection until it closes it: no tcp_rcv_space_adjust".to_owned());
    }
    // Half-open requests and TIME_WAIT sockets take a RST without any tracepoint (tcp_check_req,
    // tcp_timewait_state_process); no kernel shows those to this agent.
    unseen.push(
        "resets received by half-open requests and TIME_WAIT sockets: the kernel has no tracepoint there".to_owned(),
    );
    Ok(Plan { hooks, unseen, shows_every_sender })
}

/// Where a reset is sent in answer to a segment; both or none, or half of the resets would be missing in silence.
const SENDING_FUNCTIONS: [&str; 2] = ["tcp_v4_send_reset", "tcp_v6_send_reset"];

impl Plan {
    /// Takes the function probes out, because the kernel refuses them for this reason.
    pub fn without_functions(&mut self, reason: &str) {
        self.hooks.retain(|hook| hook.flavour != Flavour::Kprobe);
        self.shows_every_sender = false;
        self.unseen.push(without_socket(reason));
    }
}

fn without_socket(reason: &str) -> String {
    format!(
        "resets sent without a socket (closed port, TIME_WAIT): this kernel's tcp_send_reset tracepoint does not fire \
         for them (Linux 6.12's does), and {reason}"
    )
}

fn require(btf: &Btf, tracepoint: &'static str) -> Result<usize, MissingHook> {
    btf.tracepoint_args(tracepoint).ok_or(MissingHook(tracepoint))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A header, no types, one empty string.
    const NO_TYPES: [u8; 25] = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

    #[test]
    fn a_missing_hook_is_named() {
        let Ok(btf) = Btf::parse(&NO_TYPES) else { panic!("a header is enough") };
        let error = plan(&btf, true).unwrap_err().to_string();
        assert!(error.contains("inet_sock_set_state") && error.contains("5.10"), "{error}");
    }

    #[test]
    fn the_running_kernel_gets_the_program_that_fits_its_prototype() {
        let btf = Btf::from_kernel(Path::new("/sys/kernel/btf/vmlinux")).unwrap();
        let plan = plan(&btf, true).unwrap();
        let sent = plan.hooks.iter().find(|hook| hook.hook == "tcp_send_reset").unwrap();
        let has_reasons = btf.enumerators("sk_rst_reason").is_some();
        assert_eq!(sent.program == "tcp_send_reset_reason", has_reasons);
        assert_eq!(plan.hooks.iter().any(|hook| hook.flavour == Flavour::Kprobe), !has_reasons);
    }

    #[test]
    fn readers_are_not_watched_if_nobody_wants_it() {
        let btf = Btf::from_kernel(Path::new("/sys/kernel/btf/vmlinux")).unwrap();
        let plan = plan(&btf, false).unwrap();
        assert!(plan.hooks.iter().all(|hook| hook.hook != "tcp_rcv_space_adjust"));
        assert!(plan.unseen.iter().any(|text| text.contains("--no-reader-probe")));
    }
}
