//! The process that plays one story: started in a network namespace of its own, it says at the end what it found.

use std::{fs, path::PathBuf, process, thread, time::Duration};

use anyhow::{Result, bail};

use super::{agent, network, stage::Stage, stories, verdict::Layer};
use crate::{cli::StoryPart, files};

/// Plays a story and prints the verdict.
pub fn play(options: &StoryPart) -> Result<()> {
    let story = stories::named(&options.play.name)?;
    let namespace = network::own_namespace()?;
    if namespace == options.play.outside {
        bail!("a story changes the network it runs in: `cargo xtask incidents` gives it one of its own");
    }
    let folder = Scratch::new()?;
    let limit = story.limit(options.full);
    watch(limit, folder.0.clone());
    network::raise_loopback()?;
    let mut stage = Stage::set(options, namespace, &folder.0)?;
    if let Err(error) = (story.play)(&mut stage) {
        stage.verdict.problem(Layer::Facts, &format!("{error:#}"), None);
    }
    println!("{}", stage.verdict.to_json());
    Ok(())
}

/// Ends this process, and with it all it has started, should the story not end.
fn watch(limit: Duration, folder: PathBuf) {
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("the story did not end within {} s", limit.as_secs());
        // It is in the folder for temporary files, should this fail.
        let _removed = fs::remove_dir_all(folder);
        agent::forget_instance();
        process::exit(1);
    });
}

/// A folder that goes with the story.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("rstscope-incident-{}", process::id()));
        files::make_folder(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in the folder for temporary files, should this fail.
        let _removed = files::remove_folder(&self.0);
    }
}
