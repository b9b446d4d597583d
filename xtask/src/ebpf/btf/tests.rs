//! Objects made by hand: an ELF file with nothing but BTF.

use super::*;

/// An ELF file with these sections.
fn elf(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut names = vec![0];
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    let mut headers = vec![0; 64];
    let mut header = |name: usize, start: usize, length: usize| {
        let mut header = vec![0; 64];
        header[..4].copy_from_slice(&(name as u32).to_le_bytes());
        header[0x18..0x20].copy_from_slice(&(start as u64).to_le_bytes());
        header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
        headers.extend(header);
    };
    for (name, content) in sections {
        header(names.len(), file.len(), content.len());
        names.extend(name.bytes().chain([0]));
        file.extend(content);
    }
    header(0, file.len(), names.len());
    file.extend(&names);
    let table = file.len() as u64;
    file.extend(&headers);
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    let count = sections.len() as u16 + 2;
    for (at, number) in [(0x3a, 64), (0x3c, count), (0x3e, count - 1)] {
        file[at..at + 2].copy_from_slice(&u16::to_le_bytes(number));
    }
    file
}

fn le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn header(rest: &[u32]) -> Vec<u8> {
    let length = 8 + 4 * rest.len() as u32;
    [&0x0001_eb9f_u32.to_le_bytes()[..], &length.to_le_bytes(), &le(rest)].concat()
}

const fn info(kind: u32, parts: u32) -> u32 {
    kind << 24 | parts
}

/// A structure of two pointers, to `first` and to `second`, which are only declared, in the order of `declared`; and a line
/// of source. The strings have the order in which they are used.
fn object(declared: [&str; 2]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut string = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.bytes().chain([0]));
        at
    };
    let (pair, left, right) = (string("pair"), string("left"), string("right"));
    let declarations = declared.map(|name| (name, string(name)));
    let (file, programs) = (string("/main.rs"), string("raw_tp"));
    let number = |wanted: &str| 4 + declared.iter().position(|name| *name == wanted).unwrap() as u32;
    let types = [
        vec![pair, info(kind::STRUCT, 2), 16, left, 2, 0, right, 3, 64],
        vec![0, info(kind::PTR, 0), number("first")],
        vec![0, info(kind::PTR, 0), number("second")],
        vec![declarations[0].1, info(kind::FWD, 0), 0],
        vec![declarations[1].1, info(kind::FWD, 0), 0],
    ]
    .concat();
    let length = 4 * types.len() as u32;
    let btf = [header(&[0, length, length, strings.len() as u32]), le(&types), strings].concat();
    let lines = [8, programs, 1, 0, 1, 16, programs, 1, 0, file, 0, 1 << 10];
    let ext = [header(&[0, 20, 20, 28]), le(&lines)].concat();
    elf(&[(".BTF", btf), (".BTF.ext", ext)])
}

/// What a reader finds: the names of the structure, of its members and of what these point to, and of the line's file.
fn told(object: &[u8]) -> Vec<String> {
    let elf = Elf::of(object).unwrap();
    let btf = elf.section(object, ".BTF").unwrap().unwrap();
    let types = elf.words(object, &elf.part(object, &btf, 8).unwrap()).unwrap();
    let strings = bytes(object, &elf.part(object, &btf, 16).unwrap()).unwrap();
    let ext = elf.section(object, ".BTF.ext").unwrap().unwrap();
    let lines = elf.words(object, &elf.part(object, &ext, 16).unwrap()).unwrap();
    let declared = |pointer: usize| types[15 + 3 * (types[9 + 3 * (pointer - 2) + 2] as usize - 4)];
    let names =
        [types[0], types[3], declared(types[4] as usize), types[6], declared(types[7] as usize), lines[1], lines[4]];
    names.map(|name| String::from_utf8(string_at(strings, name).to_vec()).unwrap()).into()
}

#[test]
fn the_order_in_which_types_were_declared_does_not_matter() {
    let (mut one, mut other) = (object(["first", "second"]), object(["second", "first"]));
    let meaning = ["pair", "left", "first", "right", "second", "raw_tp", "/main.rs"];
    assert_eq!((told(&one), told(&other)), (meaning.map(str::to_owned).into(), meaning.map(str::to_owned).into()));
    assert_ne!(one, other);
    sort(&mut one).unwrap();
    sort(&mut other).unwrap();
    assert_eq!(one, other);
    assert_eq!(told(&one), meaning);
    let before = one.clone();
    sort(&mut one).unwrap();
    assert_eq!(one, before, "sorted is sorted");
}

#[test]
fn what_is_no_object_is_said() {
    assert!(sort(&mut b"#!/bin/sh".to_vec()).unwrap_err().contains("no ELF file"));
    assert!(sort(&mut elf(&[(".text", vec![0; 8])])).unwrap_err().contains("no BTF"));
    let whole = object(["first", "second"]);
    // Of the last section's header only the beginning is read.
    for length in 0..whole.len() - 32 {
        assert!(sort(&mut whole[..length].to_vec()).is_err(), "{length} bytes");
    }
    let unknown = [header(&[0, 12, 12, 1]), le(&[0, info(31, 0), 0]), vec![0]].concat();
    assert!(sort(&mut elf(&[(".BTF", unknown)])).unwrap_err().contains("kind 31"));
}
