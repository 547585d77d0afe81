;; expect: exit=0 stdout="00\n00000008\nabcd\n"
;; stdin: "abcdefgh"
;; fd_read whose nread lies inside the buffer: the count (8) is written after the data, over its second half.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $print (param $at i32) (param $n i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $n))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  ;; Prints the low $digits hexadecimal digits of $v and a newline.
  (func $hex (param $v i64) (param $digits i32)
    (local $i i32) (local $d i32)
    (local.set $i (local.get $digits))
    (i32.store8 offset=32 (local.get $i) (i32.const 10))
    (loop $next
      (local.set $i (i32.sub (local.get $i) (i32.const 1)))
      (local.set $d (i32.and (i32.wrap_i64 (local.get $v)) (i32.const 15)))
      (i32.store8 offset=32 (local.get $i)
        (i32.add (local.get $d) (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $d) (i32.const 9)))))
      (local.set $v (i64.shr_u (local.get $v) (i64.const 4)))
      (br_if $next (local.get $i)))
    (call $print (i32.const 32) (i32.add (local.get $digits) (i32.const 1))))
  (func (export "_start")
    (i32.store (i32.const 2048) (i32.const 1024))
    (i32.store (i32.const 2052) (i32.const 8))
    (call $hex
      (i64.extend_i32_u (call $fd_read (i32.const 0) (i32.const 2048) (i32.const 1) (i32.const 1028)))
      (i32.const 2))
    (call $hex (i64.load32_u (i32.const 1028)) (i32.const 8))
    (i32.store8 (i32.const 1028) (i32.const 10))
    (call $print (i32.const 1024) (i32.const 5))))
