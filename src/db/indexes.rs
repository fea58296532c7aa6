//! Indexes of tables that a live fleet works on: made and dropped concurrently, which blocks neither readers nor writers.

use sqlx::{AssertSqlSafe, PgConnection};

use super::migrate::MigrateError;

/// See the file.
const STATEMENTS: &str = include_str!("indexes.sql");

/// One statement of the file.
#[derive(Debug, PartialEq, Eq)]
struct Index {
    /// `schema.name`
    name: String,
    /// The statement, concurrently.
    statement: String,
    /// It is to go.
    is_dropped: bool,
}

/// Makes what is missing and drops what is to go. Nothing waits for it; it waits for transactions that write to the table.
pub(super) async fn bring_up_to_date(connection: &mut PgConnection) -> Result<(), MigrateError> {
    for index in statements(STATEMENTS)? {
        let is_valid = is_valid(connection, &index.name).await?;
        if is_valid == Some(false) || (index.is_dropped && is_valid.is_some()) {
            run(connection, &format!("drop index concurrently if exists {}", index.name)).await?;
        }
        if !index.is_dropped && is_valid != Some(true) {
            tracing::info!(index = index.name, "making an index");
            run(connection, &index.statement).await?;
        }
    }
    Ok(())
}

/// Whether an index can be used: one whose making was cut short is there and is not. None: there is none.
async fn is_valid(connection: &mut PgConnection, name: &str) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar("select indisvalid from pg_index where indexrelid = to_regclass($1)")
        .bind(name)
        .fetch_optional(connection)
        .await
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    // As one simple query: anything else would be a transaction, in which nothing is made concurrently.
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
    Ok(())
}

/// The statements of the file: `create [unique] index NAME on SCHEMA.TABLE ...` and `drop index SCHEMA.NAME`.
fn statements(text: &str) -> Result<Vec<Index>, MigrateError> {
    let text: String = text.lines().filter(|line| !line.trim_start().starts_with("--")).flat_map(|line| [line, "\n"]).collect();
    let statements = text.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    statements.map(|statement| parse(statement).ok_or_else(|| MigrateError::Index { statement: statement.to_owned() })).collect()
}

fn parse(statement: &str) -> Option<Index> {
    let words: Vec<&str> = statement.split_whitespace().collect();
    match words.as_slice() {
        ["drop", "index", name] => Some(Index { name: (*name).to_owned(), statement: statement.to_owned(), is_dropped: true }),
        ["create", "index", name, "on", table, ..] | ["create", "unique", "index", name, "on", table, ..] => {
            let (schema, _) = table.split_once('.')?;
            let concurrently = statement.replacen("index", "index concurrently", 1);
            Some(Index { name: format!("{schema}.{name}"), statement: concurrently, is_dropped: false })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_of_the_file_is_understood() {
        let indexes = statements(STATEMENTS).unwrap();
        assert!(indexes.iter().any(|index| index.is_dropped) && indexes.iter().any(|index| !index.is_dropped));
        for index in &indexes {
            assert!(index.name.starts_with("apalis.") || index.name.starts_with("imagemill."), "{index:?}");
            assert_eq!(index.statement.matches("concurrently").count(), usize::from(!index.is_dropped), "{index:?}");
        }
    }

    #[test]
    fn a_statement_is_made_concurrent_whatever_its_words_are() {
        let text =
            "-- a comment; with a semicolon\ncreate unique index of_index on a.b (\"index\")\n    where c;\ndrop index a.x;\n";
        let indexes = statements(text).unwrap();
        assert_eq!(indexes[0].name, "a.of_index");
        assert_eq!(indexes[0].statement, "create unique index concurrently of_index on a.b (\"index\")\n    where c");
        assert_eq!((indexes[1].name.as_str(), indexes[1].is_dropped), ("a.x", true));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "create index on a.b (c)",
            "create index x on b (c)",
            "drop index if exists a.x",
            "vacuum",
            "create index if not exists x on a.b (c)",
        ] {
            assert!(matches!(statements(text), Err(MigrateError::Index { .. })), "{text}");
        }
    }
}
