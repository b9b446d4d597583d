//! One guest: QEMU from its start to its end.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    flavour::{self, Flavour},
    qemu::Qemu,
    verdict::Verdict,
};

/// A guest that takes longer hangs. One that waits for jiffies to wrap takes five minutes, and a busy machine is slow.
const TIME_LIMIT: Duration = Duration::from_secs(25 * 60);

/// For the kernel's command line: no word about itself, an end instead of a hang, a clock that costs little, and
/// without the self-checks that take half of the time a kernel needs to start under emulation.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 oops=panic tsc=reliable no_timer_check mitigations=off \
    random.trust_cpu=on cryptomgr.notests \
    initcall_blacklist=load_system_certificate_list,jent_mod_init,init_encrypted,scx_init";

/// What a guest ended with.
#[derive(Debug)]
pub struct Outcome {
    /// What the tests printed.
    pub output: String,
    /// What the kernel printed.
    pub console: String,
    /// What PID 1 said last, if it came to that.
    pub verdict: Option<Verdict>,
    /// From QEMU's start to its end.
    pub taken: Duration,
    /// Whether the time limit ended it.
    pub timed_out: bool,
}

impl Outcome {
    /// Why this is a failure, if it is one.
    pub fn complaint(&self) -> Option<String> {
        match &self.verdict {
            None if self.timed_out => Some("the guest took too long and was ended".to_owned()),
            None => Some("the guest ended before the tests did".to_owned()),
            // Nothing that it says about times or patience means anything then.
            Some(verdict) => self.wrong_clock(verdict).or_else(|| verdict.complaint()),
        }
    }

    /// Its clock starts a little after QEMU, and can lag where this machine stood still.
    fn wrong_clock(&self, verdict: &Verdict) -> Option<String> {
        let taken = self.taken.as_secs();
        let uptime = verdict.uptime;
        let is_wrong = uptime > taken + taken / 20 + 2 || uptime + uptime / 4 + 60 < taken;
        is_wrong.then(|| format!("the guest's clock ran wrong: {uptime} s of its own in {taken} s"))
    }

    /// The tests that failed and were played again.
    pub fn repeated(&self) -> Vec<&str> {
        self.output.lines().filter_map(|line| line.trim().strip_prefix("repeated: ")).collect()
    }

    /// How many tests the output says ended in this way.
    pub fn count(&self, how: &str) -> usize {
        let results = self.output.lines().find_map(|line| line.trim().strip_prefix("test result: "));
        let counts = results.unwrap_or_default().split([';', '.']);
        counts.filter_map(|count| count.trim().strip_suffix(how)?.trim().parse().ok()).next().unwrap_or(0)
    }
}

/// The kernel's command line for tests with this kind of hook, and the rate of its time stamp counter, if it is known.
pub fn parameters(flavour: Flavour, tsc_khz: Option<u64>) -> String {
    let clock = tsc_khz.map(|khz| format!(" tsc_early_khz={khz}")).unwrap_or_default();
    format!("{PARAMETERS}{clock} {}={}", flavour::VARIABLE, flavour.name())
}

/// Runs a kernel with an archive as its file system, in a folder that exists.
pub fn run(qemu: &Qemu, kernel: &Path, parameters: &str, archive: &[u8], folder: &Path) -> Result<Outcome> {
    let place = |name: &str| -> PathBuf { folder.join(name) };
    fs::write(place("initrd"), archive).with_context(|| format!("cannot write to {}", folder.display()))?;
    let log = File::create(place("qemu")).with_context(|| format!("cannot write to {}", folder.display()))?;
    let serial = |name: &str| format!("file:{}", place(name).display());
    let mut command: Command = qemu.command();
    // One thread per guest: two guests side by side are faster than two threads in one, and the emulator's threads do
    // not race when the kernel patches its own code.
    command
        .args(["-accel", "tcg,thread=single", "-machine", "pc,hpet=off", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-serial", &serial("console"), "-serial", &serial("output")])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(place("initrd"))
        .args(["-append", parameters])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("a second descriptor")?)
        .stderr(log);
    let start = Instant::now();
    let mut child = command.spawn().context("cannot run QEMU")?;
    let timed_out = loop {
        if child.try_wait().context("cannot wait for QEMU")?.is_some() {
            break false;
        }
        if start.elapsed() > TIME_LIMIT {
            child.kill().context("cannot end QEMU")?;
            child.wait().context("cannot wait for QEMU")?;
            break true;
        }
        thread::sleep(Duration::from_millis(100));
    };
    // It is large and made anew each time; the rest stays to be looked at.
    fs::remove_file(place("initrd")).context("cannot remove the guest's file system")?;
    let read = |name: &str| String::from_utf8_lossy(&fs::read(place(name)).unwrap_or_default()).into_owned();
    let output = read("output");
    Ok(Outcome {
        verdict: Verdict::find(&output),
        console: read("console") + &read("qemu"),
        output,
        taken: start.elapsed(),
        timed_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let output =
            "test a ... \nrepeated: a\nok\n\ntest result: FAILED. 57 passed; 2 failed; 1 ignored; 0 measured\n"
                .to_owned();
        let outcome =
            Outcome { output, console: String::new(), verdict: None, taken: Duration::ZERO, timed_out: false };
        assert_eq!((outcome.count("passed"), outcome.count("failed")), (57, 2));
        assert_eq!(outcome.repeated(), ["a"]);
        assert!(outcome.complaint().is_some());
    }

    #[test]
    fn a_clock_that_runs_wrong_is_told() {
        let complaint = |uptime, taken| {
            let verdict = Some(Verdict { status: 0, taint: 0, uptime });
            let taken = Duration::from_secs(taken);
            Outcome { output: String::new(), console: String::new(), verdict, taken, timed_out: false }.complaint()
        };
        assert_eq!((complaint(169, 172), complaint(454, 462), complaint(3, 8)), (None, None, None));
        assert!(complaint(311, 21).is_some());
        assert!(complaint(60, 300).is_some());
    }

    #[test]
    fn a_guest_is_told_how_fast_its_counter_runs() {
        assert!(parameters(Flavour::Kprobe, Some(2_600_000)).ends_with(" tsc_early_khz=2600000 RSTSCOPE_HOOKS=kprobe"));
        assert!(parameters(Flavour::Auto, None).ends_with("scx_init RSTSCOPE_HOOKS=auto"));
    }
}
