//! The cases, by what they are about.

mod after_close;
mod causes;
mod command_line;
mod connects;
mod lifetime;
mod load;
mod owner;
mod resets;

use crate::Case;

/// Every case.
pub fn all() -> Vec<Case> {
    [
        resets::CASES,
        after_close::CASES,
        connects::CASES,
        causes::CASES,
        owner::CASES,
        lifetime::CASES,
        load::CASES,
        command_line::CASES,
    ]
    .concat()
}
