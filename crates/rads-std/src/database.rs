//! One SQLite connection with the settings that servers want: write-ahead log, so that readers and a writer do not wait
//! for each other; foreign keys enforced; statements prepared once. Knows nothing of the language.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::{Value as Cell, ValueRef};
use rusqlite::{CachedStatement, Connection, Error, ErrorCode};

pub(crate) struct Database {
    connection: Connection,
}

pub(crate) enum Bind {
    Nothing,
    Positional(Vec<Cell>),
    /// Names without their `:`, `@` or `$`.
    Named(Vec<(String, Cell)>),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Rows { columns: Vec<String>, rows: Vec<Vec<Cell>> },
    Changed { changes: i64, last_id: i64 },
}

#[derive(Debug, PartialEq)]
pub(crate) enum Trouble {
    /// Another connection holds the lock; nothing was changed, so the statement may be tried again.
    Busy(String),
    Other(String),
}

/// Statements kept prepared: more than most programs have, and some KiB each.
const PREPARED: usize = 64;

/// For opening and for scripts of several statements, which cannot be tried again from their start.
const BLOCKING_WAIT: Duration = Duration::from_secs(5);

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Database, String> {
        let opened = Connection::open(path).and_then(|connection| {
            connection.busy_timeout(BLOCKING_WAIT)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.busy_timeout(Duration::ZERO)?;
            connection.set_prepared_statement_cache_capacity(PREPARED);
            Ok(connection)
        });
        opened.map(|connection| Database { connection }).map_err(|error| message(&error))
    }

    pub(crate) fn query(&self, sql: &str, bind: &Bind) -> Result<Outcome, Trouble> {
        let mut statement = self.connection.prepare_cached(sql).map_err(trouble)?;
        bind_all(&mut statement, bind)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut found = statement.raw_query();
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(trouble)? {
            let cells = (0..columns.len()).map(|column| row.get_ref(column).map(cell_of));
            rows.push(cells.collect::<Result<_, _>>().map_err(trouble)?);
        }
        Ok(Outcome::Rows { columns, rows })
    }

    pub(crate) fn execute(&self, sql: &str, bind: &Bind) -> Result<Outcome, Trouble> {
        let before = self.connection.total_changes();
        match (self.connection.prepare_cached(sql), bind) {
            (Ok(mut statement), bind) => {
                bind_all(&mut statement, bind)?;
                let mut rows = statement.raw_query();
                while rows.next().map_err(trouble)?.is_some() {}
            }
            // Perhaps several statements, of which later ones need what earlier ones make.
            (Err(_), Bind::Nothing) => self.execute_script(sql)?,
            (Err(error), _) => return Err(trouble(error)),
        }
        Ok(Outcome::Changed {
            changes: (self.connection.total_changes() - before) as i64,
            last_id: self.connection.last_insert_rowid(),
        })
    }

    /// Waits for locks inside of SQLite: trying a half-done script again would do its first half twice.
    fn execute_script(&self, sql: &str) -> Result<(), Trouble> {
        self.connection.busy_timeout(BLOCKING_WAIT).map_err(trouble)?;
        let outcome = self.connection.execute_batch(sql);
        self.connection.busy_timeout(Duration::ZERO).map_err(trouble)?;
        outcome.map_err(|error| Trouble::Other(message(&error)))
    }
}

fn bind_all(statement: &mut CachedStatement<'_>, bind: &Bind) -> Result<(), Trouble> {
    let wanted = statement.parameter_count();
    let given = match bind {
        Bind::Nothing => 0,
        Bind::Positional(cells) => {
            for (index, cell) in cells.iter().enumerate().take(wanted) {
                statement.raw_bind_parameter(index + 1, cell).map_err(trouble)?;
            }
            cells.len()
        }
        Bind::Named(cells) => {
            for (name, cell) in cells {
                let index = [':', '@', '$']
                    .iter()
                    .find_map(|sigil| statement.parameter_index(&format!("{sigil}{name}")).ok().flatten())
                    .ok_or_else(|| Trouble::Other(format!("the statement has no parameter `:{name}`")))?;
                statement.raw_bind_parameter(index, cell).map_err(trouble)?;
            }
            cells.len()
        }
    };
    if given == wanted {
        return Ok(());
    }
    Err(Trouble::Other(format!("the statement has {wanted} parameters, {given} were given")))
}

/// Text that is not UTF-8, which SQLite does not prevent, is read as well as it can be.
fn cell_of(cell: ValueRef<'_>) -> Cell {
    match cell {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_owned()),
    }
}

fn trouble(error: Error) -> Trouble {
    match error.sqlite_error_code() {
        // A snapshot that another writer has passed stays passed: the transaction must be begun again.
        Some(ErrorCode::DatabaseBusy) if !message(&error).contains("snapshot") => Trouble::Busy(message(&error)),
        _ => Trouble::Other(message(&error)),
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::SqliteFailure(failure, _) if failure.code == ErrorCode::CannotOpen => {
            "its folder does not exist or is not writable".to_owned()
        }
        Error::SqliteFailure(_, Some(text)) => text.clone(),
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::MultipleStatement => {
            "one statement at a time, please (`db.exec` without parameters takes several)".to_owned()
        }
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    fn sample() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open(&folder.path().join("a.db")).expect("opened");
        let schema = "create table p (id integer primary key, name text, score real);
            create table c (p integer not null references p (id));
            insert into p (name, score) values ('Ann', 1.5), ('Bob', null);";
        database.execute(schema, &Bind::Nothing).expect("made");
        (folder, database)
    }

    #[test]
    fn rows_come_with_their_columns() {
        let (_folder, database) = sample();
        let rows = database.query("select name, score from p where id <= ?", &Bind::Positional(vec![Cell::Integer(9)]));
        assert_eq!(
            rows,
            Ok(Outcome::Rows {
                columns: vec!["name".to_owned(), "score".to_owned()],
                rows: vec![vec![text("Ann"), Cell::Real(1.5)], vec![text("Bob"), Cell::Null]],
            })
        );
    }

    #[test]
    fn changes_are_counted_and_ids_given() {
        let (_folder, database) = sample();
        let named = Bind::Named(vec![("name".to_owned(), text("Eve"))]);
        let changed = database.execute("insert into p (name) values (:name)", &named);
        assert_eq!(changed, Ok(Outcome::Changed { changes: 1, last_id: 3 }));
        let all = database.execute("update p set score = 0", &Bind::Nothing);
        assert!(matches!(all, Ok(Outcome::Changed { changes: 3, .. })), "{all:?}");
    }

    #[test]
    fn mistakes_are_told() {
        let (_folder, database) = sample();
        let positional = |cells| Bind::Positional(cells);
        for (sql, bind, expected) in [
            ("select * from nowhere", Bind::Nothing, "no such table: nowhere"),
            ("select ?", Bind::Nothing, "the statement has 1 parameters, 0 were given"),
            ("select 1", positional(vec![Cell::Null]), "the statement has 0 parameters, 1 were given"),
            ("select :a", Bind::Named(vec![("b".to_owned(), Cell::Null)]), "the statement has no parameter `:b`"),
            ("insert into c values (?)", positional(vec![Cell::Integer(99)]), "FOREIGN KEY constraint failed"),
            (
                "select 1; select 2",
                Bind::Nothing,
                "one statement at a time, please (`db.exec` without parameters takes several)",
            ),
        ] {
            assert_eq!(database.query(sql, &bind), Err(Trouble::Other(expected.to_owned())), "{sql}");
        }
    }

    #[test]
    fn a_held_lock_is_told_apart_and_passes() {
        let (folder, database) = sample();
        let other = Database::open(&folder.path().join("a.db")).expect("opened");
        other.execute("begin immediate", &Bind::Nothing).expect("begun");
        let insert = |database: &Database| {
            database.execute("insert into p (name) values (?)", &Bind::Positional(vec![text("x")]))
        };
        assert!(matches!(insert(&database), Err(Trouble::Busy(_))));
        assert!(database.query("select 1 from p", &Bind::Nothing).is_ok(), "readers do not wait");
        other.execute("commit", &Bind::Nothing).expect("committed");
        assert!(matches!(insert(&database), Ok(Outcome::Changed { changes: 1, .. })));
    }
}
