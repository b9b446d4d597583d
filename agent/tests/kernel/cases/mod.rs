//! The cases, by what they are about.

mod after_close;
mod backends;
mod causes;
mod chains;
mod command_line;
mod connects;
mod handed_on;
mod lifetime;
mod load;
mod near_misses;
mod older;
mod owner;
mod pods;
mod proxies;
mod resets;
mod scale;
mod sinks;
mod wrap;

use crate::Case;

pub use backends::CASES as CASES_WITH_TRANSLATION;
pub use wrap::CASES_AFTER_BOOT;

/// Every case that any machine can run.
pub fn all() -> Vec<Case> {
    let others =
        [owner::CASES_OF_NAMES, pods::CASES, load::CASES_OF_THE_RING, command_line::CASES, scale::CASES, sinks::CASES];
    [resting_on_hooks(), others.concat()].concat()
}

/// Those whose outcome rests on what the hooks saw: with one kind of hook by force, only these are worth another run.
pub fn resting_on_hooks() -> Vec<Case> {
    [
        resets::CASES,
        after_close::CASES,
        connects::CASES,
        causes::CASES,
        proxies::CASES,
        &chains::cases(),
        near_misses::CASES,
        owner::CASES,
        handed_on::CASES,
        older::CASES,
        lifetime::CASES,
        load::CASES,
    ]
    .concat()
}
