//! `rads c secrets`: values go in by a file, a pipe or the keyboard, never as an argument. One comes out for whoever asks for it by
//! name, which is recorded.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};

use api::Client;
use model::secret::SECRET_MAX;
use model::{Code, Problem, SecretKey};
use rustix::termios::{LocalModes, OptionalActions, Termios};
use zeroize::Zeroizing;

use super::{agent, up};
use crate::cli::{Form, SecretSet, Secrets};
use crate::moment::clock_time;
use crate::place::Place;
use crate::screen::{self, Table};

/// Needs an agent. To set one starts one for as long as it takes: secrets come before the first app that has some. Whoever
/// only looks does not: an agent brings every service back that one before was shut down with.
pub(crate) async fn secrets(place: &Place, what: Secrets, form: Form) -> Result<u8, Problem> {
    // Read first: whoever gives no value starts no agent.
    let value = match &what {
        Secrets::Set(args) => Some(value(args)?),
        Secrets::Get { .. } | Secrets::List | Secrets::Delete { .. } => None,
    };
    if value.is_none() {
        let (client, _) = super::connect(place).await?;
        return perform(&client, what, value, form).await.map(|()| 0);
    }
    let (client, version, _) = agent::at(place).await?;
    let done = perform(&client, what, value, form).await;
    let left = up::leave(&client, &version).await;
    done?;
    left.map(|_| 0)
}

async fn perform(client: &Client, what: Secrets, value: Option<Zeroizing<Vec<u8>>>, form: Form) -> Result<(), Problem> {
    match what {
        Secrets::Set(SecretSet { name, .. }) => {
            let value = value.unwrap_or_default();
            client.put_secret(&name, value.to_vec().into()).await?;
            match form {
                Form::Json => screen::json(&one(client, &name).await?)?,
                Form::Text => screen::line(format!("{name}: set")),
            }
            if value.ends_with(b"\n") {
                screen::note("note: the value ends with a line break; `printf` gives one without");
            }
        }
        Secrets::Get { name } => {
            let value = Zeroizing::new(client.secret(&name).await?.to_vec());
            if form == Form::Json {
                let text = std::str::from_utf8(&value).map_err(|_| {
                    let message = format!("secret `{name}` holds bytes that JSON cannot");
                    Problem::new(Code::InvalidValue, message).help("leave `-o json` out: they are printed as they are")
                })?;
                return screen::json(&serde_json::json!({"secret": name, "value": text}));
            }
            let mut out = io::stdout().lock();
            let line_break: &[u8] = if out.is_terminal() && !value.ends_with(b"\n") { b"\n" } else { b"" };
            let written = out.write_all(&value).and_then(|()| out.write_all(line_break)).and_then(|()| out.flush());
            written.map_err(|error| screen::unwritable(&error))?;
        }
        Secrets::List => {
            let views = client.secrets().await?;
            if form == Form::Json {
                return screen::json(&views);
            }
            if views.is_empty() {
                screen::note("no secrets; set one with `rads c secrets set NAME`");
                return Ok(());
            }
            let mut table = Table::new(&["SECRET", ">VERSION", "CHANGED"]);
            for view in &views {
                table.row([view.secret.to_string(), view.version.to_string(), clock_time(view.changed)]);
            }
            screen::print(&table.render());
        }
        Secrets::Delete { name } => {
            client.delete_secret(&name).await?;
            match form {
                Form::Json => screen::json(&name)?,
                Form::Text => screen::line(format!("{name}: deleted")),
            }
        }
    }
    Ok(())
}

async fn one(client: &Client, name: &SecretKey) -> Result<Option<model::SecretView>, Problem> {
    Ok(client.secrets().await?.into_iter().find(|view| view.secret == *name))
}

fn value(args: &SecretSet) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let unreadable =
        |what: String, error: io::Error| Problem::new(Code::FileUnreadable, format!("cannot read {what}: {error}"));
    // One byte more than fits tells what is too long without reading all of it.
    let most = SECRET_MAX.0 + 1;
    let mut value = Zeroizing::new(Vec::with_capacity(most as usize));
    match &args.from_file {
        Some(path) => {
            let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut value));
            read.map_err(|error| unreadable(format!("`{}`", path.display()), error))?;
        }
        None if io::stdin().is_terminal() => {
            let read = typed(&args.name, &mut value);
            read.map_err(|error| unreadable("the value from the terminal".to_owned(), error))?;
        }
        None => {
            let read = io::stdin().lock().take(most).read_to_end(&mut value);
            read.map_err(|error| unreadable("the value from standard input".to_owned(), error))?;
        }
    }
    match value.len() as u64 {
        0 => Err(Problem::new(Code::InvalidValue, "a secret has a value: nothing was given")),
        length if length > SECRET_MAX.0 => {
            Err(Problem::new(Code::InvalidValue, format!("a secret has at most {SECRET_MAX}, and this is more")))
        }
        _ => Ok(value),
    }
}

/// One line from the keyboard, unseen.
fn typed(name: &SecretKey, value: &mut Vec<u8>) -> io::Result<()> {
    eprint!("value of `{name}` (it is not shown): ");
    io::stderr().flush()?;
    let unseen = Unseen::begin()?;
    let read = io::stdin().lock().read_until(b'\n', value);
    drop(unseen);
    eprintln!();
    read?;
    if value.ends_with(b"\n") {
        value.pop();
    }
    Ok(())
}

/// A line from the terminal that is not shown while it is typed.
pub(super) fn unseen(prompt: &str) -> io::Result<Zeroizing<String>> {
    eprint!("{prompt}");
    io::stderr().flush()?;
    let unseen = Unseen::begin()?;
    let mut line = Zeroizing::new(String::new());
    let read = io::stdin().lock().read_line(&mut line);
    drop(unseen);
    eprintln!();
    read.map(|_| line)
}

/// A terminal that does not echo; as before when it is dropped.
struct Unseen(Termios);

impl Unseen {
    fn begin() -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &unseen)?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
