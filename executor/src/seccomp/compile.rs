//! Verdicts to classic BPF.
//!
//! Per architecture, numbers with equal verdicts that follow one another become one range; numbers between known ones belong
//! to nobody and fail with ENOSYS. A balanced tree of comparisons finds the range, so that a call costs about eight of them.
//! The kernel translates a filter anew for every program, so that its length counts, too: answers are shared.
//! Code is position independent (jumps are relative and forward) and therefore composed bottom up.

use std::collections::BTreeMap;

use super::custom::{Circumstances, Judgement};
use super::document::{Action, Operator, SeccompProfile, Test};
use super::profile::{Condition, ENOSYS, EPERM, Verdict};
use super::table::{Architecture, Table};
use crate::sys::seccomp::Instruction;

// `linux/bpf_common.h`, `linux/seccomp.h`
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_TRAP: u32 = 0x0003_0000;
const RETURN_TRACE: u32 = 0x7ff0_0000;
const RETURN_LOG: u32 = 0x7ffc_0000;
const RETURN_KILL_THREAD: u32 = 0;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;

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
    let by_name = |_: &Table, name: &str| verdict(name);
    assemble(
        architectures,
        &Rules { verdict: &by_name, unknown: ENOSYS, answer: &|verdict: &Verdict| answer(*verdict) },
    )
}

/// The filter of a user's profile. Calls of architectures that it does not name are refused like unknown ones.
pub(super) fn compile_profile(architectures: &[Architecture], profile: &SeccompProfile, on: Circumstances<'_>) -> Code {
    let unknown = profile.unknown();
    let by_name = |table: &Table, name: &str| match profile.covers(table.libseccomp) {
        true => profile.judge(name, on),
        false => unknown.clone(),
    };
    assemble(architectures, &Rules { verdict: &by_name, unknown: unknown.clone(), answer: &judged })
}

/// What is compiled: verdicts by name, the one on calls without a name, and the code of a verdict.
struct Rules<'a, V> {
    verdict: &'a dyn Fn(&Table, &str) -> V,
    unknown: V,
    answer: &'a dyn Fn(&V) -> Code,
}

fn assemble<V: Clone + PartialEq>(architectures: &[Architecture], rules: &Rules<'_, V>) -> Code {
    let other = answer(ENOSYS);
    let by_architecture = architectures.iter().rev().fold(other, |rest, architecture| {
        let mut code = vec![load(NUMBER)];
        code.extend(tree(&ranges(architecture, rules), rules.answer));
        if_equal(architecture.audit, code, rest)
    });
    let mut program = vec![load(ARCHITECTURE)];
    program.extend(by_architecture);
    program
}

/// Where ranges begin, and what holds from there on.
fn ranges<V: Clone + PartialEq>(architecture: &Architecture, rules: &Rules<'_, V>) -> Vec<(u32, V)> {
    let mut verdicts = BTreeMap::new();
    for table in architecture.tables {
        let calls = table.calls.iter();
        verdicts.extend(calls.map(|(number, name)| (table.offset + number, (rules.verdict)(table, name))));
    }
    let mut ranges = vec![(0, rules.unknown.clone())];
    let mut begin = |number, verdict: V| {
        if ranges.last().is_some_and(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    };
    let mut expected = 0;
    for (number, verdict) in verdicts {
        if number != expected {
            begin(expected, rules.unknown.clone());
        }
        begin(number, verdict);
        expected = number + 1;
    }
    begin(expected, rules.unknown.clone());
    // The first call may begin at 0, as the made-up range did.
    if ranges.get(1).is_some_and(|(number, _)| *number == 0) {
        ranges.remove(0);
    }
    ranges
}

fn tree<V: PartialEq>(ranges: &[(u32, V)], answer: &dyn Fn(&V) -> Code) -> Code {
    block(ranges, answer).unwrap_or_else(|| {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        branch(JUMP_GREATER_EQUAL, high[0].0, tree(high, answer), tree(low, answer))
    })
}

/// A tree with each answer once, behind the comparisons: what the kernel compiles for every program is half as long. `None`
/// where the answers would be farther away than a conditional jump reaches.
fn block<V: PartialEq>(ranges: &[(u32, V)], answer: &dyn Fn(&V) -> Code) -> Option<Code> {
    let comparisons = ranges.len() - 1;
    let mut answers: Vec<(&V, usize)> = Vec::new();
    let mut tail = Code::new();
    for (_, verdict) in ranges {
        if !answers.iter().any(|(known, _)| *known == verdict) {
            answers.push((verdict, comparisons + tail.len()));
            tail.extend(answer(verdict));
        }
    }
    if comparisons > 0 && comparisons + tail.len() > usize::from(u8::MAX) {
        return None;
    }
    let place = |verdict: &V| {
        let known = answers.iter().find(|(known, _)| *known == verdict);
        known.expect("every verdict has its answer").1
    };
    let mut code = Code::with_capacity(comparisons + tail.len());
    compare(ranges, &place, &mut code);
    code.extend(tail);
    Some(code)
}

/// Appends the comparisons that lead to the answers' places; says where they begin.
fn compare<V>(ranges: &[(u32, V)], place: &dyn Fn(&V) -> usize, code: &mut Code) -> usize {
    if let [(_, verdict)] = ranges {
        return place(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let at = code.len();
    code.push(statement(JUMP_GREATER_EQUAL, high[0].0));
    let targets = [compare(low, place, code), compare(high, place, code)];
    let [jf, jt] = targets.map(|to| u8::try_from(to - at - 1).expect("a block is no longer than this"));
    code[at] = Instruction { jt, jf, ..code[at] };
    at
}

/// The code of a user's verdict: tests one after the other, the first that holds decides.
fn judged(judgement: &Judgement) -> Code {
    judgement.conditional.iter().rev().fold(acted(judgement.otherwise), |rest, (tests, action)| {
        tests.iter().rev().fold(acted(*action), |then, test| tested(*test, then, &rest))
    })
}

fn acted(action: Action) -> Code {
    let value = match action {
        Action::Allow => RETURN_ALLOW,
        Action::Fail(errno) => RETURN_ERRNO | u32::from(errno),
        Action::Trap => RETURN_TRAP,
        Action::Trace(data) => RETURN_TRACE | u32::from(data),
        Action::Log => RETURN_LOG,
        Action::KillThread => RETURN_KILL_THREAD,
        Action::KillProcess => RETURN_KILL_PROCESS,
    };
    vec![statement(RETURN, value)]
}

/// Compares all 64 bits of an argument, the high half first.
fn tested(test: Test, then: Code, otherwise: &Code) -> Code {
    let (high, low) = ((test.value >> 32) as u32, test.value as u32);
    let other = || otherwise.clone();
    let halves = |on_high: &dyn Fn(Code) -> Code, on_low: Code| {
        let mut low_half = vec![load(argument(test.index))];
        low_half.extend(on_low);
        let mut code = vec![load(argument(test.index) + 4)];
        code.extend(on_high(low_half));
        code
    };
    let equal = |then: Code, otherwise: Code| {
        halves(&|low_half| if_equal(high, low_half, otherwise.clone()), if_equal(low, then, otherwise.clone()))
    };
    // Greater than in the high half decides; equal there leaves it to the low one.
    let above = |low_code: u16, then: Code, otherwise: Code| {
        halves(
            &|low_half| branch(JUMP_GREATER, high, then.clone(), if_equal(high, low_half, otherwise.clone())),
            branch(low_code, low, then.clone(), otherwise.clone()),
        )
    };
    match test.operator {
        Operator::Equal => equal(then, other()),
        Operator::NotEqual => equal(other(), then),
        Operator::Greater => above(JUMP_GREATER, then, other()),
        Operator::GreaterOrEqual => above(JUMP_GREATER_EQUAL, then, other()),
        Operator::Less => above(JUMP_GREATER_EQUAL, other(), then),
        Operator::LessOrEqual => above(JUMP_GREATER, other(), then),
        Operator::MaskedEqual => {
            let (want_high, want_low) = ((test.second >> 32) as u32, test.second as u32);
            let mut low_half = vec![load(argument(test.index)), statement(AND, low)];
            low_half.extend(if_equal(want_low, then, other()));
            let mut code = vec![load(argument(test.index) + 4), statement(AND, high)];
            code.extend(if_equal(want_high, low_half, other()));
            code
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
    use super::super::profile::Profile;
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
                JUMP_GREATER => at += usize::from(if value > k { jt } else { jf }),
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
            let profile = Profile::new(Capabilities::from_names(capabilities).unwrap());
            let verdict = |name: &str| profile.verdict(name);
            for architectures in [X86, ARM] {
                let program = compile(architectures, verdict);
                assert!(program.len() < 4096, "{}", program.len());
                for architecture in architectures {
                    for Table { offset, calls: table, .. } in architecture.tables {
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

    fn custom(json: &str, capabilities: &[&str]) -> Code {
        let profile = SeccompProfile::parse(json.as_bytes()).unwrap();
        let capabilities = Capabilities::from_names(capabilities).unwrap();
        compile_profile(X86, &profile, Circumstances { capabilities, release: "6.1.0-test" })
    }

    #[test]
    fn each_operator_compares_all_64_bits() {
        let (native, getpid) = (X86[0].audit, 39);
        const BIG: u64 = 0x1_0000_0005;
        for (operator, value, second, holds, fails) in [
            ("EQ", BIG, 0_u64, &[BIG][..], &[5, BIG + 1, 0x2_0000_0005][..]),
            ("NE", BIG, 0, &[5, BIG + 1], &[BIG]),
            ("GT", BIG, 0, &[BIG + 1, 0x2_0000_0000], &[BIG, 6, 0x1_0000_0004]),
            ("GE", BIG, 0, &[BIG, 0x2_0000_0000], &[6, 0x1_0000_0004]),
            ("LT", BIG, 0, &[6, 0x1_0000_0004], &[BIG, 0x2_0000_0000]),
            ("LE", BIG, 0, &[BIG, 6], &[BIG + 1, 0x2_0000_0000]),
            ("MASKED_EQ", 0xf_0000_00f0, 0x1_0000_0010, &[0x1_0000_0010, 0x11_0000_1013], &[0x10, 0x1_0000_0020]),
        ] {
            let json = format!(
                r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["getpid"], "action": "SCMP_ACT_ALLOW",
                    "args": [{{"index": 1, "value": {value}, "valueTwo": {second}, "op": "SCMP_CMP_{operator}"}}]}}]}}"#
            );
            let program = custom(&json, &[]);
            for argument in holds {
                assert_eq!(run(&program, native, getpid, [0, *argument, 0]), RETURN_ALLOW, "{operator} {argument:#x}");
            }
            for argument in fails {
                let answer = run(&program, native, getpid, [0, *argument, 0]);
                assert_eq!(answer, RETURN_ERRNO | libc::EPERM as u32, "{operator} {argument:#x}");
            }
        }
    }

    #[test]
    fn a_users_profile_means_what_docker_takes_it_for() {
        let json = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read", "getpid"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "7.1"}},
                {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
                {"names": ["uname"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}
            ]}"#;
        let (native, i386, enosys) = (X86[0].audit, X86[1].audit, RETURN_ERRNO | libc::ENOSYS as u32);
        let (plain, admin) = (custom(json, &["CHOWN"]), custom(json, &["SYS_ADMIN"]));
        for (program, architecture, number, argument, want) in [
            (&plain, native, 0, 0, RETURN_ALLOW),
            (&plain, i386, 3, 0, RETURN_ALLOW),
            (&plain, native, 0x4000_0000, 0, enosys),
            (&plain, native, 165, 0, RETURN_ERRNO | 13),
            (&admin, native, 165, 0, RETURN_ALLOW),
            (&plain, native, 101, 0, RETURN_ALLOW),
            (&plain, native, 312, 0, enosys),
            (&plain, native, 162, 0, enosys),
            (&plain, native, 63, 0, RETURN_KILL_PROCESS),
            (&plain, native, 135, 0, RETURN_ALLOW),
            (&plain, native, 135, 8, RETURN_LOG),
            (&plain, native, 135, 9, enosys),
            (&plain, native, 5000, 0, enosys),
        ] {
            assert_eq!(
                run(program, architecture, number, [argument, 0, 0]),
                want,
                "{architecture:#x} {number} {argument}"
            );
        }
    }

    #[test]
    fn profiles_that_could_be_misread_are_refused() {
        for (json, want) in [
            ("", "not a seccomp profile: EOF"),
            ("{}", "missing field `defaultAction`"),
            (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, "the seccomp action SCMP_ACT_MAYBE is not supported"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY is not supported"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}"#, "5000 is no error number"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "sysCalls": []}"#, "unknown field `sysCalls`"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#,
                "a listener in seccomp profiles is not supported",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "seccomp rule for read: there is no argument 6",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_MOSTLY"}]}]}"#,
                "unknown variant `SCMP_CMP_MOSTLY`",
            ),
        ] {
            let error = SeccompProfile::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    /// The profile of Debian's podman, when it is installed.
    #[test]
    fn the_profile_of_other_engines_is_read() {
        let Ok(json) = std::fs::read_to_string("/usr/share/containers/seccomp.json") else {
            println!("SKIPPED: no /usr/share/containers/seccomp.json");
            return;
        };
        let program = custom(&json, &DEFAULT_CAPABILITIES);
        assert!(program.len() < 4096, "{}", program.len());
        let native = X86[0].audit;
        assert_eq!(run(&program, native, 0, [0; 3]), RETURN_ALLOW);
        assert_ne!(run(&program, native, 163, [0; 3]), RETURN_ALLOW, "acct");
        assert_ne!(run(&program, native, 135, [0x40_0000, 0, 0]), RETURN_ALLOW, "personality");
        assert_eq!(run(&program, native, 135, [8, 0, 0]), RETURN_ALLOW, "personality");
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let profile = Profile::new(Capabilities::from_names(&["CHOWN"]).unwrap());
        let program = compile(X86, |name| profile.verdict(name));
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
