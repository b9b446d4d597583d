//! Metrics as text: OpenMetrics 1.0, and Prometheus' older text format for who does not ask for that.

use std::fmt::Error;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text::encode},
    metrics::exemplar::Exemplar,
    registry::Registry,
};

use super::{
    families::{Family, Type},
    samples::{Sources, Value},
};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Format {
    /// What a client asks for by its `Accept` header; Prometheus names OpenMetrics there if it can read it.
    #[must_use]
    pub fn asked(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics with their values now.
///
/// # Errors
///
/// Never: a string takes what is written to it.
pub fn text(sources: &Sources, format: Format) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All(sources.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => older(&text),
    })
}

#[derive(Debug)]
struct All(Sources);

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for (family, series) in self.0.collect() {
            let unit = family.unit();
            let stem = family.stem();
            let mut metric = encoder.encode_descriptor(stem, family.help(), unit.as_ref(), family.kind().into())?;
            for (labels, value) in series {
                if labels.is_empty() {
                    put(&mut metric, family.kind(), value)?;
                } else {
                    put(&mut metric.encode_family(&labels)?, family.kind(), value)?;
                }
            }
        }
        Ok(())
    }
}

fn put(metric: &mut MetricEncoder<'_>, kind: Type, value: Value) -> Result<(), Error> {
    const NONE: Option<&Exemplar<[(&str, &str); 0], u64>> = None;
    match (kind, value) {
        (Type::Counter, Value::Count(count)) => metric.encode_counter(&count, NONE),
        (Type::Counter, Value::Quantity(quantity)) => metric.encode_counter(&quantity, NONE),
        (Type::Gauge, Value::Count(count)) => metric.encode_gauge(&count),
        (Type::Gauge, Value::Quantity(quantity)) => metric.encode_gauge(&quantity),
    }
}

/// The same in the older format, in which metadata names a counter as its samples do, and units and an end are unknown.
fn older(text: &str) -> String {
    let counters: Vec<String> =
        Family::ALL.iter().filter(|family| family.kind() == Type::Counter).map(|family| family.name()).collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), _) => continue,
            (Some("#"), Some(keyword), Some(name)) if counters.iter().any(|counter| counter == name) => {
                out.extend(["# ", keyword, " ", name, "_total ", words.next().unwrap_or_default()]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_one_name_in_the_older_format() {
        let sources = Sources::default();
        let text = text(&sources, Format::Prometheus).unwrap();
        for name in ["rstscope_filtered_total", "process_cpu_seconds_total"] {
            assert!(text.contains(&format!("# HELP {name} ")), "{text}");
            assert!(text.contains(&format!("# TYPE {name} counter\n")), "{text}");
            assert!(text.contains(&format!("\n{name}")), "{text}");
        }
        assert!(text.contains("rstscope_filtered_total{by=\"kernel\"} 0\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }

    #[test]
    fn openmetrics_ends_with_its_end_and_has_units() {
        let text = text(&Sources::default(), Format::OpenMetrics).unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains("# TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\n"), "{text}");
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert!(text.contains("# TYPE rstscope_filtered counter\n"), "{text}");
    }

    #[test]
    fn whoever_does_not_ask_gets_the_older_format() {
        let asked = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::asked(Some(asked)), Format::OpenMetrics);
        assert_eq!(Format::asked(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::asked(None), Format::Prometheus);
    }
}
