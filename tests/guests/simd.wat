;; expect: exit=0 stdout="000c000a00080006\n"
;; Uses plain SIMD, which is allowed.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
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
    (call $hex
      (i64x2.extract_lane 0 (i16x8.add (v128.const i16x8 1 2 3 4 5 6 7 8) (v128.const i16x8 5 6 7 8 9 10 11 12)))
      (i32.const 16))))
