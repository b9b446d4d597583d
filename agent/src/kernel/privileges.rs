//! What the agent may do once it has attached: which of its capabilities it keeps, and why. The rest every thread gives up,
//! for good (`threads`).
//!
//! Loading and attaching take CAP_BPF and CAP_PERFMON. What follows takes no right where a descriptor is open already: the
//! ring buffer is memory, programs run by themselves, and to close a link is to detach. Only tables are read by bpf(2), of
//! which kernels before about 5.19 (before "bpf: refine kernel.unprivileged_bpf_disabled behaviour") ask CAP_BPF in every
//! command while `kernel.unprivileged_bpf_disabled` is set; newer ones, and some distributions' older ones, only to make
//! something. So it is tried.

mod threads;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::{
    fs::{Access, access},
    io::Errno,
    thread::{CapabilitySet, capabilities},
};

/// What the rest of the agent's life asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The connection tracking is asked.
    pub conntrack: bool,
    /// Files and sockets that are written to, also such as do not exist yet.
    pub written: Vec<PathBuf>,
}

/// A capability that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub capability: CapabilitySet,
    /// What for.
    pub why: String,
}

/// What an agent without one of them does not see. Without CAP_NET_ADMIN it says so itself, where it asks the connection
/// tracking, and without CAP_SYS_ADMIN on the few kernels where a hook or an older connection takes that.
pub const USES: [(CapabilitySet, &str); 2] = [
    (
        CapabilitySet::SYS_PTRACE,
        "the executables of processes with other rights are not named, nor in a container of its own the host's cgroups \
         without a mount of them",
    ),
    (
        CapabilitySet::DAC_READ_SEARCH,
        "a container that lives for less than a second may stay without its name, and files that only another user may \
         read (a token, a certificate) cannot be read",
    ),
];

/// What this thread, and so the others that it has started, may do or make itself able to.
///
/// # Errors
///
/// If the kernel does not say.
pub fn held() -> Result<CapabilitySet> {
    Ok(capabilities(None).context("asking the kernel for the agent's capabilities")?.permitted)
}

/// By their names, `CAP_…`.
#[must_use]
pub fn names(capabilities: CapabilitySet) -> Vec<String> {
    capabilities.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// All of them as one set.
#[must_use]
pub fn union(kept: &[Kept]) -> CapabilitySet {
    kept.iter().fold(CapabilitySet::empty(), |all, kept| all | kept.capability)
}

/// Which of the capabilities `held` are kept for `needs`. `reads_tables` reads one of the kernel side's tables and says
/// whether that went well; it is called in a thread with fewer rights.
///
/// # Errors
///
/// If there can be no such thread.
pub fn choose(held: CapabilitySet, needs: &Needs, reads_tables: impl Fn() -> bool + Sync) -> Result<Vec<Kept>> {
    // The first of those that serve a purpose: one that may do more only where the agent was given nothing else.
    let keep = |ways: &[CapabilitySet], why: &str| {
        let way = ways.iter().find(|way| held.contains(**way));
        way.map(|capability| Kept { capability: *capability, why: why.to_owned() })
    };
    let of_processes = "executables of others' processes, the host's cgroups behind its first process";
    let of_files = "files that only another user may read, cgroups by their ids";
    let mut kept: Vec<Kept> = [
        keep(&[CapabilitySet::SYS_PTRACE], of_processes),
        keep(&[CapabilitySet::DAC_READ_SEARCH, CapabilitySet::DAC_OVERRIDE], of_files),
        needs.conntrack.then(|| keep(&[CapabilitySet::NET_ADMIN], "the connection tracking")).flatten(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let always = union(&kept);
    let unwritable = || needs.written.iter().find(|path| !is_writable(path));
    if let Some(path) = with_only(always, unwritable)? {
        let why = format!("writing to {}, which is another user's", path.display());
        kept.extend(keep(&[CapabilitySet::DAC_OVERRIDE], &why));
    }
    if !may_read_tables_without(always, reads_tables)? {
        let why = "this kernel's tables cannot be read without it";
        kept.extend(keep(&[CapabilitySet::BPF, CapabilitySet::SYS_ADMIN], why));
    }
    Ok(kept)
}

/// Leaves no thread of this process more than `kept`, nor a way to more: not by executing a program either. Returns the
/// threads that have not done so in a second; they will as soon as the kernel lets them run.
///
/// # Errors
///
/// If the kernel refuses.
pub fn reduce_to(kept: CapabilitySet) -> Result<Vec<String>> {
    threads::reduce_all(kept).context("giving up capabilities; --keep-capabilities leaves them as they are")
}

/// While anybody may use bpf(2), a table that can be read says nothing about the day on which that is turned off.
fn may_read_tables_without(rest: CapabilitySet, reads_tables: impl Fn() -> bool + Sync) -> io::Result<bool> {
    let setting = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    let anybody_may = setting.is_ok_and(|setting| setting.trim() == "0");
    Ok(!anybody_may && with_only(rest, &reads_tables)?)
}

/// Whether what is at `path` can be written to, replaced, or made with its folders. Other obstacles than rights do not
/// count.
fn is_writable(path: &Path) -> bool {
    let is_denied = |path: &Path, how| access(path, how) == Err(Errno::ACCESS);
    let folder = path.ancestors().skip_while(|path| !path.is_dir()).find(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    !is_denied(path, Access::WRITE_OK) && !is_denied(folder, Access::WRITE_OK | Access::EXEC_OK)
}

/// Runs `trial` in a thread that has no more than these capabilities.
fn with_only<T: Send>(rights: CapabilitySet, trial: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let tried = std::thread::Builder::new().name("fewer rights".to_owned()).spawn_scoped(scope, || {
            threads::reduce_this(rights)?;
            Ok(trial())
        })?;
        tried.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn chosen(held: CapabilitySet, needs: &Needs, reads_tables: bool) -> CapabilitySet {
        union(&choose(held, needs, || reads_tables).unwrap())
    }

    fn bpf_is_for_anybody() -> bool {
        fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").is_ok_and(|setting| setting.trim() == "0")
    }

    #[test]
    fn what_only_loading_and_attaching_take_is_not_kept() {
        let needs = Needs { conntrack: true, written: Vec::new() };
        let kept = chosen(CapabilitySet::all(), &needs, true) - CapabilitySet::BPF;
        assert_eq!(kept, CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::NET_ADMIN);
        assert!(!chosen(CapabilitySet::all(), &Needs::default(), true).contains(CapabilitySet::NET_ADMIN));
    }

    /// As in a container with the rights that runtimes give by default.
    #[test]
    fn a_right_that_may_do_more_stays_where_there_is_no_other() {
        let kept = chosen(CapabilitySet::DAC_OVERRIDE | CapabilitySet::PERFMON, &Needs::default(), true);
        assert_eq!(kept, CapabilitySet::DAC_OVERRIDE);
    }

    #[test]
    fn what_is_not_held_cannot_be_kept() {
        assert_eq!(
            chosen(CapabilitySet::empty(), &Needs { conntrack: true, ..Needs::default() }, false),
            CapabilitySet::empty()
        );
    }

    #[test]
    fn tables_that_cannot_be_read_without_it_keep_the_right_to() {
        let (bpf, admin) = (CapabilitySet::BPF, CapabilitySet::SYS_ADMIN);
        assert_eq!(chosen(bpf | admin, &Needs::default(), false), bpf);
        assert_eq!(chosen(admin, &Needs::default(), false), admin);
        let kept = chosen(bpf | admin, &Needs::default(), true);
        assert_eq!(kept, if bpf_is_for_anybody() { bpf } else { CapabilitySet::empty() });
    }

    #[test]
    fn the_trial_has_fewer_rights_and_this_thread_has_not() {
        let before = capabilities(None).unwrap();
        let during = with_only(CapabilitySet::empty(), || capabilities(None).unwrap()).unwrap();
        assert_eq!((during.permitted, during.effective), (CapabilitySet::empty(), CapabilitySet::empty()));
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn a_file_is_writable_where_it_its_folder_or_what_it_would_be_made_in_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resets.jsonl");
        assert!(is_writable(&file) && is_writable(&folder.path().join("a/b/c")) && is_writable(folder.path()));
        fs::write(&file, "").unwrap();
        assert!(is_writable(&file) && is_writable(Path::new("relative")));
        // To root nothing is denied, until it has given that up.
        let denied = |path: &Path| with_only(CapabilitySet::empty(), || !is_writable(path)).unwrap();
        assert!(!denied(&file));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(denied(&file));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
        assert!(denied(&file), "it could not be rotated");
        assert!(denied(&folder.path().join("new")));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        // Only root can make something another user's.
        if chown(&file, Some(65534), Some(65534)).is_ok() {
            assert!(denied(&file));
            let needs = Needs { written: vec![file], ..Needs::default() };
            let kept = choose(CapabilitySet::all(), &needs, || true).unwrap();
            let overriding = kept.iter().find(|kept| kept.capability == CapabilitySet::DAC_OVERRIDE).unwrap();
            assert!(overriding.why.contains("resets.jsonl"), "{overriding:?}");
        }
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(names(CapabilitySet::SYS_PTRACE | CapabilitySet::BPF), ["CAP_SYS_PTRACE", "CAP_BPF"]);
    }
}
