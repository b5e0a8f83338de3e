//! Limits that contradict each other or that the kernel would refuse, found before anything is made.

use rbuild_executor::Resources;

/// A limit that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// Below what a process can start with.
    #[error("minimum memory limit allowed is 6MB")]
    TooLittleMemory,
    /// Swap is limited without memory.
    #[error("--memory-swap needs --memory beside it")]
    SwapWithoutMemory,
    /// Memory and swap together are less than memory alone.
    #[error("--memory-swap counts memory and swap together and cannot be less than --memory")]
    SwapBelowMemory,
    /// `--cpuset-cpus` is no list of processors.
    #[error("invalid value {text} for cpuset cpus")]
    Cpuset {
        /// What was given.
        text: String,
    },
    /// `--cpuset-mems` is no list of memory nodes.
    #[error("invalid value {text} for cpuset mems")]
    CpusetMems {
        /// What was given.
        text: String,
    },
    /// What is reserved is more than there may be.
    #[error("minimum memory limit can not be less than memory reservation limit, see usage")]
    ReservationAboveMemory,
    /// Swappiness runs from 0 to 100.
    #[error("invalid value: {percent}, valid memory swappiness range is 0-100")]
    Swappiness {
        /// What was given.
        percent: u64,
    },
    /// Weights of disks run from 10 to 1000.
    #[error("range of blkio weight is from 10 to 1000, not {weight}")]
    DiskWeight {
        /// What was given.
        weight: u64,
    },
    /// Weights run from 2 to 262144.
    #[error("--cpu-shares must be between 2 and 262144, not {shares}")]
    CpuShares {
        /// What was given.
        shares: u64,
    },
}

/// Docker's minimum for `--memory`.
const MIN_MEMORY: u64 = 6 << 20;

/// Gives the limits back when they can be.
pub fn check_limits(resources: &Resources) -> Result<Resources, InvalidLimit> {
    if resources.memory.is_some_and(|bytes| bytes < MIN_MEMORY) {
        return Err(InvalidLimit::TooLittleMemory);
    }
    match (resources.memory, resources.memory_swap) {
        (None, Some(both)) if both != u64::MAX => return Err(InvalidLimit::SwapWithoutMemory),
        (Some(memory), Some(both)) if both < memory => return Err(InvalidLimit::SwapBelowMemory),
        _ => {}
    }
    if let Some(shares) = resources.cpu_shares
        && !(2..=262_144).contains(&shares)
    {
        return Err(InvalidLimit::CpuShares { shares });
    }
    if let Some(text) = &resources.cpuset_cpus
        && !is_cpu_list(text)
    {
        return Err(InvalidLimit::Cpuset { text: text.clone() });
    }
    if let Some(text) = &resources.cpuset_mems
        && !is_cpu_list(text)
    {
        return Err(InvalidLimit::CpusetMems { text: text.clone() });
    }
    if let (Some(memory), Some(reserved)) = (resources.memory, resources.memory_reservation)
        && reserved > memory
    {
        return Err(InvalidLimit::ReservationAboveMemory);
    }
    if let Some(percent) = resources.memory_swappiness.filter(|percent| *percent > 100) {
        return Err(InvalidLimit::Swappiness { percent });
    }
    let weights = resources.disks.device_weights.iter().map(|(_, weight)| *weight).chain(resources.disks.weight);
    for weight in weights {
        if !(10..=1000).contains(&weight) {
            return Err(InvalidLimit::DiskWeight { weight });
        }
    }
    Ok(resources.clone())
}

/// Whether `text` is the kernel's list format: `0-2,4`.
fn is_cpu_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_executor::DiskLimits;

    #[test]
    fn limits_are_checked_against_each_other() {
        let good = Resources {
            memory: Some(6 << 20),
            memory_swap: Some(6 << 20),
            cpu_shares: Some(2),
            cpuset_cpus: Some("0-2,4".into()),
            ..Resources::default()
        };
        assert_eq!(check_limits(&good), Ok(good.clone()));
        assert_eq!(check_limits(&Resources::default()), Ok(Resources::default()));
        for (bad, want) in [
            (Resources { memory: Some(1 << 20), ..good.clone() }, InvalidLimit::TooLittleMemory),
            (Resources { memory: None, ..good.clone() }, InvalidLimit::SwapWithoutMemory),
            (Resources { memory: Some(8 << 20), ..good.clone() }, InvalidLimit::SwapBelowMemory),
            (Resources { cpu_shares: Some(1), ..good.clone() }, InvalidLimit::CpuShares { shares: 1 }),
            (Resources { memory_reservation: Some(7 << 20), ..good.clone() }, InvalidLimit::ReservationAboveMemory),
            (Resources { memory_swappiness: Some(101), ..good.clone() }, InvalidLimit::Swappiness { percent: 101 }),
            (
                Resources { disks: DiskLimits { weight: Some(9), ..DiskLimits::default() }, ..good.clone() },
                InvalidLimit::DiskWeight { weight: 9 },
            ),
            (
                Resources { cpuset_mems: Some("x".into()), ..good.clone() },
                InvalidLimit::CpusetMems { text: "x".into() },
            ),
        ] {
            assert_eq!(check_limits(&bad), Err(want));
        }
        for text in ["", "a", "1-", "3-1", "1,,2", "1;2"] {
            let bad = Resources { cpuset_cpus: Some(text.into()), ..good.clone() };
            assert_eq!(check_limits(&bad), Err(InvalidLimit::Cpuset { text: text.into() }), "{text:?}");
        }
    }

    #[test]
    fn each_limit_says_what_it_may_be() {
        let errors = [
            InvalidLimit::TooLittleMemory,
            InvalidLimit::SwapWithoutMemory,
            InvalidLimit::SwapBelowMemory,
            InvalidLimit::Cpuset { text: "x".into() },
            InvalidLimit::CpusetMems { text: "x".into() },
            InvalidLimit::ReservationAboveMemory,
            InvalidLimit::Swappiness { percent: 101 },
            InvalidLimit::DiskWeight { weight: 9 },
            InvalidLimit::CpuShares { shares: 1 },
        ];
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        minimum memory limit allowed is 6MB
        --memory-swap needs --memory beside it
        --memory-swap counts memory and swap together and cannot be less than --memory
        invalid value x for cpuset cpus
        invalid value x for cpuset mems
        minimum memory limit can not be less than memory reservation limit, see usage
        invalid value: 101, valid memory swappiness range is 0-100
        range of blkio weight is from 10 to 1000, not 9
        --cpu-shares must be between 2 and 262144, not 1
        ");
    }
}
