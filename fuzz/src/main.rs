//! Runs the oracles without a fuzzer: random inputs and mutations of them, by a seed, with the pinned compiler.

use std::time::{Duration, Instant};
use std::{env, fs, panic, process};

use timecraft_fuzz::TARGETS;

const INPUT_BYTES_MAX: usize = 2048;
const CORPUS_MAX: usize = 64;

/// `SplitMix64`: small, and good enough to pick inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn mutated(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                _ => bytes.push(self.next() as u8),
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }
}

fn fuzz(name: &str, oracle: fn(&[u8]), seed: u64, time: Duration) -> bool {
    let mut random = Random(seed);
    let mut corpus: Vec<Vec<u8>> = vec![Vec::new()];
    let (start, mut runs) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        let input = if random.below(3) == 0 {
            let len = random.below(INPUT_BYTES_MAX);
            random.bytes(len)
        } else {
            let picked = random.below(corpus.len());
            random.mutated(&corpus[picked])
        };
        if panic::catch_unwind(|| oracle(&input)).is_err() {
            let kept = format!("fuzz/failures/{name}-{seed}-{runs}");
            let _ = fs::create_dir_all("fuzz/failures").and_then(|()| fs::write(&kept, &input));
            println!("{name}: FAILED at run {runs} with seed {seed}; the input is in {kept}");
            return false;
        }
        runs += 1;
        let slot = random.below(CORPUS_MAX);
        if slot < corpus.len() { corpus[slot] = input } else { corpus.push(input) }
    }
    println!("{name}: {runs} runs, seed {seed}");
    true
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let value = |flag: &str| args.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1].parse::<u64>());
    let seconds = value("--seconds").unwrap_or(Ok(5));
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| u64::from(time.subsec_nanos()));
    let (Ok(seconds), Ok(seed)) = (seconds, value("--seed").unwrap_or(Ok(now))) else {
        eprintln!("usage: smoke [--seconds N] [--seed N]");
        process::exit(2);
    };
    let passed =
        TARGETS.iter().filter(|(name, oracle)| fuzz(name, *oracle, seed, Duration::from_secs(seconds))).count();
    println!("{passed} passed, {} failed", TARGETS.len() - passed);
    process::exit(i32::from(passed < TARGETS.len()));
}
