//! `--chmod`: octal, or symbolic as in chmod(1) with a umask of 0.

use std::str::FromStr;

use rbuild_cache::view::FileKind;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModeChange {
    /// These bits, for files and directories alike.
    Exact(u32),
    /// Changes one after the other.
    Symbolic(Vec<Clause>),
}

/// One operation of a symbolic mode, e.g. the `+x` of `u+x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// Whose bits: any of `0o700`, `0o070`, `0o007` with the matching special bits.
    who: u32,
    operation: Operation,
    bits: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    /// `rwxst`, spread over all classes; `conditional` has `X`.
    Listed { bits: u32, conditional: bool },
    /// What another class has: its position, 6 for `u`, 3 for `g`, 0 for `o`.
    CopiedFrom(u32),
}

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
        let clauses = text.split(',').map(parse_clauses).collect::<Option<Vec<_>>>();
        clauses
            .map(|clauses| Self::Symbolic(clauses.concat()))
            .ok_or_else(|| InvalidMode::Symbolic { text: text.to_owned() })
    }
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`
fn parse_clauses(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let mut who = 0;
    for class in text[..start].bytes() {
        who |= match class {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o1007,
            b'a' => 0o7777,
            _ => return None,
        };
    }
    let who = if start == 0 { 0o7777 } else { who };
    let mut clauses = Vec::new();
    let mut rest = &text[start..];
    while let Some(sign) = rest.chars().next() {
        let operation = match sign {
            '+' => Operation::Add,
            '-' => Operation::Remove,
            '=' => Operation::Set,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let bits = match &rest[1..end] {
            "u" => Bits::CopiedFrom(6),
            "g" => Bits::CopiedFrom(3),
            "o" => Bits::CopiedFrom(0),
            letters => {
                let (mut bits, mut conditional) = (0, false);
                for letter in letters.bytes() {
                    bits |= match letter {
                        b'r' => 0o444,
                        b'w' => 0o222,
                        b'x' => 0o111,
                        b's' => 0o6000,
                        b't' => 0o1000,
                        b'X' => {
                            conditional = true;
                            0
                        }
                        _ => return None,
                    };
                }
                Bits::Listed { bits, conditional }
            }
        };
        clauses.push(Clause { who, operation, bits });
        rest = &rest[end..];
    }
    Some(clauses)
}

impl ModeChange {
    /// The bits for a file of this kind that had `mode`.
    pub(super) fn apply(&self, mode: u32, kind: FileKind) -> u32 {
        let clauses = match self {
            Self::Exact(exact) => return *exact,
            Self::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, clause| {
            let bits = match clause.bits {
                Bits::CopiedFrom(position) => {
                    let class = mode >> position & 0o7;
                    class << 6 | class << 3 | class
                }
                Bits::Listed { bits, conditional: true } if kind.is_directory() || mode & 0o111 != 0 => bits | 0o111,
                Bits::Listed { bits, .. } => bits,
            } & clause.who;
            match clause.operation {
                Operation::Add => mode | bits,
                Operation::Remove => mode & !bits,
                // As chmod(1): setting permissions of a directory leaves its set-id bits, unless named.
                Operation::Set if kind.is_directory() => mode & !(clause.who & 0o1777) | bits,
                Operation::Set => mode & !clause.who | bits,
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
