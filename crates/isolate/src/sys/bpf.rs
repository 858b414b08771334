//! The few instructions and calls that a filter for a group's devices takes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

pub(crate) const DEVICE_BLOCK: i64 = 1;
pub(crate) const DEVICE_CHARACTER: i64 = 2;

// `enum bpf_cmd`, `enum bpf_prog_type`, `enum bpf_attach_type`.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACH: u32 = 6;
/// Filters of groups further out go on counting, and further ones may be attached.
const ALLOW_MULTI: u32 = 2;

/// The kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// `to = *(u32 *)(from + offset)`
pub(crate) const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

pub(crate) const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbc, to, from, 0, 0)
}

pub(crate) const fn and(to: u8, mask: i32) -> Instruction {
    instruction(0x54, to, 0, 0, mask)
}

pub(crate) const fn shift_right(to: u8, bits: i32) -> Instruction {
    instruction(0x74, to, 0, 0, bits)
}

pub(crate) const fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb4, to, 0, 0, value)
}

pub(crate) const fn end() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}

/// Skips `distance` instructions when the lower halves are equal, or when they are not.
pub(crate) const fn if_equal(register: u8, value: i32, distance: i16) -> Instruction {
    instruction(0x16, register, 0, distance, value)
}

pub(crate) const fn unless_equal(register: u8, value: i32, distance: i16) -> Instruction {
    instruction(0x56, register, 0, distance, value)
}

/// `union bpf_attr` for loading, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for attaching and detaching.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The same for asking what is attached.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are a live structure of the size given, whose pointers the callers keep alive; the kernel
    // takes what it does not find in a shorter one for zero.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// Gives the program to the kernel, which checks it.
pub(crate) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attributes = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: program.len() as u32,
        instructions: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        ..Load::default()
    };
    let fd = bpf(PROG_LOAD, &mut attributes)?;
    // SAFETY: the descriptor is new and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a program to a group, and takes away those that were attached to it before.
pub(crate) fn attach(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut ids = [0u32; 64];
    let mut query = Query {
        target: group.as_raw_fd() as u32,
        kind: CGROUP_DEVICE_ATTACH,
        ids: ids.as_mut_ptr().addr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut query)?;
    let on =
        |program: u32, flags| Attach { target: group.as_raw_fd() as u32, program, kind: CGROUP_DEVICE_ATTACH, flags };
    bpf(PROG_ATTACH, &mut on(program.as_raw_fd() as u32, ALLOW_MULTI))?;
    for id in &ids[..query.count as usize] {
        /// `union bpf_attr` for opening by id.
        #[repr(C)]
        struct Open {
            id: u32,
            next: u32,
            flags: u32,
        }
        let fd = bpf(PROG_GET_FD_BY_ID, &mut Open { id: *id, next: 0, flags: 0 })?;
        // SAFETY: the descriptor is new and ours alone.
        let old = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        bpf(PROG_DETACH, &mut on(old.as_raw_fd() as u32, 0))?;
    }
    Ok(())
}
