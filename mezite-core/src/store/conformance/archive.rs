//! Pruning, dumping, restoring.

use async_trait::async_trait;

use super::{event, key};
use crate::store::{
    Commit, Counters, Dump, Expect, LogQuery, Order, Piece, Pieces, REVISION_GAP, Revision, Store,
    StoreError, StoredEvent, Versioned,
};

async fn sequences(store: &impl Store, query: &LogQuery) -> Vec<u64> {
    let found = store.log(query).await.expect("log");
    found.iter().map(|stored| stored.sequence).collect()
}

pub(super) async fn prunes_what_an_event_tells(store: &impl Store) {
    for number in 1..=6 {
        store
            .commit(Commit::new(event(number).with("user_name", "alice")))
            .await
            .expect("commit");
    }
    let refused = Commit::new(event(7)).and_prune([1..=6]).put(
        key("a"),
        Expect::Revision(Revision(9)),
        Vec::new(),
    );
    assert!(
        matches!(store.commit(refused).await, Err(StoreError::Conflict(_))),
        "not when the commit is refused"
    );
    let all = LogQuery::after(0, 99);
    assert_eq!(sequences(store, &all).await, [1, 2, 3, 4, 5, 6]);
    let pruned = Commit::new(event(7)).and_prune([2..=3, 5..=5, 40..=50, 7..=7]);
    let committed = store.commit(pruned).await.expect("prune");
    assert_eq!(committed.sequence, 7);
    assert_eq!(
        sequences(store, &all).await,
        [1, 4, 6, 7],
        "the event that tells of it stays, though a range holds its number"
    );
    let alice = LogQuery {
        user_name: Some("alice".into()),
        order: Order::NewestFirst,
        ..LogQuery::after(0, 2)
    };
    assert_eq!(sequences(store, &alice).await, [6, 4], "out of every index");
    let again = Commit::new(event(8)).and_prune([1..=7]);
    assert_eq!(
        store.commit(again).await.expect("all").sequence,
        8,
        "no number is given again"
    );
    assert_eq!(sequences(store, &all).await, [8]);
    let keeping = Commit::for_log_keeping("head", Expect::Any, Vec::new())
        .expect("name")
        .and_prune([8..=8]);
    store.commit(keeping).await.expect("keep");
    assert_eq!(
        sequences(store, &all).await,
        [8],
        "nothing goes without an event"
    );
}

/// Keys and events, some of each removed again.
async fn furnish(store: &impl Store) {
    for number in 1..=30 {
        let name = format!("k/{:03}", number / 2);
        store
            .commit(Commit::new(event(number).with("user_name", "alice")).put(
                key(&name),
                Expect::Any,
                vec![number; 5],
            ))
            .await
            .expect("commit");
    }
    store
        .commit(
            Commit::new(event(31))
                .remove(key("k/003"), Expect::Any)
                .and_prune([4..=9]),
        )
        .await
        .expect("prune");
}

async fn all(mut dump: Dump) -> (Counters, Vec<Piece>) {
    let mut found = Vec::new();
    loop {
        let pieces = dump.pieces.next().await.expect("dump");
        if pieces.is_empty() {
            return (dump.counters, found);
        }
        found.extend(pieces);
    }
}

pub(super) async fn carries_everything_over(from: &impl Store, to: &impl Store) {
    furnish(from).await;
    let dump = from.dump().await.expect("dump");
    let later = Commit::new(event(32)).put(key("k/late"), Expect::Any, Vec::new());
    from.commit(later).await.expect("commits go on");
    let (counters, pieces) = all(dump).await;
    assert_eq!(counters.sequence, 31, "as of the moment of the dump");
    let entries = pieces
        .iter()
        .filter(|piece| matches!(piece, Piece::Entry(..)));
    assert_eq!(entries.count(), 15);
    assert_eq!(pieces.len(), 15 + 25, "what was pruned is not there");

    let source = Dump {
        counters,
        pieces: Box::new(Given(pieces.clone())),
    };
    let restored = to.restore(source, event(33)).await.expect("restore");
    assert_eq!(restored.sequence, 32, "the log goes on");
    assert!(restored.revision.0 >= counters.revision.0 + REVISION_GAP);
    let (_, mut found) = all(to.dump().await.expect("dump")).await;
    let last = Piece::Event(StoredEvent {
        sequence: 32,
        body: event(33).render(32),
    });
    assert_eq!(found.pop(), Some(last), "the newest is the one that tells");
    assert_eq!(found, pieces, "revisions and bytes included");
    let alice = LogQuery {
        user_name: Some("alice".into()),
        order: Order::NewestFirst,
        ..LogQuery::after(0, 2)
    };
    assert_eq!(sequences(to, &alice).await, [30, 29], "it can be searched");
    let next = to
        .commit(Commit::new(event(34)).put(key("k/new"), Expect::Absent, Vec::new()))
        .await
        .expect("commit");
    assert!(next.revision > restored.revision && next.sequence == 33);
}

pub(super) async fn restores_into_an_empty_store_only(from: &impl Store, to: &impl Store) {
    furnish(from).await;
    to.commit(Commit::new(event(1))).await.expect("commit");
    let refused = to.restore(from.dump().await.expect("dump"), event(2)).await;
    assert_eq!(refused, Err(StoreError::NotEmpty));
    assert_eq!(sequences(to, &LogQuery::after(0, 99)).await, [1]);
}

pub(super) async fn a_dump_that_breaks_off_restores_nothing(store: &impl Store) {
    let first = Versioned {
        value: Vec::new(),
        revision: Revision(1),
    };
    let source = Dump {
        counters: Counters {
            revision: Revision(3),
            sequence: 3,
        },
        pieces: Box::new(Broken(Some(Piece::Entry(key("a"), first)))),
    };
    let refused = store.restore(source, event(1)).await;
    assert_eq!(refused, Err(StoreError::Corrupt("torn".into())));
    assert_eq!(store.get(&key("a")).await, Ok(None));
    let committed = store.commit(Commit::new(event(2))).await.expect("commit");
    assert_eq!(committed.sequence, 1, "as if it had never been tried");
}

struct Given(Vec<Piece>);

#[async_trait]
impl Pieces for Given {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        let rest = self.0.split_off(self.0.len().min(7));
        Ok(std::mem::replace(&mut self.0, rest))
    }
}

struct Broken(Option<Piece>);

#[async_trait]
impl Pieces for Broken {
    async fn next(&mut self) -> Result<Vec<Piece>, StoreError> {
        match self.0.take() {
            Some(piece) => Ok(vec![piece]),
            None => Err(StoreError::Corrupt("torn".into())),
        }
    }
}
