//! What runs inside the stars of these tests, and outside of them for comparison: it tries things and says what
//! came of it, one line each.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isolate::ScriptStart;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// As a RADS star.
pub(crate) fn entry(start: ScriptStart<'_>) -> i32 {
    assert_eq!(start.path.to_str(), Some("/app/probe.rads"));
    run(start.args)
}

pub(crate) fn run(words: &[String]) -> i32 {
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["exit", code] => return code.parse().unwrap(),
        ["say", text] => println!("{text}"),
        ["panic"] => panic!("as asked"),
        ["whoami"] => whoami(),
        ["files", host_file] => files(host_file),
        ["privileges"] => privileges(),
        ["calls"] => calls(),
        ["few calls"] => few_calls(),
        ["connect", port] => connect(port.parse().unwrap()),
        ["listen", port] => listen(Ipv4Addr::LOCALHOST, port.parse().unwrap()),
        ["listen everywhere", port] => listen(Ipv4Addr::UNSPECIFIED, port.parse().unwrap()),
        ["reach", ref addresses @ ..] => addresses.iter().for_each(|address| reach(address)),
        ["idle"] => idle(),
        ["eat"] => eat(),
        ["fork"] => fork(),
        ["burn", millis] => burn(Duration::from_millis(millis.parse().unwrap())),
        ["flood", millis] => flood(Duration::from_millis(millis.parse().unwrap())),
        ["count"] => count(),
        ["count then exit", number, millis, code] => {
            count_to(number.parse().unwrap(), millis.parse().unwrap());
            return code.parse().unwrap();
        }
        ["search", ref backwards @ ..] => search(backwards),
        ["volume", path, text] => volume(path, text),
        ["open files"] => open_files(),
        ref other => panic!("no probe {other:?}"),
    }
    0
}

/// `name: yes` or `name: no, why`.
fn tell<T, E: std::fmt::Display>(name: &str, result: Result<T, E>) {
    match result {
        Ok(_) => println!("{name}: yes"),
        Err(error) => println!("{name}: no, {error}"),
    }
}

fn idle() -> ! {
    println!("idle");
    loop {
        std::thread::park();
    }
}

fn whoami() {
    println!("pid {}", std::process::id());
    println!("uid {}", rustix::process::getuid().as_raw());
    println!("hostname {}", rustix::system::uname().nodename().to_str().unwrap());
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let pids: Vec<u32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    println!("pids {pids:?}");
    println!("greeting {:?}", std::env::var("GREETING"));
    println!("folder {:?}", std::env::current_dir().unwrap());
    let variables = std::env::vars().map(|(name, _)| name).collect::<Vec<_>>();
    println!("variables {variables:?}");
    println!("session {}", rustix::process::getsid(None).is_ok_and(|sid| sid == rustix::process::getpid()));
}

fn files(host_file: &str) {
    tell("read the bundle", fs::read_to_string("/app/hello.txt"));
    tell("write the bundle", fs::write("/app/new", "x"));
    tell("write the root", fs::write("/new", "x"));
    tell("write programs", fs::write("/usr/new", "x"));
    tell("write /tmp", fs::write("/tmp/isolate-probe", "x").and_then(|()| fs::remove_file("/tmp/isolate-probe")));
    tell("read a host file", fs::read(host_file));
    tell("read /etc/shadow", fs::metadata("/etc/shadow"));
    tell("see /root", fs::metadata("/root"));
    tell("write /proc/sys", fs::OpenOptions::new().write(true).open("/proc/sys/kernel/core_pattern"));
    tell("read /proc/kcore", fs::File::open("/proc/kcore").and_then(|mut f| f.read_exact(&mut [0; 4])));
    tell(
        "read /proc/keys",
        fs::read("/proc/keys")
            .and_then(|keys| if keys.is_empty() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(()) }),
    );
    tell("see devices", fs::metadata("/dev/vda").or_else(|_| fs::metadata("/dev/kmsg")));
    tell("see /sys", fs::metadata("/sys/kernel"));
    tell("use /dev/null", fs::write("/dev/null", "x"));
    tell("use /dev/urandom", fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut [0; 4])));
    tell("use /dev/shm", fs::write("/dev/shm/x", "x"));
    tell("use a program", Command::new("true").status());
    tell("use /dev/stderr", fs::OpenOptions::new().write(true).open("/dev/stderr"));
    println!("hosts {:?}", fs::read_to_string("/etc/hosts"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    println!("mounts {}", mounts.lines().count());
}

fn privileges() {
    for line in fs::read_to_string("/proc/self/status").unwrap().lines() {
        if ["Cap", "NoNewPrivs", "Seccomp:", "Groups"].iter().any(|name| line.starts_with(name)) {
            println!("{}", line.replace('\t', " "));
        }
    }
}

/// System calls no star may make. Outside they are made in namespaces of one's own, where nothing is at stake.
#[allow(deprecated)] // Its successor differs for threads that share descriptors, and needs `unsafe`.
fn calls() {
    use rustix::thread::{UnshareFlags, unshare};
    if std::process::id() != 1 {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWUTS).unwrap();
    }
    let folder = if std::process::id() == 1 { "/tmp/x" } else { "/tmp/isolate-probe-folder" };
    fs::create_dir_all(folder).unwrap();
    tell("unshare", unshare(UnshareFlags::NEWUTS));
    tell("mount", rustix::mount::mount_bind("/usr", folder));
    tell("open_tree", rustix::mount::open_tree(rustix::fs::CWD, "/usr", rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE));
    tell("chroot", rustix::process::chroot("/"));
    tell("hostname", rustix::system::sethostname(b"mine"));
    let own = fs::File::open("/proc/self/ns/uts").unwrap();
    use std::os::fd::AsFd;
    tell("setns", rustix::thread::move_into_link_name_space(own.as_fd(), None));
    let socket = |family, kind| rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None);
    tell("netlink", socket(AddressFamily::NETLINK, SocketType::RAW));
    tell("inet", socket(AddressFamily::INET, SocketType::STREAM));
    tell("unix", socket(AddressFamily::UNIX, SocketType::STREAM));
    let _ = fs::remove_dir(folder);
}

/// What programs do and the machine of a RADS star does not, beside two things that it does.
fn few_calls() {
    tell("a thread", std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join()));
    // Over the C library, which looks for a name server's answer in files first.
    tell("a lookup", std::net::ToSocketAddrs::to_socket_addrs("localhost:80"));
    tell("a program", Command::new("true").status());
    tell("a group", rustix::process::setpgid(None, None));
    tell("memory files", rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC));
    tell("notices of files", rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC));
    tell("a priority", rustix::process::setpriority_process(None, 19));
}

fn connect(port: u16) {
    println!("interfaces {:?}", interfaces());
    tell("connect", TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(2)));
    let elsewhere = TcpStream::connect_timeout(&SocketAddr::from(([192, 0, 2, 1], 80)), Duration::from_millis(200));
    println!("elsewhere {:?}", elsewhere.map_err(|error| error.kind()).err());
}

fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Says what is answered at an address.
pub(crate) fn reach(address: &str) {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(700))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    match answer() {
        Ok(text) => println!("reach {address}: {}", text.trim_end()),
        Err(error) => println!("reach {address}: nothing, {:?}", error.kind()),
    }
}

/// Answers every connection with one line.
fn listen(address: Ipv4Addr, port: u16) {
    let listener = TcpListener::bind((address, port)).unwrap();
    // Connected, which sends nothing, it has the address this machine would call from.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let own = socket.connect((Ipv4Addr::new(192, 0, 2, 2), 9)).and_then(|()| socket.local_addr());
    println!("address {}", own.map_or("none".to_owned(), |own| own.ip().to_string()));
    println!("listens");
    for stream in listener.incoming() {
        let _ = stream.unwrap().write_all(b"from inside\n");
    }
}

fn eat() {
    println!("eats");
    let mut eaten = Vec::new();
    for _ in 0..4096 {
        eaten.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&eaten);
    }
    println!("full");
}

fn fork() {
    let mut children = Vec::new();
    let failed = loop {
        match Command::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
        if children.len() == 2000 {
            break std::io::Error::other("enough");
        }
    };
    println!("forks {}", children.len());
    println!("then {failed}");
}

/// Uses the processor for a while and says how much of it there was.
fn burn(span: Duration) {
    let used = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let (begun, before) = (Instant::now(), used());
    while begun.elapsed() < span {
        std::hint::black_box((0..1000).fold(0u64, |sum, n| sum ^ n));
    }
    println!("share {}", ((used() - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0) as u64);
}

fn flood(span: Duration) {
    let line = [vec![b'x'; 1023], vec![b'\n']].concat().repeat(64);
    let begun = Instant::now();
    let mut written = 0;
    let mut out = std::io::stdout().lock();
    while begun.elapsed() < span {
        out.write_all(&line).unwrap();
        written += line.len();
    }
    drop(out);
    eprintln!("flooded {written}");
}

/// Writes numbers until it is told to stop.
fn count() {
    for number in 0u64.. {
        println!("number {number}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn count_to(end: u64, pause: u64) {
    for number in 0..end {
        println!("number {number}");
        std::thread::sleep(Duration::from_millis(pause));
    }
}

/// Looks for words, given back to front, in all memory of this process that may be written.
fn search(backwards: &[&str]) {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    use std::io::{Seek, SeekFrom};
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    let mut memory = fs::File::open("/proc/self/mem").unwrap();
    let mut found = vec![false; backwards.len()];
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains(" rw")) {
        let (begin, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; (end - begin) as usize];
        if memory.seek(SeekFrom::Start(begin)).and_then(|_| memory.read_exact(&mut bytes)).is_err() {
            continue;
        }
        for (word, found) in backwards.iter().zip(&mut found) {
            // Compared from behind: looking for a word must not make a copy of it.
            *found |= bytes.windows(word.len()).any(|window| window.iter().rev().eq(word.as_bytes()));
        }
    }
    for (word, found) in backwards.iter().zip(found) {
        tell(word, if found { Ok(()) } else { Err("not found") });
    }
}

fn volume(path: &str, text: &str) {
    tell("read", fs::read_to_string(format!("{path}/note")));
    tell("write", fs::write(format!("{path}/note"), text));
    let owner = fs::metadata(path).map(|data| std::os::unix::fs::MetadataExt::uid(&data));
    println!("owner {owner:?}");
}

fn open_files() {
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count());
    println!("open {open:?}");
    let mut files = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        files.push(file);
    }
    println!("limit {}", files.len() < 70_000);
}
