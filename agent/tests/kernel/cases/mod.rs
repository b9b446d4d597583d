//! The cases, by what they are about.

mod after_close;
mod backends;
mod causes;
mod chains;
mod command_line;
mod connects;
mod firewall;
mod handed_on;
mod lifetime;
mod load;
mod log;
mod near_misses;
mod older;
mod owner;
mod pods;
mod privileges;
mod proxies;
mod resets;
mod scale;
mod sinks;
mod telemetry;
mod wrap;

use crate::Case;

pub use wrap::CASES_AFTER_BOOT;

/// Every case that any machine can run.
pub fn all() -> Vec<Case> {
    let others = [
        owner::CASES_OF_NAMES,
        handed_on::CASES_OF_MEMORY,
        older::CASES,
        lifetime::CASES_OF_AGES,
        load::CASES_OF_THE_RING,
        privileges::CASES,
        command_line::CASES,
    ];
    [resting_on_hooks(), others.concat()].concat()
}

/// Those that are the same on every kernel, because they are about what the agent does with what it was told; and packet
/// filters and the translation of addresses, for which the guests of `cargo xtask vm` have neither the modules nor the
/// program.
pub fn the_same_on_every_kernel() -> Vec<Case> {
    [
        command_line::CASES_OF_THE_PROGRAM,
        near_misses::CASES_OF_FILTERS,
        pods::CASES,
        scale::CASES,
        sinks::CASES,
        telemetry::CASES,
        privileges::CASES_OF_SINKS,
        log::CASES,
        backends::CASES,
        firewall::CASES,
        chains::CASES_OF_MANY,
    ]
    .concat()
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
        lifetime::CASES,
        load::CASES,
    ]
    .concat()
}
