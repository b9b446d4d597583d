//! What processes went through just before: which failure of one connection led a process to end another.
//!
//! A failure has one consequence. Of several that may be meant by an ending, the one over which as many bytes had gone is
//! taken; else, if all of them are alike (the same peer, failed in the same way), the first, and that is only possible; else
//! none.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fit::{BEFOREHAND_NS, Fit, WINDOW_NS, fit},
    step::Step,
};
use crate::{
    diagnosis::{cause::Confidence, code::Code},
    event::{Event, Millis, What, party::Owner},
};

/// How many steps are kept: those of the busiest proxy's last milliseconds, and a quiet node's last hours.
pub(super) const MOST: usize = 4096;
/// How many failures of one process within the time are looked at. Where there are more, nothing is said.
const MOST_CANDIDATES: usize = 256;

/// Name of a step that is remembered, in the order in which they came.
pub type StepId = u64;

/// By process, moment and step.
type Moments = BTreeSet<(u32, u64, StepId)>;

/// The last steps.
#[derive(Debug, Default)]
pub struct Recent {
    next: StepId,
    steps: BTreeMap<StepId, Remembered>,
    failures: Moments,
    endings: Moments,
}

#[derive(Debug)]
struct Remembered {
    step: Step,
    /// The failure that this is the consequence of.
    because: Option<Because>,
    /// The consequence of this failure.
    led_to: Option<StepId>,
    /// The same seen from the other end of the connection.
    twin: Option<StepId>,
}

/// A failure that led to something, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Because {
    id: StepId,
    confidence: Confidence,
}

/// What a process ended a connection for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Before<'a> {
    /// Which step that was.
    pub id: StepId,
    /// What happened.
    pub step: &'a Step,
    /// How sure it is that the connection was ended for it: never certain, because nothing in the kernel ties the two.
    pub confidence: Confidence,
    /// How long before the end.
    pub ago: Millis,
}

impl Before<'_> {
    /// Whether a connect had failed.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        matches!(self.step.what, What::ConnectFailed(_))
    }

    /// Whether a reset had been received.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.step.what == What::ResetReceived
    }
}

impl Recent {
    /// Notes an event; `None` if nothing can come of it and it comes of nothing.
    pub fn note(&mut self, event: &Event, owner: &Owner) -> Option<StepId> {
        let step = Step::of(event, owner)?;
        if self.steps.len() == MOST {
            self.forget_oldest();
        }
        let id = self.next;
        self.next += 1;
        let (pid, failed_ns, ended_ns) = (step.pid, step.failed_ns, step.ended_ns);
        self.failures.extend(failed_ns.map(|ns| (pid, ns, id)));
        self.endings.extend(ended_ns.map(|ns| (pid, ns, id)));
        self.steps.insert(id, Remembered { step, because: None, led_to: None, twin: None });
        if ended_ns.is_some() {
            self.explain(id);
        }
        if let Some(ns) = failed_ns {
            self.explain_anew(pid, ns);
        }
        Some(id)
    }

    /// Notes what was found out about a step since.
    pub fn learn(&mut self, id: StepId, cause: Code, connection: Option<&str>) {
        if let Some(remembered) = self.steps.get_mut(&id) {
            remembered.step.cause = Some(cause);
            remembered.step.connection = connection.map(str::to_owned);
        }
    }

    /// Notes whose the other end is, and its own step if there is one.
    pub fn learn_far_end(&mut self, id: StepId, owner: &Owner, netns: Option<u32>, twin: Option<StepId>) {
        if let Some(remembered) = self.steps.get_mut(&id) {
            remembered.step.far = Some((owner.clone(), netns));
            remembered.twin = twin;
        }
    }

    /// A step, unless it was forgotten.
    #[must_use]
    pub fn step(&self, id: StepId) -> Option<&Step> {
        Some(&self.steps.get(&id)?.step)
    }

    /// The step of the other end.
    #[must_use]
    pub fn twin(&self, id: StepId) -> Option<StepId> {
        self.steps.get(&id)?.twin
    }

    /// What the connection of a step was ended for.
    #[must_use]
    pub fn before(&self, id: StepId) -> Option<Before<'_>> {
        let ended = self.steps.get(&id)?;
        self.told(&ended.step, ended.because?)
    }

    /// Which step the connection of a step was ended for, if any; `None` if the step itself was forgotten.
    #[must_use]
    pub fn explanation(&self, id: StepId) -> Option<Option<StepId>> {
        Some(self.steps.get(&id)?.because.map(|because| because.id))
    }

    /// What a step led its process to.
    #[must_use]
    pub fn after(&self, id: StepId) -> Option<StepId> {
        self.steps.get(&id)?.led_to.filter(|later| self.steps.contains_key(later))
    }

    fn told(&self, ended: &Step, Because { id, confidence }: Because) -> Option<Before<'_>> {
        let step = self.step(id)?;
        let ago = Millis::from_ns(ended.ended_ns?.saturating_sub(step.failed_ns?));
        Some(Before { id, step, confidence, ago })
    }

    /// A failure that is told after endings that may belong to it: some processes end the one connection just beforehand, and
    /// whether a reset was received is not always known at once.
    fn explain_anew(&mut self, pid: u32, failed_ns: u64) {
        let first_ns = failed_ns.saturating_sub(BEFOREHAND_NS);
        let near = self.endings.range((pid, first_ns, 0)..=(pid, failed_ns + WINDOW_NS, StepId::MAX));
        let near: Vec<StepId> = near.map(|&(_, _, id)| id).take(MOST_CANDIDATES).collect();
        let before: Vec<Option<Because>> = near.iter().map(|id| self.unexplain(*id)).collect();
        for id in &near {
            self.explain(*id);
        }
        for (id, before) in near.iter().zip(before) {
            if let Some(ended) = self.steps.get_mut(id).filter(|ended| ended.because != before) {
                ended.step.cause = None;
            }
        }
    }

    /// Forgets what an ending was the consequence of, and returns it.
    fn unexplain(&mut self, id: StepId) -> Option<Because> {
        let because = self.steps.get_mut(&id)?.because.take()?;
        if let Some(failed) = self.steps.get_mut(&because.id) {
            failed.led_to = None;
        }
        Some(because)
    }

    /// Finds what an ending is the consequence of.
    fn explain(&mut self, id: StepId) {
        let Some(because) = self.steps.get(&id).and_then(|ended| self.look_for(&ended.step)) else { return };
        if let Some(other) = self.after(because.id).filter(|other| *other != id) {
            self.unexplain(other);
            self.steps.entry(other).and_modify(|other| other.step.cause = None);
        }
        if let Some(ended) = self.steps.get_mut(&id) {
            ended.because = Some(because);
        }
        if let Some(failed) = self.steps.get_mut(&because.id) {
            failed.led_to = Some(id);
        }
    }

    fn look_for(&self, ended: &Step) -> Option<Because> {
        let fits = self.candidates(ended)?;
        let (mut free, taken): (Vec<_>, Vec<_>) = fits.into_iter().partition(|(id, _)| self.is_free(*id, ended));
        let doubtful = taken.iter().any(|(id, _)| self.was_a_guess(*id));
        self.drop_earlier_attempts(&mut free);
        let same_bytes: Vec<_> = free.iter().filter(|(_, fit)| fit.same_bytes).collect();
        let ((id, fit), is_sure) = match (&free[..], &same_bytes[..]) {
            ([], _) => return None,
            ([only], _) => (only, !doubtful),
            (_, [only]) => (*only, true),
            ([first, others @ ..], _) if others.iter().all(|(other, _)| self.are_alike(first.0, *other)) => {
                (first, false)
            }
            _ => return None,
        };
        let confidence = if is_sure && fit.is_strong() { Confidence::Likely } else { Confidence::Possible };
        Some(Because { id: *id, confidence })
    }

    /// The failures that fit, in the order of time. `None` if there are too many to tell.
    fn candidates(&self, ended: &Step) -> Option<Vec<(StepId, Fit)>> {
        let (pid, ended_ns) = (ended.pid, ended.ended_ns?);
        let (first_ns, last_ns) = (ended_ns.saturating_sub(WINDOW_NS), ended_ns.saturating_add(BEFOREHAND_NS));
        let within = self.failures.range((pid, first_ns, 0)..=(pid, last_ns, StepId::MAX));
        if within.clone().nth(MOST_CANDIDATES).is_some() {
            return None;
        }
        let mut fits: Vec<_> = within.filter_map(|&(_, _, id)| Some((id, fit(self.step(id)?, ended)?))).collect();
        // What came before may have led to it, what came after rather did not.
        if fits.iter().any(|(_, fit)| !fit.beforehand) {
            fits.retain(|(_, fit)| !fit.beforehand);
        }
        // One thread is better evidence than one process.
        if fits.iter().any(|(_, fit)| fit.same_thread) {
            fits.retain(|(_, fit)| fit.same_thread);
        }
        Some(fits)
    }

    /// Whether a failure has had no consequence yet that this one would have to stand back for: another step of the same
    /// connection's end (its FIN) or one that came beforehand does not count.
    fn is_free(&self, id: StepId, ended: &Step) -> bool {
        let Some((failed, other)) = self.step(id).zip(self.after(id).and_then(|other| self.step(other))) else {
            return true;
        };
        other.is_of_the_same_connection(ended)
            || (other.ended_ns < failed.failed_ns && ended.ended_ns >= failed.failed_ns)
    }

    /// Whether a failure was taken for the cause of another ending, and that could have been wrong.
    fn was_a_guess(&self, id: StepId) -> bool {
        let because = self.after(id).and_then(|later| self.steps.get(&later)?.because);
        because.is_some_and(|because| because.confidence == Confidence::Possible)
    }

    /// A connect that was tried again, and failed again, has had that as its consequence.
    fn drop_earlier_attempts(&self, free: &mut Vec<(StepId, Fit)>) {
        let Some(last) = free.last().and_then(|(id, _)| self.step(*id)) else { return };
        let tried_again = |id: StepId| self.step(id).is_some_and(|step| last.is_another_attempt_at(step));
        free.retain(|(id, _)| !tried_again(*id));
    }

    /// Whether it makes no difference to the reader which of the two it was.
    fn are_alike(&self, one: StepId, other: StepId) -> bool {
        let story = |id| self.step(id).map(|step| (step.what, step.peer, step.role));
        story(one) == story(other)
    }

    fn forget_oldest(&mut self) {
        let Some((id, Remembered { step, .. })) = self.steps.pop_first() else { return };
        if let Some(ns) = step.failed_ns {
            self.failures.remove(&(step.pid, ns, id));
        }
        if let Some(ns) = step.ended_ns {
            self.endings.remove(&(step.pid, ns, id));
        }
    }
}

#[cfg(test)]
impl Recent {
    /// How many steps, failures and endings are remembered.
    pub fn sizes(&self) -> [usize; 3] {
        [self.steps.len(), self.failures.len(), self.endings.len()]
    }

    /// What the connection of an event that was not noted was ended for.
    pub fn before_event(&self, event: &Event) -> Option<Before<'_>> {
        let step = Step::of(event, &Owner::default())?;
        self.told(&step, self.look_for(&step)?)
    }
}
