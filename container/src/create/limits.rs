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
        (None, Some(_)) => return Err(InvalidLimit::SwapWithoutMemory),
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
        ] {
            assert_eq!(check_limits(&bad), Err(want));
        }
        for text in ["", "a", "1-", "3-1", "1,,2", "1;2"] {
            let bad = Resources { cpuset_cpus: Some(text.into()), ..good.clone() };
            assert_eq!(check_limits(&bad), Err(InvalidLimit::Cpuset { text: text.into() }), "{text:?}");
        }
    }
}
