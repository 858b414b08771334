//! A nursery of one's own, and the words to talk to it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use isolate::log::LogLine;
use isolate::{Client, Launch, Message, Request, StarOrder, StarReport, Walls, protocol};
use model::{ExitCause, Limits, Network, StarId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest wait for anything. Reached only by what is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Kit {
    pub(crate) data_dir: PathBuf,
    pub(crate) bundle: PathBuf,
    client: RefCell<Option<Client>>,
    seen: RefCell<VecDeque<(Message, Vec<OwnedFd>)>>,
    next: RefCell<u64>,
    pub(crate) walls: Walls,
    pub(crate) nursery: RefCell<u32>,
}

impl Kit {
    pub(crate) fn new(folder: &Path) -> Self {
        let (data_dir, bundle) = (folder.join("data"), folder.join("bundle"));
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("hello.txt"), "from the bundle").unwrap();
        let walls = Walls {
            landlock: isolate::Enforced::Yes,
            cpu: isolate::Enforced::Yes,
            memory: isolate::Enforced::Yes,
            pids: isolate::Enforced::Yes,
            pinning: isolate::Enforced::Yes,
            yielding: isolate::Enforced::Yes,
            yielding_in_part: false,
            burst: isolate::Enforced::Yes,
            io: isolate::Enforced::Yes,
            io_in_part: false,
            disk: isolate::DiskMeans::default(),
            rootless: false,
            cgroup: String::new(),
        };
        let mut kit = Self {
            data_dir,
            bundle,
            client: RefCell::new(None),
            seen: RefCell::default(),
            next: RefCell::new(0),
            walls,
            nursery: RefCell::new(0),
        };
        kit.walls = kit.open().1;
        kit
    }

    /// Starts a nursery and connects to it; says what it knows.
    pub(crate) fn open(&self) -> (Vec<StarReport>, Walls) {
        let exe = std::env::current_exe().unwrap();
        let args = ["nursery".into(), self.data_dir.clone().into()];
        let log = self.data_dir.parent().unwrap().join("nursery.log");
        isolate::launch_detached(&exe, &args, &log).unwrap();
        let connected = until(|| self.answers(), || fs::read_to_string(&log).unwrap());
        self.client.replace(Some(connected));
        self.welcome()
    }

    /// A connection on which someone answers. What a killed nursery was making holds its socket for some more moments:
    /// it takes connections and resets them.
    fn answers(&self) -> Option<Client> {
        let client = Client::connect(&self.data_dir).ok()?;
        client.try_send(&Request::Hello { version: protocol::VERSION }, &[]).ok()?;
        let _ = poll(&mut [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)], None);
        let received = client.try_recv().ok()?;
        self.seen.borrow_mut().push_back(received);
        Some(client)
    }

    /// Leaves the nursery alone.
    pub(crate) fn disconnect(&self) {
        self.client.replace(None);
        self.seen.borrow_mut().clear();
    }

    /// Another connection in place of the one there was.
    pub(crate) fn reconnect(&self) -> (Vec<StarReport>, Walls) {
        self.client.replace(None);
        self.seen.borrow_mut().clear();
        self.client.replace(Some(Client::connect(&self.data_dir).unwrap()));
        self.send(&Request::Hello { version: protocol::VERSION }, &[]);
        self.welcome()
    }

    /// What another connection is told of the stars.
    pub(crate) fn look(&self) -> Vec<StarReport> {
        let client = Client::connect(&self.data_dir).unwrap();
        client.try_send(&Request::Hello { version: protocol::VERSION }, &[]).unwrap();
        let welcome = until(
            || {
                let _ = poll(&mut [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)], None);
                client.try_recv().ok()
            },
            || "no welcome",
        );
        match welcome.0 {
            Message::Welcome { stars, .. } => stars,
            other => panic!("{other:?}"),
        }
    }

    /// One more connection, on which hello was said and answered.
    pub(crate) fn another(&self) -> Client {
        let client = Client::connect(&self.data_dir).unwrap();
        client.try_send(&Request::Hello { version: protocol::VERSION }, &[]).unwrap();
        let welcomed = || {
            let _ = poll(&mut [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)], None);
            client.try_recv().ok().filter(|(message, _)| matches!(message, Message::Welcome { .. }))
        };
        until(welcomed, || "no welcome");
        client
    }

    /// A connection that holds a star still.
    pub(crate) fn hold(&self, star: StarId) -> Client {
        let client = Client::connect(&self.data_dir).unwrap();
        client.try_send(&Request::Hello { version: protocol::VERSION }, &[]).unwrap();
        client.try_send(&Request::Hold { star }, &[]).unwrap();
        let held = || {
            let _ = poll(&mut [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)], None);
            client.try_recv().ok().filter(|(message, _)| matches!(message, Message::Held { .. }))
        };
        let (answer, _) = until(held, || "it is not held");
        assert_eq!(answer, Message::Held { star, problem: None });
        client
    }

    fn welcome(&self) -> (Vec<StarReport>, Walls) {
        let (message, _) = self.expect(|message| matches!(message, Message::Welcome { .. }));
        let Message::Welcome { pid, stars, walls, .. } = message else { unreachable!() };
        self.nursery.replace(pid);
        (stars, walls)
    }

    pub(crate) fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) {
        let client = self.client.borrow();
        let sent = || match client.as_ref().unwrap().try_send(request, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            other => Some(other),
        };
        until(sent, || "the socket stays full").unwrap();
    }

    /// The first message that fits, now or later. Others are kept.
    pub(crate) fn expect(&self, fits: impl Fn(&Message) -> bool) -> (Message, Vec<OwnedFd>) {
        let found = || {
            let mut seen = self.seen.borrow_mut();
            let index = seen.iter().position(|(message, _)| fits(message));
            if let Some(index) = index {
                return seen.remove(index);
            }
            let client = self.client.borrow();
            let client = client.as_ref().unwrap();
            let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let _ = poll(&mut [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)], Some(&wait));
            match client.try_recv() {
                Ok(received) => seen.push_back(received),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the nursery is gone"),
            }
            None
        };
        until(found, || format!("only {:?} came", self.seen.borrow()))
    }

    /// The first message that fits among those that have come.
    pub(crate) fn heard(&self, fits: impl Fn(&Message) -> bool) -> Option<Message> {
        while let Ok(received) = self.client.borrow().as_ref().unwrap().try_recv() {
            self.seen.borrow_mut().push_back(received);
        }
        let mut seen = self.seen.borrow_mut();
        let index = seen.iter().position(|(message, _)| fits(message))?;
        seen.remove(index).map(|(message, _)| message)
    }

    pub(crate) fn gone(&self) {
        let client = self.client.borrow();
        let gone = || {
            let received = client.as_ref().unwrap().try_recv();
            received.err().filter(|error| error.kind() != io::ErrorKind::WouldBlock)
        };
        until(gone, || "the nursery does not end");
    }

    /// Runs a command within a star: how it ended, and all it said.
    pub(crate) fn exec(&self, star: StarId, argv: &[&str]) -> (Result<i32, String>, String) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let launch = Launch::Command { argv: argv.iter().map(|&word| word.to_owned()).collect() };
        let env = [("WORD".to_owned(), "given".to_owned())].into();
        let request = Request::Exec { star, token: 8, launch, env };
        self.send(&request, &[null.as_fd(), writer.as_fd(), writer.as_fd()]);
        drop(writer);
        let mut said = String::new();
        fs::File::from(reader).read_to_string(&mut said).unwrap();
        let (message, _) = self.expect(|message| matches!(message, Message::ExecEnded { token: 8, .. }));
        let Message::ExecEnded { result, .. } = message else { unreachable!() };
        (result, said)
    }

    /// An order for a probe, to be changed as needed.
    pub(crate) fn script(&self, words: &[&str]) -> StarOrder {
        self.order(Launch::Script { path: "probe.rads".to_owned() }, words)
    }

    pub(crate) fn command(&self, words: &[&str]) -> StarOrder {
        self.order(Launch::Command { argv: words.iter().map(|&word| word.to_owned()).collect() }, &[])
    }

    fn order(&self, launch: Launch, args: &[&str]) -> StarOrder {
        *self.next.borrow_mut() += 1;
        StarOrder {
            star: StarId(*self.next.borrow()),
            generation: 7,
            hostname: "star-one".to_owned(),
            launch,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            before: Vec::new(),
            env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
            bundle: self.bundle.clone(),
            root: None,
            volumes: Vec::new(),
            limits: Limits::UNLIMITED,
            network: Network::None,
            interior: Default::default(),
            weakened: Default::default(),
            memory: None,
            beginning: None,
        }
    }

    /// Starts a star that must start, and returns its pid and start time.
    pub(crate) fn start(&self, order: &StarOrder) -> (u32, u64) {
        self.send(&Request::Start(Box::new(order.clone())), &[]);
        let id = order.star;
        let (message, _) = self.expect(|message| match message {
            Message::Started { star, .. } | Message::StartFailed { star, .. } => *star == id,
            Message::Refused { .. } => true,
            _ => false,
        });
        match message {
            Message::Started { pid, start_time, .. } => (pid, start_time),
            other => panic!("{other:?}"),
        }
    }

    /// Why a star that must not start did not.
    pub(crate) fn start_fails(&self, order: &StarOrder) -> String {
        self.send(&Request::Start(Box::new(order.clone())), &[]);
        let (message, _) =
            self.expect(|message| matches!(message, Message::StartFailed { .. } | Message::Started { .. }));
        match message {
            Message::StartFailed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end(&self, star: StarId) -> ExitCause {
        let (message, _) =
            self.expect(|message| matches!(message, Message::Exited { star: ended, .. } if *ended == star));
        let Message::Exited { cause, .. } = message else { unreachable!() };
        cause
    }

    /// Runs a star to its end and returns what it wrote.
    pub(crate) fn run(&self, order: &StarOrder) -> (ExitCause, String) {
        self.start(order);
        let cause = self.end(order.star);
        (cause, self.log(order.star))
    }

    pub(crate) fn lines(&self, star: StarId) -> Vec<LogLine> {
        let folder = isolate::place::star(&self.data_dir, star);
        let text: Vec<u8> =
            isolate::log::files(&folder).iter().flat_map(|file| fs::read(file).unwrap_or_default()).collect();
        text.split(|&byte| byte == b'\n').filter_map(LogLine::parse).collect()
    }

    pub(crate) fn log(&self, star: StarId) -> String {
        self.lines(star).iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// Waits until a star has written a line that begins so, and returns the rest of it.
    pub(crate) fn said(&self, star: StarId, begin: &str) -> String {
        let found = || self.lines(star).iter().find_map(|line| line.text.strip_prefix(begin).map(str::to_owned));
        until(found, || format!("no `{begin}` in:\n{}", self.log(star)))
    }

    /// The same probe outside of any star.
    pub(crate) fn outside(&self, words: &[&str]) -> String {
        let Output { stdout, .. } =
            Command::new(std::env::current_exe().unwrap()).arg("probe").args(words).output().unwrap();
        String::from_utf8(stdout).unwrap()
    }

    /// Ends the nursery as a fault would.
    pub(crate) fn kill_nursery(&self) {
        kill(*self.nursery.borrow());
    }

    /// Has a program take the nursery's place: what it or the nursery says to that.
    pub(crate) fn upgrade(&self, program: &Path, args: &[&str]) -> Result<(u32, Duration), String> {
        let program = fs::File::open(program).unwrap();
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        self.send(&Request::Upgrade { args }, &[program.as_fd()]);
        let (message, _) =
            self.expect(|message| matches!(message, Message::TookOver { .. } | Message::Refused { star: None, .. }));
        match message {
            Message::TookOver { stars, elapsed_us } => Ok((stars, Duration::from_micros(elapsed_us))),
            Message::Refused { reason, .. } => Err(reason),
            _ => unreachable!(),
        }
    }

    pub(crate) fn shut_down(&self) {
        self.send(&Request::Shutdown, &[]);
        self.gone();
        let nursery = *self.nursery.borrow();
        until(|| (!runs(nursery)).then_some(()), || "the nursery does not end");
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        // After a failed test too: nothing of it may disturb the next. A nursery that was killed leaves its stars to
        // one that follows.
        if self.client.borrow().as_ref().is_none_or(|client| client.try_send(&Request::Shutdown, &[]).is_err()) {
            return;
        }
        let nursery = *self.nursery.borrow();
        let deadline = Instant::now() + PATIENCE;
        while runs(nursery) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        if runs(nursery) {
            // Told, and there all the same: what it does instead is what is to be known.
            let look = |file: &str| fs::read_to_string(format!("/proc/{nursery}/{file}")).unwrap_or_default();
            let state = ["status", "wchan", "syscall", "stack"].map(look).join("\n");
            kill(nursery);
            let failed = format!("the nursery of `{}` did not end:\n{state}", self.data_dir.display());
            assert!(std::thread::panicking(), "{failed}");
            eprintln!("{failed}");
        }
    }
}

/// Kills a process and waits for its end.
pub(crate) fn kill(number: u32) {
    let pid = rustix::process::Pid::from_raw(number as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(|| (!runs(number)).then_some(()), || "it does not die");
}

/// Whether a process exists and is not only waiting to be reaped.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, after)| !after.starts_with(['Z', 'X']))
}

/// Asks until there is an answer.
pub(crate) fn until<T, S: AsRef<str>>(mut ask: impl FnMut() -> Option<T>, state: impl Fn() -> S) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", state().as_ref());
        std::thread::yield_now();
    }
}
