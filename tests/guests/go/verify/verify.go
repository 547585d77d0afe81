// Package verify is what guests that check many things share: a check that fails panics, and keeps no other from running.
package verify

import "fmt"

// Must ends a check with its error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// That ends a check unless something holds.
func That(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Errorf(format, args...))
	}
}

// Get is a value that comes without an error.
func Get[T any](value T, err error) T {
	Must(err)
	return value
}

// Run prints how one check ended, and returns whether it held.
func Run(name string, check func()) (ok bool) {
	defer func() {
		if err := recover(); err != nil {
			fmt.Println("FAILED", name+":", err)
			return
		}
		fmt.Println("ok", name)
		ok = true
	}()
	check()
	return
}
