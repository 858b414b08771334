//! Which devices a container may use, and those every container has.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::plan::{Device, DeviceKind};
use crate::fault::Because;
use crate::sys::bpf;

/// One rule: later ones count more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    /// `None`: of any kind.
    pub kind: Option<DeviceKind>,
    /// `None`: any number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceRule {
    const fn allowing(kind: DeviceKind, major: Option<u32>, minor: Option<u32>) -> Self {
        Self { allow: true, kind: Some(kind), major, minor, read: true, write: true, mknod: true }
    }

    /// What a container may do whatever its bundle says: make any device (which opens none), and use those below.
    pub fn always() -> Vec<Self> {
        let character = DeviceKind::Character;
        let make = |kind| Self { read: false, write: false, ..Self::allowing(kind, None, None) };
        let mut rules = vec![make(character), make(DeviceKind::Block)];
        let known = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        rules.extend(known.map(|(major, minor)| Self::allowing(character, Some(major), Some(minor))));
        // Terminals of any devpts.
        rules.push(Self::allowing(character, Some(136), None));
        rules
    }

    /// As `devices.allow` and `devices.deny` take it.
    pub(super) fn v1(&self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = match self.kind {
            // The kernel takes this letter for everything, whatever follows.
            None if self.major.is_none() && self.minor.is_none() && self.read && self.write && self.mknod => {
                return "a".to_owned();
            }
            None => 'a',
            Some(DeviceKind::Block) => 'b',
            Some(_) => 'c',
        };
        let access = [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')];
        let access: String = access.into_iter().filter(|(given, _)| *given).map(|(_, letter)| letter).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// The devices of every container, in `/dev`.
pub(super) fn usual() -> Vec<Device> {
    let devices = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    let device = |(name, major, minor)| Device {
        path: format!("/dev/{name}"),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    devices.map(device).into()
}

/// Gives a version 2 group a filter for devices, in place of one it has.
pub(super) fn attach_filter(dir: &Path, rules: &[DeviceRule]) -> Result<(), String> {
    let failed = || format!("cannot filter the devices of `{}`", dir.display());
    let group = File::open(dir).because(failed)?;
    let program = bpf::load(&filter(rules)).because(failed)?;
    bpf::attach(group.as_fd(), program.as_fd()).because(failed)
}

/// The last rule that fits decides; without one nothing is allowed. The kernel gives (`struct bpf_cgroup_dev_ctx`) kind
/// and access in halves of one word, major and minor: here in registers 2 to 5.
fn filter(rules: &[DeviceRule]) -> Vec<bpf::Instruction> {
    let mut code = vec![
        bpf::load_word(2, 1, 0),
        bpf::copy(3, 2),
        bpf::and(2, 0xffff),
        bpf::shift_right(3, 16),
        bpf::load_word(4, 1, 4),
        bpf::load_word(5, 1, 8),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        match rule.kind {
            Some(DeviceKind::Block) => tests.push((2, bpf::DEVICE_BLOCK)),
            Some(_) => tests.push((2, bpf::DEVICE_CHARACTER)),
            None => {}
        }
        tests.extend(rule.major.map(|major| (4, i64::from(major))));
        tests.extend(rule.minor.map(|minor| (5, i64::from(minor))));
        let access = [(rule.mknod, 1), (rule.read, 2), (rule.write, 4)];
        let access: i32 = access.into_iter().filter(|(given, _)| *given).map(|(_, bit)| bit).sum();
        // Allowing needs all that is asked for to be in the rule; refusing, any of it.
        let mut body = vec![bpf::copy(1, 3)];
        match rule.allow {
            true => body.extend([bpf::and(1, !access), bpf::unless_equal(1, 0, 2)]),
            false => body.extend([bpf::and(1, access), bpf::if_equal(1, 0, 2)]),
        }
        body.extend([bpf::set(0, i32::from(rule.allow)), bpf::end()]);
        let mut rest = body.len() as i16 + tests.len() as i16;
        for (register, value) in tests {
            rest -= 1;
            code.push(bpf::unless_equal(register, value as i32, rest));
        }
        code.extend(body);
    }
    code.extend([bpf::set(0, 0), bpf::end()]);
    code
}
