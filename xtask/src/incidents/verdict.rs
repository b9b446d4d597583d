//! What a story found: what it measured, and where rstscope said something else than what had happened.

use std::{ops::RangeInclusive, process::Output, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The kernel stamps a socket in ticks. Two of them at HZ 250.
pub const TWO_TICKS_MS: f64 = 8.0;

/// What was looked at: the cause can only be right if the facts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// What the kernel showed.
    Facts,
    /// What rstscope concluded from it.
    Cause,
}

impl Layer {
    /// As the result names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Cause => "cause",
        }
    }
}

/// What a story found so far.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    problems: Vec<Value>,
    measured: Vec<String>,
    said: Vec<String>,
}

impl Verdict {
    /// Notes a measured number for the table.
    pub fn measured(&mut self, what: String) {
        self.measured.push(what);
    }

    /// Notes something that is not as expected, with the line that says so where there is one.
    pub fn problem(&mut self, layer: Layer, expected: &str, line: Option<&Value>) {
        self.problems.push(json!({ "layer": layer.name(), "expected": expected, "line": line }));
    }

    /// Expects this value at the pointer.
    pub fn is(&mut self, line: &Value, pointer: &str, value: impl Into<Value>) {
        let value = value.into();
        if line.pointer(pointer) != Some(&value) {
            self.unexpected(Layer::Facts, line, pointer, &value.to_string());
        }
    }

    /// Expects one of these values at the pointer.
    pub fn is_one_of(&mut self, line: &Value, pointer: &str, values: &[&str]) {
        if !line.pointer(pointer).and_then(Value::as_str).is_some_and(|found| values.contains(&found)) {
            self.unexpected(Layer::Facts, line, pointer, &values.join(" or "));
        }
    }

    /// Expects nothing at the pointer.
    pub fn absent(&mut self, line: &Value, pointer: &str) {
        if line.pointer(pointer).is_some() {
            self.unexpected(Layer::Facts, line, pointer, "nothing");
        }
    }

    /// Expects a number in this range at the pointer.
    pub fn within(&mut self, line: &Value, pointer: &str, range: &RangeInclusive<f64>) {
        if !number(line, pointer).is_some_and(|found| range.contains(&found)) {
            self.unexpected(Layer::Facts, line, pointer, &shown(range));
        }
    }

    /// Expects this cause.
    pub fn cause(&mut self, line: &Value, code: &str) {
        let pointer = "/cause/code";
        let word = |pointer: &str| line.pointer(pointer).and_then(Value::as_str).unwrap_or("nothing").to_owned();
        self.said.push(format!("{}: {}", word("/local/process/comm"), word("/cause/summary")));
        if line.pointer(pointer).and_then(Value::as_str) != Some(code) {
            self.unexpected(Layer::Cause, line, pointer, code);
        }
    }

    /// Expects a number in this range among the evidence of the cause.
    pub fn evidence(&mut self, line: &Value, what: &str, range: &RangeInclusive<f64>) {
        let pointer = "/cause/evidence";
        if !line.pointer(pointer).is_some_and(|evidence| holds(evidence, range)) {
            self.unexpected(Layer::Cause, line, pointer, &format!("{what}, {}", shown(range)));
        }
    }

    /// Expects this product among those whose timeout fits.
    pub fn product(&mut self, line: &Value, name: &str) {
        let pointer = "/cause/products";
        let mut products = line.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let is_named = |product: &Value| product["product"].as_str().is_some_and(|product| product.contains(name));
        if !products.any(is_named) {
            self.unexpected(Layer::Cause, line, pointer, &format!("{name} among them"));
        }
    }

    /// Expects that a line is linked with just these other lines: how, and with which. `follows_from` or `leads_to`.
    pub fn chain(&mut self, line: &Value, links: &[(&str, &Value)]) {
        let pointer = "/connection/chain";
        let found = line.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is = |link: &Value, relation: &str, other: &Value| {
            link["relation"] == relation
                && link["confidence"] == "likely"
                && link["connection"] == other["connection"]["id"]
                && link["cause"] == other["cause"]["code"]
                && ["type", "local", "peer"].iter().all(|key| link[key] == other[key])
        };
        let all = found.len() == links.len()
            && found.iter().zip(links).all(|(link, (relation, other))| is(link, relation, other));
        if !all {
            let shown = |(relation, other): &(&str, &Value)| format!("{relation} {}", other["connection"]["id"]);
            let links: Vec<String> = links.iter().map(shown).collect();
            self.unexpected(Layer::Cause, line, pointer, &format!("likely: [{}]", links.join(", ")));
        }
    }

    fn unexpected(&mut self, layer: Layer, line: &Value, pointer: &str, expected: &str) {
        let found = line.pointer(pointer).map_or_else(|| "nothing".to_owned(), Value::to_string);
        self.problem(layer, &format!("{pointer} is {found}; expected was {expected}"), Some(line));
    }

    /// For the process that started the story.
    pub fn to_json(&self) -> Value {
        json!({ "problems": self.problems, "measured": self.measured, "said": self.said })
    }

    /// What such a process said.
    fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the story said what is no JSON")?;
        let list = |name: &str| value[name].as_array().cloned().with_context(|| format!("the story said no {name}"));
        let texts = |name: &str| -> Result<Vec<String>> {
            Ok(list(name)?.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect())
        };
        Ok(Self { problems: list("problems")?, measured: texts("measured")?, said: texts("said")? })
    }

    /// What the process of a story or a case (`whose`) said, or that it failed.
    pub fn of_process(output: &Output, whose: &str) -> Result<Self> {
        if output.status.success() {
            return Self::from_json(&String::from_utf8_lossy(&output.stdout));
        }
        let mut verdict = Self::default();
        verdict.problem(Layer::Facts, &format!("the {whose}'s process failed ({}), see above", output.status), None);
        Ok(verdict)
    }

    /// One word for the table: the first layer that is not right.
    pub fn result(&self) -> &'static str {
        let failed = |layer: Layer| self.problems.iter().any(|problem| problem["layer"] == layer.name());
        match (failed(Layer::Facts), failed(Layer::Cause)) {
            (false, false) => "passed",
            (true, _) => "FAILED facts",
            (false, true) => "FAILED cause",
        }
    }

    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// The measured numbers, for the table.
    pub fn numbers(&self) -> String {
        self.measured.join("; ")
    }

    /// Whose line said what about the cause, in the order of the story.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// What was not as expected, under each line of rstscope that shows it.
    pub fn explanation(&self) -> String {
        let mut text = String::new();
        let mut told: Vec<&Value> = Vec::new();
        for problem in &self.problems {
            let line = &problem["line"];
            if !line.is_null() && told.contains(&line) {
                continue;
            }
            let same = self.problems.iter().filter(|other| other["line"] == *line && !line.is_null());
            let alone = std::iter::once(problem).filter(|_| line.is_null());
            for about in same.chain(alone) {
                let word = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
                text.push_str(&format!("  {}: {}\n", word("layer"), word("expected")));
            }
            if !line.is_null() {
                text.push_str(&format!("  line: {line}\n"));
                told.push(line);
            }
        }
        text
    }
}

/// The number at the pointer.
pub fn number(line: &Value, pointer: &str) -> Option<f64> {
    line.pointer(pointer).and_then(Value::as_f64)
}

/// Milliseconds at the pointer in seconds, for the table.
pub fn seconds(line: &Value, pointer: &str) -> String {
    number(line, pointer).map_or_else(|| "unknown".to_owned(), |millis| format!("{:.3} s", millis / 1000.0))
}

fn shown(range: &RangeInclusive<f64>) -> String {
    format!("{:.0} to {:.0}", range.start(), range.end())
}

fn holds(value: &Value, range: &RangeInclusive<f64>) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| range.contains(&number)),
        Value::Array(values) => values.iter().any(|value| holds(value, range)),
        Value::Object(values) => values.values().any(|value| holds(value, range)),
        _ => false,
    }
}

/// Prints what failed and why, a table of all that was played of `total` stories or cases (`kind`), with what each measured or
/// named (`last`), and fails if one did; `command` plays it again.
pub fn summarise(
    command: &str,
    kind: &str,
    last: &str,
    total: usize,
    played: &[(&str, Verdict, Duration)],
) -> Result<()> {
    let failed: Vec<_> = played.iter().filter(|(_, verdict, _)| !verdict.passed()).collect();
    for (name, verdict, _) in &failed {
        println!("\n== {name}\n{}", verdict.explanation().trim_end());
    }
    println!("\n{kind:24} {:12} {:>8}  {last}", "result", "seconds");
    for (name, verdict, taken) in played {
        let row = format!("{name:24} {:12} {:8.1}  {}", verdict.result(), taken.as_secs_f64(), verdict.numbers());
        println!("{}", row.trim_end());
    }
    let passed = played.len() - failed.len();
    println!("{passed} passed, {} failed, {} skipped", failed.len(), total - played.len());
    if let [(first, ..), ..] = failed[..] {
        bail!("to play one of them again: `cargo xtask {command} {first}`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_fail_before_the_cause_does() {
        let line = json!({ "tcp": { "state": "CLOSE_WAIT" }, "idle": { "rx_ms": 6004 } });
        let mut verdict = Verdict::default();
        verdict.is(&line, "/tcp/state", "CLOSE_WAIT");
        verdict.within(&line, "/idle/rx_ms", &(5992.0..=6100.0));
        verdict.absent(&line, "/tcp/error");
        assert_eq!(verdict.result(), "passed");
        verdict.cause(&line, "stale_connection_reuse");
        assert_eq!(verdict.result(), "FAILED cause");
        verdict.within(&line, "/idle/tx_ms", &(0.0..=8.0));
        assert_eq!(verdict.result(), "FAILED facts");
    }

    #[test]
    fn a_chain_is_as_long_as_expected_and_names_the_other_line() {
        let other = json!({ "type": "reset", "connection": { "id": "1" }, "cause": { "code": "unknown" } });
        let link = json!({ "relation": "leads_to", "confidence": "likely", "type": "reset", "connection": "1", "cause": "unknown" });
        let line = json!({ "connection": { "chain": [link] } });
        let passed = |links: &[(&str, &Value)]| {
            let mut verdict = Verdict::default();
            verdict.chain(&line, links);
            verdict.passed()
        };
        assert!(passed(&[("leads_to", &other)]));
        assert!(!passed(&[]) && !passed(&[("follows_from", &other)]) && !passed(&[("leads_to", &line)]));
    }

    #[test]
    fn a_verdict_survives_the_way_between_processes() {
        let mut verdict = Verdict::default();
        verdict.measured("idle 6.004 s".to_owned());
        verdict.is(&json!({ "type": "reset" }), "/type", "timeout");
        let again = Verdict::from_json(&verdict.to_json().to_string()).unwrap();
        assert_eq!(again.numbers(), "idle 6.004 s");
        assert_eq!(again.explanation(), verdict.explanation());
        assert!(!again.passed());
    }

    #[test]
    fn evidence_is_found_at_any_depth() {
        let range = 5992.0..=6100.0;
        assert!(holds(&json!({ "timeout": [{ "idle_ms": 6004.0 }] }), &range));
        assert!(!holds(&json!({ "timeout": "6004", "idle_ms": 400 }), &range));
    }
}
