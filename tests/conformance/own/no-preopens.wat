;; Nothing is mounted by default: descriptor 3 is not open, and there is neither environment nor argument beyond the name.
(module
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (if (i32.ne (call $prestat (i32.const 3) (i32.const 0)) (i32.const 8)) (then unreachable))
    (if (call $environ (i32.const 0) (i32.const 4)) (then unreachable))
    (if (i32.load (i32.const 0)) (then unreachable))
    (if (call $args (i32.const 0) (i32.const 4)) (then unreachable))
    (if (i32.ne (i32.load (i32.const 0)) (i32.const 1)) (then unreachable))))
