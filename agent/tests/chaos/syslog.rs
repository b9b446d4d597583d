//! rsyslog follows the file of an agent, which logrotate moves and tells the agent so by SIGHUP; the agent is killed now and
//! then. What rsyslog wrote is what the files have.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    agent::Home,
    ledger::Told,
    netns::Netns,
    process::{PATIENCE, Process, real},
    rounds,
    traffic::Traffic,
};

const PORT: u16 = 7004;

/// A minute of that.
pub fn play_minute() {
    let netns = Netns::new();
    let home = Home::new("syslog", PORT, "", Vec::new());
    let (file, out) = (home.path("resets.jsonl"), home.path("out"));
    home.add(&format!("[sinks.resets]\ntype = \"file\"\npath = \"{}\"\nkeep = 0\n", file.display()));
    let mut told = Told::new(home.told());
    let rsyslog = rsyslog(&netns, home.folder(), &file, &out);
    let mut agent = home.start(&netns, &mut told);
    let traffic = Traffic::start(&netns, PORT);
    let rotations = 18 * rounds();
    for rotation in 1..=rotations {
        std::thread::sleep(Duration::from_secs(3));
        rotate(home.folder(), &file, agent.pid());
        if rotation % 4 == 0 {
            drop(agent);
            agent = home.start(&netns, &mut told);
        }
    }
    traffic.stop();
    assert!(agent.end().success());
    let written = lines_of_all(&file);
    let arrived = || fs::read_to_string(&out).unwrap_or_default().lines().count();
    let began = Instant::now();
    while arrived() < written.len() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = rsyslog.said();
    rsyslog.end();
    let mut followed: Vec<String> = fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect();
    println!("syslog: {} lines in {} files, {} followed", written.len(), rotations + 1, followed.len());
    assert!(fs::read_dir(home.folder()).unwrap().count() > rotations as usize, "logrotate moved the file each time");
    assert!(written.len() > 1000, "{} lines", written.len());
    let mut written = written;
    written.sort_unstable();
    followed.sort_unstable();
    assert_eq!(followed.len(), written.len(), "{said}");
    assert!(followed == written, "the same lines: {said}");
}

/// Every line of the file and of those that were moved.
fn lines_of_all(file: &Path) -> Vec<String> {
    let name = file.file_name().unwrap().to_str().unwrap();
    let files = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let ours = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
    ours.flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn rsyslog(netns: &Netns, folder: &Path, file: &Path, out: &Path) -> Process {
    // By polling, because with inotify imfile lets go of a file as soon as it is renamed: between that and the signal the agent
    // still writes to it, as every program does.
    let configuration = format!(
        "global(workDirectory=\"{}\" maxMessageSize=\"64k\")\nmodule(load=\"imfile\" mode=\"polling\" pollingInterval=\"1\")\n\
         template(name=\"line\" type=\"string\" string=\"%msg%\\n\")\n\
         ruleset(name=\"lines\") {{ action(type=\"omfile\" file=\"{}\" template=\"line\") }}\n\
         input(type=\"imfile\" File=\"{}\" Tag=\"rstscope\" ruleset=\"lines\")\n",
        folder.display(),
        out.display(),
        file.display(),
    );
    let path = folder.join("rsyslog.conf");
    fs::write(&path, configuration).unwrap();
    let mut command = real("RSTSCOPE_RSYSLOGD");
    if let Some(modules) = std::env::var_os("RSTSCOPE_RSYSLOGD_MODULES") {
        command.arg("-M").arg(modules);
    }
    command.args(["-n", "-i"]).arg(folder.join("rsyslog.pid")).arg("-f").arg(path);
    Process::start(netns, command, &folder.join("rsyslog.log"))
}

/// Has logrotate move the file and send SIGHUP, as its configuration on a node would.
fn rotate(folder: &Path, file: &Path, agent: u32) {
    let configuration = format!(
        "{} {{\n  rotate 1000\n  nocompress\n  missingok\n  nocreate\n  postrotate\n    kill -HUP {agent}\n  endscript\n}}\n",
        file.display()
    );
    let path = folder.join("logrotate.conf");
    fs::write(&path, configuration).unwrap();
    let mut command = real("RSTSCOPE_LOGROTATE");
    let output = command.arg("--force").arg("--state").arg(folder.join("logrotate.state")).arg(&path).output().unwrap();
    assert!(output.status.success(), "logrotate: {}", String::from_utf8_lossy(&output.stderr));
}
