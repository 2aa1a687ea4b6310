//! What must hold for whatever bytes: called by fuzz targets, and by the replay of their corpora.

use mezite_rbac::{Cases, PolicySet, Role, lint};

use crate::choices::Choices;
use crate::spec::{decide as model, engine};

/// The engine decides as the model does.
pub(crate) fn decide(bytes: &[u8]) {
    let case = Choices(bytes).case();
    let policy = case.policy();
    assert_eq!(engine(&policy, &case), model(&case), "{case:#?}");
}

/// What is read as roles comes back the same, compiles or is refused, and can be looked through. Nothing else is asked: text may be
/// refused as it likes.
pub(crate) fn document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(roles) = Role::parse(text, "fuzz") {
        for role in &roles {
            let yaml = role.to_yaml();
            assert_eq!(
                Role::parse(&yaml, "again").as_deref(),
                Ok(&[role.clone()][..]),
                "{yaml}"
            );
            let json = role.to_json();
            assert_eq!(
                &serde_json::from_value::<Role>(json).unwrap(),
                role,
                "{yaml}"
            );
        }
        if let Ok(policy) = PolicySet::compile(roles) {
            let _ = lint(&policy, None);
        }
    }
    if let Ok(all) = Cases::parse(text, "fuzz") {
        for cases in all {
            let report = cases.run(&PolicySet::default());
            assert!(report.questions >= report.cases, "{report}");
        }
    }
}
