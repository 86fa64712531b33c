//! What the sender of a request may write.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::map::TenantAllow;

/// The tenants that a request may write to. [`auth::Access`](crate::auth::Access) makes it from the request's
/// credential. IDs in it have no prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Grant {
    /// Labels name any tenant: there are no access rules.
    Any,
    /// Labels name the tenants on this list.
    Tenants(TenantAllow),
    /// Labels name one of these tenants.
    Named(HashSet<Box<str>>),
    /// All series belong to this tenant, whatever their labels say.
    Forced(Box<str>),
    /// All series belong to the tenant in the request's tenant header. Without the header, labels name any tenant.
    Header,
}

impl Grant {
    /// The tenant that all series of the request belong to. `header` is the value of the request's tenant header; an
    /// empty one counts as absent. `None` means that labels name the tenants, each of which needs
    /// [`allows`](Self::allows).
    ///
    /// The ID has no prefix yet, and one from the header may be invalid.
    pub fn forced<'a>(&'a self, header: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Forced(tenant) => Some(tenant),
            Self::Header => header.filter(|header| !header.is_empty()),
            Self::Any | Self::Tenants(_) | Self::Named(_) => None,
        }
    }

    /// Whether series may go to the tenant `id`, given without its prefix, in a request with this tenant header. This
    /// also decides about the default tenant.
    pub fn allows(&self, id: &[u8], header: Option<&str>) -> bool {
        if let Some(forced) = self.forced(header) {
            return forced.as_bytes() == id;
        }
        match self {
            Self::Tenants(allow) => allow.allows(id),
            Self::Named(tenants) => std::str::from_utf8(id).is_ok_and(|id| tenants.contains(id)),
            Self::Any | Self::Header | Self::Forced(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_tenant_is_the_only_one() {
        let forced = Grant::Forced("a".into());
        for header in [None, Some("b")] {
            assert_eq!(forced.forced(header), Some("a"));
            assert!(forced.allows(b"a", header) && !forced.allows(b"b", header));
        }
    }

    #[test]
    fn a_trusted_header_decides_where_it_is_present() {
        assert_eq!(Grant::Header.forced(Some("b")), Some("b"));
        assert!(Grant::Header.allows(b"b", Some("b")) && !Grant::Header.allows(b"a", Some("b")));
        for absent in [None, Some("")] {
            assert_eq!(Grant::Header.forced(absent), None);
            assert!(Grant::Header.allows(b"a", absent));
        }
    }

    #[test]
    fn other_grants_leave_the_choice_to_labels() {
        let listed = Grant::Tenants(TenantAllow::new(vec!["a".into(), "b-*".into()]).unwrap());
        let named = Grant::Named(["a".into(), "b-*".into()].into());
        for (id, by_list, by_name) in
            [(&b"a"[..], true, true), (b"b-1", true, false), (b"b-*", true, true), (b"\xff", false, false)]
        {
            assert_eq!(listed.allows(id, Some(id_header())), by_list);
            assert_eq!(named.allows(id, Some(id_header())), by_name);
            assert!(Grant::Any.allows(id, None));
        }
        assert_eq!(
            (listed.forced(Some("a")), named.forced(Some("a")), Grant::Any.forced(Some("a"))),
            (None, None, None)
        );
    }

    fn id_header() -> &'static str {
        "another"
    }
}
