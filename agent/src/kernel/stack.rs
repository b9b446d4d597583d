//! The stack that the programs take, counted as the verifiers of the oldest kernels do.
//!
//! They round each frame of a chain of calls up to 32 bytes, newer ones with a JIT to 16 (`check_max_stack_depth`,
//! `round_up_stack_depth`): an object that this machine's kernel takes may be refused there.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::{Object, generated::bpf_insn};

/// `MAX_BPF_STACK`.
const MOST: usize = 512;
/// What a frame is rounded up to, and what one without variables counts.
const STEP: usize = 32;

/// `BPF_PSEUDO_CALL`: the call of a function of the program's own.
const OWN_FUNCTION: u8 = 1;
/// The frame pointer.
const FRAME: u8 = 10;

mod code {
    pub const CALL: u8 = 0x85;
    pub const MOVE: u8 = 0xbf;
    pub const ADD: u8 = 0x07;
    /// The classes of instructions that have memory at their source, and at their destination.
    pub const LOAD: u8 = 1;
    pub const STORES: [u8; 2] = [2, 3];
}

/// Bytes of the frame of a function: how far below the frame pointer it reaches.
fn frame(function: &[bpf_insn]) -> usize {
    let mut least = 0;
    // Registers that hold the frame pointer, until something is added to them.
    let mut copies = BTreeSet::new();
    for instruction in function {
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let class = instruction.code & 7;
        if (class == code::LOAD && from == FRAME) || (code::STORES.contains(&class) && to == FRAME) {
            least = least.min(i32::from(instruction.off));
        } else if instruction.code == code::ADD && copies.remove(&to) {
            least = least.min(instruction.imm);
        } else if instruction.code == code::MOVE && from == FRAME {
            copies.insert(to);
        }
    }
    least.unsigned_abs() as usize
}

/// The functions of a linked program by where they begin: the frame of each, and where those begin that it calls.
fn functions(program: &[bpf_insn]) -> BTreeMap<usize, (usize, BTreeSet<usize>)> {
    let callee = |at: usize| {
        let instruction = &program[at];
        let is_call = instruction.code == code::CALL && instruction.src_reg() == OWN_FUNCTION;
        is_call.then(|| (at as i64 + 1 + i64::from(instruction.imm)) as usize)
    };
    let mut starts: BTreeSet<usize> = (0..program.len()).filter_map(callee).collect();
    starts.insert(0);
    let ends = starts.iter().skip(1).copied().chain([program.len()]);
    let bodies = starts.iter().copied().zip(ends);
    bodies
        .map(|(start, end)| (start, (frame(&program[start..end]), (start..end).filter_map(callee).collect())))
        .collect()
}

/// The stack of the deepest chain of calls that begins at `start`.
fn depth(functions: &BTreeMap<usize, (usize, BTreeSet<usize>)>, start: usize) -> usize {
    let (frame, callees) = &functions[&start];
    let deepest = callees.iter().map(|callee| depth(functions, *callee)).max().unwrap_or(0);
    frame.max(&1).next_multiple_of(STEP) + deepest
}

#[test]
fn every_program_fits_into_the_stack_that_the_oldest_kernels_give_it() {
    let mut object = Object::parse(super::tracer::OBJECT).unwrap();
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).unwrap();
    assert!(object.programs.len() > 10, "{:?}", object.programs.keys());
    for (name, program) in &object.programs {
        let linked = &object.functions[&program.function_key()].instructions;
        let depth = depth(&functions(linked), 0);
        assert!((STEP..=MOST).contains(&depth), "{name} takes {depth} bytes of stack, and {MOST} is the most");
    }
}

#[test]
fn a_chain_of_calls_counts_every_frame_rounded_up() {
    let instruction = |code, to, from, off, imm| {
        let bits = bpf_insn::new_bitfield_1(to, from);
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bits, off, imm }
    };
    let program = [
        // Stores at -40, and calls the second one.
        instruction(0x7b, FRAME, 1, -40, 0),
        instruction(code::CALL, 0, OWN_FUNCTION, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
        // Takes the address of what it has at -104, and calls the third one, which has no variables.
        instruction(code::MOVE, 2, FRAME, 0, 0),
        instruction(code::ADD, 2, 0, 0, -104),
        instruction(code::CALL, 0, OWN_FUNCTION, 0, 1),
        instruction(0x95, 0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ];
    let functions = functions(&program);
    assert_eq!(
        functions.iter().map(|(start, (frame, _))| (*start, *frame)).collect::<Vec<_>>(),
        [(0, 40), (3, 104), (7, 0)]
    );
    assert_eq!(depth(&functions, 0), 64 + 128 + 32);
}
