;; expect: exit=0 stdout="\x10\x04\x00\x00\x10\x00\x00\x00\x10\x04\x00\x00\x04\x00\x00\x00\x10\x04\x00\x00"
;; fd_write whose iovecs describe each other: the first is the array itself, 16 bytes from 1040, the second its first 4 bytes again.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 1040) (i32.const 1040))
    (i32.store (i32.const 1044) (i32.const 16))
    (i32.store (i32.const 1048) (i32.const 1040))
    (i32.store (i32.const 1052) (i32.const 4))
    (drop (call $fd_write (i32.const 1) (i32.const 1040) (i32.const 2) (i32.const 1024)))))
