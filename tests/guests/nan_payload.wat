;; expect: exit=0 stdout="7ff8000000000000\n7ff8000000000000\n7ff8000000000000\n7fc00000\n7ff8000000000000\n7ff8000000000000\n"
;; nan: canonical
;; Prints the bits of NaNs out of arithmetic on NaNs with payloads and signs: 0/0, NaN+1, NaN*NaN, f32 NaN-NaN, promote, min. These are the bits with canonical NaNs.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "\01\00\00\00\00\00\f8\ff\02\00\00\00\00\00\f8\7f\03\00\c0\ff\04\00\c0\7f")
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
  (func $f64 (param f64) (call $hex (i64.reinterpret_f64 (local.get 0)) (i32.const 16)))
  (func (export "_start")
    (local $a f64) (local $b f64) (local $zero f64)
    (local.set $a (f64.load (i32.const 1024)))
    (local.set $b (f64.load (i32.const 1032)))
    (local.set $zero (f64.load (i32.const 2048)))
    (call $f64 (f64.div (local.get $zero) (local.get $zero)))
    (call $f64 (f64.add (local.get $a) (f64.const 1)))
    (call $f64 (f64.mul (local.get $a) (local.get $b)))
    (call $hex
      (i64.extend_i32_u (i32.reinterpret_f32 (f32.sub (f32.load (i32.const 1040)) (f32.load (i32.const 1044)))))
      (i32.const 8))
    (call $f64 (f64.promote_f32 (f32.load (i32.const 1040))))
    (call $f64 (f64.min (local.get $b) (local.get $a)))))
