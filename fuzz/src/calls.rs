//! Host calls with any arguments, over any guest memory.

use timecraft_engine::calls::{CALLS, Kind};
use timecraft_engine::{Call, Kill};

use crate::input::Input;
use crate::world::{World, call};

const MEMORY_BYTES: usize = 1 << 16;
const CALLS_MAX: usize = 24;

/// Makes host calls out of bytes; see `world::call` and `World::check` for what must hold.
pub fn hostcall_args(data: &[u8]) {
    let (world, mut host) = World::new();
    let mut input = Input::new(data);
    let mut memory = vec![0xaa; MEMORY_BYTES];
    let len = 64 * input.below(16);
    let start = input.take(len);
    memory[..start.len()].copy_from_slice(start);
    for _ in 0..CALLS_MAX {
        if input.is_empty() {
            break;
        }
        let spec = &CALLS[input.below(CALLS.len())];
        let mut args = Vec::new();
        for param in spec.params {
            for _ in param.kind.types() {
                args.push(argument(&mut input, param.kind));
            }
        }
        if spec.call == Call::PollOneoff {
            world.kill.request(Kill::Signal(9)); // it must not wait for what a fuzzer made up
        }
        if call(&mut host, spec.call, &args, &mut memory).is_err() {
            break;
        }
    }
    world.check();
}

/// An argument: usually of a size that makes sense, sometimes anything.
fn argument(input: &mut Input<'_>, kind: Kind) -> u64 {
    let wide = !kind.types().contains(&timecraft_engine::calls::ValType::I32);
    let anything = input.byte();
    let value = match anything {
        0..=15 => input.u64(),
        16..=23 => MEMORY_BYTES as u64 - u64::from(input.byte() % 16),
        24..=31 => u64::MAX - u64::from(input.byte() % 16),
        _ if kind == Kind::Fd => u64::from(input.byte() % 8),
        _ => u64::from(input.byte()) << (anything % 8),
    };
    if wide { value } else { value & u64::from(u32::MAX) }
}
