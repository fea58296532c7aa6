//! `imagemill init-users`: the first users, and the random passwords of those that had none, printed this once.

use std::io::{self, Write};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{report::Failure, table::table};
use crate::services::{
    context::Context,
    user_service::{self, InitUser},
};

/// Creates the users that are missing and says what became of each. `passwords` is asked by variable, for instance
/// `IMAGEMILL_PASSWORD_ADMIN`.
pub async fn init_users(
    context: &Context,
    passwords: impl Fn(&str) -> Option<SecretString>,
    json: bool,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let users = user_service::init_users(context, passwords).await?;
    write(&users, json, output).map_err(|error| {
        // The passwords are gone with the output; the users are not.
        Failure::failed(format_args!("the users were created, but their passwords could not be printed: {error}"))
    })
}

fn write(users: &[InitUser], json: bool, output: &mut impl Write) -> io::Result<()> {
    if json {
        let document: Vec<Value> = users
            .iter()
            .map(|user| {
                let password = user.password.as_ref().map(ExposeSecret::expose_secret);
                json!({ "username": user.username, "created": user.created, "password": password })
            })
            .collect();
        serde_json::to_writer_pretty(&mut *output, &document)?;
        return writeln!(output);
    }
    let rows = users.iter().map(|user| {
        let created = if user.created { "created" } else { "stood already" };
        let password = user.password.as_ref().map_or("-", ExposeSecret::expose_secret);
        [user.username.clone(), created.to_owned(), password.to_owned()]
    });
    writeln!(output, "{}", table(["USER", "OUTCOME", "PASSWORD"], rows))?;
    if users.iter().any(|user| user.password.is_some()) {
        writeln!(output, "\nThese passwords are random and not shown again.")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool) -> String {
        let user = |username: &str, created, password: Option<&str>| InitUser {
            username: username.to_owned(),
            created,
            password: password.map(SecretString::from),
        };
        let users = [user("system", true, None), user("admin", true, Some("random-password")), user("guest", false, None)];
        assert!(!format!("{users:?}").contains("random-password"));
        let mut output = Vec::new();
        write(&users, json, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn prints_a_random_password_once_in_a_table() {
        assert_eq!(
            printed(false),
            "USER    OUTCOME        PASSWORD\n\
             system  created        -\n\
             admin   created        random-password\n\
             guest   stood already  -\n\
             \n\
             These passwords are random and not shown again.\n"
        );
    }

    #[test]
    fn writes_the_same_as_json() {
        let document: Value = serde_json::from_str(&printed(true)).unwrap();
        assert_eq!(
            document,
            json!([
                { "username": "system", "created": true, "password": null },
                { "username": "admin", "created": true, "password": "random-password" },
                { "username": "guest", "created": false, "password": null },
            ])
        );
    }
}
