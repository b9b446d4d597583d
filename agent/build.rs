//! Builds the kernel side and tells the agent where the object is.
//!
//! It is built for BPF, in release, in a target folder that all of the agent's builds share: debug, release, tests,
//! clippy and doc use the same object. What it takes and how cargo is called is in `xtask/src/ebpf`.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

#[path = "../xtask/src/ebpf/mod.rs"]
#[expect(dead_code, reason = "the set-up needs more of it than a build")]
mod ebpf;

use ebpf::{ObjectBuild, TARGET_FOLDER, Tools, btf};

/// Why there is no object.
enum Failure {
    /// One sentence says it all.
    Sentence(String),
    /// The compiler has said it, at length.
    Compiler,
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        // Cargo fails the build and shows this sentence only, as long as the script itself seems to succeed.
        Err(Failure::Sentence(sentence)) => {
            println!("cargo::error={sentence}");
            ExitCode::SUCCESS
        }
        // Of a script that fails, cargo shows all of the output.
        Err(Failure::Compiler) => ExitCode::FAILURE,
    }
}

fn build() -> Result<(), Failure> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().ok_or_else(|| "the agent's package is not in a folder".to_owned())?;
    let tools = Tools::find()?;
    tools.check()?;

    let out = PathBuf::from(variable("OUT_DIR")?);
    let target_folder = shared_target_folder(&out);
    let build = ObjectBuild {
        tools: &tools,
        cargo: &variable("CARGO")?,
        workspace,
        target_folder: &target_folder,
        architecture: &text("CARGO_CFG_TARGET_ARCH")?,
        big_endian: text("CARGO_CFG_TARGET_ENDIAN")? == "big",
        log: env::var_os("CARGO_FEATURE_EBPF_LOG").is_some(),
    };
    let object = out.join("rstscope-ebpf.o");
    // Cargo's own lock ends with the build, but no second build may replace the object while it is copied.
    let _lock = lock(&target_folder)?;
    run(&build)?;
    copy_sorted(&build.object(), &object)?;

    println!("cargo::rustc-env=RSTSCOPE_EBPF_OBJECT={}", object.display());
    println!("cargo::rustc-env=RSTSCOPE_TARGET={}", text("TARGET")?);
    watch(workspace, &tools);
    Ok(())
}

fn run(build: &ObjectBuild<'_>) -> Result<(), Failure> {
    let mut command = build.command("build");
    // The outer cargo's job server is not handed on, so at least the number of jobs is.
    if let Ok(jobs) = text("NUM_JOBS") {
        command.args(["--jobs", &jobs]);
    }
    // Our stdout is where cargo looks for instructions.
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run cargo for the eBPF side: {error}"))?;
    if status.success() { Ok(()) } else { Err(Failure::Compiler) }
}

/// The same source gives the same bytes.
fn copy_sorted(built: &Path, object: &Path) -> Result<(), String> {
    let mut content = fs::read(built).map_err(|error| format!("cannot read {}: {error}", built.display()))?;
    btf::sort(&mut content)?;
    fs::write(object, content).map_err(|error| format!("cannot write {}: {error}", object.display()))
}

/// Names everything the object depends on; cargo runs this script again only when one of them changes.
fn watch(workspace: &Path, tools: &Tools) {
    let sources = [
        "agent-common/Cargo.toml",
        "agent-common/src",
        "agent-ebpf/Cargo.toml",
        "agent-ebpf/src",
        "Cargo.toml",
        "Cargo.lock",
    ]
    .map(|source| workspace.join(source));
    let tools = [tools.linker(), tools.rustc.library_source().join("core/src/lib.rs")];
    for file in sources.iter().chain(&tools) {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    // They decide where the tools are.
    for variable in ["RSTSCOPE_CACHE", "XDG_CACHE_HOME", "HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}

/// Below the outer target folder, which cargo marks with a tag file, and beside the folders of its profiles. So `cargo
/// clean` removes it, and no profile has to build the kernel side again.
fn shared_target_folder(out: &Path) -> PathBuf {
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or(out);
    target.join(TARGET_FOLDER)
}

fn lock(target_folder: &Path) -> Result<File, String> {
    let open = || -> io::Result<File> {
        fs::create_dir_all(target_folder)?;
        let file = File::create(target_folder.join(".rstscope-lock"))?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|error| format!("cannot lock {}: {error}", target_folder.display()))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

fn text(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name} to a text"))
}

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self::Sentence(sentence)
    }
}
