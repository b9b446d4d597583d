//! The object's BTF in an order of its own.
//!
//! LLVM declares the types that it saw only behind pointers last, in the order of their addresses in its own memory
//! (`BTFDebug`, `FixupDerivedTypes`), and a kernel that randomizes addresses changes that from run to run: about one link in
//! fifteen gave other bytes for the same program. So these declarations are sorted by name here, and the strings with them,
//! which are in the order of their first use. Nothing moves but them, and nothing gets longer or shorter.
//!
//! The format is that of the kernel's `Documentation/bpf/btf.rst`: words of 32 bits, and strings.

use std::{collections::BTreeMap, ops::Range};

/// What `.BTF` and `.BTF.ext` begin with.
const MAGIC: u16 = 0xeb9f;
/// Words of a type before what its kind adds: name, kind and number of parts, size or another type.
const TYPE: usize = 3;

/// Kinds of types (`include/uapi/linux/btf.h`).
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Sorts what LLVM leaves in no order of its own, in an ELF file of 64 bits.
///
/// # Errors
///
/// If it is none, or has no BTF as it should be.
pub fn sort(object: &mut [u8]) -> Result<(), String> {
    let elf = Elf::of(object)?;
    let btf = elf.section(object, ".BTF")?.ok_or("the eBPF object has no BTF")?;
    let (types_at, strings_at) = (elf.part(object, &btf, 8)?, elf.part(object, &btf, 16)?);
    let mut types = elf.words(object, &types_at)?;
    let strings = bytes(object, &strings_at)?.to_vec();
    if strings.last() != Some(&0) {
        return Err("the eBPF object's BTF ends within a string".to_owned());
    }

    let places = Places::find(&types)?;
    sort_declarations(&mut types, &places, &strings);
    let new_offset = sorted(&strings);
    rename(&mut types, &places.names, &new_offset)?;
    elf.put(object, &types_at, &types);
    for (old, new) in &new_offset {
        let string = string_at(&strings, *old);
        let place = strings_at.start + *new as usize;
        object[place..place + string.len()].copy_from_slice(string);
        object[place + string.len()] = 0;
    }

    if let Some(ext) = elf.section(object, ".BTF.ext")? {
        // Functions, lines and relocations; each part tells how long its entries are, and where in them strings are named.
        for (header, named) in [(8, &[][..]), (16, &[1, 2]), (24, &[2])] {
            let at = elf.part(object, &ext, header)?;
            let mut words = elf.words(object, &at)?;
            let names = names_of_lines(&words, named)?;
            rename(&mut words, &names, &new_offset)?;
            elf.put(object, &at, &words);
        }
    }
    Ok(())
}

/// Where in the words of all types there is what changes.
#[derive(Debug, Default)]
struct Places {
    /// Offsets of strings.
    names: Vec<usize>,
    /// Numbers of types.
    references: Vec<usize>,
    /// Declarations: their number and where they begin.
    declarations: Vec<(u32, usize)>,
}

impl Places {
    fn find(types: &[u32]) -> Result<Self, String> {
        let mut places = Self::default();
        let (mut at, mut number) = (0, 1);
        while at < types.len() {
            let info = *types.get(at + 1).ok_or("the eBPF object's BTF ends within a type")?;
            let (kind, parts) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            // How many words each part has, and which of them are a name and a type.
            let (words, name, reference) = match kind {
                kind::STRUCT | kind::UNION => (3, Some(0), Some(1)),
                kind::ENUM => (2, Some(0), None),
                kind::ENUM64 => (3, Some(0), None),
                kind::FUNC_PROTO => (2, Some(0), Some(1)),
                kind::DATASEC => (3, None, Some(0)),
                _ => (0, None, None),
            };
            let added = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 1,
                kind::ARRAY => 3,
                kind::PTR | kind::FWD..=kind::FUNC | kind::FLOAT | kind::TYPE_TAG => 0,
                _ if words > 0 => parts * words,
                _ => return Err(format!("type {number} of the eBPF object's BTF is of kind {kind}, which is unknown")),
            };
            places.names.push(at);
            let part_places = |word: Option<usize>| {
                (0..parts).filter_map(move |part| Some(at + TYPE + part * words + word?)).collect::<Vec<_>>()
            };
            places.names.extend(part_places(name));
            places.references.extend(part_places(reference));
            match kind {
                kind::FWD => places.declarations.push((number, at)),
                kind::ARRAY => places.references.extend([at + TYPE, at + TYPE + 1]),
                kind::PTR | kind::TYPEDEF..=kind::FUNC_PROTO | kind::VAR | kind::DECL_TAG | kind::TYPE_TAG => {
                    places.references.push(at + 2)
                }
                _ => {}
            }
            at += TYPE + added;
            number += 1;
        }
        if at > types.len() {
            return Err("the eBPF object's BTF ends within a type".to_owned());
        }
        Ok(places)
    }
}

/// Sorts the declarations among their places, by name and kind, and turns what refers to them.
fn sort_declarations(types: &mut [u32], places: &Places, strings: &[u8]) {
    let mut by_name: Vec<(&[u8], [u32; TYPE], u32)> = places
        .declarations
        .iter()
        .map(|&(number, at)| (string_at(strings, types[at]), [types[at], types[at + 1], types[at + 2]], number))
        .collect();
    by_name.sort_unstable_by_key(|(name, words, number)| (*name, words[1], *number));
    let mut new_number = BTreeMap::new();
    for ((_, words, old), &(new, at)) in by_name.iter().zip(&places.declarations) {
        new_number.insert(*old, new);
        types[at..at + TYPE].copy_from_slice(words);
    }
    for &place in &places.references {
        if let Some(new) = new_number.get(&types[place]) {
            types[place] = *new;
        }
    }
}

/// The strings by their offsets, and where each is once they are sorted. The first, the empty one, stays where it is.
fn sorted(strings: &[u8]) -> BTreeMap<u32, u32> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < strings.len() {
        let string = string_at(strings, at as u32);
        all.push((string, at as u32));
        at += string.len() + 1;
    }
    all.sort_unstable();
    let mut next = 0;
    all.into_iter()
        .map(|(string, old)| {
            let new = next;
            next += string.len() as u32 + 1;
            (old, new)
        })
        .collect()
}

fn rename(words: &mut [u32], names: &[usize], new_offset: &BTreeMap<u32, u32>) -> Result<(), String> {
    for &place in names {
        let old = words[place];
        // A name may be the end of another string.
        let (start, new) = new_offset.range(..=old).next_back().ok_or("the eBPF object's BTF has no strings")?;
        words[place] = new + (old - start);
    }
    Ok(())
}

/// Where a part of `.BTF.ext` names strings: for each section its name, and in each of its entries these words.
fn names_of_lines(words: &[u32], named: &[usize]) -> Result<Vec<usize>, String> {
    let Some(size) = words.first().map(|bytes| *bytes as usize / 4).filter(|size| *size > 0) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    let mut at = 1;
    while at < words.len() {
        let count = words.get(at + 1).map_or(usize::MAX, |count| *count as usize);
        let entries = at + 2;
        let end = count.checked_mul(size).and_then(|length| length.checked_add(entries));
        let Some(end) = end.filter(|end| *end <= words.len()) else {
            return Err("the eBPF object's .BTF.ext ends within a section".to_owned());
        };
        names.push(at);
        names.extend((0..count).flat_map(|entry| named.iter().map(move |word| entries + entry * size + word)));
        at = end;
    }
    Ok(names)
}

/// How the numbers of an ELF file of 64 bits are read.
#[derive(Clone, Copy, Debug)]
struct Elf {
    big_endian: bool,
}

impl Elf {
    fn of(object: &[u8]) -> Result<Self, String> {
        match object.get(..6) {
            Some(b"\x7fELF\x02\x01") => Ok(Self { big_endian: false }),
            Some(b"\x7fELF\x02\x02") => Ok(Self { big_endian: true }),
            _ => Err("the eBPF object is no ELF file of 64 bits".to_owned()),
        }
    }

    /// A number of so many bytes.
    fn number(self, object: &[u8], at: usize, length: usize) -> Result<usize, String> {
        let field = bytes(object, &(at..at.saturating_add(length)))?;
        let append = |number, byte: &u8| number << 8 | usize::from(*byte);
        Ok(if self.big_endian { field.iter().fold(0, append) } else { field.iter().rfold(0, append) })
    }

    /// Where the section of this name is.
    fn section(self, object: &[u8], name: &str) -> Result<Option<Range<usize>>, String> {
        let (table, size) = (self.number(object, 0x28, 8)?, self.number(object, 0x3a, 2)?);
        let (count, of_names) = (self.number(object, 0x3c, 2)?, self.number(object, 0x3e, 2)?);
        let header = |index: usize| table.saturating_add(index * size);
        let names = self.number(object, header(of_names) + 0x18, 8)?;
        for header in (0..count).map(header) {
            let at = names.saturating_add(self.number(object, header, 4)?);
            if string_at(object, u32::try_from(at).unwrap_or(u32::MAX)) == name.as_bytes() {
                let start = self.number(object, header + 0x18, 8)?;
                return Ok(Some(start..start.saturating_add(self.number(object, header + 0x20, 8)?)));
            }
        }
        Ok(None)
    }

    /// The part of a section of BTF whose offset and length are in its header: the offset counts from the header's end.
    fn part(self, object: &[u8], section: &Range<usize>, header: usize) -> Result<Range<usize>, String> {
        let field = |at: usize, length| self.number(object, section.start + at, length);
        if field(0, 2)? != usize::from(MAGIC) {
            return Err("the eBPF object's BTF does not begin as BTF does".to_owned());
        }
        let length = field(4, 4)?;
        if header + 8 > length {
            return Ok(section.end..section.end);
        }
        let start = section.start + length + field(header, 4)?;
        let part = start..start + field(header + 4, 4)?;
        if part.end > section.end {
            return Err("the eBPF object's BTF ends too early".to_owned());
        }
        Ok(part)
    }

    fn words(self, object: &[u8], part: &Range<usize>) -> Result<Vec<u32>, String> {
        let word = |word: &[u8]| {
            let word = [word[0], word[1], word[2], word[3]];
            if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        Ok(bytes(object, part)?.chunks_exact(4).map(word).collect())
    }

    fn put(self, object: &mut [u8], part: &Range<usize>, words: &[u32]) {
        for (place, word) in object[part.clone()].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
        }
    }
}

fn bytes<'a>(object: &'a [u8], part: &Range<usize>) -> Result<&'a [u8], String> {
    object.get(part.clone()).ok_or_else(|| format!("the eBPF object ends before byte {}", part.end))
}

fn string_at(strings: &[u8], at: u32) -> &[u8] {
    let rest = strings.get(at as usize..).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
