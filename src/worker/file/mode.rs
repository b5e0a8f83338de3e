//! `--chmod`: octal, or symbolic by the rules of setmode(3) with a mask of 0, which BuildKit has from BSD:
//!
//! - `=` clears all bits of the classes, their set-id bits included, of directories too; `a` does not mean the sticky bit.
//! - `s` and `t` mean nothing to others alone; `t` without a class leaves the clause to the sticky bit only.
//! - `X` asks whether the file could be run before anything was changed.
//! - `u`, `g` and `o` behind the operator are copied one after the other; `u=go` ends as `u=o`.

use std::str::FromStr;

use rbuild_cache::view::FileKind;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModeChange {
    /// These bits, for files and directories alike.
    Exact(u32),
    /// Changes one after the other.
    Symbolic(Vec<Step>),
}

/// One change of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Takes bits away.
    Clear(u32),
    /// Gives bits.
    Set(u32),
    /// Gives bits to what could be run, and to directories.
    SetIfExecutable(u32),
    /// Gives a class, takes from it, or makes it what another one has: `from` and each of `to` are shifts.
    Copy { operation: Operation, from: u32, to: [Option<u32>; 3] },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Remove,
    Set,
}

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const OTHERS: u32 = 0o007;
const ALL: u32 = 0o6777;

/// A text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidMode {
    /// Digits that are no mode.
    #[error("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")]
    Octal {
        /// What was given.
        text: String,
    },
    /// Neither octal nor symbolic.
    #[error("invalid chmod parameter: '{text}': invalid syntax")]
    Symbolic {
        /// What was given.
        text: String,
    },
}

impl FromStr for ModeChange {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let value = u32::from_str_radix(text, 8).ok().filter(|value| *value <= 0o7777);
            return value.map(Self::Exact).ok_or_else(|| InvalidMode::Octal { text: text.to_owned() });
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut steps).ok_or_else(|| InvalidMode::Symbolic { text: text.to_owned() })?;
        }
        Ok(Self::Symbolic(steps))
    }
}

/// `[ugoa]*([-+=][rwxXstugo]*)+`
fn parse_clause(text: &str, steps: &mut Vec<Step>) -> Option<()> {
    let start = text.find(['+', '-', '='])?;
    let mut who = 0;
    for class in text[..start].bytes() {
        who |= match class {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => OTHERS,
            b'a' => ALL,
            _ => return None,
        };
    }
    let mut rest = &text[start..];
    while let Some(sign) = rest.chars().next() {
        let operation = match sign {
            '+' => Operation::Add,
            '-' => Operation::Remove,
            '=' => Operation::Set,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        who &= !STICKY;
        parse_permissions(&rest[1..end], operation, &mut who, steps)?;
        rest = &rest[end..];
    }
    Some(())
}

fn parse_permissions(letters: &str, operation: Operation, who: &mut u32, steps: &mut Vec<Step>) -> Option<()> {
    let (mut bits, mut if_executable, mut set) = (0, 0, false);
    for letter in letters.bytes() {
        // Others have neither set-id nor sticky bits.
        let special = *who == 0 || *who & !OTHERS != 0;
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b's' if special => bits |= SET_ID,
            b't' if special => {
                *who |= STICKY;
                bits |= STICKY;
            }
            b's' | b't' => {}
            b'X' if operation != Operation::Remove => if_executable = 0o111,
            b'X' => {}
            b'u' | b'g' | b'o' => {
                flush(operation, *who, bits, steps, bits != 0);
                flush_executable(*who, if_executable, steps);
                (bits, if_executable, set) = (0, 0, true);
                let from = match letter {
                    b'u' => 6,
                    b'g' => 3,
                    _ => 0,
                };
                let to = |shift: u32| (*who == 0 || *who & (4 << shift) != 0).then_some(shift);
                steps.push(Step::Copy { operation, from, to: [to(6), to(3), to(0)] });
            }
            _ => return None,
        }
    }
    flush(operation, *who, bits, steps, bits != 0 || !set);
    flush_executable(*who, if_executable, steps);
    Some(())
}

fn flush(operation: Operation, who: u32, bits: u32, steps: &mut Vec<Step>, wanted: bool) {
    let bits = if who == 0 { bits } else { bits & who };
    match operation {
        Operation::Add if bits != 0 => steps.push(Step::Set(bits)),
        Operation::Remove if bits != 0 => steps.push(Step::Clear(bits)),
        Operation::Set if wanted => {
            steps.push(Step::Clear(if who == 0 { ALL } else { who }));
            steps.push(Step::Set(bits));
        }
        _ => {}
    }
}

fn flush_executable(who: u32, bits: u32, steps: &mut Vec<Step>) {
    let bits = if who == 0 { bits } else { bits & who };
    if bits != 0 {
        steps.push(Step::SetIfExecutable(bits));
    }
}

impl ModeChange {
    /// The bits for a file of this kind that had `before`.
    pub(super) fn apply(&self, before: u32, kind: FileKind) -> u32 {
        let steps = match self {
            Self::Exact(exact) => return *exact,
            Self::Symbolic(steps) => steps,
        };
        let executable = kind.is_directory() || before & 0o111 != 0;
        steps.iter().fold(before, |mode, step| match *step {
            Step::Clear(bits) => mode & !bits,
            Step::Set(bits) => mode | bits,
            Step::SetIfExecutable(bits) if executable => mode | bits,
            Step::SetIfExecutable(_) => mode,
            Step::Copy { operation, from, to } => {
                let value = mode >> from & 0o7;
                to.into_iter().flatten().fold(mode, |mode, shift| match operation {
                    Operation::Add => mode | value << shift,
                    Operation::Remove => mode & !(value << shift),
                    Operation::Set => mode & !(0o7 << shift) | value << shift,
                })
            }
        })
    }

    /// The bits that directories get which are made on the way: only an octal mode applies to them.
    pub(super) fn for_new_directories(&self) -> Option<u32> {
        match self {
            Self::Exact(exact) => Some(*exact),
            Self::Symbolic(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_apply_as_in_chmod() {
        for (text, before, kind, after) in [
            ("600", 0o755, FileKind::File, 0o600),
            ("4755", 0o600, FileKind::Directory, 0o4755),
            ("+x", 0o640, FileKind::File, 0o751),
            ("u=rwX,go=rX", 0o600, FileKind::File, 0o644),
            ("u=rwX,go=rX", 0o700, FileKind::File, 0o755),
            ("u=rwX,go=rX", 0o600, FileKind::Directory, 0o755),
            ("g=u", 0o640, FileKind::File, 0o660),
            ("go-rwx,u+x", 0o640, FileKind::File, 0o700),
            ("a=r,u+w", 0o777, FileKind::File, 0o644),
            ("u+s,g-s,+t", 0o2755, FileKind::File, 0o5755),
            ("u=rw+x-w", 0o000, FileKind::File, 0o500),
            ("o=", 0o777, FileKind::File, 0o770),
            // Set-id bits go with their class, sticky bits with none.
            ("g=rx", 0o2775, FileKind::Directory, 0o755),
            ("a=rx", 0o7777, FileKind::File, 0o1555),
            ("=", 0o7777, FileKind::File, 0o1000),
            ("go+s", 0o755, FileKind::File, 0o2755),
            ("o+s,o+t", 0o755, FileKind::File, 0o755),
            ("u+t", 0o755, FileKind::Directory, 0o1755),
            ("a+t", 0o755, FileKind::Directory, 0o1755),
            ("+xt", 0o644, FileKind::File, 0o1644),
            ("-t", 0o1777, FileKind::Directory, 0o777),
            // Only what could be run before counts.
            ("u+x,go+X", 0o600, FileKind::File, 0o700),
            ("a-x,a+X", 0o755, FileKind::File, 0o755),
            ("a-X", 0o755, FileKind::File, 0o755),
            // Copies.
            ("u=go", 0o754, FileKind::File, 0o454),
            ("go=u-w", 0o764, FileKind::File, 0o755),
            ("u=gr", 0o754, FileKind::File, 0o454),
            ("g+u", 0o705, FileKind::File, 0o775),
            ("g-o", 0o775, FileKind::File, 0o725),
            ("+", 0o640, FileKind::File, 0o640),
        ] {
            assert_eq!(text.parse::<ModeChange>().unwrap().apply(before, kind), after, "{text} of {before:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["rw", "789", "10000", "", "x+", "u+q", "u~x", "0x1"] {
            assert!(text.parse::<ModeChange>().is_err(), "{text:?}");
        }
    }
}
