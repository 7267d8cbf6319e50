//! What rules look at in a caller's entry.

use crate::log::time::Timestamp;

/// Fields of an entry by value, so that they can be judged where it is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub occurred_at: Option<Timestamp>,
    pub user: Option<String>,
    pub user_type: Option<String>,
    pub impersonator: Option<String>,
    pub category: String,
    pub action: String,
    pub outcome: Option<String>,
    pub entity_type: Option<String>,
    pub entity_id: Option<String>,
    pub ip_address: Option<String>,
    /// As JSON text.
    pub changes: Option<String>,
}

impl Facts {
    /// Whether the action's last word is one of these: `user.delete`, `bulk-delete`.
    pub fn has_verb(&self, verbs: &[&str]) -> bool {
        self.action.rsplit(['.', '_', '-', ':', '/']).next().is_some_and(|last| verbs.contains(&last))
    }

    /// Whether somebody tried to log in.
    pub fn is_login(&self) -> bool {
        matches!(self.category.as_str(), "auth" | "audit")
            && self.action.split(['.', ':', '/']).any(|word| {
                let word = word.to_ascii_lowercase();
                matches!(
                    word.as_str(),
                    "login"
                        | "log_in"
                        | "signin"
                        | "sign_in"
                        | "logon"
                        | "login_failed"
                        | "login-failed"
                        | "authenticate"
                        | "consolelogin"
                )
            })
    }
}
