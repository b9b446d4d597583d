//! The root process around a case: a cgroup for everything the case starts, so that nothing of it can stay, however the
//! case ends. Monitors and shims of runtimes run on by design, with init as their parent.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::layout;
use crate::{child, cli::CasePart, files};

/// The name of a case's cgroup, before the id of the process around it.
const PREFIX: &str = "rstscope-containers-";

/// Longer than any case takes on a busy machine.
const LIMIT: &str = "150";

/// Plays a case in namespaces of its own and hands its verdict on. Runs in a mount namespace of its own.
pub fn play(options: &CasePart) -> Result<()> {
    // Dropped last: what is still running holds files in it.
    let folder = Scratch::new()?;
    let _mount = layout::Mount::cgroup2_if_missing(&folder.0)?;
    for left in Top::left_behind()? {
        drop(left);
    }
    let top = Top::make()?;
    let xtask = std::env::current_exe().context("xtask has no path")?;
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", LIMIT, "unshare", "--net", "--mount", "--"]).arg(xtask);
    command.args(["container-part", "inside", &options.play.name, "--outside", &options.play.outside.to_string()]);
    command.arg("--rstscope").arg(&options.play.rstscope).arg("--programs").arg(&options.play.programs);
    command.arg("--kubelet").arg(&options.kubelet);
    command.arg("--top").arg(&top.name).arg("--folder").arg(&folder.0);
    let status = command.stdin(Stdio::null()).status().context("cannot run `timeout` (coreutils)")?;
    if !status.success() {
        bail!("the case ended with {status}");
    }
    Ok(())
}

/// A folder that goes with the case.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("rstscope-container-{}", process::id()));
        files::make_folder(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = files::remove_folder(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// The cgroup of this name in every hierarchy of the machine.
struct Top {
    name: String,
}

impl Top {
    fn make() -> Result<Self> {
        let top = Self { name: format!("{PREFIX}{}", process::id()) };
        let root = layout::cgroup2()?.context("cgroup v2 is not mounted")?;
        let engine = root.join(&top.name).join(layout::ENGINE);
        fs::create_dir_all(&engine).with_context(|| format!("cannot make the cgroup {}", engine.display()))?;
        Ok(top)
    }

    /// Those of runs that were interrupted.
    fn left_behind() -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for root in layout::hierarchies()? {
            let entries = fs::read_dir(&root).with_context(|| format!("cannot read {}", root.display()))?;
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            found.extend(names.filter(|name| is_left_behind(name)).map(|name| Self { name }));
        }
        Ok(found)
    }

    /// The groups that are there, deepest first.
    fn groups(&self) -> Vec<PathBuf> {
        let hierarchies = layout::hierarchies().unwrap_or_default();
        hierarchies.iter().flat_map(|root| deepest_first(&root.join(&self.name))).collect()
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // The kernel takes its time to bury the dead.
        for _ in 0..250 {
            let groups = self.groups();
            if groups.is_empty() {
                return;
            }
            kill(&groups);
            for group in &groups {
                if let Err(error) = fs::remove_dir(group)
                    && !matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::NotFound)
                {
                    eprintln!("cannot remove the cgroup {}: {error}", group.display());
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("cgroups named {} stay behind: remove them with rmdir", self.name);
    }
}

/// Only what the case has started is in there.
fn kill(groups: &[PathBuf]) {
    let members = groups.iter().filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    let pids: Vec<String> = members.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    if !pids.is_empty() {
        // Ended since is as good.
        child::succeeds(Command::new("sh").args(["-c", &format!("kill -KILL {}", pids.join(" "))]));
    }
}

fn is_left_behind(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn deepest_first(group: &Path) -> Vec<PathBuf> {
    fn visit(group: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // One that goes meanwhile is as good as removed.
                let _gone = visit(&entry.path(), found);
            }
        }
        found.push(group.to_owned());
        Ok(())
    }
    let mut found = Vec::new();
    let _gone = visit(group, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_removed() {
        assert!(is_left_behind("rstscope-containers-4194304"), "above the largest pid there can be");
        assert!(!is_left_behind(&format!("rstscope-containers-{}", process::id())));
        for other in ["rstscope-containers-", "rstscope-containers-x", "system.slice"] {
            assert!(!is_left_behind(other), "{other}");
        }
    }

    #[test]
    fn the_deepest_goes_first() {
        let top = std::env::temp_dir().join(format!("rstscope-deepest-{}", process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/cgroup.procs"), "").unwrap();
        let found = deepest_first(&top);
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(found, [top.join("a/b"), top.join("a"), top.clone()]);
        assert!(deepest_first(&top).is_empty());
    }
}
