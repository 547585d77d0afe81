;; expect: trap stdout="before\n"
;; Calls through an empty table slot.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "before\n")
  (func $print (param $at i32) (param $n i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $n))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (type $t (func))
  (table 1 funcref)
  (func $inner (call_indirect (type $t) (i32.const 0)))
  (func $outer (call $inner))
  (func (export "_start")
    (call $print (i32.const 16) (i32.const 7))
    (call $outer)))
