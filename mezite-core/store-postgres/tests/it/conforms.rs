//! The suites that every store runs.

use mezite_core::store::{conformance, model};
use mezite_store_postgres::testing::Server;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::open;

/// On databases that sort texts as English does, not by bytes.
#[test]
fn attack_75_conforms_whatever_the_collation() {
    let server = Server::shared();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(conformance::all(async || open(&server.database()).await));
}

/// Neither UTF-8 nor any other encoding is needed.
#[test]
fn attack_75_conforms_in_a_database_of_another_encoding() {
    let server = Server::shared();
    let runtime = Runtime::new().unwrap();
    let latin = "ENCODING LATIN1 LOCALE 'C'";
    runtime.block_on(conformance::all(async || {
        open(&server.database_like(latin)).await
    }));
}

#[test]
fn follows_the_model() {
    let server = Server::shared();
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 32,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    });
    let ran = runner.run(&model::steps(), |steps| {
        let string = server.database();
        runtime.block_on(model::follow(&steps, async |store| {
            drop(store);
            open(&string).await
        }));
        Ok(())
    });
    ran.unwrap();
}
