//! From the plan to attached programs: the first way that the kernel lets in, and why it refused the better ones.

use std::{os::fd::AsFd, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use aya::{Btf, Ebpf, programs::Program};
use serde::Serialize;

use super::{
    losses::{self, Runs},
    plan::{Flavour, Hook, Plan, Refusal, UNSEEN_WITHOUT_SOCKET, Want, Way},
    refusal::{Refused, refused},
};

/// What came of a [`Plan`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The programs that are attached.
    pub hooks: Vec<Hook>,
    /// Sentences about what this kernel does not show.
    pub unseen: Vec<String>,
    /// Hooks that would have shown more, or as much.
    pub refused: Vec<Refusal>,
}

impl Attached {
    /// Whether resets without a socket are among what is shown.
    #[must_use]
    pub fn shows_every_sender(&self) -> bool {
        !self.unseen.iter().any(|unseen| unseen.starts_with(UNSEEN_WITHOUT_SOCKET))
    }
}

/// The kernel's side of it.
pub trait Host {
    /// Has the kernel verify and take in the program of a hook.
    ///
    /// # Errors
    ///
    /// If it refuses.
    fn load(&mut self, hook: &Hook) -> Result<()>;
    /// Attaches a loaded program to its hook.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    fn attach(&mut self, hook: &Hook) -> Result<()>;
    /// Detaches and unloads.
    fn unload(&mut self, hook: &Hook);
}

/// Attaches what a plan wants, by the best way that works.
///
/// # Errors
///
/// If something the agent cannot do without, or that was asked for by flavour, is refused.
pub fn attach(host: &mut impl Host, plan: &Plan) -> Result<Attached> {
    let mut attached = Attached { hooks: Vec::new(), unseen: plan.unseen.clone(), refused: plan.refused.clone() };
    // All loaded before the first is attached: verification takes milliseconds, in which one end of a reset would be seen
    // and the other not. Only where the kernel takes a program and then refuses to attach it, the next way comes late.
    let mut candidates = Vec::new();
    for want in &plan.wants {
        let mut ways = want.ways.iter();
        let first = ways.by_ref().find(|way| load(host, way, &mut attached.refused));
        candidates.push((want, first, ways));
    }
    for (want, first, mut ways) in candidates {
        let mut way = first;
        while let Some(hooks) = way {
            if try_attach(host, hooks, &mut attached.refused) {
                break;
            }
            way = ways.by_ref().find(|way| load(host, way, &mut attached.refused));
        }
        match way {
            Some(hooks) => attached.hooks.extend(hooks.iter().cloned()),
            None => attached.unseen.push(without(want, &attached.refused)?),
        }
    }
    Ok(attached)
}

/// Loads all the programs of a way, or none.
fn load(host: &mut impl Host, way: &Way, refused: &mut Vec<Refusal>) -> bool {
    all_or_none(host, way, refused, Host::load)
}

fn try_attach(host: &mut impl Host, way: &Way, refused: &mut Vec<Refusal>) -> bool {
    all_or_none(host, way, refused, Host::attach)
}

fn all_or_none<H: Host>(
    host: &mut H,
    way: &Way,
    refused: &mut Vec<Refusal>,
    step: impl Fn(&mut H, &Hook) -> Result<()>,
) -> bool {
    for hook in way {
        if let Err(error) = step(host, hook) {
            let (reason, remedy) = match error.downcast_ref::<Refused>() {
                Some(refused) => (refused.what.clone(), Some(refused.remedy)),
                None => (format!("{error:#}"), None),
            };
            refused.push(Refusal { hook: hook.hook, flavour: Some(hook.flavour), reason, remedy });
            for hook in way {
                host.unload(hook);
            }
            return false;
        }
    }
    true
}

/// The sentence about something that no way shows.
fn without(want: &Want, refused: &[Refusal]) -> Result<String> {
    let own = |refusal: &&Refusal| {
        let same = |hook: &Hook| refusal.hook == hook.hook && refusal.flavour == Some(hook.flavour);
        want.ways.iter().flatten().any(same)
    };
    let own: Vec<&Refusal> = refused.iter().filter(own).collect();
    let reasons = own.iter().map(|refusal| refusal.reason.as_str()).collect::<Vec<_>>().join(", and ");
    if want.forced {
        bail!("{reasons}; one kind of hook was asked for, and --hooks auto takes what the kernel offers");
    }
    match (want.unseen, own.iter().find_map(|refusal| refusal.remedy)) {
        (Some(unseen), _) => Ok(format!("{unseen}: {reasons}")),
        (None, Some(remedy)) => bail!("{reasons}; {remedy}"),
        (None, None) => bail!("{reasons}"),
    }
}

/// The running kernel, through aya.
pub struct Running<'a> {
    ebpf: &'a mut Ebpf,
    /// The kernel's types as aya wants them, read when the first trampoline asks for them.
    types: Option<Btf>,
}

/// There if the kernel has kprobes that need no tracefs, which those of 4.17 and later are.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

impl<'a> Running<'a> {
    /// For the programs of this object.
    pub const fn new(ebpf: &'a mut Ebpf) -> Self {
        Self { ebpf, types: None }
    }

    /// The object, and the running kernel's own types.
    ///
    /// # Errors
    ///
    /// If the kernel does not show its types.
    pub fn with_types(&mut self) -> Result<(&mut Ebpf, &Btf)> {
        let types = match &mut self.types {
            Some(types) => types,
            none => none.insert(Btf::from_sys_fs().context("this takes the running kernel's own types")?),
        };
        Ok((self.ebpf, types))
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> Result<&'a mut Program> {
    ebpf.program_mut(hook.program).ok_or_else(|| anyhow!("the eBPF object has no program {}", hook.program))
}

impl Host for Running<'_> {
    fn load(&mut self, hook: &Hook) -> Result<()> {
        if matches!(hook.flavour, Flavour::Kprobe | Flavour::Kretprobe) && !Path::new(KPROBES).exists() {
            bail!("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)");
        }
        let loaded = match hook.flavour {
            Flavour::Fentry | Flavour::Fexit => {
                let (ebpf, types) = self.with_types()?;
                match program(ebpf, hook)? {
                    Program::FEntry(program) => program.load(hook.hook, types),
                    Program::FExit(program) => program.load(hook.hook, types),
                    _ => return Err(of_another_kind(hook)),
                }
            }
            _ => match program(self.ebpf, hook)? {
                Program::RawTracePoint(program) => program.load(),
                Program::KProbe(program) => program.load(),
                _ => return Err(of_another_kind(hook)),
            },
        };
        Ok(loaded.map_err(|error| refused(&format!("the program {}", hook.program), &error))?)
    }

    fn attach(&mut self, hook: &Hook) -> Result<()> {
        let attached = match program(self.ebpf, hook)? {
            Program::RawTracePoint(program) => program.attach(hook.hook).map(drop),
            Program::KProbe(program) => program.attach(hook.hook, 0).map(drop),
            Program::FEntry(program) => program.attach().map(drop),
            Program::FExit(program) => program.attach().map(drop),
            _ => return Err(of_another_kind(hook)),
        };
        let what = || format!("attaching to {} by {}", hook.hook, hook.flavour.name());
        Ok(attached.map_err(|error| refused(&what(), &error))?)
    }

    fn unload(&mut self, hook: &Hook) {
        unload(self.ebpf, hook);
    }
}

fn of_another_kind(hook: &Hook) -> anyhow::Error {
    anyhow!("the program {} is of another kind than {}", hook.program, hook.flavour.name())
}

/// Detaches and unloads the program of a hook.
pub fn unload(ebpf: &mut Ebpf, hook: &Hook) {
    // Closing the link is what detaches, and that cannot fail; not loaded is as good.
    let _unloaded = match ebpf.program_mut(hook.program) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        _ => Ok(()),
    };
}

/// How often the kernel skipped the program of a hook; `None` if it cannot be asked.
#[must_use]
pub fn runs(ebpf: &Ebpf, hook: &Hook) -> Option<Runs> {
    let descriptor = match ebpf.program(hook.program)? {
        Program::RawTracePoint(program) => program.fd(),
        Program::KProbe(program) => program.fd(),
        Program::FEntry(program) => program.fd(),
        Program::FExit(program) => program.fd(),
        _ => return None,
    };
    Some(losses::runs(descriptor.ok()?.as_fd()))
}

#[cfg(test)]
mod tests;
