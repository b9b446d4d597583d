//! The agent under test: `rstscope run`, started, killed and started again.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{ledger::Told, netns::Netns, process::Process};

/// Its folder, which is not on the disk of its spools: configuration, log, and the file to which it tells every line.
pub struct Home {
    folder: TempDir,
    instance: String,
    variables: Vec<(String, String)>,
}

impl Home {
    /// With this configuration beside the sink that tells every line, and these variables in the environment.
    pub fn new(name: &str, port: u16, configuration: &str, variables: Vec<(String, String)>) -> Self {
        let home = Self {
            folder: tempfile::tempdir().expect("a folder"),
            instance: format!("chaos-{name}-{}", std::process::id()),
            variables,
        };
        // No fsync: it is the agent that dies here, not the node.
        let text = format!(
            "[agent]\nport = [{port}]\nnode = \"{name}\"\n[sinks.told]\ntype = \"file\"\npath = \"{}\"\nkeep = 0\n\
             fsync = \"never\"\n{configuration}",
            home.told().display()
        );
        std::fs::write(home.path("rstscope.toml"), text).expect("a file can be written");
        home
    }

    /// Adds sections to the configuration.
    pub fn add(&self, sections: &str) {
        let path = self.path("rstscope.toml");
        let text = std::fs::read_to_string(&path).expect("a file can be read");
        std::fs::write(path, text + sections).expect("a file can be written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the spools.
    pub fn spools(&self) -> PathBuf {
        self.path("spool")
    }

    /// The file with every line.
    pub fn told(&self) -> PathBuf {
        self.path("told.jsonl")
    }

    /// Starts an agent in the namespace and waits until it has attached.
    pub fn start(&self, netns: &Netns, told: &mut Told) -> Process {
        let program = std::env::var_os("RSTSCOPE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_rstscope").into());
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(self.path("rstscope.toml")).arg("--spool").arg(self.spools());
        command.args(["--instance", &self.instance]).envs(self.variables.iter().cloned());
        told.read();
        let before = told.starts();
        let mut agent = Process::start(netns, command, &self.path("agent.log"));
        let told = std::cell::RefCell::new(told);
        agent.until("attaching", || {
            told.borrow_mut().read();
            told.borrow().starts() > before
        });
        agent
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(format!("/run/rstscope-{}.lock", self.instance));
    }
}
