//! Two roles with few rights: one that looks, one that creates tasks. Roles belong to the whole server, so that another
//! database's init-db may make them at the same moment; and whoever runs init-db may not be allowed to make any.

use sqlx::{AssertSqlSafe, PgConnection};

use super::migrate::MigrateError;

/// See the file.
const GRANTS: &str = include_str!("roles.sql");

/// What the roles are called.
const ROLES: [&str; 2] = ["imagemill_reader", "imagemill_producer"];

/// Makes the roles that are missing, and gives them their rights. Where this database's user may make none, the rest of the
/// schema is as good without them: it is said, and that is all.
pub(super) async fn bring_up_to_date(connection: &mut PgConnection) -> Result<(), MigrateError> {
    for role in ROLES {
        if exists(connection, role).await? {
            continue;
        }
        let made = sqlx::query(AssertSqlSafe(format!("create role {role} nologin"))).execute(&mut *connection).await;
        match made {
            Ok(_) => tracing::info!(role, "role created"),
            Err(error) if is(&error, &["42710", "23505"]) => tracing::info!(role, "somebody else created the role"),
            Err(error) if is(&error, &["42501"]) => {
                tracing::warn!("{}", cannot_create(role));
            }
            Err(error) => return Err(error.into()),
        }
    }
    grant(connection).await
}

fn cannot_create(role: &str) -> String {
    format!(
        "the role {role} is missing, and this user may not create roles: all else is done. To have it, let a superuser run \
         `create role {role} nologin` and run `imagemill init-db` again"
    )
}

async fn exists(connection: &mut PgConnection, role: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)").bind(role).fetch_one(connection).await
}

/// In one block, which changes nothing where the rights are as they should be: a grant writes catalog rows that a fleet reads.
async fn grant(connection: &mut PgConnection) -> Result<(), MigrateError> {
    match sqlx::raw_sql(GRANTS).execute(connection).await {
        Err(error) if is(&error, &["42501"]) => {
            tracing::warn!(%error, "this user may not grant the rights of imagemill_reader and imagemill_producer: let the tables' owner run `imagemill init-db`");
            Ok(())
        }
        done => {
            done?;
            Ok(())
        }
    }
}

/// Whether PostgreSQL gave one of these codes.
fn is(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&&*code))
}
