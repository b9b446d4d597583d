//! Which way is taken when the kernel refuses others, early or late.

use anyhow::anyhow;

use super::*;

/// A kernel that lets some programs in and keeps count.
#[derive(Default)]
struct Fake {
    /// Programs it refuses to load.
    unloadable: Vec<&'static str>,
    /// Programs it loads and refuses to attach.
    unattachable: Vec<&'static str>,
    loaded: Vec<&'static str>,
    attached: Vec<&'static str>,
    /// Programs loaded when the first was attached.
    loaded_before: Option<usize>,
}

impl Host for Fake {
    fn load(&mut self, hook: &Hook) -> Result<()> {
        assert!(!self.loaded.contains(&hook.program), "{} is loaded twice", hook.program);
        if self.unloadable.contains(&hook.program) {
            return Err(anyhow!("not {}", hook.program));
        }
        self.loaded.push(hook.program);
        Ok(())
    }

    fn attach(&mut self, hook: &Hook) -> Result<()> {
        assert!(self.loaded.contains(&hook.program), "{} is not loaded", hook.program);
        self.loaded_before.get_or_insert(self.loaded.len());
        if self.unattachable.contains(&hook.program) {
            return Err(anyhow!("nowhere to attach {}", hook.program));
        }
        self.attached.push(hook.program);
        Ok(())
    }

    fn unload(&mut self, hook: &Hook) {
        self.loaded.retain(|loaded| *loaded != hook.program);
        self.attached.retain(|attached| *attached != hook.program);
    }
}

fn hook(program: &'static str, flavour: Flavour) -> Hook {
    Hook { hook: program, program, flavour, purpose: "test" }
}

/// Births by a tracepoint, resets by two functions or one tracepoint, acceptors by one function.
fn plan() -> Plan {
    let fentry = |program| hook(program, Flavour::Fentry);
    let want = |ways, unseen| Want { purpose: "test", ways, unseen, forced: false };
    Plan {
        wants: vec![
            want(vec![vec![hook("births", Flavour::RawTracepoint)]], None),
            want(vec![vec![fentry("v4"), fentry("v6")], vec![hook("resets", Flavour::RawTracepoint)]], None),
            want(vec![vec![fentry("accept")]], Some("the acceptor")),
        ],
        ..Plan::default()
    }
}

#[test]
fn the_best_way_is_taken_and_everything_is_loaded_first() {
    let mut kernel = Fake::default();
    let attached = attach(&mut kernel, &plan()).unwrap();
    assert_eq!(kernel.attached, ["births", "v4", "v6", "accept"]);
    assert_eq!(kernel.loaded_before, Some(4));
    assert_eq!((attached.hooks.len(), attached.unseen.len(), attached.refused.len()), (4, 0, 0));
}

/// Half a way would show half of the resets.
#[test]
fn a_way_is_taken_whole_or_not_at_all() {
    for late in [false, true] {
        let refused = vec!["v6"];
        let mut kernel = match late {
            false => Fake { unloadable: refused, ..Fake::default() },
            true => Fake { unattachable: refused, ..Fake::default() },
        };
        let attached = attach(&mut kernel, &plan()).unwrap();
        assert_eq!(kernel.attached, ["births", "resets", "accept"], "late: {late}");
        assert_eq!(kernel.loaded, if late { ["births", "accept", "resets"] } else { ["births", "resets", "accept"] });
        assert_eq!(attached.refused.len(), 1);
        assert_eq!((attached.refused[0].hook, attached.refused[0].flavour), ("v6", Some(Flavour::Fentry)));
        assert!(attached.unseen.is_empty());
    }
}

#[test]
fn what_no_way_shows_is_said_with_the_kernels_reason() {
    let mut kernel = Fake { unattachable: vec!["accept"], ..Fake::default() };
    let attached = attach(&mut kernel, &plan()).unwrap();
    assert_eq!(attached.unseen, ["the acceptor: nowhere to attach accept"]);
    assert!(attached.hooks.iter().all(|hook| hook.program != "accept"));
}

#[test]
fn what_the_agent_needs_is_an_error_with_the_kernels_reason() {
    let mut kernel = Fake { unloadable: vec!["v4", "resets"], ..Fake::default() };
    let error = attach(&mut kernel, &plan()).unwrap_err();
    assert_eq!(error.to_string(), "not v4, and not resets");
}

/// Another flavour in its place would test the wrong thing.
#[test]
fn a_forced_flavour_that_is_refused_is_an_error_although_the_agent_could_do_without() {
    let mut plan = plan();
    plan.wants[2].forced = true;
    let mut kernel = Fake { unloadable: vec!["accept"], ..Fake::default() };
    let error = attach(&mut kernel, &plan).unwrap_err().to_string();
    assert!(error.contains("not accept") && error.contains("--hooks auto"), "{error}");
}

#[test]
fn senders_are_complete_unless_it_is_said_that_they_are_not() {
    let mut attached = Attached::default();
    assert!(attached.shows_every_sender());
    attached.unseen.push(format!("{UNSEEN_WITHOUT_SOCKET}: no kprobes"));
    assert!(!attached.shows_every_sender());
}
