//! Limits of disks as the files of v1 and v2. A device is named by its file, and found by its numbers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::limits::refused;
use crate::spawn_error::SpawnError;
use crate::spec::DiskLimits;

/// Writes a value for a flag into a controller's file.
type SetV1<'a> = dyn Fn(&str, &str, &str, String) -> Result<(), SpawnError> + 'a;
/// Writes a value for a flag into a file.
type SetV2<'a> = dyn Fn(&str, &str, String) -> Result<(), SpawnError> + 'a;

/// Writes the limits into v1 groups.
pub(super) fn apply_v1(disks: &DiskLimits, set: &SetV1<'_>) -> Result<(), SpawnError> {
    if let Some(weight) = disks.weight {
        set("blkio-weight", "blkio", "blkio.weight", weight.to_string()).or_else(|error| {
            // Where the scheduler is BFQ.
            set("blkio-weight", "blkio", "blkio.bfq.weight", weight.to_string()).map_err(|_| error)
        })?;
    }
    let rates = [
        ("blkio-weight-device", "blkio.weight_device", &disks.device_weights),
        ("device-read-bps", "blkio.throttle.read_bps_device", &disks.read_bytes),
        ("device-write-bps", "blkio.throttle.write_bps_device", &disks.write_bytes),
        ("device-read-iops", "blkio.throttle.read_iops_device", &disks.reads),
        ("device-write-iops", "blkio.throttle.write_iops_device", &disks.writes),
    ];
    for (flag, file, devices) in rates {
        for (device, value) in devices {
            set(flag, "blkio", file, format!("{} {value}", numbers(flag, device)?))?;
        }
    }
    Ok(())
}

/// The same for a v2 group.
pub(super) fn apply_v2(disks: &DiskLimits, set: &SetV2<'_>) -> Result<(), SpawnError> {
    if let Some(weight) = disks.weight {
        set("blkio-weight", "io.weight", format!("default {}", io_weight(weight)))
            .or_else(|error| set("blkio-weight", "io.bfq.weight", weight.to_string()).map_err(|_| error))?;
    }
    for (device, weight) in &disks.device_weights {
        let value = format!("{} {}", numbers("blkio-weight-device", device)?, io_weight(*weight));
        set("blkio-weight-device", "io.weight", value)?;
    }
    let rates = [
        ("device-read-bps", "rbps", &disks.read_bytes),
        ("device-write-bps", "wbps", &disks.write_bytes),
        ("device-read-iops", "riops", &disks.reads),
        ("device-write-iops", "wiops", &disks.writes),
    ];
    for (flag, key, devices) in rates {
        for (device, value) in devices {
            set(flag, "io.max", format!("{} {key}={value}", numbers(flag, device)?))?;
        }
    }
    Ok(())
}

/// Docker's weight (10 to 1000) on v2's scale (1 to 10000), as runc converts it.
fn io_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// `8:0` of a device file.
fn numbers(flag: &str, device: &Path) -> Result<String, SpawnError> {
    let found = fs::metadata(device).map_err(|error| refused(flag, &format!("{}: {error}", device.display())))?;
    if !found.file_type().is_block_device() {
        return Err(refused(flag, &format!("{} is no block device", device.display())));
    }
    let number = found.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_lines_of_files() {
        for (weight, want) in [(10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), want, "{weight}");
        }
        let written = std::cell::RefCell::new(Vec::new());
        let disks = DiskLimits { weight: Some(500), ..DiskLimits::default() };
        let v1 = |_: &str, controller: &str, file: &str, value: String| {
            written.borrow_mut().push(format!("{controller} {file} {value}"));
            Ok(())
        };
        apply_v1(&disks, &v1).unwrap();
        let v2 = |_: &str, file: &str, value: String| {
            written.borrow_mut().push(format!("{file} {value}"));
            Ok(())
        };
        apply_v2(&disks, &v2).unwrap();
        assert_eq!(*written.borrow(), ["blkio blkio.weight 500", "io.weight default 4950"]);
        let disks = DiskLimits { reads: vec![("/dev/null".into(), 5)], ..DiskLimits::default() };
        let error = apply_v2(&disks, &v2).unwrap_err();
        assert_eq!(error.to_string(), "cannot apply the limit device-read-iops: /dev/null is no block device");
    }
}
