#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| timecraft_fuzz::traffic(data));

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("run by cargo-fuzz; `make fuzz` runs the same without it");
}
