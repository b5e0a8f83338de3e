//! Verdicts to classic BPF.
//!
//! Per architecture, numbers with equal verdicts that follow one another become one range; numbers between known ones belong
//! to nobody and fail with ENOSYS. A balanced tree of comparisons finds the range, so that a call costs about eight of them.
//! Code is position independent (jumps are relative and forward) and therefore composed bottom up.

use std::collections::BTreeMap;

use super::profile::{Condition, ENOSYS, EPERM, Verdict};
use super::table::Architecture;
use crate::sys::seccomp::Instruction;

// `linux/bpf_common.h`, `linux/seccomp.h`
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;

// `struct seccomp_data`
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Flags of `clone` that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_NETLINK: u32 = 16;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
const NETLINK_AUDIT: u32 = 9;

type Code = Vec<Instruction>;

/// A filter that knows these architectures; calls of any other fail with ENOSYS.
pub(super) fn compile(architectures: &[Architecture], verdict: impl Fn(&str) -> Verdict) -> Code {
    let other = answer(ENOSYS);
    let by_architecture = architectures.iter().rev().fold(other, |rest, architecture| {
        let mut code = vec![load(NUMBER)];
        code.extend(tree(&ranges(architecture, &verdict)));
        if_equal(architecture.audit, code, rest)
    });
    let mut program = vec![load(ARCHITECTURE)];
    program.extend(by_architecture);
    program
}

/// Where ranges begin, and what holds from there on.
fn ranges(architecture: &Architecture, verdict: impl Fn(&str) -> Verdict) -> Vec<(u32, Verdict)> {
    let mut verdicts = BTreeMap::new();
    for (offset, table) in architecture.tables {
        verdicts.extend(table.iter().map(|(number, name)| (offset + number, verdict(name))));
    }
    let mut ranges = vec![(0, ENOSYS)];
    let mut begin = |number, verdict| {
        if ranges.last().is_some_and(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    };
    let mut expected = 0;
    for (number, verdict) in verdicts {
        if number != expected {
            begin(expected, ENOSYS);
        }
        begin(number, verdict);
        expected = number + 1;
    }
    begin(expected, ENOSYS);
    // The first call may begin at 0, as the made-up range did.
    if ranges.get(1).is_some_and(|(number, _)| *number == 0) {
        ranges.remove(0);
    }
    ranges
}

fn tree(ranges: &[(u32, Verdict)]) -> Code {
    match ranges {
        [] => answer(ENOSYS),
        [(_, verdict)] => answer(*verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            branch(JUMP_GREATER_EQUAL, high[0].0, tree(high), tree(low))
        }
    }
}

fn answer(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Allow => vec![statement(RETURN, RETURN_ALLOW)],
        Verdict::Fail(errno) => vec![statement(RETURN, RETURN_ERRNO | u32::from(errno))],
        Verdict::When(Condition::NoNamespaces) => {
            let mut code = vec![load(argument(0)), statement(AND, NAMESPACE_FLAGS)];
            code.extend(if_equal(0, answer(Verdict::Allow), answer(EPERM)));
            code
        }
        Verdict::When(Condition::Personality) => {
            let mut code = vec![load(argument(0))];
            let refused = answer(EPERM);
            code.extend(
                PERSONALITIES.iter().fold(refused, |rest, value| if_equal(*value, answer(Verdict::Allow), rest)),
            );
            code
        }
        Verdict::When(Condition::Socket { audit }) => socket(audit),
    }
}

fn socket(audit: bool) -> Code {
    let netlink = if audit {
        answer(Verdict::Allow)
    } else {
        let mut code = vec![load(argument(2))];
        let invalid = Verdict::Fail(libc::EINVAL as u16);
        code.extend(if_equal(NETLINK_AUDIT, answer(invalid), answer(Verdict::Allow)));
        code
    };
    let mut code = vec![load(argument(0))];
    let families = if_equal(AF_NETLINK, netlink, answer(Verdict::Allow));
    code.extend(if_equal(AF_ALG, answer(EPERM), if_equal(AF_VSOCK, answer(EPERM), families)));
    code
}

/// Offset of the low half of an argument. The kernel, too, looks at the low half of those tested here.
fn argument(index: u32) -> u32 {
    const { assert!(cfg!(target_endian = "little"), "the low half comes first") };
    16 + 8 * index
}

fn if_equal(value: u32, then: Code, otherwise: Code) -> Code {
    branch(JUMP_EQUAL, value, then, otherwise)
}

/// A comparison, the code for "no", the code for "yes". Every path of both returns.
fn branch(code: u16, value: u32, then: Code, otherwise: Code) -> Code {
    let mut branch = match u8::try_from(otherwise.len()) {
        Ok(distance) => vec![Instruction { code, jt: distance, jf: 0, k: value }],
        // Conditional jumps reach 255 instructions, unconditional ones any.
        Err(_) => {
            let distance = u32::try_from(otherwise.len()).expect("a filter has at most 4096 instructions");
            vec![Instruction { code, jt: 0, jf: 1, k: value }, statement(JUMP, distance)]
        }
    };
    branch.extend(otherwise);
    branch.extend(then);
    branch
}

fn load(offset: u32) -> Instruction {
    statement(LOAD_WORD, offset)
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::super::profile;
    use super::super::table::{ARM, X86};
    use super::*;
    use crate::capability::Capabilities;
    use crate::spec::DEFAULT_CAPABILITIES;

    /// Runs a filter as the kernel would: the answer.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 3]) -> u32 {
        let mut data = [0; 40];
        data[..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&architecture.to_le_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..][..8].copy_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD_WORD => value = u32::from_le_bytes(data[k as usize..][..4].try_into().unwrap()),
                AND => value &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => at += usize::from(if value == k { jt } else { jf }),
                JUMP_GREATER_EQUAL => at += usize::from(if value >= k { jt } else { jf }),
                RETURN => return k,
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    fn plain(verdict: Verdict) -> Option<u32> {
        match verdict {
            Verdict::Allow => Some(RETURN_ALLOW),
            Verdict::Fail(errno) => Some(RETURN_ERRNO | u32::from(errno)),
            Verdict::When(_) => None,
        }
    }

    #[test]
    fn every_number_of_every_table_gets_its_verdict() {
        for capabilities in [&DEFAULT_CAPABILITIES[..], &["SYS_ADMIN"], &[]] {
            let verdict = |name: &str| profile::verdict(name, Capabilities::from_names(capabilities).unwrap());
            for architectures in [X86, ARM] {
                let program = compile(architectures, verdict);
                assert!(program.len() < 4096, "{}", program.len());
                for architecture in architectures {
                    for (offset, table) in architecture.tables {
                        for (number, name) in *table {
                            if let Some(want) = plain(verdict(name)) {
                                let got = run(&program, architecture.audit, offset + number, [0; 3]);
                                assert_eq!(got, want, "{name} {:#x}", architecture.audit);
                            }
                        }
                        let known = |n: u32| table.iter().any(|(number, _)| *number == n);
                        for number in (0..600).chain([0xffff, 0x3fff_ffff]).filter(|n| !known(*n)) {
                            let got = run(&program, architecture.audit, offset + number, [0; 3]);
                            assert_eq!(got, RETURN_ERRNO | libc::ENOSYS as u32, "{number} {:#x}", architecture.audit);
                        }
                    }
                }
                assert_eq!(run(&program, 0xdead_beef, 0, [0; 3]), RETURN_ERRNO | libc::ENOSYS as u32);
            }
        }
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let program = compile(X86, |name| profile::verdict(name, Capabilities::from_names(&["CHOWN"]).unwrap()));
        let (native, i386) = (X86[0].audit, X86[1].audit);
        let (allow, eperm) = (RETURN_ALLOW, RETURN_ERRNO | libc::EPERM as u32);
        let x32 = 0x4000_0000;
        for (architecture, number, arguments, want) in [
            (native, 56, [0x11, 0, 0], allow),
            (native, 56, [0x1000_0011, 0, 0], eperm),
            (native, 56, [0x0002_0000, 0, 0], eperm),
            (native, 56 | x32, [0x4000_0000, 0, 0], eperm),
            (i386, 120, [0x1000_0000, 0, 0], eperm),
            (i386, 120, [0x0100_0000, 0, 0], allow),
            (native, 135, [0xffff_ffff, 0, 0], allow),
            (native, 135, [0x2_0008, 0, 0], allow),
            (native, 135, [0x40_0000, 0, 0], eperm),
            (native, 41, [2, 1, 0], allow),
            (native, 41, [38, 5, 0], eperm),
            (native, 41, [40, 1, 0], eperm),
            (native, 41 | x32, [38, 5, 0], eperm),
            (i386, 359, [40, 1, 0], eperm),
            (native, 41, [16, 3, 0], allow),
            (native, 41, [16, 3, 9], RETURN_ERRNO | libc::EINVAL as u32),
        ] {
            assert_eq!(
                run(&program, architecture, number, arguments),
                want,
                "{architecture:#x} {number} {arguments:x?}"
            );
        }
    }
}
