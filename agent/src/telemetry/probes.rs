//! Whether the agent lives, and whether it is ready: Kubernetes' two questions.
//!
//! Neither depends on a sink, nor on anybody else's service: an agent must not be restarted because Loki is away, and no
//! rollout may stand still because the API server is.

use std::{fmt::Write, time::Duration};

use super::{events::source, vitals::Vitals};
use crate::attribution::pods::health::Health;

/// The loops look for work at least twice a second; one that has not for so long hangs.
const SILENCE: Duration = Duration::from_secs(30);
/// Sources of pods' names that have neither answered nor failed after this time are not waited for any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer: a check to a line, as the API server's own `/livez?verbose` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All checks passed.
    pub is_well: bool,
    /// The checks.
    pub text: String,
}

/// `/livez`: a loop that hangs does not come back by itself.
#[must_use]
pub fn liveness(vitals: &Vitals) -> Answer {
    let is_alive = |silence: Duration| (silence < SILENCE, format!("silent for {} s", silence.as_secs()));
    // Before the start is over there is nothing to hang.
    let begun = vitals.hooks().is_some();
    let reader = if begun { vitals.reader.silence() } else { Duration::ZERO };
    let pipeline = if begun { vitals.pipeline.silence() } else { Duration::ZERO };
    answer(&[("reader", is_alive(reader)), ("pipeline", is_alive(pipeline))])
}

/// `/readyz`: the programs are attached, and who names pods has answered, or failed, or had its time.
#[must_use]
pub fn readiness(vitals: &Vitals) -> Answer {
    let attached = vitals.hooks().is_some();
    let mut checks = vec![("hooks", (attached, "not attached yet".to_owned()))];
    for (who, health) in vitals.healths().iter().flat_map(|healths| healths.all()) {
        if health != Health::Off {
            let is_waited_for = health == Health::Waiting && vitals.age() < PATIENCE;
            checks.push((source(who), (!is_waited_for, "asked, no answer yet".to_owned())));
        }
    }
    answer(&checks)
}

/// See [`readiness`].
#[must_use]
pub fn is_ready(vitals: &Vitals) -> bool {
    readiness(vitals).is_well
}

fn answer(checks: &[(&str, (bool, String))]) -> Answer {
    let mut text = String::new();
    for (name, (is_well, why_not)) in checks {
        // A string takes what is written to it.
        let _infallible =
            if *is_well { writeln!(text, "[+]{name} ok") } else { writeln!(text, "[-]{name} failed: {why_not}") };
    }
    Answer { is_well: checks.iter().all(|(_, (is_well, _))| *is_well), text }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        attribution::pods::health::{Healths, Report},
        event::party::Source,
        kernel::attach::Attached,
    };

    #[test]
    fn it_is_ready_when_the_programs_are_attached_and_whoever_is_asked_has_said_something() {
        let vitals = Vitals::default();
        assert!(liveness(&vitals).is_well, "nothing can hang before the start is over");
        assert_eq!(readiness(&vitals).text, "[-]hooks failed: not attached yet\n");
        let healths = Arc::new(Healths::default());
        vitals.asks(Arc::clone(&healths));
        vitals.attached(&Attached::default());
        assert!(is_ready(&vitals), "nobody is asked");
        let report = Report::new(&healths, Source::Kubelet);
        report.asked();
        assert_eq!(readiness(&vitals).text, "[+]hooks ok\n[-]kubelet failed: asked, no answer yet\n");
        report.answered(3);
        assert!(is_ready(&vitals));
    }
}
