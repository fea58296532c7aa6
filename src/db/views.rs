//! The views: three files, run where they have changed. Not in the migrations, since views change with the product, and some lean on
//! apalis's columns.
//!
//! A view is replaced in place where its columns have only been added to; a reader of it makes this wait, like any change of the
//! schema. An unchanged file touches nothing.

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::migrate::MigrateError;

/// See the files.
const VIEWS: &str = concat!(include_str!("views.sql"), "\n", include_str!("why.sql"), "\n", include_str!("matrix.sql"));

/// What begins a statement that is run by itself.
const BEGINNING: &str = "create or replace ";

/// One view or function, with its comments.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    /// Its name in the schema, if it is a view.
    view: Option<&'a str>,
    /// Its name, if it is a function.
    function: Option<&'a str>,
    /// Its statements.
    text: &'a str,
}

/// Makes what is missing or has changed.
pub(super) async fn bring_up_to_date(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let parts = parts(VIEWS);
    let sha256 = hex::encode(Sha256::digest(VIEWS));
    let views: Vec<String> = parts.iter().filter_map(|part| part.view.map(str::to_owned)).collect();
    if is_up_to_date(connection, &views, &sha256).await? {
        return Ok(());
    }
    let mut step = connection.begin().await?;
    for part in &parts {
        make(&mut step, part).await?;
    }
    // Where the hash of what made them is kept: beside them, so that it goes where they go.
    let remember =
        format!("comment on function imagemill.as_uuid is 'The id that a text is; null where it is none. Views: {sha256}.'");
    sqlx::query(AssertSqlSafe(remember)).execute(&mut *step).await?;
    Ok(step.commit().await?)
}

async fn is_up_to_date(connection: &mut PgConnection, views: &[String], sha256: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select not exists (select from unnest($1::text[]) as name where to_regclass('imagemill.' || name) is null)
            and coalesce(obj_description(to_regprocedure('imagemill.as_uuid(text)'), 'pg_proc') like '%' || $2 || '%', false)",
    )
    .bind(views)
    .bind(sha256)
    .fetch_one(connection)
    .await
}

/// Replaces it; where that cannot be, since a column has gone or has another type, drops it first.
async fn make(step: &mut PgConnection, part: &Part<'_>) -> Result<(), MigrateError> {
    let mut inner = step.begin().await?;
    let made = sqlx::raw_sql(AssertSqlSafe(part.text.to_owned())).execute(&mut *inner).await;
    let (Err(error), Some(view)) = (&made, part.view) else {
        made?;
        return Ok(inner.commit().await?);
    };
    // `invalid_table_definition`
    if error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() != Some("42P16") {
        made?;
        return Ok(());
    }
    inner.rollback().await?;
    let dropped = sqlx::query(AssertSqlSafe(format!("drop view imagemill.{view}"))).execute(&mut *step).await;
    dropped.map_err(|source| in_the_way(view, source))?;
    sqlx::raw_sql(AssertSqlSafe(part.text.to_owned())).execute(&mut *step).await?;
    Ok(())
}

/// Before apalis's own migrations: what leans on its columns would be in their way.
pub(super) async fn drop_those_on_apalis(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let parts = parts(VIEWS);
    // A view that stands on such a function is one of them.
    let functions: Vec<&str> = parts.iter().filter(|part| part.leans_on("apalis.")).filter_map(|part| part.function).collect();
    let leans = |part: &&Part<'_>| part.leans_on("apalis.") || functions.iter().any(|function| part.leans_on(function));
    for part in parts.iter().rev().filter(leans) {
        let (kind, name) = match (part.view, part.function) {
            (Some(view), _) => ("view", view),
            (None, Some(function)) => ("function", function),
            (None, None) => continue,
        };
        let dropped = sqlx::query(AssertSqlSafe(format!("drop {kind} if exists imagemill.{name}"))).execute(&mut *connection);
        dropped.await.map_err(|source| in_the_way(name, source))?;
    }
    Ok(())
}

/// `dependent_objects_still_exist` is somebody's to solve; anything else is told as it is.
fn in_the_way(view: &str, source: sqlx::Error) -> MigrateError {
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if code.as_deref() == Some("2BP01") {
        return MigrateError::View { view: view.to_owned(), source };
    }
    source.into()
}

/// The parts of the file: each begins with `create or replace` at the beginning of a line.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut beginnings: Vec<usize> = text.match_indices(BEGINNING).map(|(place, _)| place).collect();
    beginnings.retain(|place| *place == 0 || text.as_bytes()[place - 1] == b'\n');
    let ends = beginnings.iter().skip(1).copied().chain([text.len()]);
    let parts = beginnings.iter().zip(ends).map(|(begin, end)| &text[*begin..end]);
    parts.map(|text| Part { view: name(text, "view"), function: name(text, "function"), text }).collect()
}

fn name<'a>(text: &'a str, kind: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(BEGINNING)?.strip_prefix(kind)?.strip_prefix(" imagemill.")?;
    rest.split(|other: char| !other.is_ascii_alphanumeric() && other != '_').next()
}

impl Part<'_> {
    fn leans_on(&self, name: &str) -> bool {
        self.text.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_taken_apart_and_nothing_is_left_out() {
        let parts = parts(VIEWS);
        let views: Vec<&str> = parts.iter().filter_map(|part| part.view).collect();
        assert!(views.contains(&"jobs") && views.contains(&"axis_overview"), "{views:?}");
        assert_eq!(parts.len(), VIEWS.matches("\ncreate or replace ").count());
        for part in &parts {
            assert!(part.text.contains("\ncomment on "), "{}", part.text);
        }
    }

    #[test]
    fn a_part_ends_where_the_next_begins() {
        let text = "-- why\ncreate or replace view imagemill.a as select 1;\ncomment on view imagemill.a is ';';\n\ncreate or replace function b() ;\n";
        let parts = parts(text);
        assert_eq!(parts.iter().map(|part| (part.view, part.function)).collect::<Vec<_>>(), [(Some("a"), None), (None, None)]);
        assert!(parts[0].text.ends_with("is ';';\n\n"), "{parts:?}");
    }
}
