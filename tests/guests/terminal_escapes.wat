;; expect: exit=0
;; Prints what would clear the screen, set the title, ring, write the clipboard, ask for a reply, and hide text. Raw into a pipe; filtered on a terminal, and in logs, traces and replays shown there.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\1b[2J\1b[Hcleared\n\1b]0;title\07\1b]52;c;cHduZWQ=\07\1b[6n\1b[31mred\1b[0m\n\1b[8mhidden\1b[0m\rover\n\c2\9b31m\9b2Jc1\n\e2\80\aebidi\00\08\7f\ff\fe\n\1bP1;2q\1b\\end\n")
  (func $print (param $at i32) (param $n i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $n))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start") (call $print (i32.const 16) (i32.const 114))))
