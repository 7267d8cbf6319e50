//! The built-in mappings; `docs/formats.md` lists the fields that each of them fills in.

/// The name and text of each mapping, in alphabetical order of the names.
pub(super) const BUILT_IN: [(&str, &str); 23] = [
    ("apache-access", include_str!("../../../mappings/apache-access.toml")),
    ("auditd", include_str!("../../../mappings/auditd.toml")),
    ("azure-activity", include_str!("../../../mappings/azure-activity.toml")),
    ("cloudtrail", include_str!("../../../mappings/cloudtrail.toml")),
    ("entra-audit", include_str!("../../../mappings/entra-audit.toml")),
    ("entra-signin", include_str!("../../../mappings/entra-signin.toml")),
    ("github-audit", include_str!("../../../mappings/github-audit.toml")),
    ("gitlab-audit", include_str!("../../../mappings/gitlab-audit.toml")),
    ("google-cloud-audit", include_str!("../../../mappings/google-cloud-audit.toml")),
    ("google-workspace", include_str!("../../../mappings/google-workspace.toml")),
    ("keycloak", include_str!("../../../mappings/keycloak.toml")),
    ("kubernetes-audit", include_str!("../../../mappings/kubernetes-audit.toml")),
    ("microsoft-365", include_str!("../../../mappings/microsoft-365.toml")),
    ("nextcloud", include_str!("../../../mappings/nextcloud.toml")),
    ("nginx-access", include_str!("../../../mappings/nginx-access.toml")),
    ("okta", include_str!("../../../mappings/okta.toml")),
    ("pgaudit", include_str!("../../../mappings/pgaudit.toml")),
    ("sshd", include_str!("../../../mappings/sshd.toml")),
    ("sudo", include_str!("../../../mappings/sudo.toml")),
    ("syslog", include_str!("../../../mappings/syslog.toml")),
    ("teleport", include_str!("../../../mappings/teleport.toml")),
    ("vault", include_str!("../../../mappings/vault.toml")),
    ("windows-security", include_str!("../../../mappings/windows-security.toml")),
];
