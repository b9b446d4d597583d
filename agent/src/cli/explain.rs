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
        writeln!(text, "{:<34} {}{benign}", code.name(), code.title())?;
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

    #[test]
    fn every_code_is_in_the_schema_and_no_other() {
        let text = include_str!("../../../docs/rstscope.v1.schema.json");
        let schema: serde_json::Value = serde_json::from_str(text).unwrap();
        let listed = schema["$defs"]["cause"]["properties"]["code"]["enum"].as_array().unwrap();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(listed.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>(), codes);
    }

    #[test]
    fn every_test_that_proves_a_page_exists() {
        let tests = crate::diagnosis::pitfalls::sources_of_tests();
        for code in Code::ALL {
            let (_, proofs) = code.page().split_once("## Proved by").unwrap();
            let mut names = proofs.split('`').skip(1).step_by(2).peekable();
            assert!(names.peek().is_some(), "{} names no test", code.name());
            for name in names {
                let (quoted, function) = (format!("\"{name}\""), format!("fn {name}("));
                let named = tests.contains(&quoted) || tests.contains(&function);
                assert!(named || name.contains('_') && name.starts_with("tcp_"), "{}: no test {name}", code.name());
            }
        }
    }
}
