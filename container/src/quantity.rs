//! Amounts as people type them on the command line: `512m`, `1.5`, `nofile=1024:2048`.

use rbuild_executor::Rlimit;

/// An amount that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// Not a number with an optional unit.
    #[error("invalid size: {text:?}: a number with an optional unit b, k, m, g, t or p is wanted")]
    Size {
        /// What was given.
        text: String,
    },
    /// Not a decimal number of processors.
    #[error("invalid number of CPUs: {text:?}: a positive decimal number with at most three decimals is wanted")]
    Cpus {
        /// What was given.
        text: String,
    },
    /// Not `name=soft[:hard]`.
    #[error("invalid ulimit argument: {text:?}: NAME=SOFT[:HARD] is wanted")]
    Ulimit {
        /// What was given.
        text: String,
    },
    /// A limit the kernel does not have.
    #[error("invalid ulimit type: {name}")]
    UlimitName {
        /// What was given.
        name: String,
    },
    /// The soft limit is above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder {
        /// The soft limit.
        soft: i64,
        /// The hard limit.
        hard: i64,
    },
}

/// Reads a number of bytes: digits, an optional fraction, an optional unit (powers of 1024), an optional `b` or `ib`.
pub fn bytes(text: &str) -> Result<u64, InvalidQuantity> {
    let invalid = || InvalidQuantity::Size { text: text.to_owned() };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = match unit.as_str() {
        "b" => "",
        "ib" => return Err(invalid()),
        other => other.strip_suffix("ib").or_else(|| other.strip_suffix('b')).unwrap_or(other),
    };
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(invalid()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return Err(invalid());
    }
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).expect("at most nine"));
    let fraction: u128 = fraction.parse().map_err(|_| invalid())?;
    let total = (u128::from(whole) << shift) + ((fraction << shift) / scale);
    u64::try_from(total).ok().filter(|n| *n <= i64::MAX as u64).ok_or_else(invalid)
}

/// Reads `--cpus`: a decimal number of processors, in thousandths.
pub fn cpu_millis(text: &str) -> Result<u64, InvalidQuantity> {
    let invalid = || InvalidQuantity::Cpus { text: text.to_owned() };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if fraction.len() > 3 || !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(invalid());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| invalid())?;
    whole.checked_mul(1000).and_then(|n| n.checked_add(fraction)).filter(|n| *n > 0).ok_or_else(invalid)
}

/// Reads `--ulimit`: `name=soft[:hard]`, `-1` for unlimited; the hard limit defaults to the soft one.
pub fn ulimit(text: &str) -> Result<Rlimit, InvalidQuantity> {
    let invalid = || InvalidQuantity::Ulimit { text: text.to_owned() };
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !ULIMITS.contains(&name) {
        return Err(InvalidQuantity::UlimitName { name: name.to_owned() });
    }
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(invalid);
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(InvalidQuantity::UlimitOrder { soft, hard });
    }
    let limit = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    Ok(Rlimit { name: name.to_ascii_uppercase(), soft: limit(soft), hard: limit(hard) })
}

/// The limits of `getrlimit(2)` under the names of Docker's `--ulimit`.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, want) in [
            ("0", 0),
            ("42", 42),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32KiB", 32 << 10),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2 gb", 2 << 30),
            ("1T", 1 << 40),
            ("1p", 1 << 50),
            ("0.5k", 512),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text:?}");
        }
        for bad in ["", "m", "-1", "1x", "1.m", ".5m", "1.2.3m", "1  m", "1ib", "99999999999p", "1e3", "0x10", "1mm"] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn processors_are_decimal() {
        for (text, want) in [("1", 1000), ("1.5", 1500), ("0.25", 250), (".5", 500), ("2.", 2000), ("0.001", 1)] {
            assert_eq!(cpu_millis(text), Ok(want), "{text:?}");
        }
        for bad in ["", ".", "0", "0.0", "-1", "1.2345", "1,5", "two", "1e2"] {
            assert!(cpu_millis(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_side() {
        let limit = |name: &str, soft, hard| Ok(Rlimit { name: name.to_owned(), soft, hard });
        assert_eq!(ulimit("nofile=1024"), limit("NOFILE", 1024, 1024));
        assert_eq!(ulimit("nofile=1024:2048"), limit("NOFILE", 1024, 2048));
        assert_eq!(ulimit("core=-1"), limit("CORE", u64::MAX, u64::MAX));
        assert_eq!(ulimit("core=0:-1"), limit("CORE", 0, u64::MAX));
        for (bad, want) in [
            ("nofile", "invalid ulimit argument: \"nofile\": NAME=SOFT[:HARD] is wanted"),
            ("nofile=x", "invalid ulimit argument: \"nofile=x\": NAME=SOFT[:HARD] is wanted"),
            ("nofile=-2", "invalid ulimit argument: \"nofile=-2\": NAME=SOFT[:HARD] is wanted"),
            ("files=1", "invalid ulimit type: files"),
            ("nofile=5:3", "ulimit soft limit must be less than or equal to hard limit: 5 > 3"),
            ("nofile=-1:3", "ulimit soft limit must be less than or equal to hard limit: -1 > 3"),
        ] {
            assert_eq!(ulimit(bad).unwrap_err().to_string(), want);
        }
    }
}
