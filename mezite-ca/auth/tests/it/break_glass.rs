//! What nodes tell of the use of break-glass keys.

use mezite_auth::BreakGlassReport;
use mezite_core::store::Store;
use mezite_core::{EventId, NodeId, Serial, Span};

use crate::rig::Rig;

fn used(rig: &Rig, number: u8) -> BreakGlassReport {
    use mezite_core::Clock;
    let now = rig.clock.now();
    BreakGlassReport {
        id: EventId::new(now, [number; 16]),
        at: now,
        login: "root".parse().unwrap(),
        mode: "builtin".into(),
        serial: Serial::new([1; 8]),
        key_id: "carol: hub down".into(),
        key: "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".into(),
        authority: "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".into(),
        source: None,
    }
}

async fn marks(rig: &Rig, node: &NodeId) -> usize {
    let below = format!("break-glass-use/{node}/");
    rig.store.list(&below, None, 100).await.unwrap().len()
}

#[tokio::test]
async fn a_use_is_one_event_and_its_mark_is_kept_as_long_as_it_may_be_told_again() {
    let rig = Rig::new().await;
    let node = rig.node("db1").await.id;
    let first = used(&rig, 1);
    for _ in 0..3 {
        rig.auth.break_glass_used(&node, &first).await.unwrap();
    }
    assert_eq!(rig.events("node.break_glass.used").await.len(), 1);
    rig.advance(Span::from_secs(29 * 86400));
    rig.auth.break_glass_used(&node, &first).await.unwrap();
    rig.auth
        .break_glass_used(&node, &used(&rig, 2))
        .await
        .unwrap();
    assert_eq!(rig.events("node.break_glass.used").await.len(), 2);
    assert_eq!(marks(&rig, &node).await, 2);
    rig.advance(Span::from_secs(2 * 86400));
    rig.auth
        .break_glass_used(&node, &used(&rig, 3))
        .await
        .unwrap();
    assert_eq!(marks(&rig, &node).await, 2, "the first is forgotten");
    rig.auth.remove(&rig.local, "node", "db1").await.unwrap();
    assert_eq!(marks(&rig, &node).await, 0, "they go with the node");
}
