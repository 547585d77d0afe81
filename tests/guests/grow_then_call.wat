;; expect: exit=0 stdout="grown\n"
;; Grows its memory between host calls, and writes from the new pages: the host must look at the memory anew in each call.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data $text "grown\n")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8)))
    (drop (memory.grow (i32.const 99)))
    (memory.init $text (i32.const 6000000) (i32.const 0) (i32.const 6))
    (i32.store (i32.const 5999992) (i32.const 6000000))
    (i32.store (i32.const 5999996) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 5999992) (i32.const 1) (i32.const 5999988)))))
