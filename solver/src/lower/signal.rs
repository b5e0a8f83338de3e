//! Which texts name a signal (`moby/sys/signal`, Linux).

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether `text` is a number other than 0, or a signal's name with or without `SIG`, in any case.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u32| {
        let digits = name.strip_prefix(prefix).filter(|digits| !digits.starts_with('0'));
        digits.and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|offset| (1..=most).contains(&offset))
    };
    NAMES.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for good in ["9", "-1", "65", "TERM", "sigterm", "SIGRTMIN+3", "RTMAX-14", "SIGRTMAX", "StkFlt"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "TERM KILL", "SIGSIGTERM", "RTMIN+16", "RTMAX-15", "RTMIN+0", "FOO", "9x"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
