;; Pointers and lengths beyond memory are EFAULT (21), and what precedes the bad one has no effect: nothing is written.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "not to be seen\n")
  (func $fault (param i32) (if (i32.ne (local.get 0) (i32.const 21)) (then unreachable)))
  (func (export "_start")
    ;; Two iovecs: the first is good, the second ends beyond memory.
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 15))
    (i32.store (i32.const 8) (i32.const 65530))
    (i32.store (i32.const 12) (i32.const 7))
    (call $fault (call $write (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 32)))
    ;; A good list, and a result pointer beyond memory.
    (call $fault (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 65533)))
    (call $fault (call $write (i32.const 1) (i32.const 0xfffffff8) (i32.const 1) (i32.const 32)))
    (call $fault (call $random (i32.const 65535) (i32.const 2)))
    (call $fault (call $random (i32.const 1) (i32.const 0xffff0)))
    (call $fault (call $clock (i32.const 0) (i64.const 0) (i32.const 65529)))))
