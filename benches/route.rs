//! The routing table: a lookup from a canonical host to its entry, with 16, 10,000 and 100,000 hosts, alone and beside a writer
//! that never rests; and what applying a route costs.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cde_gateway::{
    api::route::Route,
    gateway::route::{Source, Table, destination},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const SIZES: [usize; 3] = [16, 10_000, 100_000];

fn route(number: usize, generation: u64) -> Route {
    serde_json::from_value(serde_json::json!({
        "gitspace": format!("space{number}-k3x9q2"), "generation": generation, "instance": format!("space{number}-k3x9q2.aaaaaa"),
        "owner": "alice", "address": "10.0.0.7", "ide": {"port": 8080}, "ports": {"3000": {"port": 3000}},
    }))
    .expect("a route")
}

fn table(size: usize) -> Arc<Table> {
    let table = Table::new(Vec::new());
    for number in 0..size {
        table
            .apply(Source::Feed, &route(number, 1))
            .expect("applied");
    }
    Arc::new(table)
}

/// Hosts in an order that a cache cannot foresee.
fn hosts(size: usize) -> Vec<String> {
    (0..4096)
        .map(|n| format!("space{}-k3x9q2-3000.gitspaces.test", (n * 7919) % size))
        .collect()
}

fn lookups(criterion: &mut Criterion) {
    let domains: Vec<Box<str>> = vec!["gitspaces.test".into()];
    let mut group = criterion.benchmark_group("route/lookup");
    for size in SIZES {
        let (table, hosts) = (table(size), hosts(size));
        let mut next = 0;
        let mut lookup = || {
            next = (next + 1) % hosts.len();
            let host = &*hosts[next];
            black_box(table.find(&destination(host, &domains), host, "/")).is_some()
        };
        assert!(lookup(), "the bench must find what it looks for");
        group.bench_function(BenchmarkId::new("alone", size), |bencher| {
            bencher.iter(&mut lookup)
        });

        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (table, stop) = (Arc::clone(&table), Arc::clone(&stop));
            thread::spawn(move || {
                let mut generation = 2;
                while !stop.load(Ordering::Relaxed) {
                    for number in 0..size.min(1000) {
                        table
                            .apply(Source::Feed, &route(number, generation))
                            .expect("applied");
                    }
                    generation += 1;
                }
            })
        };
        group.bench_function(BenchmarkId::new("with_writer", size), |bencher| {
            bencher.iter(&mut lookup)
        });
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends");
    }
    group.finish();
}

fn applies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route/apply");
    for size in SIZES {
        let table = table(size);
        let update = route(7, 2);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                table
                    .apply(Source::Feed, black_box(&update))
                    .expect("applied")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, applies);
criterion_main!(benches);
