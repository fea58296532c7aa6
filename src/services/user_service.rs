//! Users: who there is, who acts, and whether a password is theirs.

use secrecy::SecretString;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{actor::Actor, context::Context, error::ServiceError, password};
use crate::{
    crud::{
        audit::{self, NewAudit},
        users::{self, SYSTEM_USERNAME, UserRow},
    },
    models::{Fault, Faults, Permission, Role, permissions},
};

pub use super::init_users::{InitUser, init_users};

/// Most characters of a name.
const MAX_USERNAME_CHARACTERS: usize = 255;

/// Who acts on the private PostgreSQL if nobody is named.
const PRIVATE_USERNAME: &str = "admin";

/// Creates a user, and writes it into the audit. Without a password it cannot log in. Needs `create_user`, and
/// `assign_permissions` to give roles that may do more than the acting user.
///
/// # Errors
/// [`ServiceError::Input`] has every fault of name, password and roles; [`ServiceError::UsernameTaken`] whatever its case.
pub async fn create_user(
    context: &Context,
    actor: &Actor,
    username: &str,
    password: Option<SecretString>,
    roles: &[Role],
) -> Result<UserRow, ServiceError> {
    actor.require(Permission::CreateUser)?;
    if !permissions(roles).is_subset(&actor.permissions) {
        actor.require(Permission::AssignPermissions)?;
    }
    let password_fault = password.as_ref().and_then(|password| password::fault("password", password));
    let faults: Vec<Fault> = username_fault(username).into_iter().chain(password_fault).chain(roles_fault(roles)).collect();
    if !faults.is_empty() {
        return Err(Faults(faults).into());
    }
    // Before a connection is taken: it takes its time.
    let hash = match &password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    let mut transaction = context.begin().await?;
    let taken = || ServiceError::UsernameTaken { username: username.to_owned() };
    if !insert(&mut transaction, &actor.username, username, hash.as_deref(), roles).await? {
        return Err(taken());
    }
    let user = users::get_by_username(&mut transaction, username).await?.ok_or_else(taken)?;
    transaction.commit().await?;
    tracing::info!(user = %user.username, by = %actor.username, "user created");
    Ok(user)
}

/// Everybody, by name. Needs `manage_lanes`, which managers and admins have: who stops lanes must know whose work waits.
///
/// # Errors
/// See [`ServiceError`]; never an empty answer instead.
pub async fn get_all_users(context: &Context, actor: &Actor) -> Result<Vec<UserRow>, ServiceError> {
    actor.require(Permission::ManageLanes)?;
    let mut connection = context.reader().await?;
    Ok(users::get_all(&mut connection).await?)
}

/// Who acts: the user named by `--as`, else by `IMAGEMILL_USER`, else `admin` on the private PostgreSQL.
///
/// # Errors
/// [`ServiceError::Usage`] if nobody is named, or the workers' own user is; [`ServiceError::NotFound`] and
/// [`ServiceError::Inactive`] otherwise.
pub async fn resolve_actor(
    context: &Context,
    name: Option<&str>,
    environment_name: Option<&str>,
    is_private: bool,
) -> Result<Actor, ServiceError> {
    let username = name.or(environment_name).or(is_private.then_some(PRIVATE_USERNAME));
    let username = username
        .ok_or_else(|| ServiceError::Usage("say who acts: --as USER, or the environment variable IMAGEMILL_USER".to_owned()))?;
    // PostgreSQL has no text with a NUL in it, so no user either.
    let missing = || ServiceError::NotFound { what: "user", id: username.to_owned() };
    if username.contains('\0') {
        return Err(missing());
    }
    let mut connection = context.reader().await?;
    let user = users::get_by_username(&mut connection, username).await?.ok_or_else(missing)?;
    if user.username == SYSTEM_USERNAME {
        let message = format!("nobody acts as {SYSTEM_USERNAME}, the workers' own user: name another one");
        return Err(ServiceError::Usage(message));
    }
    if !user.is_active {
        return Err(ServiceError::Inactive { username: user.username });
    }
    Ok(user.into())
}

/// Whether this user can log in with this password. False does not say why, and takes as long: no such user, an inactive
/// one, one without a password, the wrong password.
///
/// # Errors
/// See [`ServiceError`]; a database that is away is never a false.
pub async fn verify_password(context: &Context, username: &str, password: &SecretString) -> Result<bool, ServiceError> {
    let hash = if username.contains('\0') { None } else { active_hash(context, username).await? };
    let Some(hash) = hash else {
        // The same work, so that nobody learns from the time whether there is such a user.
        password::hash(password).await?;
        return Ok(false);
    };
    Ok(password::verify(password, &hash).await?)
}

async fn active_hash(context: &Context, username: &str) -> Result<Option<String>, ServiceError> {
    let mut connection = context.reader().await?;
    match users::get_by_username(&mut connection, username).await? {
        Some(user) if user.is_active => Ok(users::password_hash(&mut connection, user.id).await?),
        _ => Ok(None),
    }
}

/// Inserts a user and its row of the audit, in the caller's transaction; false: the name is taken, and nothing changed.
pub(super) async fn insert(
    connection: &mut PgConnection,
    who: &str,
    username: &str,
    password_hash: Option<&str>,
    roles: &[Role],
) -> Result<bool, sqlx::Error> {
    let mut roles = roles.to_vec();
    roles.sort_unstable();
    roles.dedup();
    let words: Vec<String> = roles.iter().map(Role::to_string).collect();
    if !users::insert(connection, Uuid::now_v7(), username, password_hash, &words).await? {
        return Ok(false);
    }
    let subject = format!("user/{username}");
    let new_value = Some(json!({ "roles": words }));
    audit::insert(connection, &NewAudit { who, what: "create_user", subject: &subject, old_value: None, new_value }).await?;
    Ok(true)
}

fn username_fault(username: &str) -> Option<Fault> {
    let message = if username.trim().is_empty() {
        "must not be blank".to_owned()
    } else if username.trim() != username || username.contains(char::is_control) {
        "must not begin or end with a space, nor hold control characters".to_owned()
    } else if username.chars().count() > MAX_USERNAME_CHARACTERS {
        format!("must have {MAX_USERNAME_CHARACTERS} characters at most")
    } else if username.eq_ignore_ascii_case(SYSTEM_USERNAME) {
        // Else whoever comes before init_users would own what the workers do.
        "is the workers' own user; take another name".to_owned()
    } else {
        return None;
    };
    Some(Fault { path: "username".to_owned(), message })
}

fn roles_fault(roles: &[Role]) -> Option<Fault> {
    let known = Role::ALL.map(Role::as_str).join(", ");
    roles.is_empty().then(|| Fault { path: "roles".to_owned(), message: format!("must name at least one of {known}") })
}
