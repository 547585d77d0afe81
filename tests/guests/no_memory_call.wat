;; expect: any
;; Exports no memory but makes a call: the host has nowhere to write; whether it traps or fails the call (fault), it must not crash.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (func (export "_start") (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
