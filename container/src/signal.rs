//! Signals by the names people use: `SIGTERM`, `term`, `15`, `RTMIN+3`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal number that can be sent: 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

/// Text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {text}")]
pub struct InvalidSignal {
    /// What was given.
    pub text: String,
}

impl Signal {
    /// Hang-up of the terminal.
    pub const HUP: Self = Self(1);
    /// Ctrl-C.
    pub const INT: Self = Self(2);
    /// Ctrl-\.
    pub const QUIT: Self = Self(3);
    /// Cannot be caught.
    pub const KILL: Self = Self(9);
    /// The first for programs' own use.
    pub const USR1: Self = Self(10);
    /// The second for programs' own use.
    pub const USR2: Self = Self(12);
    /// The polite request to end; what `stop` sends when the image names no other.
    pub const TERM: Self = Self(15);
    /// The terminal's size changed.
    pub const WINCH: Self = Self(28);

    /// The number, for the kernel.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The signal of that number, if there is one.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=MAX).contains(&number).then_some(Self(number))
    }
}

/// Names without `SIG`, at the index of their number (the same on x86_64, aarch64 and riscv64).
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The C libraries keep 32 and 33 for themselves, so that RTMIN is 34 to every program.
const RTMIN: i32 = 34;
const MAX: i32 = 64;

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Ok(number) = upper.parse::<i32>() {
            Some(number)
        } else if name.is_empty() {
            None
        } else if let Some(index) = NAMES.iter().position(|known| *known == name) {
            i32::try_from(index).ok()
        } else if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            Some(*number)
        } else if let Some(offset) = name.strip_prefix("RTMIN") {
            real_time_offset(offset, '+').map(|offset| RTMIN + offset)
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            real_time_offset(offset, '-').map(|offset| MAX - offset)
        } else {
            None
        };
        number.and_then(Self::from_number).ok_or_else(|| InvalidSignal { text: text.to_owned() })
    }
}

/// Reads `+3` behind `RTMIN` (or `-3` behind `RTMAX`), nothing for the signal itself.
fn real_time_offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from).filter(|offset| *offset <= MAX - RTMIN)
}

impl TryFrom<String> for Signal {
    type Error = InvalidSignal;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|index| NAMES.get(index)) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, want) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("TERM", 15),
            ("15", 15),
            ("sigKill", 9),
            ("IOT", 6),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("64", 64),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(want), "{text:?}");
        }
        for bad in ["", "SIG", "0", "65", "-1", "SIGFOO", "SIGSIGTERM", "RTMIN-1", "RTMIN+99", "TERM "] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_signal_reads_back_from_its_name() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse::<Signal>(), Ok(signal), "{signal}");
        }
        assert_eq!(Signal::from_number(9), Some(Signal::KILL));
        assert_eq!(Signal::WINCH.to_string(), "SIGWINCH");
    }
}
