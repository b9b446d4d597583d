//! From bytes to an indexed table of types, with every bound checked once.
//!
//! What is checked here: the sections lie inside the file, every type record lies inside its
//! section, every name inside the strings. What is not: whether one type's reference to another
//! exists and leads anywhere. `lookup` has to follow those with care anyway, as they may be circular.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Btf, BtfError};

/// The kinds of type, numbered as in the kernel's `include/uapi/linux/btf.h`.
pub(super) mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// One type record.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub(super) id: u32,
    /// Offset into the strings; the name there is empty for an anonymous type.
    pub(super) name: u32,
    pub(super) kind: u32,
    /// Means something else for each kind: bitfields in a struct, signedness of an enum.
    pub(super) flag: bool,
    /// Number of members, enumerators or parameters.
    count: u32,
    /// Size in bytes or the type referred to, by kind.
    pub(super) size_or_type: u32,
    /// What follows the three words all kinds share.
    pub(super) tail: &'a [u32],
}

/// What a name may mean; the same word can name a struct, a typedef and a function at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Namespace {
    Composite,
    Enumeration,
    Typedef,
    Function,
}

impl Btf {
    /// Decodes BTF of either byte order.
    ///
    /// # Errors
    ///
    /// Any [`BtfError`] but [`BtfError::Unreadable`]: the data is no BTF, is of another version,
    /// contradicts itself or is cut short, or has a kind of type whose length is not known.
    pub fn parse(data: &[u8]) -> Result<Btf, BtfError> {
        let sections = Sections::of(data)?;
        let words: Vec<u32> = sections.order.words(sections.types).collect();
        let starts = type_starts(&words, &sections)?;
        let mut btf = Btf { words, starts, strings: sections.strings.to_vec(), by_name: HashMap::new() };
        btf.index_names()?;
        Ok(btf)
    }

    /// The type with this number; `None` for void (0) and for numbers out of range.
    pub(super) fn type_at(&self, id: u32) -> Option<Type<'_>> {
        let at = usize::try_from(id).ok()?;
        let start = usize::try_from(*self.starts.get(at)?).ok()?;
        let end = usize::try_from(*self.starts.get(at.checked_add(1)?)?).ok()?;
        let &[name, info, size_or_type, ref tail @ ..] = self.words.get(start..end)? else {
            return None;
        };
        let Info { kind, flag, count } = Info::from(info);
        Some(Type { id, name, kind, flag, count, size_or_type, tail })
    }

    /// The name at an offset into the strings, without its NUL.
    pub(super) fn name(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.strings.get(usize::try_from(offset).ok()?..)?;
        rest.split(|&byte| byte == 0).next()
    }

    /// The first type of this name, if there is any.
    pub(super) fn find(&self, namespace: Namespace, name: &str) -> Option<Type<'_>> {
        let id = self.probe(namespace, name.as_bytes()).ok()?;
        self.type_at(id)
    }

    fn index_names(&mut self) -> Result<(), BtfError> {
        for id in 1.. {
            let Some(found) = self.type_at(id) else {
                break;
            };
            let outside = || BtfError::Malformed("a name lies outside the string section");
            if !found.names().all(|name| self.has_string(name)) {
                return Err(outside());
            }
            let name = self.name(found.name).ok_or_else(outside)?;
            if let Some(namespace) = found.namespace()
                && !name.is_empty()
                && let Err(free) = self.probe(namespace, name)
            {
                self.by_name.insert(free, id);
            }
        }
        Ok(())
    }

    /// Looks a name up: the type that has it, or else the free key to enter it under.
    ///
    /// Keys are hashes rather than names, so that no name has to be copied out of the strings. Two
    /// names with one hash sit under consecutive keys, hence the comparison and the next step.
    fn probe(&self, namespace: Namespace, name: &[u8]) -> Result<u32, u32> {
        let mut hasher = DefaultHasher::new();
        (namespace, name).hash(&mut hasher);
        let mut key = hasher.finish() as u32;
        while let Some(&id) = self.by_name.get(&key) {
            let holder = self.type_at(id);
            if holder
                .is_some_and(|holder| holder.namespace() == Some(namespace) && self.name(holder.name) == Some(name))
            {
                return Ok(id);
            }
            key = key.wrapping_add(1);
        }
        Err(key)
    }

    fn has_string(&self, offset: u32) -> bool {
        usize::try_from(offset).is_ok_and(|offset| offset < self.strings.len())
    }
}

impl Type<'_> {
    /// `None` for what is never looked up by name. That leaves out declarations without a body,
    /// which would otherwise hide the definition: `struct x;` has a kind of its own, and `enum x;`
    /// is an enum without enumerators.
    fn namespace(&self) -> Option<Namespace> {
        match self.kind {
            kind::STRUCT | kind::UNION => Some(Namespace::Composite),
            kind::ENUM | kind::ENUM64 if self.count > 0 => Some(Namespace::Enumeration),
            kind::TYPEDEF => Some(Namespace::Typedef),
            kind::FUNC => Some(Namespace::Function),
            _ => None,
        }
    }

    /// Offsets of the names in the tail: members, enumerators, parameters.
    fn names(&self) -> impl Iterator<Item = u32> {
        let (stride, named) = match self.kind {
            kind::STRUCT | kind::UNION | kind::ENUM64 => (3, self.tail),
            kind::ENUM | kind::FUNC_PROTO => (2, self.tail),
            _ => (1, &[] as &[u32]),
        };
        named.iter().step_by(stride).copied()
    }
}

/// The second word of a type record, taken apart.
struct Info {
    kind: u32,
    flag: bool,
    count: u32,
}

impl From<u32> for Info {
    /// 24 bits of count and 7 of kind, as kernels of 2026 define them. Older ones use 16 and 5,
    /// and refuse to load BTF with the bits in between set, so that the wide reading suits both.
    fn from(word: u32) -> Info {
        Info { kind: (word >> 24) & 0x7f, flag: word >> 31 == 1, count: word & 0x00ff_ffff }
    }
}

/// Words a type record has after its first three; `None` if the kind is unknown.
fn tail_words(info: &Info) -> Option<u64> {
    let count = u64::from(info.count);
    match info.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => Some(1),
        kind::ARRAY => Some(3),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => Some(3 * count),
        kind::ENUM | kind::FUNC_PROTO => Some(2 * count),
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => Some(0),
        _ => None,
    }
}

/// Finds where each type starts, which nothing but walking all of them tells.
fn type_starts(words: &[u32], sections: &Sections<'_>) -> Result<Vec<u32>, BtfError> {
    // Void comes first, with no words; a real type has at least three.
    let mut starts = Vec::with_capacity(words.len() / 6 + 2);
    starts.push(0);
    let mut at = 0;
    while at < words.len() {
        let cut = BtfError::Malformed("the last type is cut short");
        let id = starts.len() as u32;
        starts.push(at as u32);
        let Some(&word) = words.get(at + 1) else {
            return Err(cut);
        };
        let info = Info::from(word);
        let tail = match tail_words(&info) {
            Some(tail) => tail,
            None => sections.unknown_tail_words(&info, id)?,
        };
        let left = (words.len() - at) as u64;
        if tail + 3 > left {
            return Err(cut);
        }
        at += 3 + tail as usize;
    }
    starts.push(at as u32);
    Ok(starts)
}

/// The parts of a BTF blob.
struct Sections<'a> {
    order: ByteOrder,
    types: &'a [u8],
    strings: &'a [u8],
    /// Four bytes for each kind known to whoever wrote the BTF; empty before 2026.
    layout: &'a [u8],
}

impl<'a> Sections<'a> {
    fn of(data: &'a [u8]) -> Result<Sections<'a>, BtfError> {
        let cut = BtfError::Malformed("the header is cut short");
        let order = match data {
            [0x9f, 0xeb, ..] => ByteOrder::Little,
            [0xeb, 0x9f, ..] => ByteOrder::Big,
            _ => return Err(BtfError::NotBtf),
        };
        match data.get(2) {
            None => return Err(cut),
            Some(1) => {}
            Some(&version) => return Err(BtfError::UnsupportedVersion(version)),
        }
        let Some(length) = data.get(4..8).and_then(|word| order.words(word).next()) else {
            return Err(cut);
        };
        let Some((header, body)) = data.split_at_checked(length as usize) else {
            return Err(cut);
        };
        let fields: Vec<u32> = order.words(header.get(8..).unwrap_or_default()).collect();
        let (&[types, types_size, strings, strings_size], rest) =
            fields.split_first_chunk().ok_or(BtfError::Malformed("the header is too short"))?;
        let layout = match rest {
            &[offset, size, ..] => section(body, offset, size)?,
            _ => &[],
        };
        let sections = Sections {
            order,
            types: section(body, types, types_size)?,
            strings: section(body, strings, strings_size)?,
            layout,
        };
        if !sections.types.len().is_multiple_of(4) {
            return Err(BtfError::Malformed("the type section is not a whole number of words"));
        }
        // Without a final NUL the last name would have no end; without a first one there would be
        // no empty name at offset 0, which every anonymous type has.
        match sections.strings {
            [0] | [0, .., 0] => Ok(sections),
            _ => Err(BtfError::Malformed("the string section is not enclosed in NUL bytes")),
        }
    }

    /// Asks the BTF itself how long a type of a kind newer than this file is.
    fn unknown_tail_words(&self, info: &Info, id: u32) -> Result<u64, BtfError> {
        let (kinds, _) = self.layout.as_chunks::<4>();
        let &[fixed, each, _, _] =
            kinds.get(info.kind as usize).ok_or(BtfError::UnknownKind { id, kind: info.kind })?;
        let bytes = u64::from(fixed) + u64::from(each) * u64::from(info.count);
        if info.kind == 0 || !bytes.is_multiple_of(4) {
            return Err(BtfError::UnknownKind { id, kind: info.kind });
        }
        Ok(bytes / 4)
    }
}

fn section(body: &[u8], offset: u32, size: u32) -> Result<&[u8], BtfError> {
    body.get(offset as usize..)
        .and_then(|rest| rest.get(..size as usize))
        .ok_or(BtfError::Malformed("a section reaches past the end of the data"))
}

#[derive(Clone, Copy)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn words(self, bytes: &[u8]) -> impl Iterator<Item = u32> {
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(move |&word| match self {
            ByteOrder::Little => u32::from_le_bytes(word),
            ByteOrder::Big => u32::from_be_bytes(word),
        })
    }
}
