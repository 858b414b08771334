//! How much of what stars write to an image may wait in memory for its disk.
//!
//! The kernel lets a gigabyte wait and then writes it in strides of many MiB, by threads of its own that no limit of the star
//! reaches and that most kernels cannot interrupt: whoever is woken meanwhile, in whatever star, waits for milliseconds. With
//! little waiting each stride is short, and who writes more waits for its own disk (ADR 0031).
//!
//! The kernel keeps the bound with the device, also when that is given back, so it is taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

/// Bytes. Beside a star that fills its disk, a neighbour's p99 was 1.04 times what it is alone with this, 0.99 with 256 KiB, 2.7
/// with 4 MiB, 8.5 without; 131 MB/s were written with this, 390 with 4 MiB, 34 to 131 without.
const WAITING_MAX: u64 = 1 << 20;
/// How often a device is looked for that is about to be given back. Other stars may go on using it.
const LOOKS: u32 = 100;

/// The devices that were bounded, as far as this nursery knows.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    used: BTreeSet<u32>,
    /// Those whose last user may be about to go, and how often each was looked at.
    leaving: BTreeMap<u32, u32>,
}

/// Bounds what waits for a device. `false` on kernels that cannot (before 6.2).
pub(super) fn bound(number: u32) -> io::Result<bool> {
    let written = set(number, "max_bytes", WAITING_MAX).and_then(|()| set(number, "strict_limit", 1));
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        written => written.map(|()| true),
    }
}

/// Whether this kernel can.
pub fn can_bound() -> bool {
    let devices = fs::read_dir("/sys/class/bdi").into_iter().flatten().flatten();
    devices.map(|device| device.path().join("strict_limit")).any(|file| file.exists())
}

impl Bounded {
    /// What nurseries before this one left bounded: in use, or given back while nobody was there to see it.
    pub(super) fn found() -> Self {
        let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let numbers = blocks.filter_map(|block| block.file_name().to_str()?.strip_prefix("loop")?.parse().ok());
        let mut found = Self { used: numbers.filter(|number| is_bounded(*number)).collect(), ..Self::default() };
        found.look();
        found
    }

    pub(super) fn used(&mut self, number: u32) {
        self.used.insert(number);
    }

    /// A star has ended: what it used may be given back in a moment.
    pub(super) fn look(&mut self) {
        self.leaving.extend(self.used.iter().map(|number| (*number, 0)));
    }

    pub(super) fn are_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Takes the bounds from those that were given back.
    pub(super) fn let_go(&mut self) {
        self.leaving.retain(|&number, looks| {
            if !folder(number).join("loop").exists() {
                let _ = release(number);
                self.used.remove(&number);
                return false;
            }
            *looks += 1;
            *looks < LOOKS
        });
    }
}

fn is_bounded(number: u32) -> bool {
    fs::read_to_string(folder(number).join("bdi/strict_limit")).is_ok_and(|text| text.trim() == "1")
}

/// As the kernel makes it.
fn release(number: u32) -> io::Result<()> {
    set(number, "strict_limit", 0)?;
    set(number, "max_ratio", 100)
}

fn set(number: u32, file: &str, value: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(folder(number).join("bdi").join(file));
    io::Write::write_all(&mut file?, value.to_string().as_bytes())
}

fn folder(number: u32) -> PathBuf {
    PathBuf::from(format!("/sys/block/loop{number}"))
}
