//! `db`: SQLite. The connection and its rules are in `database`; here are its functions, and values in both directions.
//!
//! `db.query(conn, sql, params)` and `conn.query(sql, params)` are one; without a connection (`db.query(sql, params)`)
//! the one opened last is meant, as older programs expect. A statement that meets another writer's lock waits for it
//! without holding up the other tasks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rads_vm::{Cx, Params, Value};
use rusqlite::types::Value as Cell;
use tokio::time::sleep;

use crate::database::{Bind, Database, Outcome, Trouble};
use crate::library::{Action, Entry, Host, Make, host, make, method};

pub(crate) const ENTRIES: &[Entry] = &[
    host("db", "open", Params::exactly(1), open),
    host("db", "query", Params::between(1, 3), query),
    host("db", "exec", Params::between(1, 3), exec),
    host("db", "execute", Params::between(1, 3), exec),
    host("db", "close", Params::between(0, 1), close),
    method(KIND, "query", Params::between(1, 2), query),
    method(KIND, "exec", Params::between(1, 2), exec),
    method(KIND, "execute", Params::between(1, 2), exec),
    method(KIND, "close", Params::exactly(0), close),
];

const KIND: &str = "database";

/// How long a statement waits for another writer before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause between two tries; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A connection's number is its place here; closed ones leave a gap.
#[derive(Default)]
pub(crate) struct Databases(RefCell<Vec<Option<Rc<Database>>>>);

/// Opens the file, and makes it if it is missing; `:memory:` is a database of this program's own.
fn open(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let path = cx.arg_text(args, 0, "path")?.to_owned();
    let place = if path == ":memory:" { path.clone().into() } else { host.machine.world.path(&path) };
    match Database::open(&place) {
        Ok(database) => {
            let mut databases = host.machine.world.databases.0.borrow_mut();
            databases.push(Some(Rc::new(database)));
            Ok(Action::Done(cx.host(KIND, databases.len() as u64 - 1)))
        }
        Err(fault) => Err(cx.error("db", format!("cannot open `{path}`: {fault}"))),
    }
}

/// The rows as an array of objects.
fn query(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let (database, sql, bind) = statement(host, args)?;
    perform(host, database, move |database| database.query(&sql, &bind))
}

/// For statements without rows: `{changes, last_id}`. Without parameters several statements may come at once.
fn exec(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let (database, sql, bind) = statement(host, args)?;
    perform(host, database, move |database| database.execute(&sql, &bind))
}

fn close(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut databases = host.machine.world.databases.0.borrow_mut();
    let number = match args {
        [] => databases.iter().rposition(Option::is_some),
        _ => Some(host.vm.heap().arg_host(args, 0, KIND, "connection")? as usize),
    };
    // Closing twice is no mistake worth an error.
    if let Some(number) = number {
        databases[number] = None;
    }
    Ok(Action::Done(Value::Null))
}

fn statement(host: &mut Host<'_>, args: &[Value]) -> Result<(Rc<Database>, String, Bind), Value> {
    let mut cx = host.vm.heap();
    let databases = host.machine.world.databases.0.borrow();
    let by_number = matches!(args.first(), Some(Value::Host(_)));
    let found = if by_number {
        let number = cx.arg_host(args, 0, KIND, "connection")?;
        databases.get(number as usize).cloned().flatten()
    } else {
        databases.iter().rev().flatten().next().cloned()
    };
    let Some(database) = found else {
        return Err(cx.error("db", "the database is not open (`db.open(path)` opens it)"));
    };
    let args = &args[usize::from(by_number)..];
    let sql = cx.arg_text(args, 0, "sql")?.to_owned();
    let bind = bind(&mut cx, args)?;
    Ok((database, sql, bind))
}

/// Parameters: an array for `?`, an object for `:name`, `@name` and `$name`.
fn bind(cx: &mut Cx<'_>, args: &[Value]) -> Result<Bind, Value> {
    match cx.arg(args, 1) {
        Value::Null => Ok(Bind::Nothing),
        array @ Value::Array(_) => {
            let items = cx.items(array).to_vec();
            items.into_iter().map(|item| cell(cx, item)).collect::<Result<_, _>>().map(Bind::Positional)
        }
        object @ (Value::Object(_) | Value::Struct(_)) => {
            let entries = cx.entries(object);
            let named = |(name, value)| cell(cx, value).map(|cell| (name, cell));
            entries.into_iter().map(named).collect::<Result<_, _>>().map(Bind::Named)
        }
        other => Err(cx.wrong("params", "an array or object", other)),
    }
}

fn cell(cx: &mut Cx<'_>, value: Value) -> Result<Cell, Value> {
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Bool(flag) => Cell::Integer(i64::from(flag)),
        Value::Int(number) => Cell::Integer(number),
        Value::Float(number) => Cell::Real(number),
        Value::Char(_) => Cell::Text(cx.display(value)),
        Value::Str(_) => Cell::Text(cx.text(value).to_owned()),
        Value::Bytes(_) => Cell::Blob(cx.as_bytes(value).unwrap_or_default().to_owned()),
        other => {
            let message =
                format!("a parameter cannot be a value of kind {} (`json.stringify` makes text)", other.kind());
            return Err(cx.error("db", message));
        }
    })
}

fn perform(
    host: &mut Host<'_>,
    database: Rc<Database>,
    operation: impl Fn(&Database) -> Result<Outcome, Trouble> + 'static,
) -> Result<Action, Value> {
    match operation(&database) {
        Err(Trouble::Busy(_)) => {}
        outcome => return value_of(&mut host.cx(), outcome).map(Action::Done),
    }
    Ok(Action::Later(Box::pin(async move {
        let (mut waited, mut pause) = (Duration::ZERO, FIRST_PAUSE);
        loop {
            sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match operation(&database) {
                Err(Trouble::Busy(_)) if waited < PATIENCE => {}
                outcome => return finish(outcome),
            }
        }
    })))
}

fn finish(outcome: Result<Outcome, Trouble>) -> Make {
    make(move |cx| value_of(cx, outcome))
}

fn value_of(cx: &mut Cx<'_>, outcome: Result<Outcome, Trouble>) -> Result<Value, Value> {
    match outcome {
        Ok(Outcome::Changed { changes, last_id }) => {
            Ok(cx.object_of(&[("changes", Value::Int(changes)), ("last_id", Value::Int(last_id))]))
        }
        Ok(Outcome::Rows { columns, rows }) => {
            let mut objects = Vec::with_capacity(rows.len());
            for row in rows {
                let object = cx.object();
                for (column, cell) in columns.iter().zip(row) {
                    let value = match cell {
                        Cell::Null => Value::Null,
                        Cell::Integer(number) => Value::Int(number),
                        Cell::Real(number) => Value::Float(number),
                        Cell::Text(text) => cx.string(text),
                        Cell::Blob(bytes) => cx.bytes(bytes),
                    };
                    cx.set(object, column, value);
                }
                objects.push(object);
                // Stop early when the rows do not fit, instead of after all of them were made.
                cx.reserve(0)?;
            }
            Ok(cx.array(objects))
        }
        Err(Trouble::Busy(fault) | Trouble::Other(fault)) => Err(cx.error("db", fault)),
    }
}
