//! `imagemill user`: creating users and listing them.

use std::io::{self, BufRead, Write};

use chrono::SecondsFormat;
use secrecy::{ExposeSecret as _, SecretString};

use super::{report::Failure, table::table};
use crate::{
    crud::users::UserRow,
    models::Role,
    services::{actor::Actor, context::Context, user_service},
};

/// The password of a new user: the variable `IMAGEMILL_PASSWORD` as it is, else one line of `input`, trimmed. It is never an
/// argument, since those can be read by everybody on the machine.
pub fn read_password(variable: Option<&SecretString>, input: &mut impl BufRead) -> Result<SecretString, Failure> {
    if let Some(password) = variable.filter(|password| !password.expose_secret().is_empty()) {
        return Ok(password.clone());
    }
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| Failure::failed(format_args!("standard input: {error}")))?;
    match line.trim() {
        "" => Err(Failure::usage("there is no password: set IMAGEMILL_PASSWORD, or write it on standard input")),
        password => Ok(password.into()),
    }
}

/// Creates a user with these roles and shows it.
pub async fn create(
    context: &Context,
    actor: &Actor,
    username: &str,
    password: SecretString,
    roles: &[String],
    json: bool,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let roles = roles.iter().map(|role| role.parse()).collect::<Result<Vec<Role>, _>>().map_err(Failure::usage)?;
    let user = user_service::create_user(context, actor, username, Some(password), &roles).await?;
    if json {
        return write_json(&user, output).map_err(Failure::failed);
    }
    write_table(&[user], output).map_err(Failure::failed)
}

/// Lists everybody.
pub async fn list(context: &Context, actor: &Actor, json: bool, output: &mut impl Write) -> Result<(), Failure> {
    let users = user_service::get_all_users(context, actor).await?;
    let written = if json { write_json(&users, output) } else { write_table(&users, output) };
    written.map_err(Failure::failed)
}

fn write_json(document: &impl serde::Serialize, output: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, document)?;
    writeln!(output)
}

fn write_table(users: &[UserRow], output: &mut impl Write) -> io::Result<()> {
    let rows = users.iter().map(|user| {
        let roles = if user.roles.is_empty() { "-".to_owned() } else { user.roles.join(", ") };
        let is_active = if user.is_active { "yes" } else { "no" };
        let created_at = user.created_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        [user.username.clone(), roles, is_active.to_owned(), created_at]
    });
    writeln!(output, "{}", table(["USER", "ROLES", "ACTIVE", "CREATED"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_variable_else_the_first_line() {
        let read = |variable: Option<&str>, input: &str| {
            let variable = variable.map(SecretString::from);
            read_password(variable.as_ref(), &mut input.as_bytes()).map(|password| password.expose_secret().to_owned())
        };
        assert_eq!(read(Some(" of the variable "), "of the line\n").unwrap(), " of the variable ");
        assert_eq!(read(Some(""), "  of the line \r\nand the next\n").unwrap(), "of the line");
        assert_eq!(read(None, "without an end").unwrap(), "without an end");
        for input in ["", "\n", "  \nsecond line\n"] {
            let failure = read(None, input).unwrap_err();
            assert!(failure.line().contains("IMAGEMILL_PASSWORD"), "{}", failure.line());
            assert_eq!(failure.exit_code(), std::process::ExitCode::from(2));
        }
    }

    #[test]
    fn a_row_stays_a_line_whatever_a_name_holds() {
        let user = UserRow {
            id: uuid::Uuid::nil(),
            username: "a\nb".to_owned(),
            roles: Vec::new(),
            is_active: false,
            created_at: chrono::DateTime::UNIX_EPOCH,
        };
        let mut output = Vec::new();
        write_table(&[user], &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        assert_eq!(text, "USER  ROLES  ACTIVE  CREATED\na b   -      no      1970-01-01T00:00:00Z\n");
    }
}
