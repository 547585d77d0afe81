//go:build tools

// Package tools pins the programs that cases.toml names, so that `go mod tidy` keeps them.
package tools

import (
	_ "github.com/BurntSushi/toml/cmd/tomlv"
	_ "github.com/dlclark/regexp2"
	_ "github.com/itchyny/gojq/cmd/gojq"
	_ "github.com/mikefarah/yq/v4"
	_ "github.com/proullon/ramsql/driver"
	_ "github.com/stealthrocket/net/http"
	_ "github.com/stealthrocket/net/wasip1"
	_ "mvdan.cc/sh/v3/cmd/shfmt"
)
