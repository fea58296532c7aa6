//! Who may do what.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a user is; each role may do all that the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks on.
    Guest,
    /// Runs tasks of their own at the lowest priority.
    User,
    /// At any priority, and looks after everybody's tasks.
    ProUser,
    /// Looks after the lanes.
    Manager,
    /// Looks after the users.
    Admin,
}

/// What an action needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See tasks and their pictures.
    ViewResults,
    /// Create a task of priority 1.
    CreateLowPriority,
    /// Cancel, retry, rate and delete one's own tasks.
    ManageOwn,
    /// Create a task of a priority above 1.
    CreateHighPriority,
    /// Cancel, retry, rate and delete everybody's tasks.
    ManageAny,
    /// Pause lanes, change their limits.
    ManageLanes,
    /// Create users.
    CreateUser,
    /// Give and take roles.
    AssignPermissions,
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; roles are guest, user, pro_user, manager, admin")]
pub struct UnknownRole(pub String);

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Guest, Self::User, Self::ProUser, Self::Manager, Self::Admin];

    /// The word in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::User => "user",
            Self::ProUser => "pro_user",
            Self::Manager => "manager",
            Self::Admin => "admin",
        }
    }

    /// What this role may do beyond the one before it.
    fn adds(self) -> &'static [Permission] {
        match self {
            Self::Guest => &[Permission::ViewResults],
            Self::User => &[Permission::CreateLowPriority, Permission::ManageOwn],
            Self::ProUser => &[Permission::CreateHighPriority, Permission::ManageAny],
            Self::Manager => &[Permission::ManageLanes],
            Self::Admin => &[Permission::CreateUser, Permission::AssignPermissions],
        }
    }
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ViewResults,
        Self::CreateLowPriority,
        Self::ManageOwn,
        Self::CreateHighPriority,
        Self::ManageAny,
        Self::ManageLanes,
        Self::CreateUser,
        Self::AssignPermissions,
    ];

    /// The word in messages and in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ViewResults => "view_results",
            Self::CreateLowPriority => "create_low_priority",
            Self::ManageOwn => "manage_own",
            Self::CreateHighPriority => "create_high_priority",
            Self::ManageAny => "manage_any",
            Self::ManageLanes => "manage_lanes",
            Self::CreateUser => "create_user",
            Self::AssignPermissions => "assign_permissions",
        }
    }
}

/// What a user with these roles may do: all that any of them may.
pub fn permissions(roles: &[Role]) -> BTreeSet<Permission> {
    let highest = roles.iter().max();
    Role::ALL.iter().filter(|role| Some(*role) <= highest).flat_map(|role| role.adds()).copied().collect()
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_adds_to_the_one_before() {
        let table = [
            (vec![], 0),
            (vec![Role::Guest], 1),
            (vec![Role::User], 3),
            (vec![Role::ProUser], 5),
            (vec![Role::Manager], 6),
            (vec![Role::Admin], 8),
        ];
        for (roles, count) in table {
            let expected: BTreeSet<Permission> = Permission::ALL.into_iter().take(count).collect();
            assert_eq!(permissions(&roles), expected, "{roles:?}");
        }
    }

    #[test]
    fn several_roles_are_their_union() {
        assert_eq!(permissions(&[Role::Manager, Role::Guest]), permissions(&[Role::Manager]));
    }

    #[test]
    fn words_are_the_same_everywhere() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        for permission in Permission::ALL {
            let word = serde_json::to_value(permission).unwrap();
            assert_eq!(word, permission.to_string());
        }
        assert_eq!(
            "Admin".parse::<Role>().unwrap_err().to_string(),
            "\"Admin\" is no role; roles are guest, user, pro_user, manager, admin"
        );
    }
}
