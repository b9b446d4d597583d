//! Questions about the kernel's types, answered by following references from type to type.
//!
//! No reference is trusted: it may point nowhere, which ends the search with `None`, or back to
//! where it came from, so every walk has a limit or remembers where it has been.

use std::collections::HashSet;

use super::parse::{Namespace, Type, kind};
use super::{Btf, MemberLocation};

/// Typedefs, qualifiers and array dimensions followed before a chain is taken to be circular; real
/// ones stay below ten.
const MAX_CHAIN: usize = 32;

/// BTF does not record the size of a pointer. eBPF runs on 64-bit kernels here.
const POINTER_BITS: u64 = 64;

impl Btf {
    /// Where a member lies inside a struct or union.
    ///
    /// `structure` is the name of a struct, of a union, or of a typedef to one. `path` is dotted,
    /// as in `("inet_connection_sock", "icsk_ack.lrcvtime")`; each part may sit inside any number
    /// of unnamed members, which are left out of the path as they are in C. A path does not lead
    /// through pointers or array elements.
    ///
    /// `None` if this kernel has no such struct or no such member.
    #[must_use]
    pub fn member(&self, structure: &str, path: &str) -> Option<MemberLocation> {
        let mut parts = path.split('.');
        let owner = self.composite(structure)?;
        let mut found = self.named_member(owner, parts.next()?)?;
        for part in parts {
            let inner = self.named_member(self.peel(found.type_id)?, part)?;
            found = Member { bit_offset: found.bit_offset.checked_add(inner.bit_offset)?, ..inner };
        }
        self.location(found)
    }

    /// Number of arguments a raw tracepoint hands to a program attached to it.
    ///
    /// A program that reads more than these is refused by the kernel. `None` if this kernel has no
    /// such tracepoint (those of loadable modules are described elsewhere and not found here).
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let typedef = self.find(Namespace::Typedef, &format!("btf_trace_{name}"))?;
        let pointer = self.peel(typedef.id)?;
        if pointer.kind != kind::PTR {
            return None;
        }
        let prototype = self.peel(pointer.size_or_type)?;
        if prototype.kind != kind::FUNC_PROTO {
            return None;
        }
        // The first parameter is the probe's own `void *__data`, which programs never see.
        let (parameters, _) = prototype.tail.as_chunks::<2>();
        parameters.len().checked_sub(1)
    }

    /// The enumerators of `enum NAME` in the order of their definition: value and name.
    ///
    /// Kernels before 6.0 do not record that an enum is signed, so their negative values appear as
    /// large ones, -1 as 4294967295. Unsigned 64-bit values above the range wrap to negative ones.
    ///
    /// `None` if this kernel has no such enum.
    #[must_use]
    pub fn enumerators(&self, name: &str) -> Option<Vec<(i64, String)>> {
        let found = self.find(Namespace::Enumeration, name)?;
        let named = |value, name| {
            let name = String::from_utf8_lossy(self.name(name)?).into_owned();
            Some((value, name))
        };
        if found.kind == kind::ENUM64 {
            let (entries, _) = found.tail.as_chunks::<3>();
            let value = |low, high| (u64::from(low) | u64::from(high) << 32).cast_signed();
            entries.iter().map(|&[name, low, high]: &[u32; 3]| named(value(low, high), name)).collect()
        } else {
            let (entries, _) = found.tail.as_chunks::<2>();
            let value = |word: u32| match found.flag {
                true => i64::from(word.cast_signed()),
                false => i64::from(word),
            };
            entries.iter().map(|&[name, word]| named(value(word), name)).collect()
        }
    }

    /// The parameters of a kernel function: of each pointer to a struct that struct's name, of everything else nothing.
    ///
    /// `None` if the kernel has no function of this name, or inlined it everywhere. That there is one says nothing about
    /// whether it may be probed.
    #[must_use]
    pub fn function_parameters(&self, name: &str) -> Option<Vec<String>> {
        let function = self.find(Namespace::Function, name)?;
        let prototype = self.peel(function.size_or_type).filter(|prototype| prototype.kind == kind::FUNC_PROTO)?;
        let (parameters, _) = prototype.tail.as_chunks::<2>();
        Some(parameters.iter().map(|&[_, type_id]| self.struct_behind(type_id).unwrap_or_default()).collect())
    }

    /// The name of the struct that a pointer points to.
    fn struct_behind(&self, pointer: u32) -> Option<String> {
        let pointer = self.peel(pointer).filter(|target| target.kind == kind::PTR)?;
        let target = self.peel(pointer.size_or_type).filter(|target| target.kind == kind::STRUCT)?;
        Some(String::from_utf8_lossy(self.name(target.name)?).into_owned())
    }

    pub(super) fn composite(&self, name: &str) -> Option<Type<'_>> {
        self.find(Namespace::Composite, name)
            .or_else(|| {
                let typedef = self.find(Namespace::Typedef, name)?;
                self.peel(typedef.id)
            })
            .filter(Type::is_composite)
    }

    /// Finds a member by name, in the struct itself or in the unnamed members within it.
    ///
    /// An unnamed member need not have an anonymous type: what counts is that the member has no
    /// name. A type already searched is not searched again; it would have the same members, and
    /// this is what ends the walk when a malformed struct contains itself.
    fn named_member(&self, owner: Type<'_>, name: &str) -> Option<Member> {
        if name.is_empty() {
            return None;
        }
        let mut pending = vec![(owner, 0)];
        let mut searched = HashSet::new();
        while let Some((composite, base)) = pending.pop() {
            if !searched.insert(composite.id) {
                continue;
            }
            for member in composite.members() {
                let bit_offset = member.bit_offset.checked_add(base)?;
                let member_name = self.name(member.name)?;
                if member_name == name.as_bytes() {
                    return Some(Member { bit_offset, ..member });
                }
                if member_name.is_empty()
                    && let Some(inner) = self.peel(member.type_id)
                {
                    pending.push((inner, bit_offset));
                }
            }
        }
        None
    }

    fn location(&self, member: Member) -> Option<MemberLocation> {
        if let Some(bit_size) = member.bitfield {
            return Some(MemberLocation { bit_offset: member.bit_offset, bit_size });
        }
        // Older compilers gave each bitfield an integer type of its own that holds its place
        // within the storage unit. An ordinary integer has offset 0 and all of its bits.
        let target = self.peel(member.type_id)?;
        if let (kind::INT, &[encoding]) = (target.kind, target.tail) {
            return Some(MemberLocation {
                bit_offset: member.bit_offset.checked_add((encoding >> 16) & 0xff)?,
                bit_size: encoding & 0xff,
            });
        }
        Some(MemberLocation { bit_offset: member.bit_offset, bit_size: self.bit_size(target.id)? })
    }

    fn bit_size(&self, id: u32) -> Option<u32> {
        let mut elements: u64 = 1;
        let mut next = id;
        for _ in 0..MAX_CHAIN {
            let target = self.peel(next)?;
            let bits = match target.kind {
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                    u64::from(target.size_or_type) * 8
                }
                kind::PTR => POINTER_BITS,
                kind::ARRAY => {
                    let &[element, _, count] = target.tail else {
                        return None;
                    };
                    elements = elements.checked_mul(count.into())?;
                    next = element;
                    continue;
                }
                _ => return None,
            };
            return elements.checked_mul(bits)?.try_into().ok();
        }
        None
    }

    /// The type behind any typedefs, qualifiers and tags.
    fn peel(&self, id: u32) -> Option<Type<'_>> {
        let mut target = self.type_at(id)?;
        for _ in 0..MAX_CHAIN {
            match target.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    target = self.type_at(target.size_or_type)?
                }
                _ => return Some(target),
            }
        }
        None
    }
}

/// One member of a struct or union.
#[derive(Clone, Copy)]
struct Member {
    name: u32,
    type_id: u32,
    bit_offset: u32,
    /// Width in bits, if the struct says this is a bitfield.
    bitfield: Option<u32>,
}

impl<'a> Type<'a> {
    fn is_composite(&self) -> bool {
        matches!(self.kind, kind::STRUCT | kind::UNION)
    }

    /// The members of a struct or union; none for any other kind.
    fn members(self) -> impl Iterator<Item = Member> + use<'a> {
        let tail = if self.is_composite() { self.tail } else { &[] };
        let (members, _) = tail.as_chunks::<3>();
        members.iter().map(move |&[name, type_id, place]| {
            // A struct with any bitfield is flagged and splits the word: 24 bits of offset, 8 of
            // width, where width 0 is an ordinary member.
            let (bit_offset, width) = match self.flag {
                true => (place & 0x00ff_ffff, place >> 24),
                false => (place, 0),
            };
            Member { name, type_id, bit_offset, bitfield: (width > 0).then_some(width) }
        })
    }
}
