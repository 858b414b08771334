//! Network devices of the host that become a container's.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::plan::NetDevice;
use crate::fault::Because;
use crate::netlink::Netlink;

/// Moves devices into a process's network namespace, each with its addresses, and switches them on. All are looked for
/// before the first is moved.
pub(super) fn give(devices: &[NetDevice], pid: u32) -> Result<(), String> {
    if devices.is_empty() {
        return Ok(());
    }
    let failed = || "cannot use the container's network namespace".to_owned();
    let theirs = File::open(format!("/proc/{pid}/ns/net")).because(failed)?;
    let ours = File::open("/proc/thread-self/ns/net").because(failed)?;
    let here = Netlink::open().because(failed)?;
    let mut found = Vec::new();
    for device in devices {
        let wrong = || format!("cannot look at the network device `{}`", device.name);
        let index = here.index(&device.name).because(wrong)?;
        let index = index.ok_or_else(|| format!("there is no network device `{}`", device.name))?;
        found.push((device, index, here.addresses(index).because(wrong)?));
    }
    for (device, index, _) in &found {
        here.give(*index, theirs.as_fd(), &device.inside)
            .because(|| format!("cannot move the network device `{}`", device.name))?;
    }
    let there = within(theirs.as_fd(), ours.as_fd(), || Netlink::open().because(failed))?;
    for (device, _, addresses) in &found {
        let wrong = || format!("cannot furnish the network device `{}`", device.name);
        let index = there.index(&device.inside).because(wrong)?;
        let index = index.ok_or_else(|| format!("the network device `{}` did not arrive", device.name))?;
        addresses.iter().try_for_each(|address| there.add(index, address)).because(wrong)?;
        there.switch_on(index).because(wrong)?;
    }
    Ok(())
}

/// Does something in another network namespace.
fn within<T>(
    theirs: BorrowedFd<'_>,
    ours: BorrowedFd<'_>,
    act: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let enter = |namespace| move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network));
    enter(theirs).because(|| "cannot enter the container's network namespace".to_owned())?;
    let done = act();
    enter(ours).because(|| "cannot come back from the container's network namespace".to_owned())?;
    done
}
