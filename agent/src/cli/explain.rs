//! `rstscope explain`: what a cause means, how it is recognised, how to confirm and fix it.

use std::{fmt::Write, process::ExitCode};

use anyhow::{Result, bail};

use super::{flags::ExplainFlags, print};
use crate::diagnosis::{code::Code, timeouts};

/// Runs `explain`.
///
/// # Errors
///
/// If there is no such code, with the codes that are most like it.
pub fn run(flags: &ExplainFlags) -> Result<ExitCode> {
    if flags.timeouts {
        return print(timeouts::BUILT_IN.as_bytes());
    }
    match &flags.code {
        None => print(list()?.as_bytes()),
        Some(name) => match Code::find(name) {
            Some(code) => print(code.page().as_bytes()),
            None => bail!("there is no cause {name:?}{}; `rstscope explain` lists them all", like(name)),
        },
    }
}

fn list() -> Result<String> {
    let mut text = String::new();
    for code in Code::ALL {
        let benign = if code.is_benign() { " (benign)" } else { "" };
        writeln!(text, "{:<32} {}{benign}", code.name(), code.title())?;
    }
    Ok(text)
}

/// Codes that share a word with `name`.
fn like(name: &str) -> String {
    let words: Vec<&str> = name.split(['_', '-', ' ']).filter(|word| word.len() > 2).collect();
    let alike: Vec<&str> = Code::ALL
        .iter()
        .map(|code| code.name())
        .filter(|code| words.iter().any(|word| code.contains(&word.to_lowercase())))
        .collect();
    if alike.is_empty() { String::new() } else { format!(", did you mean {}", alike.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_code_names_those_like_it() {
        let flags = ExplainFlags { code: Some("stale-connection".to_owned()), timeouts: false };
        let error = run(&flags).unwrap_err().to_string();
        assert!(error.contains("stale_connection_reuse"), "{error}");
    }

    #[test]
    fn the_list_has_every_code_once() {
        let text = list().unwrap();
        assert_eq!(text.lines().count(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::find(code.name()), Some(*code));
        }
    }

    #[test]
    fn every_page_is_that_of_its_code_and_complete() {
        for code in Code::ALL {
            let page = code.page();
            let name = code.name();
            assert_eq!(page.lines().next(), Some(format!("# {name}: {}", code.title()).as_str()));
            for heading in
                ["## What it means", "## How rstscope recognises it", "## Confirm by hand", "## Fix", "## Proved by"]
            {
                assert!(page.contains(heading), "{name} lacks {heading}");
            }
            assert!(!page.contains("@@"), "{name} is not finished");
        }
    }
}
