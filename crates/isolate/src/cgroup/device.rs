//! The disk that a folder lies on, as limits of its use name it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `MAJOR:MINOR` of the whole disk: the kernel limits no single partition.
pub(super) fn under(folder: &Path) -> Result<String, String> {
    let device = fs::metadata(folder).map_err(|error| error.to_string())?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let place = Path::new("/sys/dev/block").join(&number);
    if !place.exists() {
        return Err(format!("the file system of `{}` lies on no disk of its own (device {number})", folder.display()));
    }
    if !place.join("partition").exists() {
        return Ok(number);
    }
    // A partition's folder lies in its disk's.
    let disk = fs::canonicalize(&place).ok().and_then(|place| fs::read_to_string(place.parent()?.join("dev")).ok());
    disk.map(|number| number.trim().to_owned())
        .ok_or_else(|| format!("the disk of the partition {number} is not found"))
}
