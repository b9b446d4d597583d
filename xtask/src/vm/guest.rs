//! PID 1 of a guest: mounts what the tests look at, loads the modules, runs the tests, says how they ended and turns the
//! machine off.
//!
//! It is the same program as `cargo xtask`; in a guest the kernel starts it as [`INIT`].

use std::{
    env, fs,
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
    termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr},
};

use super::{flavour, verdict::Verdict};

/// Where the kernel looks for PID 1.
pub const INIT: &str = "/init";
/// The kernel tests.
pub const TESTS: &str = "/bin/kernel-tests";
/// The program under test.
pub const RSTSCOPE: &str = "/bin/rstscope";
/// The modules, in the order of their names.
pub const MODULES: &str = "/modules";
/// The tests' arguments, one a line.
pub const ARGUMENTS: &str = "/arguments";

/// The first UART is the kernel's console; the second one is for the tests alone.
const OUTPUT: &str = "/dev/ttyS1";

const MOUNTS: [(&str, &str, &str); 6] = [
    ("devtmpfs", "/dev", "mode=0755"),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
];

/// Whether this process is a guest's PID 1.
pub fn is_this() -> bool {
    std::process::id() == 1 && env::args_os().next().is_some_and(|name| name == INIT)
}

/// Does it all. Where it fails, the kernel panics about the end of its PID 1, which ends the machine as well.
pub fn run() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        let options = std::ffi::CString::new(options).context("no zero byte in there")?;
        mount(kind, place, kind, MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("cannot mount {place}"))?;
    }
    load_modules()?;
    let output = File::options().read(true).write(true).open(OUTPUT).with_context(|| format!("no {OUTPUT}"))?;
    // Else the terminal turns every line's end into two characters.
    let mut settings = tcgetattr(&output).with_context(|| format!("{OUTPUT} is no terminal"))?;
    settings.make_raw();
    tcsetattr(&output, OptionalActions::Now, &settings).with_context(|| format!("cannot set up {OUTPUT}"))?;

    let status = run_tests(&output)?;
    let verdict = Verdict { status, taint: number("/proc/sys/kernel/tainted")?, uptime: number("/proc/uptime")? };
    std::io::Write::write_all(&mut &output, format!("\n{verdict}\n").as_bytes()).context("cannot say the verdict")?;
    // What is still in a UART's queue would be lost with the machine.
    tcdrain(&output).context("cannot empty the UART")?;
    tcdrain(std::io::stdout()).context("cannot empty the console")?;
    // QEMU is told to end instead.
    reboot(RebootCommand::Restart).context("cannot restart")?;
    bail!("the machine goes on after its restart");
}

fn run_tests(output: &File) -> Result<i32> {
    let arguments = fs::read_to_string(ARGUMENTS).with_context(|| format!("cannot read {ARGUMENTS}"))?;
    let copy = || output.try_clone().map(Stdio::from).context("a second descriptor");
    let mut lo = Command::new("/bin/ip");
    let up = lo.args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
    if !up.success() {
        bail!("ip failed ({up})");
    }
    let status = Command::new(TESTS)
        .args(arguments.lines().filter(|argument| !argument.is_empty()))
        .env_clear()
        .env("PATH", "/bin")
        .env("HOME", "/root")
        .env("RSTSCOPE_BIN", RSTSCOPE)
        .env("RSTSCOPE_SLOW_MACHINE", "1")
        .current_dir("/root")
        .stdin(Stdio::null())
        // What QEMU says on the kernel's command line and the kernel does not know becomes PID 1's environment.
        .envs(env::vars_os().filter(|(name, _)| name == flavour::VARIABLE))
        .stdout(copy()?)
        .stderr(copy()?)
        .status()
        .context("cannot run the tests")?;
    Ok(status.code().unwrap_or(-1))
}

fn load_modules() -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(MODULES)
        .with_context(|| format!("cannot read {MODULES}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        let module = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
        finit_module(module, c"", 0).with_context(|| format!("cannot load {}", file.display()))?;
    }
    Ok(())
}

/// The whole number a file begins with.
fn number(path: impl AsRef<Path>) -> Result<u64> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("no number in {}", path.display()))
}
