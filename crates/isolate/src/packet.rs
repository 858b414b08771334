//! One value per packet, with file descriptors beside it.
//!
//! A packet is a tag byte and MessagePack. What does not fit a packet (a report of thousands of stars, a large
//! environment) travels in a sealed memory file whose descriptor comes first.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::seal::seal;

/// The value follows in this packet.
const INLINE: u8 = 0;
/// The value is the content of the first descriptor.
const IN_FILE: u8 = 1;
/// Largest packet. An order takes one or two kilobytes; a larger buffer would cost the nursery more after every start,
/// when each page it writes to has to be copied away from the new star.
const PACKET_MAX: usize = 8 * 1024;
/// Largest value at all: 10,000 stars with their reports take 1.5 MB, and nobody sends more than that ten times over.
const VALUE_MAX: u64 = 16 << 20;
/// The doors of one batch, or the places of a star with what it begins with and what its memory is brought back with, and the file of a large value.
const FDS_MAX: usize = crate::protocol::DOORS_MAX as usize + 5;

/// Sends one value. `WouldBlock` means that nothing was sent. Nothing of it is left in this process's memory.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut packet = [INLINE; PACKET_MAX];
    let mut rest = &mut packet[1..];
    let encoded = rmp_serde::encode::write_named(&mut rest, value);
    let unused = rest.len();
    let sent = match encoded {
        Ok(()) => send_bytes(socket, &packet[..PACKET_MAX - unused], fds),
        Err(rmp_serde::encode::Error::InvalidValueWrite(_)) => send_in_file(socket, value, fds),
        Err(error) => Err(io::Error::other(error)),
    };
    clear(&mut packet[..PACKET_MAX - unused]);
    sent
}

fn send_in_file<T: Serialize>(socket: BorrowedFd<'_>, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    // Measured first: a buffer that grows leaves copies of its content behind.
    let mut length = Length(0);
    rmp_serde::encode::write_named(&mut length, value).map_err(io::Error::other)?;
    if length.0 > VALUE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "larger than 16 MiB"));
    }
    let mut bytes = Vec::with_capacity(length.0 as usize);
    rmp_serde::encode::write_named(&mut bytes, value).map_err(io::Error::other)?;
    let file = sealed_file(&bytes);
    clear(&mut bytes);
    let file = file?;
    let mut with_file = vec![file.as_fd()];
    with_file.extend_from_slice(fds);
    send_bytes(socket, &[IN_FILE], &with_file)
}

/// Counts what is written to it.
struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Overwrites what only one star is to know: see `order::scrub`.
fn clear(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(&bytes);
}

fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// A memory file that its receiver can read without fearing that it changes meanwhile.
fn sealed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("packet", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file.into())
}

/// Takes one value and the descriptors beside it. `UnexpectedEof` means that the other side is gone,
/// `InvalidData` that it does not speak this protocol.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut bytes = vec![0; PACKET_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let value = match bytes[..received.bytes].split_first() {
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
        Some((&INLINE, _)) => decode(&mut bytes[1..received.bytes])?,
        Some((&IN_FILE, _)) if !fds.is_empty() => decode(&mut file_content(fds.remove(0))?)?,
        Some(_) => return Err(invalid("a packet of an unknown kind")),
    };
    Ok((value, fds))
}

fn decode<T: DeserializeOwned>(bytes: &mut [u8]) -> io::Result<T> {
    let value = rmp_serde::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    clear(bytes);
    value
}

fn file_content(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let seals = rustix::fs::fcntl_get_seals(&fd)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::WRITE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a memory file that is not sealed"));
    }
    let mut file = File::from(fd);
    file.rewind()?;
    let length = file.metadata()?.len();
    if length > VALUE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 16 MiB"));
    }
    // In one piece: a buffer that grows leaves copies of its content behind.
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn values_of_every_size_cross_with_their_descriptors() {
        for size in [0, 10, PACKET_MAX, 3 << 20] {
            let (a, b) = pair();
            let value = "x".repeat(size);
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            send(a.as_fd(), &value, &[writer.as_fd()]).unwrap();
            let (got, fds): (String, _) = receive(b.as_fd()).unwrap();
            assert_eq!(got.len(), size);
            rustix::io::write(&fds[0], b"!").unwrap();
            assert_eq!(rustix::io::read(&reader, &mut [0; 8]).unwrap(), 1);
        }
    }

    #[test]
    fn foreign_bytes_are_invalid_and_a_closed_socket_is_the_end() {
        let (a, b) = pair();
        for bytes in [&[7u8, 1, 2][..], &[IN_FILE], &[INLINE, 0xc1]] {
            send_bytes(a.as_fd(), bytes, &[]).unwrap();
            assert_eq!(receive::<String>(b.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(receive::<String>(b.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(receive::<String>(b.as_fd()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
