//! Finds every member of the shared table in the running kernel's BTF.

use agent_common::{
    layout::{Location, Locations, MEMBERS, Need, Row},
    settings::Settings,
};

use super::btf::Btf;

/// Where the members lie, and which optional ones this kernel does not have.
#[derive(Clone, Debug)]
pub struct Members {
    /// For the kernel side.
    pub locations: Locations,
    /// Optional members that are absent, as `structure.path`.
    pub absent: Vec<String>,
}

/// The kernel lacks members without which no line could be right.
#[derive(Debug, thiserror::Error)]
#[error(
    "this kernel has no {}: rstscope does not know its network stack; please report the kernel version",
    .0.join(", ")
)]
pub struct MissingMembers(pub Vec<String>);

/// Looks every member up.
///
/// # Errors
///
/// If a required member is missing, with the names of all that are.
pub fn find(btf: &Btf) -> Result<Members, MissingMembers> {
    let mut members = Members { locations: Settings::EMPTY.locations, absent: Vec::new() };
    let mut missing = Vec::new();
    for row in MEMBERS {
        match location(btf, row) {
            Some(location) => members.locations[row.member as usize] = location,
            None => {
                let name = format!("{}.{}", row.structure, row.path);
                match row.need {
                    Need::Required => missing.push(name),
                    Need::Optional => members.absent.push(name),
                }
            }
        }
    }
    if missing.is_empty() { Ok(members) } else { Err(MissingMembers(missing)) }
}

fn location(btf: &Btf, row: &Row) -> Option<Location> {
    let found = btf.member(row.structure, row.path)?;
    let is_bit_field = found.bit_size % 8 != 0 || found.bit_offset % 8 != 0;
    Location::new(found.bit_offset, if is_bit_field { found.bit_size } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use agent_common::layout::Member;

    use super::*;

    #[test]
    fn the_running_kernel_has_every_required_member() {
        let btf = Btf::from_kernel(Path::new("/sys/kernel/btf/vmlinux")).unwrap();
        let members = find(&btf).unwrap();
        let saw = members.locations[Member::SawTstamp as usize];
        assert_eq!(saw.width(), 1, "a bit-field keeps its width");
        assert!(members.locations[Member::LastSent as usize].byte() > 0);
        assert!(members.absent.iter().all(|name| name.contains('.')));
    }
}
