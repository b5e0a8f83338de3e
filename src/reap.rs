//! Takes down what killed invocations left outside the store, as their leases name it.

use std::io;
use std::path::PathBuf;

use rbuild_cache::Reap;
use rbuild_container::{Networks, OUTSIDE_KIND, PROCESS_KIND, UNBORN_VOLUME_KIND, remove_unborn_volume};
use rbuild_executor::network::user_mode;

/// Knows every kind of thing that our leases hold outside the store.
#[derive(Debug)]
pub(crate) struct Reaper {
    root: PathBuf,
}

impl Reaper {
    /// For the store in this directory.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Reap for Reaper {
    fn reap(&self, kind: &str, name: &str) -> io::Result<()> {
        match kind {
            OUTSIDE_KIND => {
                let networks = Networks::below(&self.root).map_err(io::Error::other)?;
                networks.sweep(name).map_err(io::Error::other)
            }
            PROCESS_KIND => {
                let parsed =
                    name.split_once(':').and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
                let (pid, started) = parsed.ok_or(io::ErrorKind::InvalidData)?;
                user_mode::end_leftover(pid, started)
            }
            UNBORN_VOLUME_KIND => remove_unborn_volume(&self.root, name),
            // A newer rbuild's: that one knows how.
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_left_process_is_ended_and_nobody_elses() {
        let home = tempfile::tempdir().unwrap();
        let reaper = Reaper::new(home.path().to_owned());
        let mut child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let started: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let pid = child.id();
        reaper.reap(PROCESS_KIND, &format!("{pid}:{}", started + 1)).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "that was another process with this number");
        reaper.reap(PROCESS_KIND, &format!("{pid}:{started}")).unwrap();
        assert!(!child.wait().unwrap().success());
        reaper.reap(PROCESS_KIND, &format!("{pid}:{started}")).unwrap();
        reaper.reap(OUTSIDE_KIND, &"0".repeat(64)).unwrap();
        assert!(reaper.reap("spaceship", "").is_err());
    }
}
