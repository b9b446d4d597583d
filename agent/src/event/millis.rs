//! Durations in milliseconds, as every line has them.

use serde::{Serialize, Serializer};

/// A duration in milliseconds, to the microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Millis(pub f64);

impl Millis {
    /// From nanoseconds.
    #[must_use]
    pub fn from_ns(ns: u64) -> Self {
        Self((ns / 1000) as f64 / 1000.0)
    }

    /// From microseconds.
    #[must_use]
    pub fn from_us(us: u64) -> Self {
        Self(us as f64 / 1000.0)
    }

    /// From kernel ticks at `hz` per second.
    #[must_use]
    pub fn from_ticks(ticks: u32, hz: u32) -> Self {
        Self::from_us(u64::from(ticks) * 1_000_000 / u64::from(hz))
    }
}

impl Serialize for Millis {
    /// Whole milliseconds as an integer: a value counted in ticks claims no decimals.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 { serializer.serialize_u64(self.0 as u64) } else { serializer.serialize_f64(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(millis: Millis) -> String {
        serde_json::to_string(&millis).unwrap()
    }

    #[test]
    fn ticks_become_whole_milliseconds_where_they_are() {
        assert_eq!(json(Millis::from_ticks(1502, 250)), "6008");
        assert_eq!(json(Millis::from_ticks(1, 300)), "3.333");
        assert_eq!(json(Millis::from_ticks(0, 100)), "0");
    }

    #[test]
    fn ages_keep_microseconds() {
        assert_eq!(json(Millis::from_ns(6_012_345_678)), "6012.345");
    }
}
