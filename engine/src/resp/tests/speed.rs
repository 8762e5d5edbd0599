//! What the front costs alone: `cargo test --release -p firebrick-engine -- --ignored --nocapture ns_per`.

use std::hint::black_box;
use std::time::Instant;

use super::command;
use crate::resp::{Backend, Conn, ReplyToken};
use firebrick_partition::{Answer, Now, Op, Version};

/// Answers at once and touches nothing, so that the front alone is measured.
struct Instantly([u8; 64]);

impl Backend for Instantly {
    fn now(&self) -> Now {
        Now::default()
    }

    fn is_serving(&self) -> bool {
        true
    }

    fn prefetch_bucket(&self, hash: u64) {
        black_box(hash);
    }

    fn prefetch_record(&self, hash: u64) {
        black_box(hash);
    }

    #[inline(never)]
    fn submit(&mut self, _: ReplyToken, _: u64, _: &[u8], op: Op<'_>) -> Option<Answer<'_>> {
        let version = Version { epoch: 1, seq: 1 };
        Some(match op {
            Op::Get => Answer::Value { value: &self.0, version, expires_ms: 0 },
            _ => Answer::Done { version },
        })
    }

    fn partition_hashes(&self, _: &mut Vec<u64>) {}

    fn info(&mut self, _: &str, _: &mut String) {}

    fn config_get(&self, _: &[u8], _: &mut Vec<(String, String)>) {}

    fn clients(&mut self, _: u32, _: &mut String) {}

    fn addresses(&self, _: u32) -> (String, String) {
        (String::new(), String::new())
    }
}

fn measure(name: &str, one: impl Fn(usize) -> Vec<u8>, depth: usize) {
    let chunk: Vec<u8> = (0..depth).flat_map(one).collect();
    let mut backend = Instantly([b'v'; 64]);
    let mut conn = Conn::new(0, 1, Now::default());
    let mut out = Vec::with_capacity(1 << 20);
    let mut best = f64::MAX;
    for _ in 0..7 {
        let rounds = 2_000_000 / depth / if cfg!(debug_assertions) { 50 } else { 1 };
        let begin = Instant::now();
        for _ in 0..rounds {
            out.clear();
            conn.on_bytes(black_box(&chunk), 1 << 20, &mut backend, &mut out);
        }
        assert!(out.len() >= 4 * depth, "it did reply");
        best = best.min(begin.elapsed().as_nanos() as f64 / (rounds * depth) as f64);
    }
    println!("{name} {depth} deep: {best:.1} ns an op (best of 7)");
}

#[test]
#[ignore = "a measurement; run in release"]
fn ns_per_operation() {
    let value = [b'x'; 64];
    for depth in [1, 16, 64] {
        measure("GET", |n| command(&[b"GET", format!("key:{n:012}").as_bytes()]), depth);
        measure("SET", |n| command(&[b"SET", format!("key:{n:012}").as_bytes(), &value]), depth);
        measure("EXISTS", |n| command(&[b"EXISTS", format!("key:{n:012}").as_bytes()]), depth);
    }
}
