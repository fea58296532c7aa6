//! The first users: one of each role, and the one that workers act as.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::{context::Context, error::ServiceError, password, user_service};
use crate::{
    crud::users::{self, SYSTEM_USERNAME},
    models::{Fault, Faults, Role},
};

/// The roles of the first users, each of which has the name of its role.
const FIRST_ROLES: [Role; 5] = [Role::Admin, Role::Manager, Role::ProUser, Role::User, Role::Guest];

/// What became of one of the first users.
#[derive(Debug, Clone)]
pub struct InitUser {
    /// Its name.
    pub username: String,
    /// False: it stood already, and nothing was changed.
    pub created: bool,
    /// The random password of a user that was created without a given one. It is not kept anywhere: print it once.
    pub password: Option<SecretString>,
}

/// Creates `system`, which has neither password nor roles, and `admin`, `manager`, `pro_user`, `user` and `guest`, each with
/// the role of its name. `passwords` is asked by variable, `IMAGEMILL_PASSWORD_ADMIN` and so on; where it has none, a random
/// one is drawn. Users that stand already are left as they are, so it can run again, and from two processes at once.
///
/// # Errors
/// [`ServiceError::Input`] has every fault of the given passwords; nobody is created then.
pub async fn init_users(
    context: &Context,
    passwords: impl Fn(&str) -> Option<SecretString>,
) -> Result<Vec<InitUser>, ServiceError> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut chosen: BTreeMap<Role, Chosen> = BTreeMap::new();
    for role in missing(context).await? {
        let variable = format!("IMAGEMILL_PASSWORD_{}", role.as_str().to_uppercase());
        let given = passwords(&variable);
        faults.extend(given.as_ref().and_then(|given| password::fault(&variable, given)));
        chosen.insert(role, Chosen { is_random: given.is_none(), password: given.unwrap_or_else(password::random) });
    }
    if !faults.is_empty() {
        return Err(Faults(faults).into());
    }
    // Before the transaction: it takes its time.
    let mut hashes: BTreeMap<Role, String> = BTreeMap::new();
    for (role, chosen) in &chosen {
        hashes.insert(*role, password::hash(&chosen.password).await?);
    }

    // Always in this order: two at once then wait for each other, and never in a circle.
    let mut transaction = context.begin().await?;
    let created = user_service::insert(&mut transaction, SYSTEM_USERNAME, SYSTEM_USERNAME, None, &[]).await?;
    let mut outcome = vec![InitUser { username: SYSTEM_USERNAME.to_owned(), created, password: None }];
    for role in FIRST_ROLES {
        let created = match hashes.get(&role) {
            Some(hash) => user_service::insert(&mut transaction, SYSTEM_USERNAME, role.as_str(), Some(hash), &[role]).await?,
            None => false,
        };
        let drawn = chosen.remove(&role).filter(|chosen| created && chosen.is_random);
        outcome.push(InitUser { username: role.to_string(), created, password: drawn.map(|chosen| chosen.password) });
    }
    transaction.commit().await?;
    Ok(outcome)
}

/// A password for one that is to be created.
struct Chosen {
    password: SecretString,
    is_random: bool,
}

/// Those that are not there, in their order.
async fn missing(context: &Context) -> Result<Vec<Role>, ServiceError> {
    let mut connection = context.reader().await?;
    let mut missing = Vec::new();
    for role in FIRST_ROLES {
        if users::get_by_username(&mut connection, role.as_str()).await?.is_none() {
            missing.push(role);
        }
    }
    Ok(missing)
}
