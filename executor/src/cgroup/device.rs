//! Which devices a confined sandbox reaches: nodes may be made, only the standard ones opened.
//!
//! One list, two forms: rules of the v1 controller, and a program for cgroup v2.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::spec::{DeviceKind, DeviceRule};
use crate::sys::bpf;

/// Character devices: major number, and minor number unless any.
const ALLOWED: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// Makes a group of the v1 devices controller with these rules and `more`.
pub(super) fn confine_v1(group: &Path, more: &[DeviceRule]) -> io::Result<()> {
    fs::create_dir_all(group)?;
    fs::write(group.join("devices.deny"), "a")?;
    let rules = ALLOWED.iter().map(|(major, minor)| {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        format!("c {major}:{minor} rwm")
    });
    for rule in ["c *:* m".to_owned(), "b *:* m".to_owned()].into_iter().chain(rules) {
        match fs::write(group.join("devices.allow"), rule) {
            // What the caller's own group lacks cannot be given on.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    // What was asked for is not left out.
    for rule in more {
        fs::write(group.join("devices.allow"), rule.to_string())?;
    }
    Ok(())
}

/// Loads the same rules and `more` as a program.
pub(super) fn load_v2(more: &[DeviceRule]) -> io::Result<OwnedFd> {
    Ok(bpf::load_device_filter(&program(more))?)
}

// `linux/bpf.h`: operations, registers, and `struct bpf_cgroup_dev_ctx`.
const LOAD_WORD: u8 = 0x61;
const SET: u8 = 0xb7;
const SHIFT_RIGHT: u8 = 0x77;
const AND: u8 = 0x57;
const COPY: u8 = 0xbf;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
const TYPE_BLOCK: i32 = 1;
const TYPE_CHARACTER: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

/// `r0 = allowed(r1: access and type, major, minor)`
fn program(more: &[DeviceRule]) -> Vec<u64> {
    let allow = [instruction(SET, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)];
    let mut rules = Vec::new();
    for (major, minor) in ALLOWED {
        // Past what is left of the rule.
        if let Some(minor) = minor {
            rules.push(instruction(JUMP_NOT_EQUAL, MAJOR, 0, 3, major.cast_signed()));
            rules.push(instruction(JUMP_NOT_EQUAL, MINOR, 0, 2, minor.cast_signed()));
        } else {
            rules.push(instruction(JUMP_NOT_EQUAL, MAJOR, 0, 2, major.cast_signed()));
        }
        rules.extend(allow);
    }
    let past_rules = i16::try_from(rules.len()).expect("eight rules are short");
    let mut code = vec![
        instruction(LOAD_WORD, KIND, 1, 0, 0),
        instruction(LOAD_WORD, MAJOR, 1, 4, 0),
        instruction(LOAD_WORD, MINOR, 1, 8, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(AND, KIND, 0, 0, 0xffff),
        // Making a node, and nothing else, is free.
        instruction(JUMP_NOT_EQUAL, ACCESS, 0, 2, ACCESS_MKNOD),
    ];
    code.extend(allow);
    more.iter().for_each(|rule| code.extend(rule_program(rule)));
    code.push(instruction(JUMP_NOT_EQUAL, KIND, 0, past_rules, TYPE_CHARACTER));
    code.extend(rules);
    code.extend([instruction(SET, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

/// Allows what the rule says, else goes on behind it.
fn rule_program(rule: &DeviceRule) -> Vec<u64> {
    let granted =
        [(rule.access.mknod, ACCESS_MKNOD), (rule.access.read, ACCESS_READ), (rule.access.write, ACCESS_WRITE)];
    let refused: i32 = granted.iter().filter(|(granted, _)| !granted).map(|(_, bit)| bit).sum();
    let kind = rule.kind.map(|kind| match kind {
        DeviceKind::Block => TYPE_BLOCK,
        DeviceKind::Character => TYPE_CHARACTER,
    });
    let tests = [
        Some((SCRATCH, 0)),
        kind.map(|kind| (KIND, kind)),
        rule.major.map(|major| (MAJOR, major.cast_signed())),
        rule.minor.map(|minor| (MINOR, minor.cast_signed())),
    ];
    let tests: Vec<(u8, i32)> = tests.into_iter().flatten().collect();
    let mut code = vec![instruction(COPY, SCRATCH, ACCESS, 0, 0), instruction(AND, SCRATCH, 0, 0, refused)];
    for (index, (register, wanted)) in tests.iter().enumerate() {
        // Past the other tests and the two instructions that allow.
        let past = i16::try_from(tests.len() - index - 1 + 2).expect("a rule is short");
        code.push(instruction(JUMP_NOT_EQUAL, *register, 0, past, *wanted));
    }
    code.extend([instruction(SET, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

/// `struct bpf_insn`
fn instruction(operation: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(operation)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allowed(access: u64, kind: u64, major: u64, minor: u64) -> bool {
        allowed_with(&[], access, kind, major, minor)
    }

    fn allowed_with(more: &[DeviceRule], access: u64, kind: u64, major: u64, minor: u64) -> bool {
        let program = program(more);
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0u64; 8], 0);
        loop {
            let raw = program[at];
            let (destination, source) = ((raw >> 8 & 15) as usize, (raw >> 12 & 15) as usize);
            let (offset, immediate) = ((raw >> 16) as u16 as usize, raw >> 32);
            at += 1;
            match raw as u8 {
                LOAD_WORD => registers[destination] = context[offset / 4],
                SET => registers[destination] = immediate,
                COPY => registers[destination] = registers[source],
                SHIFT_RIGHT => registers[destination] >>= immediate,
                AND => registers[destination] &= immediate,
                JUMP_NOT_EQUAL if registers[destination] != immediate => at += offset,
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    #[test]
    fn only_standard_devices_open_and_every_node_can_be_made() {
        let (block, character) = (1, 2);
        let (mknod, read, write) = (1, 2, 4);
        for (access, kind, major, minor, want) in [
            (mknod, block, 8, 0, true),
            (mknod, character, 1, 1, true),
            (read, block, 8, 0, false),
            (mknod | read, block, 8, 0, false),
            (read, character, 1, 1, false),
            (write, character, 1, 11, false),
            (read | write, character, 1, 3, true),
            (read | write | mknod, character, 1, 9, true),
            (read, character, 5, 0, true),
            (read, character, 5, 1, false),
            (read | write, character, 136, 77, true),
            (read | write, block, 136, 0, false),
            (read, block, 1, 3, false),
            (read, character, 10, 200, false),
        ] {
            assert_eq!(allowed(access, kind, major, minor), want, "{access} {kind} {major}:{minor}");
        }
    }

    #[test]
    fn what_was_asked_for_opens_and_nothing_beside_it() {
        let rules: Vec<DeviceRule> =
            ["b 7:3 r", "c 10:* rw", "a 9:9 m"].iter().map(|rule| rule.parse().unwrap()).collect();
        let (block, character) = (1, 2);
        let (read, write) = (2, 4);
        for (access, kind, major, minor, want) in [
            (read, block, 7, 3, true),
            (write, block, 7, 3, false),
            (read | write, block, 7, 3, false),
            (read, block, 7, 4, false),
            (read, character, 7, 3, false),
            (read | write, character, 10, 200, true),
            (read, block, 10, 200, false),
            (read, character, 11, 200, false),
            (read, character, 9, 9, false),
            (read | write, character, 1, 3, true),
            (read, character, 1, 11, false),
        ] {
            assert_eq!(allowed_with(&rules, access, kind, major, minor), want, "{access} {kind} {major}:{minor}");
        }
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        let rule: DeviceRule = "b 7:* rm".parse().unwrap();
        match load_v2(&[]).and_then(|_| load_v2(&[rule])) {
            Ok(_) => {}
            // Not root, or a kernel without it: the callers keep devices away by other means.
            Err(error) => {
                assert!(!rustix::process::geteuid().is_root() || error.raw_os_error() == Some(libc::ENOSYS), "{error}")
            }
        }
    }
}
