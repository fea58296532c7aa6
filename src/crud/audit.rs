//! `imagemill.audit`: who changed what.

use serde_json::Value;
use sqlx::PgConnection;

/// One action, as it goes into the audit. The time is the database's.
#[derive(Debug)]
pub struct NewAudit<'a> {
    /// Name of the acting user.
    pub who: &'a str,
    /// The action: the name of the service function.
    pub what: &'a str,
    /// `lane/NAME`, `task/ID`, `subtask/ID`, `user/NAME`.
    pub subject: &'a str,
    /// What stood before; none: nothing.
    pub old_value: Option<Value>,
    /// What stands now; none: nothing.
    pub new_value: Option<Value>,
}

/// Writes one action down, in the transaction that does it.
///
/// # Errors
/// What PostgreSQL says.
pub async fn insert(connection: &mut PgConnection, action: &NewAudit<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("insert into imagemill.audit (who, what, subject, old_value, new_value) values ($1, $2, $3, $4, $5)")
        .bind(action.who)
        .bind(action.what)
        .bind(action.subject)
        .bind(&action.old_value)
        .bind(&action.new_value)
        .execute(connection)
        .await?;
    Ok(())
}
