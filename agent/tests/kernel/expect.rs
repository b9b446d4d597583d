//! What a line has to say; comparisons of measured times with what a test itself measured around each step.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::agent::is_slow;

/// Two ticks at HZ 250; at HZ 1000 it is eight, at HZ 100 less than one, which no matrix kernel has.
pub const TWO_TICKS_MS: f64 = 8.0;

/// When a step happened: between these two moments.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    before: Instant,
    after: Instant,
}

impl Step {
    /// Does `work` and notes when.
    pub fn of<T>(work: impl FnOnce() -> T) -> (Self, T) {
        let before = Instant::now();
        let value = work();
        (Self { before, after: Instant::now() }, value)
    }

    /// Milliseconds that can lie between this step and a later one.
    pub fn until(&self, later: &Self) -> RangeInclusive<f64> {
        let least = later.before.saturating_duration_since(self.after);
        let most = later.after.duration_since(self.before);
        millis(least)..=millis(most)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Two ticks; in an emulated machine six, because its ticks come late while its host is busy, and jiffies with them.
fn tolerance_ms() -> f64 {
    if is_slow() { 3.0 * TWO_TICKS_MS } else { TWO_TICKS_MS }
}

/// Asserts that a number of the line lies in `range`, two ticks either way.
#[track_caller]
pub fn near(line: &Value, pointer: &str, range: &RangeInclusive<f64>) {
    let found = number(line, pointer);
    let (least, most) = (range.start() - tolerance_ms(), range.end() + tolerance_ms());
    assert!(
        (least..=most).contains(&found),
        "{pointer} is {found}, not within {least:.1} to {most:.1}\nline: {line:#}"
    );
}

/// The number at `pointer`.
#[track_caller]
pub fn number(line: &Value, pointer: &str) -> f64 {
    line.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer}\nline: {line:#}"))
}

/// Asserts that `pointer` holds `value`.
#[track_caller]
pub fn is(line: &Value, pointer: &str, value: impl Into<Value>) {
    let value = value.into();
    assert_eq!(line.pointer(pointer), Some(&value), "at {pointer}\nline: {line:#}");
}

/// Asserts that nothing is said at `pointer`.
#[track_caller]
pub fn absent(line: &Value, pointer: &str) {
    assert_eq!(line.pointer(pointer), None, "at {pointer}\nline: {line:#}");
}

/// Asserts the cause's code and confidence.
#[track_caller]
pub fn cause(line: &Value, code: &str, confidence: &str) {
    is(line, "/cause/code", code);
    is(line, "/cause/confidence", confidence);
}

/// By how many milliseconds one line's event came before the other's. A reset that a close sent came with the close, which
/// may have lost the processor before it was told of.
pub fn apart_ms(first: &Value, second: &Value) -> f64 {
    let time = |line: &Value| -> jiff::Timestamp {
        line["time"].as_str().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("no time: {line}"))
    };
    let told_late_ms = |line: &Value| {
        let by_close = line["facts"]["ended_before"] == true;
        line["facts"]["closed_ms_ago"].as_f64().filter(|_| by_close).unwrap_or(0.0)
    };
    time(second).duration_since(time(first)).as_secs_f64() * 1000.0 + told_late_ms(first) - told_late_ms(second)
}

/// Plays a scene until its timing was hit, which a slow machine misses at times. The scene itself asserts what a line may
/// say that missed it.
#[track_caller]
pub fn until_hit(mut scene: impl FnMut() -> bool) {
    assert!((0..20).any(|_| scene()), "missed 20 times");
}
