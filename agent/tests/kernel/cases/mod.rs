//! The cases, by what they are about.

mod after_close;
mod causes;
mod command_line;
mod connects;
mod handed_on;
mod lifetime;
mod load;
mod near_misses;
mod older;
mod owner;
mod proxies;
mod resets;
mod scale;
mod wrap;

use crate::Case;

pub use wrap::CASES_AFTER_BOOT;

/// Every case that any machine can run.
pub fn all() -> Vec<Case> {
    [resting_on_hooks(), command_line::CASES.to_vec(), scale::CASES.to_vec()].concat()
}

/// Those whose outcome rests on what the hooks saw: with one kind of hook by force, only these are worth another run.
pub fn resting_on_hooks() -> Vec<Case> {
    [
        resets::CASES,
        after_close::CASES,
        connects::CASES,
        causes::CASES,
        proxies::CASES,
        near_misses::CASES,
        owner::CASES,
        handed_on::CASES,
        older::CASES,
        lifetime::CASES,
        load::CASES,
    ]
    .concat()
}
