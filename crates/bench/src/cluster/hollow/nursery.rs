//! A nursery without stars: it speaks to its agent as a real one does, and says of every star that it runs until it is told to end it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use isolate::{Message, Request, StarReport, Walls};
use model::{ExitCause, StarId};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use tokio::io::unix::AsyncFd;

/// As the packets of the real one: a tag, then the value, or the value in a memory file.
const INLINE: u8 = 0;
const IN_FILE: u8 = 1;
const PACKET_MAX: usize = 8 << 10;
const SIGKILL: i32 = 9;

/// Serves the agent of a data folder, over whatever connections it makes, for as long as the runtime runs.
pub(super) fn serve(data_dir: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // An address holds 107 bytes of path.
    let folder = rustix::fs::open(data_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/nursery.sock", std::os::fd::AsRawFd::as_raw_fd(&folder));
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 16)?;
    let socket = register(socket)?;
    tokio::spawn(async move {
        let mut stars = BTreeMap::new();
        loop {
            let Ok(mut ready) = socket.readable().await else { return };
            if let Ok(Ok(agent)) = ready.try_io(|socket| Ok(rustix::net::accept_with(socket, flags)?)) {
                // One at a time: what it knows outlives its agent.
                let _ = Agent { socket: register(agent), stars: &mut stars }.serve().await;
            }
        }
    });
    Ok(())
}

/// Hands a descriptor to the reactor. It must be non-blocking.
#[allow(
    deprecated,
    reason = "its successor is an unsafe function, whose condition holds: an `OwnedFd` is neither replaced nor closed while it is \
              registered"
)]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

struct Agent<'s> {
    socket: io::Result<AsyncFd<OwnedFd>>,
    stars: &'s mut BTreeMap<StarId, StarReport>,
}

impl Agent<'_> {
    /// Until it is gone.
    async fn serve(self) -> io::Result<()> {
        let Self { socket, stars } = self;
        let socket = socket?;
        loop {
            let request = receive(&socket).await?;
            for answer in answers(request, stars) {
                send(&socket, &answer).await?;
            }
        }
    }
}

fn answers(request: Request, stars: &mut BTreeMap<StarId, StarReport>) -> Vec<Message> {
    match request {
        Request::Hello { version } => {
            let stars = stars.values().cloned().collect();
            vec![Message::Welcome { version, pid: std::process::id(), stars, walls: walls() }]
        }
        Request::Start(order) => {
            // Numbers no process has; nobody looks for one.
            let (pid, start_time) = (u32::MAX >> 8, order.star.0);
            let report = StarReport { star: order.star, generation: order.generation, pid, start_time, ended: None };
            stars.insert(order.star, report);
            vec![Message::Started { star: order.star, pid, start_time, elapsed_us: 0 }]
        }
        Request::Signal { star, signal } => end(stars, star, signal),
        Request::Kill { star } => end(stars, star, SIGKILL),
        Request::Limit { star, .. } => vec![Message::Limited { star, problem: None }],
        Request::Freeze { star, .. } => vec![Message::Frozen { star, problem: None }],
        Request::Forget { star } => {
            stars.remove(&star);
            Vec::new()
        }
        Request::Lease { .. } => Vec::new(),
        other => {
            vec![Message::Refused { star: None, reason: format!("a hollow nursery does no such thing: {other:?}") }]
        }
    }
}

fn end(stars: &mut BTreeMap<StarId, StarReport>, star: StarId, signal: i32) -> Vec<Message> {
    let Some(report) = stars.get_mut(&star).filter(|report| report.ended.is_none()) else { return Vec::new() };
    let cause = ExitCause::Signal(signal);
    report.ended = Some(cause.clone());
    vec![Message::Exited { star, cause }]
}

/// Every wall stands around nobody.
fn walls() -> Walls {
    use isolate::Enforced::Yes;
    Walls {
        cpu: Yes,
        memory: Yes,
        pids: Yes,
        pinning: Yes,
        burst: Yes,
        io: Yes,
        io_in_part: false,
        disk: isolate::DiskMeans::ProjectQuota,
        landlock: Yes,
        yielding: Yes,
        yielding_in_part: false,
        rootless: false,
        cgroup: "none".to_owned(),
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Request> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(received) = ready.try_io(|socket| try_receive(socket.as_fd())) {
            return received;
        }
    }
}

fn try_receive(socket: BorrowedFd<'_>) -> io::Result<Request> {
    let mut bytes = vec![0; PACKET_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    // Whatever else comes along is for real stars.
    let file = rights.and_then(|mut rights| rights.next());
    let decode = |bytes: &[u8]| rmp_serde::from_slice(bytes).map_err(io::Error::other);
    match bytes[..received.bytes].split_first() {
        None => Err(io::ErrorKind::UnexpectedEof.into()),
        Some((&INLINE, value)) => decode(value),
        Some((&IN_FILE, _)) => {
            let mut file = File::from(file.ok_or(io::ErrorKind::InvalidData)?);
            let mut value = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut value)?;
            decode(&value)
        }
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn send(socket: &AsyncFd<OwnedFd>, message: &impl Serialize) -> io::Result<()> {
    let mut value = rmp_serde::to_vec_named(message).map_err(io::Error::other)?;
    let mut file = None;
    if value.len() < PACKET_MAX {
        value.insert(0, INLINE);
    } else {
        let mut sealed =
            File::from(rustix::fs::memfd_create("packet", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        sealed.write_all(&value)?;
        rustix::fs::fcntl_add_seals(&sealed, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        value = vec![IN_FILE];
        file = Some(sealed);
    }
    loop {
        let mut ready = socket.writable().await?;
        let sent = ready.try_io(|socket| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let rights = file.as_ref().map(|file| [file.as_fd()]);
            if let Some(rights) = &rights {
                control.push(SendAncillaryMessage::ScmRights(rights));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            rustix::net::sendmsg(socket, &[IoSlice::new(&value)], &mut control, flags)?;
            Ok(())
        });
        if let Ok(sent) = sent {
            return sent;
        }
    }
}
