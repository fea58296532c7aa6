//! The acting user: every service function takes one and checks.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::error::ServiceError;
use crate::{
    crud::users::UserRow,
    models::{Permission, Role, permissions},
};

/// Who acts, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub id: Uuid,
    /// Its name.
    pub username: String,
    /// The union of its roles' permissions; none for an inactive user.
    pub permissions: BTreeSet<Permission>,
}

impl From<UserRow> for Actor {
    fn from(user: UserRow) -> Self {
        let roles: Vec<Role> = user.roles.iter().filter_map(|role| role.parse().ok()).collect();
        let permissions = if user.is_active { permissions(&roles) } else { BTreeSet::new() };
        Self { id: user.id, username: user.username, permissions }
    }
}

impl Actor {
    /// Whether it may.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// # Errors
    /// [`ServiceError::NotAllowed`].
    pub fn require(&self, permission: Permission) -> Result<(), ServiceError> {
        if self.may(permission) { Ok(()) } else { Err(ServiceError::NotAllowed { username: self.username.clone(), permission }) }
    }

    /// To change what a user owns: one's own, or anybody's with `manage_any`.
    ///
    /// # Errors
    /// [`ServiceError::NotAllowed`].
    pub fn require_manage(&self, owner: Uuid) -> Result<(), ServiceError> {
        if owner == self.id && self.may(Permission::ManageOwn) {
            return Ok(());
        }
        self.require(Permission::ManageAny)
    }
}
