//! Verifying a log on one core: events per second.
#![expect(clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mezite_audit::Verifier;
use mezite_audit::catalogue::Stamp;
use mezite_core::UnixTime;
use mezite_core::store::StoredEvent;

/// Events of every type of the catalogue in turn, made of its examples.
fn events(count: u64) -> Vec<StoredEvent> {
    let cluster = "example".parse().unwrap();
    let entries = mezite_audit::catalogue::all().iter();
    // What tells of removed events is rare.
    let usual = entries.filter(|entry| entry.event_type != "audit.pruned");
    (1..=count)
        .zip(usual.cycle())
        .map(|(sequence, entry)| {
            let stamp = Stamp {
                now: UnixTime::from_secs(1_769_846_400),
                random: [[0x5a; 16], [0xc3; 16]],
                cluster: &cluster,
            };
            StoredEvent {
                sequence,
                body: entry.example(&stamp).render(sequence),
            }
        })
        .collect()
}

fn bench(criterion: &mut Criterion) {
    let count = 50_000;
    let log = events(count);
    let bytes: usize = log.iter().map(|event| event.body.len()).sum();
    let mut group = criterion.benchmark_group(format!(
        "a log of {count} events of {} bytes",
        u64::try_from(bytes).unwrap() / count
    ));
    group.sample_size(20);
    group.throughput(Throughput::Elements(count));
    group.bench_function("verify", |bencher| {
        bencher.iter(|| {
            let mut verifier = Verifier::new([]).unwrap();
            for event in black_box(&log) {
                verifier.push(event).unwrap();
            }
            verifier.finish().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
