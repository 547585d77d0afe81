;; expect: error
;; Imports a misspelt call, and a function of a module nobody provides: the message names both, and fd_write as the closest.
(module
  (import "wasi_snapshot_preview1" "fd_wrte" (func (param i32 i32 i32 i32) (result i32)))
  (import "env" "foo" (func))
  (memory (export "memory") 1)
  (func (export "_start")))
