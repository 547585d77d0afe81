;; expect: exit=0 stdout=""
;; Exports no memory and makes no call: runs.
(module (func (export "_start")))
