//! `rads c top`: what stars use, as a table that keeps up. Without a terminal it is printed once.

pub(crate) mod board;

use std::io::{self, IsTerminal};
use std::time::Duration;

use api::{Client, StarStats};
use model::{Code, Problem};
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::board::{Board, Next};
use super::stats;
use crate::cli::{Form, Top};
use crate::screen;

/// Keys typed ahead of a slow terminal; whoever types more waits.
const KEYS_WAITING: usize = 16;

pub(crate) async fn top(client: &Client, args: Top, form: Form) -> Result<u8, Problem> {
    let mut board = Board::new(args.sort);
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if form == Form::Json || !has_terminal {
        board.show(stats::sample(client, args.name.as_deref()).await?, client.stars().await?);
        let samples = board.rows();
        match form {
            Form::Json => screen::json(&samples)?,
            Form::Text => screen::print(&stats::table(&samples).render()),
        }
        return Ok(0);
    }
    // A name that means nothing is told here, where it can be read.
    let first = stats::read(client, args.name.as_deref()).await?;
    let every = args.interval.unwrap_or(Duration::from_secs(1)).max(Duration::from_secs(1));
    watch(client, args.name.as_deref(), board, first, every).await
}

/// Draws until somebody leaves or a signal ends it. The terminal is as before then.
async fn watch(
    client: &Client,
    name: Option<&str>,
    mut board: Board,
    mut before: Vec<StarStats>,
    every: Duration,
) -> Result<u8, Problem> {
    let failed = |error: io::Error| Problem::new(Code::Unavailable, format!("the terminal cannot be used: {error}"));
    let mut ends = Ends::new().map_err(failed)?;
    let (mut terminal, _restore) = take_terminal().map_err(failed)?;
    let mut keys = keys();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => match read(client, name).await {
                Ok((after, stars)) => {
                    board.show(stats::compare(&before, after.clone()), stars);
                    before = after;
                }
                // The agent may come back: an upgrade takes it away for a moment.
                Err(problem) => board.fail(problem.message),
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) => if board.key(key) == Next::Leave { return Ok(0) },
                Some(_) => {}
                None => return Ok(0),
            },
            code = ends.any() => return Ok(code),
        }
        terminal.draw(|frame| board.draw(frame)).map_err(failed)?;
    }
}

async fn read(client: &Client, name: Option<&str>) -> Result<(Vec<StarStats>, Vec<api::StarView>), Problem> {
    Ok((stats::read(client, name).await?, client.stars().await?))
}

/// The terminal, as it was again when what comes along is dropped. A panic gives it back first, so that its words are seen.
fn take_terminal() -> io::Result<(ratatui::DefaultTerminal, Restore)> {
    Ok((ratatui::try_init()?, Restore))
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What is typed. The thread ends with the program: a read of the terminal cannot be called off.
fn keys() -> mpsc::Receiver<Event> {
    let (tell, keys) = mpsc::channel(KEYS_WAITING);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if tell.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}

/// Signals that end a program.
struct Ends {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The exit code of a program that the signal has ended, as a shell has it.
    async fn any(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
            _ = self.hang_up.recv() => 129,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::process::{Command, Stdio};

    use rustix::pty::OpenptFlags;
    use rustix::termios::{LocalModes, tcgetattr};

    /// Says that this process is the one that is to panic.
    const PANICS: &str = "RADS_TEST_TOP_PANICS";

    #[test]
    fn a_panic_gives_the_terminal_back_before_its_words() {
        if std::env::var_os(PANICS).is_some() {
            let _taken = super::take_terminal().unwrap();
            panic!("the words of the panic");
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&near).unwrap();
        let far = rustix::pty::ioctl_tiocgptpeer(&near, flags).unwrap();
        let stream = || Stdio::from(far.try_clone().unwrap());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "commands::top::tests::a_panic_gives_the_terminal_back_before_its_words",
            "--nocapture",
        ]);
        let mut program = command.env(PANICS, "1").stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        let mut reader = File::from(near.try_clone().unwrap());
        let reading = std::thread::spawn(move || {
            let mut drawn = Vec::new();
            let mut some = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut some) {
                drawn.extend_from_slice(&some[..read]);
            }
            String::from_utf8_lossy(&drawn).into_owned()
        });
        assert!(!program.wait().unwrap().success(), "it panicked");
        let modes = tcgetattr(&far).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
        // With the last copy of the far end the reading ends.
        drop((far, command));
        let drawn = reading.join().unwrap();
        let at = |what: &str| drawn.find(what).unwrap_or_else(|| panic!("`{what}` is not in {drawn:?}"));
        let (taken, back, words) = (at("\u{1b}[?1049h"), at("\u{1b}[?1049l"), at("the words of the panic"));
        assert!(taken < back && back < words, "{drawn:?}");
    }
}
